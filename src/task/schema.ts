/**
 * The task file's schema: keys, types, ranges and defaults, in one place. `parseTask` (definition.ts) applies it and
 * `docs/task-file.schema.json` is generated from it (`UPDATE_SCHEMA=1 vitest run src/task/schema.spec.ts` writes it,
 * the same spec without the variable checks it).
 */
import { CronExpressionParser } from 'cron-parser';
import { z } from 'zod';

const probability = z.number().min(0).max(1);

const label = z.strictObject({
  name: z.string().min(1).max(100).describe('What predictions call it.'),
  words: z
    .array(z.string().min(1))
    .default([])
    .describe('PET, and needed for it alone: label words, all of equal token count.'),
  description: z
    .string()
    .min(1)
    .optional()
    .describe('efl: the hypothesis, what the label says of a text. Needed for every label but for sentence-pair.'),
  was: z.array(z.string().min(1)).default([]).describe('Earlier names, so that examples follow a renaming.'),
});

/** What the trainer's augment.py knows: at most one way to mix rows and one adversary, with R-Drop or without. */
const STRATEGIES = ['', 'mixup', 'manifold-mixup'].flatMap((mix) =>
  ['', 'r-drop'].flatMap((drop) =>
    ['', 'fgm', 'pgd'].map((adversary) => [mix, drop, adversary].filter(Boolean).join('+') || 'plain'),
  ),
);

const method = z.enum(['pet', 'efl', 'embedding', 'fine-tune']);

const selection = z.strictObject({
  strategy: z.enum(['top_confidence', 'confident_contested', 'fused']).default('fused'),
  threshold1: probability.default(0.9).describe('confident_contested: least confidence.'),
  threshold2: probability.default(0.95).describe('fused: most confidence where all members agree.'),
  threshold3: probability.default(0.7).describe('fused: least confidence where a member dissents.'),
  floor: probability.default(0.5).describe('fused: least confidence where all members agree.'),
});

const student = z
  .strictObject({
    templates: z.enum(['best', 'all']).default('best').describe("pet: the best teacher's template, or each."),
    strategies: z.array(z.enum(STRATEGIES)).min(1).default(['plain']),
  })
  .describe('What a student is tried with; of several the best on cross-fitted predictions is trained.');

const COOLDOWN_MINUTES = 60;
const minutes = z.number().min(0);
const cooldown = minutes.default(COOLDOWN_MINUTES);

const trigger = z.strictObject({
  newLabels: z.int().min(1).nullable().default(50).describe('A run after that many new labels; null: none.'),
  schedule: z
    .string()
    .regex(/^([\d*,/-]+|[A-Za-z,-]+)(\s+([\d*,/-]+|[A-Za-z,-]+)){4}$/u, {
      error: 'a cron expression of five fields',
      abort: true,
    })
    .refine(isCron, 'a cron expression of five fields, each in its range')
    .nullable()
    .default(null)
    .describe('Cron, five fields, UTC.'),
  drift: z
    .strictObject({
      falseAlarmsPerYear: z.number().min(0.05).describe('So many of the daily checks of a year may alarm by chance.'),
      minEffect: probability.describe('Least distance between the present texts and those after the promotion.'),
    })
    .nullable()
    .default(null)
    .describe('A run when the traffic has changed.'),
  cooldownMinutes: z
    .union([minutes, z.strictObject({ newLabels: cooldown, schedule: cooldown, drift: cooldown })])
    .default(COOLDOWN_MINUTES)
    .describe('Least time from the end of any run to one that no person starts, for all triggers or for each.'),
});

