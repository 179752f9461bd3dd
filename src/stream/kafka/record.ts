/** From Kafka's messages to records, and back. Pure: no record is lost here, each becomes an item or a refusal. */
import type { IHeaders, Message } from 'kafkajs';
import { badInput, FewloopError } from '../../common/errors.js';
import type { Prediction } from '../../inference/types.js';
import { checkedId, keyedItem } from '../../learning/intake.js';
import type { ItemLimits } from '../../task/item.js';
import type { TaskDefinition } from '../../task/types.js';
import { inputRecord } from './record-schema.js';
import type { TopicTasks } from './task-directory.js';

/** A message and its place. */
export interface Incoming {
  topic: string;
  partition: number;
  offset: string;
  /** Epoch milliseconds. */
  timestamp: string;
  key: Buffer | null;
  value: Buffer | null;
  headers: IHeaders;
}

export interface Readable {
  incoming: Incoming;
  definition: TaskDefinition;
  id: string;
  item: ReturnType<typeof keyedItem>;
  metadata: Record<string, unknown>;
}

export interface Refused {
  incoming: Incoming;
  task: string | null;
  id: string | null;
  error: FewloopError;
}

/** Larger ones many brokers refuse (`max.message.bytes` is 1,048,588 unless set); some room for headers. */
const MAX_OUTPUT_BYTES = 1_000_000;
const MAX_ERROR_LENGTH = 1_000;
const OWN_HEADER = /^fewloop-/u;
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: false });

export function placeOf({ topic, partition, offset }: Incoming): string {
  return `${topic}:${partition}:${offset}`;
}

export function isReadable(record: Readable | Refused): record is Readable {
  return 'definition' in record;
}

/** `tasks`: those that read the topic. */
export function readRecord(incoming: Incoming, tasks: TopicTasks, limits: ItemLimits): Readable | Refused {
  let task: string | null = tasks.size === 1 ? [...tasks.keys()][0]! : null;
  let id: string | null = null;
  try {
    const text = textOf(incoming.value);
    const record = objectOf(text) ?? plainText(text, tasks);
    const fields = parsed(record);
    task = fields.task ?? task;
    id = checkedId(fields.id) ?? placeOf(incoming);
    const definition = definitionOf(task, tasks, incoming.topic);
    const item = keyedItem(definition, fields, limits);
    return { incoming, definition, id, item, metadata: { ...unknownFields(fields), ...fields.metadata } };
  } catch (error) {
    // Only a name that exists is kept with the record: a producer may have put anything there.
    return { incoming, task: task !== null && tasks.has(task) ? task : null, id, error: fault(error) };
  }
}

/** What this pure code throws beside its own errors (a value nested too deep) is in the record: it must not hold up others. */
export function fault(error: unknown): FewloopError {
  if (error instanceof FewloopError) return error;
  return new FewloopError('INTERNAL', (error as Error).message, { cause: error });
}

function textOf(value: Buffer | null): string {
  if (value === null) throw badInput('value', 'there is none');
  try {
    return utf8.decode(value);
  } catch {
    throw badInput('value', 'is not UTF-8');
  }
}

function objectOf(text: string): object | null {
  // Most plain texts are told apart without an exception.
  if (!/^\s*\{/u.test(text)) return null;
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}

function plainText(text: string, { size }: TopicTasks): object {
  if (size === 1) return { text };
  throw badInput('value', `is no JSON object, and ${size} tasks read this topic: which one is it for?`);
}

function parsed(record: object) {
  const result = inputRecord.safeParse(record);
  if (result.success) return result.data;
  const { path, message } = result.error.issues[0]!;
  throw badInput(path.join('.') || 'value', message);
}

function unknownFields(record: object): Record<string, unknown> {
  return Object.fromEntries(Object.entries(record).filter(([name]) => !Object.hasOwn(inputRecord.shape, name)));
}

function definitionOf(task: string | null, tasks: TopicTasks, topic: string): TaskDefinition {
  if (task === null) throw badInput('task', `is missing, and ${tasks.size} tasks read this topic`);
  const definition = tasks.get(task);
  if (definition) return definition;
  throw new FewloopError('TASK_NOT_FOUND', `no task ${task.slice(0, 100)} reads topic ${topic}`);
}

/** The output's message; `traceHeaders` go over the record's own. Throws BAD_INPUT where it would be larger than brokers take. */
export function outputMessage(
  record: Readable,
  prediction: Prediction,
  scoredAt: string,
  traceHeaders: IHeaders = {},
): Message {
  const { incoming, definition, id, metadata } = record;
  const { topic, partition, offset, key, headers } = incoming;
  const { taskRevision, modelVersion, label, labels, confidence, calibrated, margin, entropy } = prediction;
  const { disagreement, route, distribution } = prediction;
  const value = Buffer.from(
    JSON.stringify({
      id,
      task: definition.name,
      taskRevision,
      modelVersion,
      label,
      labels,
      confidence,
      calibrated,
      margin,
      entropy,
      disagreement,
      route,
      distribution,
      ...(Object.keys(metadata).length > 0 && { metadata }),
      source: { topic, partition, offset: Number(offset) },
      scoredAt,
    }),
  );
  if (value.length > MAX_OUTPUT_BYTES) {
    throw badInput('metadata', `the prediction with it would have ${value.length} bytes`);
  }
  return { key, value, headers: { ...headers, ...traceHeaders } };
}

/** Key and value byte for byte; the headers too, with the reason beside them. */
export function deadLetterMessage(incoming: Incoming, error: FewloopError): Message {
  return {
    key: incoming.key,
    value: incoming.value,
    headers: {
      ...withoutOwn(incoming.headers),
      'fewloop-error-code': error.code,
      'fewloop-error-message': error.message.toWellFormed().slice(0, MAX_ERROR_LENGTH),
      'fewloop-source': placeOf(incoming),
    },
  };
}

/** The headers as the record had them before it was dead. */
export function withoutOwn(headers: IHeaders): IHeaders {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !OWN_HEADER.test(name)));
}
