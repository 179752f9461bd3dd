export interface Broker {
  /** host:port of the plain listener. */
  brokers: string;
  pid: number;
  ended: Promise<number | null>;
  stop(signal?: 'SIGTERM' | 'SIGKILL'): Promise<void>;
}

export interface SecureListener {
  port: number;
  /** PEM file with the private key and its certificate. */
  keystore: string;
  /** User → password. */
  scram?: Record<string, string>;
  plain?: Record<string, string>;
}

export function ensureKafka(): Promise<void>;
export function freePort(): Promise<number>;
export function startBroker(options: {
  dir: string;
  port: number;
  controllerPort: number;
  secure?: SecureListener;
}): Promise<Broker>;
