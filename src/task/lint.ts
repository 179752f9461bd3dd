/**
 * The linter: what a task file's own schema cannot see, mostly because it takes a tokenizer to see it.
 * Errors refuse the task; warnings are for its author to read. Finds everything in one go and throws nothing.
 */
import { suggest } from './suggest.js';
import { parseTemplate, templateFields, templateSyntaxError, type Piece } from './template.js';
import { DEAD_LETTERS, deadLetterTopic, EVENTS_TOPIC, isTopicName } from './topics.js';
import type { TaskDefinition } from './types.js';

export interface LintFinding {
  severity: 'error' | 'warning';
  /** Path in the task file. */
  field: string;
  message: string;
}

/** What the linter needs of a tokenizer: ids of plain text without special tokens. */
export interface Speller {
  encode(texts: string[]): Promise<number[][]>;
  tokenToId(token: string): number | undefined;
}

/** Mean probability of each label under one template, before any prior matching. */
export interface MeasuredPrior {
  template: string;
  means: Record<string, number>;
  /** Unlabelled texts that it is the mean over; 0: what the template gives an empty text. */
  texts: number;
}

/** Under this share of a uniform label's probability a label can hardly win without prior matching. */
const HARDLY_WINS = 0.1;
/** [CLS], and a [SEP] after each of the two. */
const PAIR_TOKENS = 3;
/** Fewer tokens than these left for the text is no template at all. */
const LEAST_TEXT_TOKENS = 4;

/**
 * `maxModelLength`: positions that the base model has. `measured`: where given, skewed priors are reported too.
 */
export async function lintTask(
  definition: TaskDefinition,
  tokenizer: Speller,
  maxModelLength: number,
  measured: MeasuredPrior[] = [],
): Promise<LintFinding[]> {
  const findings: LintFinding[] = [];
  const error = (field: string, message: string) => findings.push({ severity: 'error', field, message });
  const warning = (field: string, message: string) => findings.push({ severity: 'warning', field, message });

  if (definition.maxLength > maxModelLength) {
    error('maxLength', `${definition.maxLength} tokens; the base model takes ${maxModelLength}`);
  }
  if (definition.kind !== 'multiple-choice' && definition.labels.length < 2) {
    error('labels', 'one label is nothing to decide between; at least two are needed');
  }
  lintTopics(definition, error);
  const inputTokens = await lintInput(definition, tokenizer, error, warning);
  if (definition.method.includes('efl') && definition.kind !== 'sentence-pair') {
    await lintDescriptions(definition, inputTokens, tokenizer, error, warning);
  }
  if (!definition.method.includes('pet')) return findings;
  const masks = await lintWords(definition, tokenizer, error, warning);
  await lintTemplates(definition, tokenizer, masks, error, warning);
  lintPriors(definition, measured, warning);
  return findings;
}

type Report = (field: string, message: string) => void;

/** Whether Kafka takes the names, and nothing that the service writes comes back as a text. */
function lintTopics({ stream: { input, output } }: TaskDefinition, error: Report): void {
  for (const [field, topic] of [
    ['stream.input', input],
    ['stream.output', output],
  ] as const) {
    if (!isTopicName(topic)) {
      error(field, `"${topic}" is no name for a topic: take letters (a-z, A-Z), digits, dots, hyphens and underscores`);
    }
    if (topic === EVENTS_TOPIC) error(field, `${EVENTS_TOPIC} is where lifecycle events go; name another topic`);
    if (topic.endsWith(DEAD_LETTERS)) {
      error(field, `ends in ${DEAD_LETTERS}, as topics do where records go that cannot be scored; name another one`);
    }
  }
  if (isTopicName(input) && !isTopicName(deadLetterTopic(input))) {
    error(
      'stream.input',
      `is ${input.length} characters long; its ${DEAD_LETTERS} topic needs a shorter name, at most 245`,
    );
  }
  if (input === output)
    error('stream.output', 'is the input too, where predictions would be texts; name another topic');
}

/**
 * Looked at even where no method reads it yet: a mistake is not to wait for the one that does. Returns the tokens that it
 * takes itself, besides [CLS] and the last [SEP].
 */
