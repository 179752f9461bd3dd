/**
 * What became of Kafka's records, and the candidates among them, in one transaction, before their offsets are
 * committed. Idempotent by cluster, topic id, partition and offset. Kafka is the truth: a known place that holds a
 * record of another time (a cluster restored from a copy, a log cut by an unclean election) is an error that no second
 * try mends. Of a text that was forgotten after its record was produced the place is kept alone: the record may have
 * been read before, or be read again.
 */
import { Inject, Injectable } from '@nestjs/common';
import { FewloopError } from '../common/errors.js';
import type { Prediction } from '../inference/types.js';
import { CandidatesRepository } from '../storage/candidates.repository.js';
import { ErasuresRepository } from '../storage/erasures.repository.js';
import {
  StreamRecordsRepository,
  type NewStreamRecord,
  type PruneLimits,
  type RecordSource,
} from '../storage/stream-records.repository.js';
import { Transactions, type Tx } from '../storage/transactions.js';
import type { TaskDefinition } from '../task/types.js';
import { PoolService, type ScoredItem } from './pool.js';

export type { PruneLimits, RecordSource };

interface HistoryPlace {
  offset: string;
  /** Of the record, epoch milliseconds. */
  timestamp: string;
  externalId: string | null;
}

export type HistoryEntry = HistoryPlace &
  (
    | ({ state: 'scored'; definition: TaskDefinition } & ScoredItem)
    | { state: 'dead'; task: string | null; error: FewloopError }
  );

/** A producer may have set any time; PostgreSQL and ISO 8601 agree on four digits of a year, from year 1 on. */
const EARLIEST_MS = Date.parse('0001-01-01T00:00:00Z');
const LATEST_MS = Date.UTC(9999, 0);

@Injectable()
export class StreamHistory {
  constructor(
    @Inject(StreamRecordsRepository) private readonly records: StreamRecordsRepository,
    @Inject(CandidatesRepository) private readonly candidates: CandidatesRepository,
    @Inject(ErasuresRepository) private readonly erasures: ErasuresRepository,
    @Inject(PoolService) private readonly pool: PoolService,
    @Inject(Transactions) private readonly transactions: Transactions,
  ) {}

  /** Throws CONFLICT where a known place holds a record of another time. */
  keep(source: RecordSource, entries: HistoryEntry[]): Promise<void> {
    return this.transactions.run(async (tx) => {
      await this.records.boundIdleTime(tx);
      const written = await this.records.upsert(source, entries.map(stored), tx);
      if (written < entries.length) {
        const { topic, partition } = source;
        const message = `${topic}:${partition} holds other records than those known from ${entries[0]?.offset} on`;
        throw new FewloopError('CONFLICT', `${message}: the topic's history has changed under its offsets`);
      }
      // By name, so that two partitions never wait for each other's pools.
      const tasks = Map.groupBy(entries.filter(isScored), ({ definition }) => definition.name);
      for (const task of [...tasks.keys()].sort()) {
        const scored = tasks.get(task)!;
        const forgotten = await this.forgotten(task, scored, tx);
        if (forgotten.size > 0) await this.records.upsert(source, [...forgotten].map(placeAlone), tx);
        const kept = scored.filter((entry) => !forgotten.has(entry));
        await this.pool.admit(scored[0]!.definition, kept, tx);
      }
    });
  }

  /** Those whose text was forgotten since they were produced. */
  private async forgotten(task: string, scored: Scored[], tx: Tx): Promise<Set<Scored>> {
    // Who forgets holds it until that is in the ledger.
    await this.candidates.lockPool(task, tx);
    const groups = scored.map(({ item }) => item.splitGroup);
    const times = await this.erasures.among(task, groups, tx);
    const isForgotten = ({ item, timestamp }: Scored) =>
      Number(timestamp) <= (times.get(item.splitGroup)?.getTime() ?? -Infinity);
    return new Set(scored.filter(isForgotten));
  }

  /** Every partition of every topic that the history knows. */
  sources(): Promise<RecordSource[]> {
    return this.records.sources();
  }

  /** Gives up to `batch` of a source's oldest rows up, and waits for nobody. Returns how many; fewer at the end. */
  prune(source: RecordSource, limits: PruneLimits, batch: number): Promise<number> {
    return this.records.prune(source, limits, batch);
  }
}

type Scored = Extract<HistoryEntry, { state: 'scored' }>;

function isScored(entry: HistoryEntry): entry is Scored {
  return entry.state === 'scored';
}

function stored(entry: HistoryEntry): NewStreamRecord {
  const { externalId } = entry;
  const place = { ...placeOf(entry), externalId };
  if (entry.state === 'scored') {
    const { label, confidence, route, modelVersion }: Prediction = entry.prediction;
    const outcome = { label, confidence, route, modelVersion, errorCode: null, errorMessage: null };
    return { ...place, task: entry.definition.name, splitGroup: entry.item.splitGroup, state: 'SCORED', ...outcome };
  }
  const { code, message } = entry.error;
  return { ...place, ...NOTHING, task: entry.task, state: 'FAILED', errorCode: code, errorMessage: storable(message) };
}

/** It counts as scored. */
function placeAlone(entry: Scored): NewStreamRecord {
  const { name: task } = entry.definition;
  const nothing = { ...NOTHING, externalId: null, errorCode: null, errorMessage: null };
  return { ...placeOf(entry), ...nothing, task, state: 'SCORED' };
}

const NOTHING = { splitGroup: null, label: null, confidence: null, route: null, modelVersion: null };

function placeOf({ offset, timestamp }: HistoryPlace): Pick<NewStreamRecord, 'offset' | 'recordedAt'> {
  const time = Math.min(Math.max(Number(timestamp), EARLIEST_MS), LATEST_MS);
  return { offset, recordedAt: new Date(time).toISOString() };
}

/** A message may quote what PostgreSQL cannot hold. */
function storable(text: string): string {
  return text.replaceAll('\0', '').toWellFormed();
}
