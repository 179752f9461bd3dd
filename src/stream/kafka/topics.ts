/** The topics that the service needs, created where the principal may. */
import type { Admin } from 'kafkajs';

export const EVENTS_TOPIC = 'fewloop.events';
/** Dead letters carry headers beside a value that may be as large as its own topic takes. */
const DLQ_MAX_BYTES = 16 * 1024 * 1024;

export function deadLetterTopic(input: string): string {
  return `${input}.dlq`;
}

/** Those of the topics that are there in the end, and the reason where some are not. */
export async function ensureTopics(
  admin: Admin,
  wanted: string[],
): Promise<{ present: Set<string>; missing: string[]; reason: string }> {
  const before = new Set(await admin.listTopics());
  const absent = wanted.filter((topic) => !before.has(topic));
  let reason = '';
  for (const topic of absent) {
    const configEntries = topic.endsWith('.dlq') ? [{ name: 'max.message.bytes', value: String(DLQ_MAX_BYTES) }] : [];
    // Each by itself: one that is refused must not keep the others away. Leaders are waited for by who uses them.
    await admin.createTopics({ topics: [{ topic, configEntries }], waitForLeaders: false }).catch((error: unknown) => {
      reason = messageOf(error);
    });
  }
  const present = absent.length === 0 ? before : new Set(await admin.listTopics());
  return { present, missing: wanted.filter((topic) => !present.has(topic)), reason };
}

function messageOf(error: unknown): string {
  const { errors, message } = error as { errors?: Error[]; message: string };
  return errors?.[0]?.message ?? message;
}
