/** What goes through the stream, and the port to what carries it: PostgreSQL (embedded/) or Kafka. */
import type { FewloopError } from '../common/errors.js';
import type { PartHealth } from '../common/health.js';
import type { Trace } from '../common/tracing/tracing.js';
import type { Prediction } from '../inference/types.js';
import type { Item } from '../task/types.js';

export interface StreamRecord {
  /** The carrier's own name of the record, echoed in its outcome. */
  ref: string;
  /** The producer's. */
  id: string;
  item: Item;
}

/** Records of one task, scored together by one model. */
export interface StreamBatch {
  task: string;
  records: StreamRecord[];
  /** Where its scoring stands. */
  trace?: Trace;
}

export type RecordOutcome =
  | { ref: string; state: 'scored'; prediction: Prediction }
  /** The record's own fault: it will not be tried again. */
  | { ref: string; state: 'refused'; error: FewloopError }
  /** The model failed on this record, alone, twice. */
  | { ref: string; state: 'failed'; error: FewloopError };

export interface StreamPort {
  /** To be called before all else. Resolves although what carries the stream is away for now. */
  open(): Promise<void>;
  /**
   * Claims records, none of `exceptTasks`, has them scored, task by task, and keeps the outcomes and the pool's new
   * candidates together or not at all. False where there was nothing to claim. What `score` throws is thrown, and the
   * records are there again.
   */
  process(exceptTasks: string[], score: (batch: StreamBatch) => Promise<RecordOutcome[]>): Promise<boolean>;
  /** Resolves when there may be something new, or after that time. */
  wait(timeoutMs: number): Promise<void>;
  /** Whether what carries the stream is there and is read. */
  state(): PartHealth;
  /** To be called when no `process` is under way. */
  close(): Promise<void>;
}

export const STREAM_PORT = Symbol('StreamPort');
