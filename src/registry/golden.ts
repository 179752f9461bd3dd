/**
 * Golden texts: what whoever built the bundle computed, computed again on this machine through the very path that
 * serves. One difference of rendering, tokenizing or arithmetic is an error at load, not a worse model in production.
 */
import { FewloopError } from '../common/errors.js';
import { distributionOf } from '../inference/combine.js';
import type { InferenceEngine } from '../inference/engine.js';
import { offsetsOf, type ItemScores } from '../inference/pipeline.js';
import type { ServedModel } from '../inference/types.js';
import type { Item } from '../task/types.js';
import { invalid } from './bundle.js';
import type { GoldenFile } from './manifest.js';

/** Largest difference of a probability, in fp32. */
const TOLERANCE = 1e-4;

/** Throws BUNDLE_INVALID, naming the text, the member and what differs. */
export async function verifyGolden(engine: InferenceEngine, model: ServedModel, golden: GoldenFile): Promise<void> {
  const items = golden.rows.map(({ item }) => item);
  const actual = await goldenOf(engine, model, items).catch((cause: unknown) => {
    if (!(cause instanceof FewloopError && cause.code === 'BAD_INPUT')) throw cause;
    throw invalid(`a golden text cannot be scored: ${cause.message}`, cause);
  });
  golden.rows.forEach(({ members }, row) => {
    for (const expected of members) {
      const where = `golden text ${row + 1}, member ${expected.member}`;
      const computed = actual.rows[row]?.members.find(({ member }) => member === expected.member);
      if (!computed) throw invalid(`${where}: there is no such member`);
      for (const key of ['ids', 'typeIds', 'maskPositions'] as const) {
        if (!same(expected[key], computed[key])) throw invalid(`${where}: ${key} differ from those computed here`);
      }
      const difference = distance(expected.distribution, computed.distribution);
      // Not `difference > TOLERANCE`: a NaN is no agreement.
      if (!(difference <= TOLERANCE)) throw invalid(`${where}: a probability differs by ${difference.toPrecision(3)}`);
    }
  });
}

/** `golden.json` as this machine computes it; distributions after offsets, before temperature. */
export async function goldenOf(engine: InferenceEngine, model: ServedModel, items: Item[]): Promise<GoldenFile> {
  const scored = await rawScores(engine, model, items);
  return {
    rows: items.map((item, row) => {
      const { labels, members } = scored[row]!;
      return {
        item,
        members: members.map(({ member, encoding: { ids, typeIds, maskPositions }, scores }, i) => {
          const distribution = distributionOf(scores, offsetsOf(model.members[i]!, labels));
          return { member, ids, typeIds, maskPositions, distribution };
        }),
      };
    }),
  };
}

/** What each member says of each item, where every item must be one that can be scored. */
export async function rawScores(
  engine: InferenceEngine,
  model: ServedModel,
  items: Item[],
): Promise<Extract<ItemScores, { ok: true }>[]> {
  const scored = await engine.rawScores(model, items);
  return scored.map((one) => {
    if (!one.ok) throw one.error;
    return one;
  });
}

function same(a: number[], b: number[]): boolean {
  return a.length === b.length && a.every((value, i) => value === b[i]);
}

function distance(a: number[], b: number[]): number {
  return a.length === b.length ? Math.max(...a.map((value, i) => Math.abs(value - b[i]!))) : Number.NaN;
}
