/**
 * Every metric of Fewloop, one entry each: what it counts, its labels, its buckets. `docs/operations/metrics.md` is
 * rendered from it. Names and units are Prometheus's conventions: base units, `_total` for what only grows.
 *
 * Labels are bounded: of `task` the first hundred have series of their own, of a task's `version` the last four; the
 * others are constants of the code or names that the configuration brings. None holds a text or an id.
 */
type Kind = 'counter' | 'gauge' | 'histogram';

export interface Description {
  kind: Kind;
  help: string;
  labels: readonly string[];
  buckets?: number[];
  /** Of a gauge by task: what the series `other` has of the tasks that share it. Without it these have no value. */
  others?: 'sum' | 'max';
}

/** Seconds of a request or a batch. */
const LATENCY = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10];
const TOKENS = [64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536];
const SHARE = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1];

export const DESCRIPTIONS = {
  fewloop_requests_total: counter(
    'GraphQL requests answered, by the field that was asked for (`several`; `none` where the request itself was refused) and the first error code of the answer (`OK` where there is none, `CANCELLED` where who asked had closed the connection)',
    'operation',
    'code',
  ),
  fewloop_request_seconds: histogram('Time from a GraphQL request to its answer', LATENCY, 'operation'),
  fewloop_errors_total: counter('Errors in GraphQL answers; an answer may hold several', 'code'),

  fewloop_predictions_total: counter(
    'Texts that were answered (`source` api) or kept by the stream (`source` stream), by route',
    'task',
    'version',
    'source',
    'route',
  ),
  fewloop_contested_predictions_total: counter(
    'Those of fewloop_predictions_total from which at least one member dissents',
    'task',
    'version',
    'source',
  ),
  fewloop_recent_answers_total: counter('Texts that were answered from the recent answers, without a model', 'task'),
  fewloop_inference_seconds: histogram(
    'Time from the texts of a call to their predictions, queue included; what came from recent answers is not in it',
    LATENCY,
    'task',
    'version',
    'policy',
    'priority',
  ),
  fewloop_queue_seconds: histogram(
    'Time that rows wait for their batch, once a call and batch',
    LATENCY,
    'task',
    'priority',
  ),
  fewloop_queue_tokens: gauge('Tokens that wait for a batch or are in one now'),
  fewloop_queue_limit_tokens: gauge('Tokens from which on interactive requests are OVERLOADED; others from half of it'),
  fewloop_batch_seconds: histogram('Time of a batch with its model host, the wait there included', LATENCY, 'priority'),
  fewloop_batch_tokens: histogram('Tokens of a batch, padding included', TOKENS, 'priority'),
  fewloop_batch_fill_ratio: histogram('Tokens of a batch over the largest that one may have', SHARE, 'priority'),
  fewloop_batch_padding_tokens_total: counter('Tokens of batches that are padding', 'priority'),
  fewloop_batch_failures_total: counter('Batches that failed in a model host', 'priority'),

  fewloop_hosts: gauge('Model host processes that are loaded'),
  fewloop_hosts_expected: gauge('Model host processes that should be'),
  fewloop_hosts_resident_memory_bytes: gauge(
    'Resident memory of all model hosts, shared pages counted once; absent where the system does not tell',
  ),
  fewloop_host_restarts_total: counter('Model hosts that ended unasked and were replaced'),
  fewloop_active_version: gauge('Version that answers for the task in this process', 'task'),
  fewloop_swaps_total: counter(
    'Versions that began to answer in this process, the first one and one that rested included',
    'task',
  ),
  fewloop_swap_seconds: histogram(
    'Time from the order to swap until the version answers: open, warm, golden texts',
    [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120],
  ),
  fewloop_activation_failures_total: counter('Tries to serve a version that failed', 'task'),

  fewloop_stream_records_total: counter(
    'Records of the stream that were kept: `scored`, or `dead`; of no task where `task` is empty',
    'task',
    'outcome',
  ),
  fewloop_stream_dead_letters_total: counter('Dead letters', 'task', 'code'),
  fewloop_stream_batch_records: histogram(
    'Records of a batch of the stream, which is a transaction',
    [1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096],
  ),
  fewloop_stream_inference_seconds: histogram('Time that a batch of the stream is scored', LATENCY),
  fewloop_stream_commit_seconds: histogram(
    'Time that the outcome of a batch is kept: history, candidates, outputs, offset',
    LATENCY,
  ),
  fewloop_stream_lag_records: gauge(
    'Records that this worker has to score, by input topic; without Kafka all that wait, told by every worker (`embedded`); markers of transactions are not records',
    'topic',
  ),
  fewloop_stream_lag_seconds: gauge(
    'Age of the oldest record that this worker has not committed; where it was not read yet, the time that the lag takes at the present rate',
    'topic',
  ),
  fewloop_stream_drain_seconds: gauge(
    'Time that the lag of this worker takes at the rate of its last busy minutes; absent until there is a rate, and without Kafka',
  ),
  fewloop_stream_consumption_rate: gauge(
    'Records a second that this worker keeps while it is busy; absent without Kafka',
  ),

  fewloop_pool_candidates: summed('Candidates of the pool, by state', 'task', 'state'),
  fewloop_review_questions: summed(
    'Candidates that wait for a person: routed to review, or of the audit slice',
    'task',
  ),
  fewloop_runs: summed('Training runs, by state', 'task', 'state'),
  fewloop_promotions: summed('Promotions, by decision (`PENDING` where there is none yet)', 'task', 'decision'),
  fewloop_promotion_waiting_seconds: largest('Age of the oldest promotion that waits for its decision', 'task'),
  fewloop_webhooks_given_up_total: counter(
    'Lifecycle events that a webhook did not take in three days, or no longer wants',
    'host',
  ),
  fewloop_guard_rollbacks_total: counter('Promoted versions that the guard took back', 'task'),
  fewloop_trial_texts_total: counter(
    'Live texts of a version on trial: both versions say the `same`, the labels are `changed`, it has `failed`, or nothing was to spare (`missed`)',
    'task',
    'outcome',
  ),
  fewloop_trials_ended_total: counter(
    'Trials of versions on live traffic, by how they ended',
    'task',
    'kind',
    'outcome',
  ),
  fewloop_live_accuracy: gauge(
    'Accuracy of the active version by answers to questions drawn at random, as served: `bound` estimate, and low and high of its 95 % interval; absent without answers',
    'task',
    'bound',
  ),
  fewloop_live_accuracy_rows: gauge('Answers behind fewloop_live_accuracy', 'task'),
  fewloop_live_calibration_error: gauge('Calibration error on the same answers; absent under 200', 'task'),
  fewloop_drift_effect: largest(
    'Distance of the present texts from those after the promotion, in [0, 1], by the last daily check: of labels, confidence, embeddings',
    'task',
    'statistic',
  ),
  fewloop_drift_alarm: largest('Whether the last check for drift alarmed (1) or not (0)', 'task'),

  fewloop_ready: gauge('Whether a part is in order (1) or not (0), as /health/ready says', 'part'),
  fewloop_scrape_failures_total: counter('Parts that could not be read for a scrape; their gauges are absent', 'part'),
} satisfies Record<string, Description>;

