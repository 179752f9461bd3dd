/** The topics that the service needs, created where the principal may. */
import type { Kafka } from 'kafkajs';
import { DEAD_LETTERS } from '../../task/topics.js';
import { withAdmin } from './client.js';
import type { TopicIds } from './internals.js';

/** Dead letters carry headers beside a value that may be as large as its own topic takes. */
const DLQ_MAX_BYTES = 16 * 1024 * 1024;

/** Those of the topics that are there in the end, and the reason where some are not. */
export async function ensureTopics(
  kafka: Kafka,
  topicIds: TopicIds,
  wanted: string[],
): Promise<{ present: Set<string>; missing: string[]; reason: string }> {
  const there = async () => new Set((await topicIds.of(wanted)).keys());
  const before = await there();
  const absent = wanted.filter((topic) => !before.has(topic));
  if (absent.length === 0) return { present: before, missing: [], reason: '' };
  let reason = '';
  await withAdmin(kafka, async (admin) => {
    for (const topic of absent) {
      const configEntries = topic.endsWith(DEAD_LETTERS)
        ? [{ name: 'max.message.bytes', value: String(DLQ_MAX_BYTES) }]
        : [];
      // Each by itself: one that is refused must not keep the others away. Leaders are waited for by who uses them.
      const one = { topics: [{ topic, configEntries }], waitForLeaders: false };
      await admin.createTopics(one).catch((error: unknown) => (reason = messageOf(error)));
    }
  });
  const present = await there();
  return { present, missing: wanted.filter((topic) => !present.has(topic)), reason };
}

function messageOf(error: unknown): string {
  const { errors, message } = error as { errors?: Error[]; message: string };
  return errors?.[0]?.message ?? message;
}
