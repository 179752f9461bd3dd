/** What a batch became. Pure. */
import type { FewloopError } from '../../common/errors.js';
import type { HistoryEntry } from '../../learning/stream-history.js';
import { deadLetterTopic } from '../../task/topics.js';
import type { Kept } from '../kept-metrics.js';
import type { RecordOutcome } from '../records.js';
import { deadLetterMessage, fault, isReadable, outputMessage, type Readable, type Refused } from './record.js';
import type { RecordTraces } from './record-traces.js';
import type { Outgoing } from './writer.js';

/** A record, its entry and its message, each at the same place, in order. */
export interface Results {
  records: (Readable | Refused)[];
  entries: HistoryEntry[];
  outgoing: Outgoing[];
}

/** Records of one partition; `outcomes`: by offset, of every readable one. */
export function resultsOf(
  records: (Readable | Refused)[],
  outcomes: ReadonlyMap<string, RecordOutcome>,
  traces: Pick<RecordTraces, 'headersOf'>,
): Results {
  const scoredAt = new Date().toISOString();
  const results: Results = { records, entries: [], outgoing: [] };
  for (const record of records) {
    const dead = isReadable(record)
      ? addOutput(results, record, outcomes.get(record.incoming.offset)!, scoredAt, traces)
      : record;
    if (dead) addDeadLetter(results, dead);
  }
  return results;
}

/** The same, but the record at that place is dead after all. */
export function withDead(results: Results, at: number, error: FewloopError): Results {
  const record = results.records[at]!;
  const { incoming, id } = record;
  const task = isReadable(record) ? record.definition.name : record.task;
  const dead: Results = { records: [record], entries: [], outgoing: [] };
  addDeadLetter(dead, { incoming, task, id, error });
  return {
    records: results.records,
    entries: results.entries.with(at, dead.entries[0]!),
    outgoing: results.outgoing.with(at, dead.outgoing[0]!),
  };
}

/** The record, where it is dead. */
function addOutput(
  results: Results,
  record: Readable,
  outcome: RecordOutcome,
  scoredAt: string,
  traces: Pick<RecordTraces, 'headersOf'>,
): Refused | null {
  const { incoming, definition, id, item } = record;
  const dead = (error: FewloopError): Refused => ({ incoming, task: definition.name, id, error });
  if (outcome.state !== 'scored') return dead(outcome.error);
  const { prediction } = outcome;
  try {
    const message = outputMessage(record, prediction, scoredAt, traces.headersOf(incoming));
    results.outgoing.push({ topic: definition.stream.output, message });
  } catch (error) {
    return dead(fault(error));
  }
  const { offset, timestamp } = incoming;
  results.entries.push({ state: 'scored', offset, timestamp, externalId: id, definition, item, prediction });
  return null;
}

/** For the metrics. */
export function keptOf({ entries }: Results): Kept[] {
  return entries.map((entry) =>
    entry.state === 'scored'
      ? { task: entry.definition.name, prediction: entry.prediction }
      : { task: entry.task, code: entry.error.code },
  );
}

function addDeadLetter(results: Results, { incoming, task, id, error }: Refused): void {
  const { topic, offset, timestamp } = incoming;
  results.outgoing.push({ topic: deadLetterTopic(topic), message: deadLetterMessage(incoming, error) });
  results.entries.push({ state: 'dead', offset, timestamp, externalId: id, task, error });
}
