/**
 * The service's query strategies, asked by run.py: a JSON document a line. The first has the texts' embeddings; each
 * further one is a question and is answered by the indices to ask about, in order.
 */
import { registerHooks } from 'node:module';
import { createInterface } from 'node:readline';
import type { Point } from '../../src/learning/diverse.ts';
import type { QueryStrategyName } from '../../src/learning/query-strategies.ts';

// The sources name each other as they are after the build.
registerHooks({
  resolve: (specifier, context, next) => next(specifier.replace(/^(\..*)\.js$/u, '$1.ts'), context),
});

const { diverseOrder } = await import('../../src/learning/diverse.js');
const { orderOf } = await import('../../src/learning/query-strategies.js');

/** As in diverse-questions.ts, which cannot be loaded without a service. */
const DIVERSE_AMONG = 128;
const SAMPLED = 2 * DIVERSE_AMONG;

interface Question {
  strategy: QueryStrategyName;
  /** Nothing is labelled yet. */
  cold: boolean;
  /** Indices of what is not labelled, in random order. */
  left: number[];
  /** Of every text, by its index. */
  columns: Record<'confidence' | 'margin' | 'entropy' | 'voteEntropy' | 'jensenShannon', number[]>;
  /** What each is predicted to be. */
  labels: string[];
}

let embeddings: Float32Array[] | undefined;

function orderBy(strategy: QueryStrategyName, { left, columns }: Question): number[] {
  const keys = orderOf(strategy)!.map(({ column, direction }) => ({
    values: (columns as Record<string, number[]>)[column]!,
    sign: direction === 'ASC' ? 1 : -1,
  }));
  return left.toSorted((a, b) => {
    for (const { values, sign } of keys) if (values[a] !== values[b]) return sign * (values[a]! - values[b]!);
    return 0;
  });
}

function answer(question: Question): number[] {
  const { strategy, cold, left, columns, labels } = question;
  if (strategy !== 'DIVERSE') return orderBy(strategy, question);
  const among = cold ? left.slice(0, SAMPLED) : orderBy('BREAKING_TIES', question).slice(0, DIVERSE_AMONG);
  const points = among.map((i): Point => ({
    embedding: embeddings![i]!,
    uncertainty: 1 - Math.min(1, Math.max(0, columns.margin[i]!)),
    label: labels[i]!,
  }));
  return [...diverseOrder(points, { byLabel: cold })].map((i) => among[i]!);
}

for await (const line of createInterface({ input: process.stdin })) {
  const document = JSON.parse(line) as Question | { embeddings: number[][] };
  if ('embeddings' in document) embeddings = document.embeddings.map((row) => Float32Array.from(row));
  else process.stdout.write(`${JSON.stringify(answer(document))}\n`);
}
