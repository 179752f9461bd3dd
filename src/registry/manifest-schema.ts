/** The shape of `manifest.json` and `golden.json`, checked; what relates files to each other is for bundle.ts. */
import { z } from 'zod';
import { RENDERING } from './manifest.js';

const sha256 = z.string().regex(/^[0-9a-f]{64}$/u, 'is no SHA-256 in hex');
const bundleFile = z.object({ file: z.string().min(1), sha256 });
const calibration = z.object({ temperature: z.number().positive().finite(), calibrated: z.boolean() });

const furtherPrecision = z.enum(['fp16', 'int8']);

const graph = bundleFile.extend({
  id: z.string().min(1),
  kind: z.enum(['pet', 'classifier']),
  precision: z.literal('fp32'),
  variants: z.array(bundleFile.extend({ precision: furtherPrecision })).optional(),
  base: z.boolean(),
});

const role = z.enum(['teacher', 'student']);

const member = z.object({
  id: z.string().min(1),
  role,
  method: z.enum(['pet', 'efl', 'embedding', 'fine-tune']),
  graph: z.string(),
  template: z.string(),
  labelWords: z.record(z.string(), z.array(z.string().min(1)).min(1)),
  hypotheses: z.record(z.string(), z.string().min(1)).optional(),
  shortlist: z.object({ size: z.int().positive(), embeddings: bundleFile }).optional(),
  strategy: z.string(),
  weight: z.number().min(0).finite(),
  offsets: z.record(z.string(), z.number().finite()),
  teachers: z.array(z.string()).optional(),
});

export const manifestSchema = z.object({
  formatVersion: z.number(),
  task: z.string(),
  version: z.int().positive(),
  taskRevision: z.int().positive(),
  definitionDigest: sha256,
  definition: z.looseObject({}),
  rendering: z.literal(RENDERING).optional(),
  origin: z.string(),
  createdAt: z.string(),
  graphs: z.array(graph).min(1),
  precisions: z
    .array(
      z.looseObject({
        precision: furtherPrecision,
        admitted: z.boolean(),
        roles: z.array(role).optional(),
        reason: z.string().nullable(),
      }),
    )
    .optional(),
  members: z.array(member).min(1),
  policies: z.object({
    ensemble: calibration.optional(),
    student: calibration.optional(),
    cascade: calibration.optional(),
  }),
  thresholds: z.record(z.string(), z.number().min(0).max(1)).optional(),
  tokenizer: bundleFile,
  golden: bundleFile,
  report: bundleFile,
  baseModel: z.object({ name: z.string(), digest: sha256 }),
  trainingData: z
    .object({
      labelledDigest: sha256,
      labelled: z.int().min(0),
      unlabelledDigest: sha256,
      pseudoLabelled: z.int().min(0),
    })
    .nullable(),
  libraries: z.record(z.string(), z.string()),
});

const ids = z.array(z.int().min(0));

/** Label → vector. */
export const shortlistSchema = z.record(z.string(), z.array(z.number().finite()).min(1));

export const goldenSchema = z.object({
  rows: z
    .array(
      z.object({
        item: z.object({
          text: z.string(),
          textPair: z.string().optional(),
          choices: z.array(z.string()).optional(),
          fields: z.record(z.string(), z.unknown()).optional(),
        }),
        members: z
          .array(
            z.object({
              member: z.string(),
              ids: ids.min(1),
              typeIds: ids,
              maskPositions: ids,
              distribution: z.array(z.number()),
              rows: z.array(z.object({ ids: ids.min(1), typeIds: ids })).optional(),
            }),
          )
          .min(1),
      }),
    )
    .min(1),
});
