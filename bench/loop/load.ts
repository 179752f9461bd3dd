/** A load of 16 connections through one promotion: failures, p50 and p99 before, during and after the swap. */
import autocannon from 'autocannon';

export interface LoadReport {
  connections: number;
  phases: Record<'before' | 'during' | 'after', { requests: number; failures: number; p50Ms: number; p99Ms: number }>;
  swapSeconds: number;
}

const CONNECTIONS = 16;
const BEFORE_MS = 20_000;
const AFTER_MS = 20_000;

interface Sample {
  at: number;
  ms: number;
  failed: boolean;
}

/** `promote` approves the promotion and returns when the new version answers. */
export async function promotionUnderLoad(
  url: string,
  task: string,
  texts: string[],
  promote: () => Promise<void>,
): Promise<LoadReport> {
  const samples: Sample[] = [];
  const query = 'query ($task: String!, $inputs: [TextInput!]!) { classify(task: $task, inputs: $inputs) { label modelVersion } }';
  const failures: number[] = [];
  const settings: autocannon.Options = {
    url,
    connections: CONNECTIONS,
    duration: 3600,
    timeout: 60,
    requests: texts.map((text) => ({
      method: 'POST' as const,
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ query, variables: { task, inputs: [{ text }] } }),
      onResponse: (status: number, body: string) => {
        if (status !== 200 || body.includes('"errors"')) failures.push(Date.now());
      },
    })),
  };
  const load = autocannon(settings, () => undefined);
  load.on('response', (_client, status, _bytes, ms) => samples.push({ at: Date.now(), ms, failed: status !== 200 }));
  load.on('reqError', () => failures.push(Date.now()));
  await new Promise((done) => setTimeout(done, BEFORE_MS));
  const from = Date.now();
  await promote();
  const to = Date.now();
  await new Promise((done) => setTimeout(done, AFTER_MS));
  load.stop();
  const phase = (start: number, end: number) => {
    const ms = samples.filter((s) => s.at >= start && s.at < end).map((s) => s.ms).toSorted((a, b) => a - b);
    const at = (share: number) => ms[Math.min(ms.length - 1, Math.floor(share * ms.length))] ?? NaN;
    const failed = failures.filter((when) => when >= start && when < end).length;
    return { requests: ms.length, failures: failed, p50Ms: at(0.5), p99Ms: at(0.99) };
  };
  return {
    connections: CONNECTIONS,
    phases: { before: phase(0, from), during: phase(from, to), after: phase(to, Infinity) },
    swapSeconds: (to - from) / 1000,
  };
}
