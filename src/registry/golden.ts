/**
 * Golden texts: what whoever built the bundle computed, computed again on this machine through the very path that
 * serves. One difference of rendering, tokenizing or arithmetic is an error at load, not a worse model in production.
 */
import { FewloopError } from '../common/errors.js';
import type { InferenceEngine } from '../inference/engine.js';
import { encodingsOf, NoNumber, offsetsOf, type ItemScores } from '../inference/pipeline.js';
import { memberDistribution } from '../inference/score.js';
import type { Member, ServedModel } from '../inference/types.js';
import type { Item, Precision } from '../task/types.js';
import { invalid } from './bundle.js';
import type { GoldenFile, GoldenRow } from './manifest.js';

/** Largest difference of a probability (CONTRACT). */
const TOLERANCE: Record<Precision, number> = { fp32: 1e-4, fp16: 5e-3, int8: 5e-2 };

/** Throws BUNDLE_INVALID, naming the text, the member and what differs. `precisionOf`: what a member's graph is in. */
export async function verifyGolden(
  engine: InferenceEngine,
  model: ServedModel,
  golden: GoldenFile,
  precisionOf: (member: Member) => Precision = () => 'fp32',
): Promise<void> {
  const tolerances = new Map(model.members.map((member) => [member.id, TOLERANCE[precisionOf(member)]]));
  const items = golden.rows.map(({ item }) => item);
  const actual = await goldenOf(engine, model, items).catch((cause: unknown) => {
    if (cause instanceof NoNumber || (cause instanceof FewloopError && cause.code === 'BAD_INPUT'))
      throw invalid(`a golden text cannot be scored: ${cause.message}`, cause);
    throw cause;
  });
  golden.rows.forEach(({ members }, row) => {
    for (const expected of members) {
      const where = `golden text ${row + 1}, member ${expected.member}`;
      const computed = actual.rows[row]?.members.find(({ member }) => member === expected.member);
      if (!computed) throw invalid(`${where}: there is no such member`);
      for (const key of ['ids', 'typeIds', 'maskPositions'] as const) {
        if (!same(expected[key], computed[key])) throw invalid(`${where}: ${key} differ from those computed here`);
      }
      checkRows(expected.rows, computed.rows, where);
      const difference = distance(expected.distribution, computed.distribution);
      // Not `difference > tolerance`: a NaN is no agreement.
      if (!(difference <= tolerances.get(expected.member)!))
        throw invalid(`${where}: a probability differs by ${difference.toPrecision(3)}`);
    }
  });
}

/** One a label where the member has hypotheses; none otherwise. */
function checkRows(expected: GoldenRow[] | undefined, computed: GoldenRow[] | undefined, where: string): void {
  if (expected?.length !== computed?.length) {
    throw invalid(`${where}: it has ${expected?.length ?? 'no'} rows, here it has ${computed?.length ?? 'none'}`);
  }
  expected?.forEach(({ ids, typeIds }, i) => {
    const own = computed![i]!;
    if (!same(ids, own.ids)) throw invalid(`${where}, row ${i + 1}: ids differ from those computed here`);
    if (!same(typeIds, own.typeIds)) throw invalid(`${where}, row ${i + 1}: typeIds differ from those computed here`);
  });
}

/** `golden.json` as this machine computes it; distributions after offsets, before temperature. */
export async function goldenOf(engine: InferenceEngine, model: ServedModel, items: Item[]): Promise<GoldenFile> {
  const scored = await rawScores(engine, model, items);
  const rows = items.map(async (item, row) => {
    const { labels, members } = scored[row]!;
    return {
      item,
      members: await Promise.all(
        members.map(async ({ member, scores }, i) => {
          const own = model.members[i]!;
          const encodings = await encodingsOf(model, own, item);
          const { ids, typeIds, maskPositions } = encodings[0]!;
          const distribution = memberDistribution(model.definition.kind, scores, offsetsOf(own, labels));
          const entry = { member, ids, typeIds, maskPositions, distribution };
          const rendered = encodings.map((encoding): GoldenRow => ({ ids: encoding.ids, typeIds: encoding.typeIds }));
          return own.hypotheses ? { ...entry, rows: rendered } : entry;
        }),
      ),
    };
  });
  return { rows: await Promise.all(rows) };
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
