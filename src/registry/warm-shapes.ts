/** What a GPU prepares for each shape of a batch, it prepares before the first request. */
import { Logger } from '@nestjs/common';
import { groupOf } from '../inference/batch.js';
import { layOut, questionOf, textsOfQuestion } from '../inference/question.js';
import { fixedShapes } from '../inference/shapes.js';
import { Vocabulary } from '../inference/tokenize.js';
import type { HostBatch, ServedModel } from '../inference/types.js';
import { goldenItems } from './golden-items.js';
import { blankBatch } from './measurements.js';

const log = new Logger('WarmShapes');

/** Every shape that batches of the model will have, on each of its `hosts`: idle ones take a batch each. */
export async function warmShapes(model: ServedModel, hosts: number, maxBatchTokens: number): Promise<void> {
  const shapes = fixedShapes(maxBatchTokens, model.definition.maxLength);
  const graphs = await graphsOf(model);
  const startedMs = performance.now();
  for (const { rows, length } of shapes) {
    for (const { graph, masks, words } of graphs) {
      const batch = blankBatch(graph, rows, length, { masks, words });
      await Promise.all(Array.from({ length: hosts }, () => model.runner.run(batch)));
    }
  }
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  log.log(`${shapes.length} shapes of batches up to ${maxBatchTokens} tokens are warm after ${seconds} s`);
}

/**
 * The model's graphs, each with the masks and label words that its members have. Choices are the items' own: there it is
 * those of a golden text.
 */
async function graphsOf(model: ServedModel): Promise<Pick<HostBatch, 'graph' | 'masks' | 'words'>[]> {
  const [item] = goldenItems(model.definition);
  const questions = model.members.map((member) => questionOf(model, member, item!));
  const vocabulary = new Vocabulary(model.tokenizer);
  await vocabulary.learn(questions.flatMap((question) => textsOfQuestion(question, [0])));
  const rows = questions.flatMap((question) => layOut(model, question, [0], vocabulary));
  return [...Map.groupBy(rows, groupOf).values()].map(([row]) => {
    const { graph, words } = row!;
    return { graph, masks: words[0]?.length ?? 0, words: words.length };
  });
}
