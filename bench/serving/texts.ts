/** Texts to serve: real ones from a folder, or made-up ones of like lengths where there is none; and their token ids. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parse } from 'csv-parse/sync';
import { Tokenizer } from 'tokenizers';
import task from './task.json' with { type: 'json' };

export type SetName = 'reviews' | 'titles' | 'mixed';
export const root = resolve(import.meta.dirname, '../..');

/** Shares of the mixed set: two usual lengths, and a long tail that the task's maxLength cuts. */
const MIXED = { reviews: 0.4, titles: 0.4, hotels: 0.15, apps: 0.05 };

/** `size` texts of each set, all distinct, the same for the same folder. */
export function readTexts(folder: string, size: number): Record<SetName, string[]> {
  const reviews = sample(csv(join(folder, 'reviews/online_shopping_10_cats.csv')), size);
  const titles = sample(jsonLines(join(folder, 'fewclue/tnews/unlabeled.json')), size);
  const hotels = sample(csv(join(folder, 'reviews/ChnSentiCorp_htl_all.csv')), size);
  const apps = sample(jsonLines(join(folder, 'fewclue/iflytek/unlabeled.json')), size);
  const share = (texts: string[], part: number) => texts.slice(0, Math.ceil(size * part));
  const mixed = [
    ...share(reviews, MIXED.reviews),
    ...share(titles, MIXED.titles),
    ...share(hotels, MIXED.hotels),
    ...share(apps, MIXED.apps),
  ];
  return { reviews, titles, mixed: sample(mixed, size) };
}

/** Distinct texts of the example's sentences, joined to lengths that vary as reviews' do: most short, few long. */
export function madeTexts(size: number): string[] {
  const sentences = readFileSync(join(root, 'examples/reviews/texts.txt'), 'utf8').split('\n').filter(Boolean);
  return Array.from({ length: size }, (_, i) => {
    const draw = (what: string) => parseInt(rank(`${what}${i}`).slice(0, 8), 16) / 2 ** 32;
    const parts = 1 + Math.floor(6 * draw('length') ** 3);
    const from = Math.floor(sentences.length * draw('from'));
    return `${i}，${Array.from({ length: parts }, (_, j) => sentences[(from + j) % sentences.length]).join('')}`;
  });
}

/** The texts in the task's template as ids, cut as the service cuts them; where its mask is; the label words' ids. */
export async function tokenize(model: string, texts: string[]) {
  const { idsOf, special } = openTokenizer(model);
  const [before = '', after = ''] = task.templates[0]!.replace('{text}', '').split('{mask}');
  const [first, second] = (await idsOf([before, after])) as [number[], number[]];
  const head = [special('[CLS]'), ...first, special('[MASK]'), ...second];
  const room = task.maxLength - head.length - 1;
  return {
    rows: (await idsOf(texts)).map((ids) => [...head, ...ids.slice(0, room), special('[SEP]')]),
    maskPosition: 1 + first.length,
    words: task.labels.map(({ words }) => special(words[0]!)),
  };
}

/** Pairs as ids, of `maxLength` at most: the first of each is cut, as it is everywhere where the second is the shorter. */
export async function tokenizePairs(model: string, pairs: [string, string][], maxLength: number) {
  const { idsOf, special } = openTokenizer(model);
  const separator = special('[SEP]');
  const seconds = await idsOf(pairs.map(([, second]) => second));
  const firsts = await idsOf(pairs.map(([first]) => first));
  const rows = firsts.map((ids, i) => {
    const rest = [separator, ...seconds[i]!, separator];
    return [special('[CLS]'), ...ids.slice(0, maxLength - 1 - rest.length), ...rest];
  });
  return { rows, separator };
}

function openTokenizer(model: string) {
  const tokenizer = Tokenizer.fromString(readFileSync(join(model, 'tokenizer.json'), 'utf8'));
  tokenizer.disableTruncation();
  tokenizer.disablePadding();
  return {
    special: (token: string) => tokenizer.tokenToId(token)!,
    async idsOf(texts: string[]): Promise<number[][]> {
      const encodings = await tokenizer.encodeBatch(texts, { addSpecialTokens: false });
      return encodings.map((encoding) => encoding.getIds());
    },
  };
}

function rank(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

function sample(texts: string[], size: number): string[] {
  const distinct = [...new Set(texts.map((text) => text.trim()).filter((text) => text.length > 3))];
  const ranked = distinct.map((text) => [rank(text), text] as const).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return ranked.slice(0, size).map(([, text]) => text);
}

function csv(file: string): string[] {
  const columns = { columns: true, bom: true, relax_quotes: true } as const;
  return (parse(readFileSync(file, 'utf8'), columns) as Record<string, string>[]).map((row) => row.review ?? '');
}

function jsonLines(file: string): string[] {
  const lines = readFileSync(file, 'utf8').split('\n').filter(Boolean);
  return lines.map((line) => (JSON.parse(line) as { sentence: string }).sentence);
}