export type MetricName = keyof typeof DESCRIPTIONS;
type NameOf<K extends Kind> = { [N in MetricName]: (typeof DESCRIPTIONS)[N]['kind'] extends K ? N : never }[MetricName];
export type CounterName = NameOf<'counter'>;
export type GaugeName = NameOf<'gauge'>;
export type HistogramName = NameOf<'histogram'>;
export type LabelsOf<N extends MetricName> = Record<(typeof DESCRIPTIONS)[N]['labels'][number], string>;

/** Markdown. */
export function metricsTable(): string {
  const rows = Object.entries<Description>(DESCRIPTIONS).map(([name, { kind, labels, help }]) => {
    return `| \`${name}\` | ${kind} | ${labels.map((label) => `\`${label}\``).join(', ')} | ${help} |`;
  });
  return ['| metric | kind | labels | meaning |', '|---|---|---|---|', ...rows].join('\n');
}

function counter<L extends string>(help: string, ...labels: L[]) {
  return { kind: 'counter' as const, help, labels };
}

function gauge<L extends string>(help: string, ...labels: L[]) {
  return { kind: 'gauge' as const, help, labels };
}

function summed<L extends string>(help: string, ...labels: L[]) {
  return { ...gauge(help, ...labels), others: 'sum' as const };
}

function largest<L extends string>(help: string, ...labels: L[]) {
  return { ...gauge(help, ...labels), others: 'max' as const };
}

function histogram<L extends string>(help: string, buckets: number[], ...labels: L[]) {
  return { kind: 'histogram' as const, help, labels, buckets };
}