const promotion = z.strictObject({
  minVerdict: z.enum(['worse', 'inconclusive', 'not-worse', 'better']).default('not-worse'),
  margin: probability.default(0.01).describe('By how much a version may be worse and still count as not worse.'),
  fourEyes: z
    .boolean()
    .default(false)
    .describe(
      'Two people: whoever started a run may not approve its version; of a run that a trigger started two are to approve it.',
    ),
  shadowMinutes: z
    .number()
    .min(0)
    .max(10_080)
    .default(0)
    .describe('How long a version is compared on live traffic before it may be approved; 0: it need not be.'),
  canaryPercent: z
    .number()
    .min(0)
    .max(100)
    .default(0)
    .describe('Of the requests, that an approved version answers at first; 0 and 100: it answers all at once.'),
  canaryMinutes: z
    .number()
    .min(1)
    .max(10_080)
    .optional()
    .describe('How long, before it answers all: 30 where it is left out.'),
  guardMinutes: z
    .number()
    .min(0)
    .max(10_080)
    .optional()
    .describe('How long a promoted version is watched, and goes back by itself: 60 where it is left out; 0: never.'),
});

const adaptation = z
  .strictObject({
    tapt: z
      .boolean()
      .default(false)
      .describe('Adapt the base model to the unlabelled texts first; kept where the loss of held-out texts falls.'),
    passes: z.number().min(0.1).max(100).default(3).describe('tapt: over the unlabelled texts, where time suffices.'),
    budgetShare: z.number().min(0.01).max(0.8).default(0.3).describe('tapt: of budgetSeconds, at most.'),
    auxiliary: probability
      .default(0)
      .describe("pet: weight of a masked-language-modelling loss on unlabelled texts (PET's own: 0.0001); 0: none."),
  })
  .describe('What training learns from unlabelled texts besides pseudo-labels; left out: nothing.');

const agreement = z
  .strictObject({ share: probability.describe('Of the questions; which, is drawn at random.') })
  .describe('Questions that two labelers are asked, so that it is known how far they agree; left out: none.');

const learning = z.strictObject({
  prior: z.enum(['uniform', 'estimated']).default('estimated').describe('What zero-shot offsets and quotas aim at.'),
  strategies: z
    .array(z.enum(STRATEGIES))
    .min(1)
    .default(['plain', 'r-drop'])
    .describe('Training strategies of the teachers, in turn; parts joined by + are used together.'),
  teachers: z
    .enum(['in-turn', 'product'])
    .default('in-turn')
    .describe('pet: strategies in turn over the templates, or every strategy with every template.'),
  seeds: z.int().min(1).max(10).default(1).describe('Teachers of each method, template and strategy, drawn otherwise.'),
  selection: selection.prefault({}),
  trigger: trigger.prefault({}),
  rounds: z
    .int()
    .min(1)
    .max(10)
    .default(1)
    .describe('Rounds of self-training: from the second on, teachers also learn the pseudo-labels so far.'),
  unlabelled: z
    .int()
    .min(100)
    .max(50_000)
    .optional()
    .describe(
      'Unlabelled texts that a run gets, the reservoir first: any may be a pseudo-label. Left out: 3,000, and at most 2,000 of them.',
    ),
  student: student.prefault({}),
  adaptation: adaptation.optional(),
  agreement: agreement.optional(),
  budgetSeconds: z.number().min(10).max(86_400).default(240).describe('What a training run may take.'),
  promotion: promotion.prefault({}),
});