async function lintInput(
  definition: TaskDefinition,
  tokenizer: Speller,
  error: Report,
  warning: Report,
): Promise<number> {
  const { input, kind, method } = definition;
  if (input === undefined) return 0;
  const syntax = templateSyntaxError(input);
  if (syntax !== null) {
    error('input', syntax);
    return 0;
  }
  const pieces = parseTemplate(input);
  if (pieces.some((piece) => piece.kind === 'mask' || (piece.kind === 'field' && piece.blank !== null))) {
    error('input', "has a place for a label word; those are for PET's templates");
  }
  if (pieces.some((piece) => piece.kind === 'hypothesis')) {
    error('input', 'holds {hypothesis}; efl adds it itself');
  }
  const separators = pieces.filter((piece) => piece.kind === 'sep').length;
  if (kind === 'sentence-pair' && method.includes('embedding') && !dividesInTwo(pieces)) {
    error('input', 'needs one {sep} with a field on either side: embedding compares what stands there');
  }
  lintFields(definition, input, 'input', error, warning);
  const literals = pieces.flatMap((piece) => (piece.kind === 'literal' ? [piece.text] : []));
  return (await lintRoom(definition, 2 + separators, literals, 'input', tokenizer, error, warning)) - 2;
}

function dividesInTwo(pieces: Piece[]): boolean {
  const at = pieces.findIndex((piece) => piece.kind === 'sep');
  const holdsField = (part: Piece[]) => part.some((piece) => piece.kind === 'field');
  const rest = pieces.slice(at + 1);
  return at > 0 && !rest.some((piece) => piece.kind === 'sep') && holdsField(pieces.slice(0, at)) && holdsField(rest);
}

/** What a template holds besides fields must leave some tokens for them; returns it. `special`: what is no literal's. */
async function lintRoom(
  { maxLength }: TaskDefinition,
  special: number,
  literals: string[],
  field: string,
  tokenizer: Speller,
  error: Report,
  warning: Report,
): Promise<number> {
  const tokens = await tokenizer.encode(literals);
  const fixed = special + tokens.reduce((sum, ids) => sum + ids.length, 0);
  if (fixed + LEAST_TEXT_TOKENS > maxLength) {
    error(field, `takes ${fixed} of maxLength ${maxLength} tokens itself, which leaves none for the text`);
  }
  const unknown = tokenizer.tokenToId('[UNK]');
  if (unknown !== undefined && tokens.flat().includes(unknown)) {
    warning(field, 'holds characters that the tokenizer does not know');
  }
  return fixed;
}

/** Each is shown beside the text, whole: what is too long, or says the same as another, tells nothing. */
async function lintDescriptions(
  { labels, maxLength }: TaskDefinition,
  inputTokens: number,
  tokenizer: Speller,
  error: Report,
  warning: Report,
): Promise<void> {
  const described = labels.map(({ description = '' }) => description);
  const unknown = tokenizer.tokenToId('[UNK]');
  for (const [i, ids] of (await tokenizer.encode(described)).entries()) {
    const field = `labels.${i}.description`;
    const fixed = PAIR_TOKENS + inputTokens + ids.length;
    if (ids.length === 0) error(field, 'is empty');
    else if (fixed + LEAST_TEXT_TOKENS > maxLength) {
      error(field, `takes ${fixed} of maxLength ${maxLength} tokens itself, which leaves none for the text`);
    }
    const first = described.indexOf(described[i]!);
    if (first < i) error(field, `is that of "${labels[first]!.name}" too: neither could be told from the other`);
    if (unknown !== undefined && ids.includes(unknown)) {
      warning(field, 'holds characters that the tokenizer does not know');
    }
  }
}

