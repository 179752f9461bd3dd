/** Kafka's topics by name: the service's own beside those that a task file names. */

/** Lifecycle events. */
export const EVENTS_TOPIC = 'fewloop.events';
export const DEAD_LETTERS = '.dlq';

/** Where an input's records go that cannot be scored. */
export function deadLetterTopic(input: string): string {
  return `${input}${DEAD_LETTERS}`;
}

/** What Kafka takes for a name; it may have 249 characters. */
export function isTopicName(name: string): boolean {
  return /^[\w.-]{1,249}$/.test(name) && name !== '.' && name !== '..';
}
