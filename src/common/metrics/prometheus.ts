/** The metrics as Prometheus reads them, by prom-client. The process's and Node's own come from the library. */
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import { DESCRIPTIONS, type Description, type GaugeName, type MetricName } from './descriptions.js';
import type { Metrics, SetGauge } from './metrics.js';

/** Further tasks share the series `other`. */
const MAX_TASKS = 100;
/** Of a task; the series of the one that was new longest ago go when a further one comes. */
const MAX_VERSIONS = 4;
/** A database that hangs must not hang the scrape: Prometheus waits ten seconds. */
const READ_TIMEOUT_MS = 4_000;

type Labels = Record<string, string>;
type Read = (set: SetGauge) => void | Promise<void>;
type Series = { labels: Partial<Record<string, string | number>> };

export class PrometheusMetrics implements Metrics {
  readonly contentType: string;
  readonly #registry = new Registry();
  readonly #metrics = new Map<MetricName, Counter | Gauge | Histogram>();
  readonly #parts = new Map<string, Read>();
  readonly #versions = new Map<string, string[]>();
  /** Of this scrape, by gauge and labels: what the tasks without series of their own make so far. */
  readonly #others = new Map<string, number>();
  #scrape: Promise<string> | undefined;

  constructor() {
    this.contentType = this.#registry.contentType;
    collectDefaultMetrics({ register: this.#registry });
    for (const [name, description] of Object.entries(DESCRIPTIONS) as [MetricName, Description][]) {
      this.#metrics.set(name, made(name, description, this.#registry));
    }
  }

  add(name: MetricName, labels: Labels, by = 1): void {
    (this.#metrics.get(name) as Counter).inc(this.#bounded(labels), by);
  }

  observe(name: MetricName, labels: Labels, value: number): void {
    (this.#metrics.get(name) as Histogram).observe(this.#bounded(labels), value);
  }

  onScrape(part: string, read: Read): void {
    this.#parts.set(part, read);
  }

  /** The exposition. Scrapes that come while one is under way share it. */
  scrape(): Promise<string> {
    this.#scrape ??= this.#read().finally(() => (this.#scrape = undefined));
    return this.#scrape;
  }

  async #read(): Promise<string> {
    for (const metric of this.#metrics.values()) if (metric instanceof Gauge) empty(metric);
    this.#others.clear();
    await Promise.all([...this.#parts].map(([part, read]) => this.#readPart(part, read)));
    return this.#registry.metrics();
  }

  async #readPart(part: string, read: Read): Promise<void> {
    const late = AbortSignal.timeout(READ_TIMEOUT_MS);
    const set: SetGauge = (name, labels, value) => {
      if (!late.aborted) this.#set(name, labels, value);
    };
    const timeout = new Promise<never>((_, reject) => {
      late.addEventListener('abort', () => reject(new Error(`${part} was not read in time`)));
    });
    try {
      await Promise.race([read(set), timeout]);
    } catch {
      this.add('fewloop_scrape_failures_total', { part });
    }
  }

  #set(name: GaugeName, labels: Labels, value: number): void {
    const gauge = this.#metrics.get(name) as Gauge;
    const bounded = this.#bounded(labels);
    if (bounded['task'] === labels['task']) return gauge.set(bounded, value);
    const { others } = DESCRIPTIONS[name] as Description;
    if (others === undefined) return;
    const series = JSON.stringify([name, bounded]);
    const before = this.#others.get(series) ?? 0;
    const all = others === 'sum' ? before + value : Math.max(before, value);
    this.#others.set(series, all);
    gauge.set(bounded, all);
  }

  #bounded(labels: Labels): Labels {
    const { task, version } = labels;
    if (task === undefined || task === '') return labels;
    if (!this.#versions.has(task)) {
      if (this.#versions.size >= MAX_TASKS) return { ...labels, task: 'other', ...(version && { version: '' }) };
      this.#versions.set(task, []);
    }
    if (version !== undefined) this.#noteVersion(task, version);
    return labels;
  }

  #noteVersion(task: string, version: string): void {
    const known = this.#versions.get(task)!;
    if (known.includes(version)) return;
    known.push(version);
    const oldest = known.length > MAX_VERSIONS ? known.shift() : undefined;
    if (oldest !== undefined) void this.#forget(task, oldest);
  }

  async #forget(task: string, version: string): Promise<void> {
    for (const metric of this.#metrics.values()) {
      const { values } = (await metric.get()) as { values: Series[] };
      for (const { labels } of values) {
        const { le: _, ...own } = labels;
        if (own['task'] === task && own['version'] === version) metric.remove(own as Record<string, string>);
      }
    }
  }
}

/** A gauge without labels is 0 after a reset: it is to be absent. */
function empty(gauge: Gauge): void {
  gauge.reset();
  gauge.remove({});
}

function made(name: MetricName, { kind, help, labels, buckets }: Description, registry: Registry) {
  const common = { name, help, labelNames: [...labels], registers: [registry] };
  if (kind === 'counter') return new Counter(common);
  if (kind === 'gauge') return new Gauge(common);
  return new Histogram({ ...common, buckets: buckets! });
}