/** Returns the tokens of a label word. */
async function lintWords(
  definition: TaskDefinition,
  tokenizer: Speller,
  error: Report,
  warning: Report,
): Promise<number> {
  if (definition.kind === 'multiple-choice') return 1;
  const words = definition.labels.flatMap((label, i) =>
    label.words.map((word, j) => ({ word, label: label.name, field: `labels.${i}.words.${j}` })),
  );
  definition.labels.forEach((label, i) => {
    if (label.words.length === 0) error(`labels.${i}.words`, `PET needs at least one word for "${label.name}"`);
  });
  const tokens = await tokenizer.encode(words.map((entry) => entry.word));
  const unknown = tokenizer.tokenToId('[UNK]');
  const seen = new Map<string, (typeof words)[number]>();
  const spelled: { word: string; field: string; count: number }[] = [];
  words.forEach((entry, i) => {
    const ids = tokens[i] ?? [];
    if (ids.length === 0 || (unknown !== undefined && ids.includes(unknown))) {
      error(entry.field, `the tokenizer cannot spell "${entry.word}"`);
      return;
    }
    const same = seen.get(ids.join());
    if (same === undefined) seen.set(ids.join(), entry);
    else if (same.label === entry.label) warning(entry.field, `"${entry.word}" is there twice`);
    else error(entry.field, `"${entry.word}" is a word of "${same.label}" too: neither could be told from the other`);
    spelled.push({ word: entry.word, field: entry.field, count: ids.length });
  });
  const first = spelled[0];
  const odd = spelled.find((entry) => entry.count !== first?.count);
  if (first && odd) {
    error(odd.field, `"${odd.word}" is ${odd.count} tokens and "${first.word}" ${first.count}: all words need as many`);
  }
  return first?.count ?? 1;
}

async function lintTemplates(
  definition: TaskDefinition,
  tokenizer: Speller,
  masks: number,
  error: Report,
  warning: Report,
): Promise<void> {
  if (definition.templates.length === 0) error('templates', 'PET needs at least one template');
  for (const [i, template] of definition.templates.entries()) {
    const field = `templates.${i}`;
    const syntax = templateSyntaxError(template);
    if (syntax !== null) {
      error(field, syntax);
      continue;
    }
    if (definition.templates.indexOf(template) < i) error(field, 'is there twice');
    const pieces = parseTemplate(template);
    const places = pieces.filter((p) => p.kind === 'mask' || (p.kind === 'field' && p.blank !== null)).length;
    if (places === 0) error(field, 'has no {mask} where a label word would stand');
    if (places > 1) error(field, `has ${places} places for the label word; one is needed`);
    lintFields(definition, template, field, error, warning);
    const literals = pieces.flatMap((piece) => (piece.kind === 'literal' ? [piece.text] : []));
    await lintRoom(definition, 2 + masks, literals, field, tokenizer, error, warning);
  }
}

function lintFields({ kind }: TaskDefinition, template: string, field: string, error: Report, warning: Report): void {
  const fields = templateFields(template);
  const own = kind === 'single-label' || kind === 'multi-label' ? ['text'] : ['text', 'textPair'];
  if (fields.length === 0) error(field, 'has no {text}');
  for (const { name } of fields) {
    if (own.includes(name)) continue;
    const near = suggest(name, [...own, 'mask']);
    if (name === 'textPair') error(field, `{textPair} is no field of a ${kind} task`);
    else if (near !== null) error(field, `{${name}} is no field; did you mean {${near}}?`);
    else warning(field, `{${name}} is neither of ${own.join(', ')}: every item must bring it in \`fields\``);
  }
  for (const name of kind === 'sentence-pair' ? own : []) {
    if (!fields.some((f) => f.name === name)) warning(field, `does not show {${name}}`);
  }
}

/** One finding a template: where one word is likely, all others are not. */
function lintPriors(definition: TaskDefinition, measured: MeasuredPrior[], warning: Report): void {
  const labels = definition.labels.map((label) => label.name);
  for (const { template, means, texts } of measured) {
    const unlikely = labels.filter((label) => (means[label] ?? 1) < HARDLY_WINS / labels.length);
    if (unlikely.length === 0) continue;
    const shares = unlikely.map((label) => `"${label}" ${(means[label]! * 100).toPrecision(2)} %`).join(', ');
    const on = texts > 0 ? `on average over ${texts} texts` : 'for an empty text';
    warning(
      `templates.${definition.templates.indexOf(template)}`,
      `gives ${shares} ${on}: without prior matching that could hardly win; other words may be worth trying`,
    );
  }
}
