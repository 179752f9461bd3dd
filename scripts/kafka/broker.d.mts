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
  /** A listener that wants a client's certificate, signed by one of the PEM file `truststore`. */
  mutual?: { port: number; truststore: string };
}

export function ensureKafka(): Promise<void>;
export function freePort(): Promise<number>;
export function startBroker(options: {
  dir: string;
  port: number;
  controllerPort: number;
  secure?: SecureListener;
  /** Clients that come by its port are told to come by the advertised one. */
  proxied?: { port: number; advertised: number };
  /** Further properties of the broker. */
  settings?: Record<string, string | number>;
}): Promise<Broker>;
