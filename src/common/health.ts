/**
 * What of this process is in order: each part registers a check under its name. A part that is not required is shown
 * and does not make the process unready: GraphQL goes on answering while Kafka is away.
 */
import { Injectable } from '@nestjs/common';

export interface PartHealth {
  ok: boolean;
  /** What is wrong, or worth knowing. */
  reason?: string;
}

export type PartReport = PartHealth & { required: boolean };

interface Part {
  required: boolean;
  check: () => PartHealth | Promise<PartHealth>;
}

/** A part that does not answer within is not in order. */
const CHECK_TIMEOUT_MS = 3_000;

@Injectable()
export class Health {
  readonly #parts = new Map<string, Part>();

  register(name: string, check: Part['check'], { required = true } = {}): void {
    this.#parts.set(name, { required, check });
  }

  async report(): Promise<Record<string, PartReport>> {
    const reports = [...this.#parts].map(async ([name, { required, check }]) => {
      return [name, { ...(await settled(check)), required }] as const;
    });
    return Object.fromEntries(await Promise.all(reports));
  }
}

async function settled(check: Part['check']): Promise<PartHealth> {
  const late = new Promise<PartHealth>((resolve) => {
    setTimeout(resolve, CHECK_TIMEOUT_MS, { ok: false, reason: 'does not answer' }).unref();
  });
  try {
    return await Promise.race([check(), late]);
  } catch (error) {
    return { ok: false, reason: (error as Error).message };
  }
}
