/** The traces that a claim's records are in: a span each, from here to its output, whose header goes on with it. */
import {
  beginSpan,
  inSpan,
  traceHeaders,
  traceOf,
  type OpenSpan,
  type Trace,
  type TraceHeaders,
} from '../../common/tracing/tracing.js';
import { placeOf, type Incoming, type Readable } from './record.js';

export class RecordTraces {
  /** By place; of records that came with a trace alone. */
  readonly #spans = new Map<string, OpenSpan>();

  constructor(records: Readable[]) {
    for (const { incoming, definition } of records) {
      const parent = traceOf(incoming.headers);
      if (!parent) continue;
      const { topic, partition, offset } = incoming;
      const attributes = {
        'messaging.system': 'kafka',
        'messaging.destination.name': topic,
        'messaging.destination.partition.id': String(partition),
        'messaging.kafka.offset': Number(offset),
        'fewloop.task': definition.name,
      };
      this.#spans.set(placeOf(incoming), beginSpan(`process ${topic}`, parent, { kind: 'consumer', attributes }));
    }
  }

  /** In a span of these records' first trace, which names those of the others. */
  score<T>(records: Readable[], work: (trace: Trace) => Promise<T>): Promise<T> {
    const own = records.flatMap(({ incoming }) => this.#spans.get(placeOf(incoming)) ?? []);
    const [first, ...others] = own.map(({ trace }) => trace);
    if (!first) return work(undefined);
    const attributes = { 'fewloop.records': records.length };
    return inSpan('score', first, { links: others, attributes }, work);
  }

  /** In place of those that the record came with. */
  headersOf(incoming: Incoming): TraceHeaders {
    return traceHeaders(this.#spans.get(placeOf(incoming))?.trace);
  }

  end(): void {
    for (const span of this.#spans.values()) span.end();
  }
}
