/**
 * The records' JSON Schema, published as docs/stream-records.schema.json. What comes in is checked against the input's
 * (record.ts); what goes out is made to the output's, and a spec holds it to that.
 */
import { z } from 'zod';

const metadata = z.record(z.string(), z.unknown());

/** Beyond the fields named here, whatever a producer puts in a record comes back in the output's `metadata`. */
export const inputRecord = z
  .looseObject({
    id: z
      .string()
      .min(1)
      .max(512)
      .nullish()
      .describe('Echoed; where there is none, the place: topic:partition:offset.'),
    task: z.string().nullish().describe('Needed where several tasks read the topic.'),
    text: z.string(),
    textPair: z.string().nullish().describe('Second sentence, for sentence-pair tasks.'),
    choices: z.array(z.string()).nullish().describe('Options, for multiple-choice tasks.'),
    fields: z.record(z.string(), z.unknown()).nullish().describe("Further fields that the task's templates name."),
    metadata: metadata.nullish().describe('Comes back as it is.'),
  })
  .describe('A text to be scored. On a topic that one task reads, a value that is no JSON object is the text itself.');

const probability = z.number().min(0).max(1);

export const outputRecord = z
  .strictObject({
    id: z.string(),
    task: z.string(),
    taskRevision: z.int(),
    modelVersion: z.int(),
    label: z.string().nullable(),
    labels: z.array(z.string()),
    confidence: probability,
    calibrated: z.boolean(),
    margin: z.number(),
    entropy: z.number(),
    disagreement: z
      .strictObject({
        voters: z.int(),
        dissenting: z.int(),
        unanimous: z.boolean(),
        voteEntropy: z.number(),
        jensenShannon: z.number(),
      })
      .nullable(),
    route: z.enum(['ACCEPT', 'REVIEW']),
    distribution: z.array(z.strictObject({ label: z.string(), probability })),
    metadata: metadata.optional(),
    source: z.strictObject({ topic: z.string(), partition: z.int(), offset: z.int() }),
    scoredAt: z.iso.datetime(),
  })
  .describe("A scored text; the key and the headers are the input's.");

export function recordsJsonSchema(): Record<string, unknown> {
  const { $schema, ...input } = z.toJSONSchema(inputRecord, { io: 'input' });
  const { $schema: _, ...output } = z.toJSONSchema(outputRecord, { io: 'output' });
  return { $schema, title: 'Fewloop stream records', $defs: { input, output } };
}
