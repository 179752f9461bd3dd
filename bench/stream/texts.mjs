/** Texts to score: shop reviews and news titles by turns, all distinct, the same for the same folder; and their token ids. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'csv-parse/sync';
import { Tokenizer } from 'tokenizers';

const SHORTEST = 4;

/** `count` of them, without line feeds. Where there are fewer in the folder, one that comes again gets a number. */
export function readTexts(folder, count) {
  const csv = { columns: true, bom: true, relax_quotes: true };
  const reviews = parse(readFileSync(join(folder, 'reviews/online_shopping_10_cats.csv'), 'utf8'), csv);
  const titles = readFileSync(join(folder, 'fewclue/tnews/unlabeled.json'), 'utf8').split('\n').filter(Boolean);
  const sets = [reviews.map(({ review }) => review ?? ''), titles.map((line) => JSON.parse(line).sentence)].map(distinct);
  return Array.from({ length: count }, (_, i) => {
    const set = sets[i % sets.length];
    const at = Math.floor(i / sets.length);
    const again = Math.floor(at / set.length);
    return again === 0 ? set[at] : `${again}，${set[at % set.length]}`;
  });
}

/** The texts in the task's template, cut as the service cuts them: ids a row, where the mask is, the label words' ids. */
export async function tokenize(model, task, texts) {
  const tokenizer = Tokenizer.fromString(readFileSync(join(model, 'tokenizer.json'), 'utf8'));
  tokenizer.disableTruncation();
  tokenizer.disablePadding();
  const idsOf = async (all) => {
    const encodings = await tokenizer.encodeBatch(all, { addSpecialTokens: false });
    return encodings.map((encoding) => encoding.getIds());
  };
  const special = (token) => tokenizer.tokenToId(token);
  const [before, after] = task.templates[0].replace('{text}', '').split('{mask}');
  const [first, second] = await idsOf([before, after]);
  const head = [special('[CLS]'), ...first, special('[MASK]'), ...second];
  const room = task.maxLength - head.length - 1;
  return {
    rows: (await idsOf(texts)).map((ids) => [...head, ...ids.slice(0, room), special('[SEP]')]),
    maskPosition: 1 + first.length,
    words: task.labels.map(({ words }) => special(words[0])),
  };
}

function distinct(texts) {
  const lines = texts.map((text) => text.replaceAll(/\s+/gu, ' ').trim());
  return [...new Set(lines)].filter((text) => text.length >= SHORTEST);
}