export const taskFile = z
  .strictObject({
    name: z.string().regex(/^[a-z0-9-]{1,63}$/u, 'lower-case letters, digits and hyphens, at most 63'),
    kind: z.enum(['single-label', 'multi-label', 'sentence-pair', 'multiple-choice']),
    method: z
      .union([method, z.array(method).min(1)])
      .default('pet')
      .describe('A list makes a committee of several. Only pet answers before the first training run.'),
    labels: z.array(label).max(1000).default([]).describe('None for multiple-choice: the choices are the labels.'),
    templates: z
      .array(z.string().min(1).max(2000))
      .max(50)
      .default([])
      .describe('PET, and needed for it alone: {mask} and fields in braces.'),
    input: z
      .string()
      .min(1)
      .max(2000)
      .optional()
      .describe(
        'fine-tune, efl, embedding: what they see, fields in braces and {sep} between two segments; absent: {text}, or {text}{sep}{textPair}.',
      ),
    efl: z
      .strictObject({
        negatives: z.int().min(1).max(8).default(3).describe('Random negatives for each example.'),
        negativeLabel: z
          .string()
          .min(1)
          .nullable()
          .default(null)
          .describe(
            'sentence-pair: the label of two sentences drawn at random; null: they have none, and none are drawn.',
          ),
        shortlist: z
          .int()
          .min(1)
          .default(16)
          .describe('Of more labels than that, a text is compared with the descriptions of the likeliest alone.'),
      })
      .prefault({}),
    maxLength: z
      .int()
      .min(8)
      .max(4096)
      .default(128)
      .describe(
        'Tokens, special ones included. A longer text is cut at its end, or around what it holds of the item’s fields that the template names.',
      ),
    routing: z
      .strictObject({
        accept: probability.default(0.85).describe('Least confidence of an answer that no person reviews.'),
        reviewContested: z.boolean().default(true),
        beforeCalibration: z.enum(['review', 'accept']).default('review'),
      })
      .prefault({})
      .describe('Of the newest revision, whichever version answers.'),
    serving: z
      .strictObject({
        policy: z
          .enum(['ensemble', 'student', 'cascade'])
          .default('ensemble')
          .describe('Of the newest revision, whichever version answers.'),
        precisions: z
          .array(z.enum(['fp32', 'fp16', 'int8']))
          .refine((list) => list.includes('fp32'), 'must have fp32, which the others are compared with')
          .default(['fp32', 'int8'])
          .describe('What a trained version may be served in; int8 is for CPUs, fp16 for GPUs.'),
        minAgreement: probability
          .default(0.99)
          .describe('Share of at least 2,000 texts whose label in another precision must be that in fp32.'),
        minLabelAgreement: probability.default(0.97).describe('The same of the texts of any label, from 100 texts on.'),
      })
      .prefault({}),
    pool: z
      .strictObject({ capacity: z.int().min(1).default(200_000), auditRate: probability.default(0.01) })
      .prefault({}),
    learning: learning.prefault({}),
    retention: z
      .strictObject({
        days: z.number().min(1).max(36_500).describe('After so many, texts that nobody labelled are erased.'),
      })
      .optional()
      .describe(
        'How long texts are kept; left out: the history as FEWLOOP_HISTORY_DAYS and _RECORDS say, the pool by its capacity.',
      ),
    stream: z
      .strictObject({
        input: z.string().min(1).max(249).default('fewloop.texts'),
        output: z.string().min(1).max(249).default('fewloop.predictions'),
      })
      .prefault({}),
  })
  .describe('A Fewloop task file (YAML or JSON).');

/** JSON Schema (2020-12) of a task file as a person writes it: what has a default may be left out. */
export function taskJsonSchema(): Record<string, unknown> {
  return { title: 'Fewloop task file', ...z.toJSONSchema(taskFile, { io: 'input' }) };
}

/** The keys that may stand at `path` of a task file. */
export function knownKeys(path: PropertyKey[]): string[] {
  let node: Record<string, unknown> | undefined = taskJsonSchema();
  for (const step of path) {
    const next: unknown =
      typeof step === 'number'
        ? node?.['items']
        : (node?.['properties'] as Record<string, unknown> | undefined)?.[String(step)];
    node = objectSchema(next);
  }
  return Object.keys((node?.['properties'] as Record<string, unknown> | undefined) ?? {});
}

function objectSchema(node: unknown): Record<string, unknown> | undefined {
  if (typeof node !== 'object' || node === null) return undefined;
  const schema = node as Record<string, unknown>;
  const variants = schema['anyOf'] as Record<string, unknown>[] | undefined;
  return variants?.find((v) => 'properties' in v) ?? schema;
}

function isCron(expression: string): boolean {
  try {
    CronExpressionParser.parse(expression);
    return true;
  } catch {
    return false;
  }
}
