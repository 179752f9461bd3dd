import { expect, it, vi } from 'vitest';
import type { InferenceEngine } from '../inference/engine.js';
import type { Member, ServedModel } from '../inference/types.js';
import type { ActivationService } from '../registry/activation.js';
import type { ExamplesRepository } from '../storage/examples.repository.js';
import type { QuestionGlance, QuestionsRepository } from '../storage/questions.repository.js';
import type { Item, ServingPolicy, TaskDefinition } from '../task/types.js';
import { DiverseQuestions } from './diverse-questions.js';

/** Two alike and one that is not, by what a policy's encoder makes of them. */
const EMBEDDINGS: Record<string, Record<string, number[]>> = {
  ensemble: { 甲: [1, 0], 乙: [1, 0], 丙: [0, 1] },
  student: { 甲: [1, 0], 乙: [0, 1], 丙: [1, 0] },
};
const rows = ['甲', '乙', '丙'].map(
  (text, i) => ({ id: text, itemKey: text, text, margin: i / 100 }) as QuestionGlance,
);

it('compares texts by the encoder of the policy that answers now', async () => {
  let policy: ServingPolicy = 'ensemble';
  const current = async () => {
    const definition = { serving: { policy } } as TaskDefinition;
    const members = [{ role: 'teacher' }, { role: 'student' }] as Member[];
    return { model: { task: 'a', version: 1, definition, members } as ServedModel, bytes: () => 0, release: vi.fn() };
  };
  const embeddings = vi.fn(async (_model: ServedModel, items: Item[]) =>
    items.map(({ text }) => Float32Array.from(EMBEDDINGS[policy]![text]!)),
  );
  const questions = new DiverseQuestions(
    {
      glances: async () => rows,
      stillChosen: async (_task: string, ids: string[]) => ids.map((id) => ({ id })),
    } as unknown as QuestionsRepository,
    { hasTrain: async () => true, taughtSince: async () => [] } as unknown as ExamplesRepository,
    { current } as unknown as ActivationService,
    { embeddings } as unknown as InferenceEngine,
  );
  const asked = async () => (await questions.list('a', { by: 'x', filter: {} }, null, 2)).map(({ row }) => row.id);
  expect(await asked()).toEqual(['甲', '丙']);
  expect(await asked()).toEqual(['甲', '丙']);
  expect(embeddings).toHaveBeenCalledTimes(1);
  policy = 'student';
  expect(await asked()).toEqual(['甲', '乙']);
});
