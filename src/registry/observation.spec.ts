import { expect, it } from 'vitest';
import { Health } from '../common/health.js';
import { NO_METRICS } from '../common/metrics/metrics.js';
import type { InferenceEngine } from '../inference/engine.js';
import type { HostState } from '../runtime/host-group.js';
import type { HostPool } from '../runtime/host-pool.js';
import type { ActivationService } from './activation.js';
import type { ConvergenceService } from './convergence.js';
import { RegistryObservation } from './observation.js';

const alive: HostState = { loaded: 1, expected: 2, spare: false };
const dead: HostState = { loaded: 0, expected: 2, spare: false };
const tried: HostState = { loaded: 0, expected: 2, spare: true };

function observing(states: HostState[]) {
  const health = new Health();
  const observation = new RegistryObservation(
    NO_METRICS,
    health,
    {} as InferenceEngine,
    { states: () => states } as HostPool,
    {} as ActivationService,
    { state: () => ({ tried: true, failing: [] }) } as unknown as ConvergenceService,
  );
  return { health, observation };
}

it.each<[string, HostState[], object]>([
  ['none is open', [], { ok: true }],
  ['all have one', [alive, alive], { ok: true }],
  ['one of several has none', [alive, dead], { ok: true, reason: '1 of 2 open models have no host that is alive' }],
  ['one that is tried has none', [tried], { ok: true, reason: '1 of 1 open models have no host that is alive' }],
  ['all that answer have none', [dead, dead], { ok: false, reason: '2 of 2 open models have no host that is alive' }],
  [
    'one alone is left, that is tried',
    [dead, { ...alive, spare: true }],
    { ok: false, reason: '1 of 2 open models have no host that is alive' },
  ],
])('takes the process out of service for want of hosts where no model can answer: %s', async (_name, states, hosts) => {
  const { health } = observing(states);
  expect((await health.report())['hosts']).toEqual({ ...hosts, required: true });
});
