/**
 * Golden texts: what whoever built the bundle computed, computed again on this machine through the very path that
 * serves. One difference of rendering, tokenizing or arithmetic is an error at load, not a worse model in production.
 */
import { distributionOf } from '../inference/combine.js';
import type { InferenceEngine } from '../inference/engine.js';
import type { Encoding, ServedModel } from '../inference/types.js';
import { labelsOf } from '../task/item.js';
import { invalid } from './bundle.js';
import type { GoldenFile } from './manifest.js';

/** Largest difference of a probability, in fp32. */
const TOLERANCE = 1e-4;

/** Throws BUNDLE_INVALID, naming the text, the member and what differs. */
export async function verifyGolden(engine: InferenceEngine, model: ServedModel, golden: GoldenFile): Promise<void> {
  const actual = await goldenOf(
    engine,
    model,
    golden.rows.map(({ item }) => item),
  );
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
export async function goldenOf(
  engine: InferenceEngine,
  model: ServedModel,
  items: GoldenFile['rows'][number]['item'][],
): Promise<GoldenFile> {
  const scored = await engine.rawScores(model, items);
  return {
    rows: items.map((item, row) => ({
      item,
      members: model.members.map(({ id, offsets }) => {
        const { encoding, logits } = scored.get(id)![row] as { encoding: Encoding; logits: Float64Array };
        const ofLabels = labelsOf(model.definition, item).map((label) => offsets[label] ?? 0);
        const { ids, typeIds, maskPositions } = encoding;
        return { member: id, ids, typeIds, maskPositions, distribution: [...distributionOf(logits, ofLabels)] };
      }),
    })),
  };
}

function same(a: number[], b: number[]): boolean {
  return a.length === b.length && a.every((value, i) => value === b[i]);
}

function distance(a: number[], b: number[]): number {
  return a.length === b.length ? Math.max(...a.map((value, i) => Math.abs(value - b[i]!))) : Number.NaN;
}
