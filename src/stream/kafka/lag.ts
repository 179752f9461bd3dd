/**
 * How far behind this worker is. `high watermark − committed offset` is no count of records: markers of transactions
 * and of compaction take offsets too, and after a producer's last commit the difference stays at one for ever. So:
 *
 *   committed ──────────────── position ─────────────── high watermark
 *      │   fetched, not committed  │   not fetched yet        │
 *      │   counted one by one      │   offsets × records an offset, as of what was fetched lately
 *
 * The position moves past markers as the consumer does, so that an idle partition has a lag of 0, exactly.
 */
import type { SetGauge } from '../../common/metrics/metrics.js';

/**
 * What the brokers say of a partition that is not being fetched (paused, or nothing came yet): from the first offset
 * that the group has to read, committed or still there, to the end.
 */
export interface Range {
  from: bigint;
  to: bigint;
}

export interface PartitionView {
  topic: string;
  partition: number;
  /** Records that were fetched and are not committed. */
  unsettled: number;
  /** Epoch milliseconds of the oldest of them. */
  oldestMs: number | undefined;
  /** The next offset to be fetched; undefined: nothing was fetched yet. */
  position: bigint | undefined;
  /** As of the last fetch. */
  high: bigint;
  /** Records an offset, of what was fetched lately. */
  density: number;
}

export interface Lag {
  records: number;
  oldestMs: number | undefined;
}

/** `range`: empty ones may be left out. */
export function lagOf(view: PartitionView, range?: Range): Lag {
  const { unsettled, oldestMs, position, density } = view;
  const from = position ?? range?.from ?? 0n;
  const high = range && range.to > view.high ? range.to : view.high;
  const unread = high > from ? Number(high - from) : 0;
  return { records: unsettled + Math.floor(unread * density), oldestMs };
}

/** Half of what the rate says is of the last minute of work. */
const HALF_LIFE_MS = 60_000;

/** Records a second while there is work: idle time does not count. */
export class ConsumptionRate {
  #records = 0;
  #busyMs = 0;
  #countedUntilMs = 0;

  /** A batch that was begun and kept at these times, of one clock. Batches overlap: their union is the time of work. */
  kept(records: number, startedAtMs: number, nowMs: number): void {
    const busyMs = nowMs - Math.max(startedAtMs, this.#countedUntilMs);
    this.#countedUntilMs = nowMs;
    const left = 0.5 ** (busyMs / HALF_LIFE_MS);
    this.#records = this.#records * left + records;
    this.#busyMs = this.#busyMs * left + busyMs;
  }

  get perSecond(): number | undefined {
    return this.#busyMs > 0 ? (1000 * this.#records) / this.#busyMs : undefined;
  }
}

const ASK_AGAIN_MS = 5_000;

export class StreamLag {
  readonly rate = new ConsumptionRate();
  readonly #ranges = new Map<string, Map<number, Range>>();
  #askedAtMs = -Infinity;

  /** `ask`: of a topic's partitions. */
  constructor(private readonly ask: (topic: string) => Promise<Map<number, Range>>) {}

  /** `isFetched`: whether the consumer looks for more of it now. */
  async gauges(set: SetGauge, views: PartitionView[], isFetched: (view: PartitionView) => boolean): Promise<void> {
    const unwatched = views.filter((view) => view.position === undefined || !isFetched(view));
    await this.#refresh(new Set(unwatched.map(({ topic }) => topic)));
    const nowMs = Date.now();
    const { perSecond } = this.rate;
    let total = 0;
    for (const [topic, own] of Map.groupBy(views, (view) => view.topic)) {
      const ranges = this.#ranges.get(topic);
      const lags = own.map((view) => lagOf(view, unwatched.includes(view) ? ranges?.get(view.partition) : undefined));
      const records = lags.reduce((sum, lag) => sum + lag.records, 0);
      total += records;
      set('fewloop_stream_lag_records', { topic }, records);
      set('fewloop_stream_lag_seconds', { topic }, Math.max(...lags.map((lag) => secondsOf(lag, nowMs, perSecond))));
    }
    if (perSecond === undefined) return;
    set('fewloop_stream_consumption_rate', {}, perSecond);
    set('fewloop_stream_drain_seconds', {}, total / perSecond);
  }

  /** While the brokers are away, what they said last counts. */
  async #refresh(topics: Set<string>): Promise<void> {
    if (topics.size === 0 || performance.now() - this.#askedAtMs < ASK_AGAIN_MS) return;
    this.#askedAtMs = performance.now();
    const ask = async (topic: string) => this.#ranges.set(topic, await this.ask(topic));
    await Promise.all([...topics].map(ask)).catch(() => undefined);
  }
}

/** A producer may set any time: one in the future is of now. */
function secondsOf({ records, oldestMs }: Lag, nowMs: number, perSecond: number | undefined): number {
  if (records === 0) return 0;
  if (oldestMs !== undefined && oldestMs >= 0) return Math.max(0, nowMs - oldestMs) / 1000;
  return perSecond === undefined ? 0 : records / perSecond;
}
