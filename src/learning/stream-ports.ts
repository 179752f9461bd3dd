/**
 * What the service asks of whatever carries the stream, PostgreSQL (embedded) or Kafka: to take texts in, and to deal
 * with its dead letters. The stream module provides both.
 */
import type { KeyedItem } from '../storage/entities/item-columns.js';
import type { TaskDefinition } from '../task/types.js';

export interface IncomingText {
  /** The producer's; the item key where it gave none. */
  id: string;
  item: KeyedItem;
}

export interface TextSink {
  /** Keeps all or throws. Returns how many were new, as far as the carrier can tell. Throws OVERLOADED. */
  send(definition: TaskDefinition, texts: IncomingText[]): Promise<number>;
  /** Texts that wait to be scored; of a topic that several tasks read, all of theirs. Throws OVERLOADED. */
  pending(definition: TaskDefinition): Promise<number>;
}

export const TEXT_SINK = Symbol('TextSink');

/** A record that cannot be scored, with the reason. */
export interface DeadLetter {
  /** Where it came from: `topic:partition:offset`, or the id of an embedded record. */
  source: string;
  code: string;
  message: string;
  key: string | null;
  /** As UTF-8. */
  value: string | null;
  at: Date;
}

/** Oldest first, of the task's input. */
export interface DeadLetters {
  /** Whether tasks that have one input have each other's letters. */
  readonly byInput: boolean;
  list(definition: TaskDefinition, first: number): Promise<{ letters: DeadLetter[]; total: number }>;
  /** Sends them through the stream once more. Returns how many. */
  replay(definition: TaskDefinition, first: number): Promise<number>;
  /** Gives them up. Returns how many. */
  drop(definition: TaskDefinition, first: number): Promise<number>;
}

export const DEAD_LETTERS = Symbol('DeadLetters');
