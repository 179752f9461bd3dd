/** What the registry has to tell of itself: the queue, the model hosts, the versions that answer. */
import { Inject, Injectable } from '@nestjs/common';
import { Health, type PartHealth } from '../common/health.js';
import { METRICS, type Metrics, type SetGauge } from '../common/metrics/metrics.js';
import { InferenceEngine } from '../inference/engine.js';
import { HostPool } from '../runtime/host-pool.js';
import { ActivationService } from './activation.js';
import { ConvergenceService } from './convergence.js';

/** About half a minute of work for one core and a small model: who comes later had better ask again. */
export const MAX_QUEUED_TOKENS = 200_000;

@Injectable()
export class RegistryObservation {
  constructor(
    @Inject(METRICS) metrics: Metrics,
    @Inject(Health) health: Health,
    @Inject(InferenceEngine) private readonly engine: InferenceEngine,
    @Inject(HostPool) private readonly hostPool: HostPool,
    @Inject(ActivationService) private readonly activation: ActivationService,
    @Inject(ConvergenceService) private readonly convergence: ConvergenceService,
  ) {
    metrics.onScrape('registry', (set) => this.#gauges(set));
    health.register('models', () => this.#models());
    health.register('hosts', () => this.#hosts());
  }

  async #gauges(set: SetGauge): Promise<void> {
    set('fewloop_queue_tokens', {}, this.engine.queuedTokens);
    set('fewloop_queue_limit_tokens', {}, MAX_QUEUED_TOKENS);
    const states = this.hostPool.states();
    const sum = (key: 'loaded' | 'expected') => states.reduce((total, state) => total + state[key], 0);
    set('fewloop_hosts', {}, sum('loaded'));
    set('fewloop_hosts_expected', {}, sum('expected'));
    const bytes = await this.hostPool.measuredBytes();
    if (bytes !== undefined) set('fewloop_hosts_resident_memory_bytes', {}, bytes);
    for (const [task, version] of Object.entries(this.activation.served())) {
      set('fewloop_active_version', { task }, version);
    }
  }

  /** One bundle that cannot be opened must not take every replica out of service: its task is named. */
  #models(): PartHealth {
    const { tried, failing } = this.convergence.state();
    if (!tried) return { ok: false, reason: 'the active versions are being opened' };
    if (failing.length === 0) return { ok: true };
    return { ok: true, reason: `the active version cannot be served here: ${failing.join(', ')}` };
  }

  /** Nor must the hosts of one model, or of one that is only tried: out of service is what cannot answer at all. */
  #hosts(): PartHealth {
    const states = this.hostPool.states();
    const dead = states.filter(({ loaded }) => loaded === 0).length;
    if (dead === 0) return { ok: true };
    const answering = states.filter(({ spare }) => !spare);
    const ok = answering.length === 0 || answering.some(({ loaded }) => loaded > 0);
    return { ok, reason: `${dead} of ${states.length} open models have no host that is alive` };
  }
}
