/**
 * Review in the terminal: a key a label. Where a text may have several, keys put labels on and take them off, and enter
 * is the answer. `/` takes a label by its name: where there are more of them than keys, the most probable have the keys.
 * Without a terminal a line holds the keys of one answer and names (`1 /name`), or `s` and the reason of a skip; one that
 * is no answer ends the command, for what follows it would answer other texts than it was written for.
 * Questions are leased, so that two who label at once are not asked the same.
 */
import type { Command } from 'commander';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { Failure, type Client } from '../client.js';
import { above0, contextOf, oneOf } from '../context.js';
import { print, printJson, say } from '../output.js';

const SKIP = 's';
const UNDO = 'u';
const QUIT = 'q';
const NAME = '/';
const ENTER = '\r';
const CTRL_C = '\u0003';
const CTRL_D = '\u0004';
const BACKSPACE = ['\u007f', '\b'];
const KEYS = Array.from('1234567890abcdefghijklmnoprtvwxyz');
const PAGE = 10;
export const STRATEGIES = [
  'LEAST_CONFIDENCE',
  'BREAKING_TIES',
  'ENTROPY',
  'VOTE_ENTROPY',
  'BALD',
  'DIVERSE',
  'RANDOM_AUDIT',
] as const;

/** Counting goes no further. */
const COUNTED = 1000;

const TASK = 'query ($name: String!) { task(name: $name) { kind labels } }';
const QUESTION = `id text textPair choices duplicates reason presentLabels
  prediction { confidence disagreement { dissenting voters } distribution { label probability } }`;
const LEASE = `mutation ($task: String!, $first: Int!, $strategy: QueryStrategy, $filter: QuestionFilter) {
  leaseQuestions(task: $task, first: $first, strategy: $strategy, filter: $filter) { totalCount questions { ${QUESTION} } }
}`;
const RELEASE = 'mutation ($task: String!) { releaseQuestions(task: $task) }';
const LABEL =
  'mutation ($candidate: ID!, $labels: [String!]!) { label(candidate: $candidate, labels: $labels) { id } }';
const SKIPPED = 'mutation ($candidate: ID!, $reason: String) { skip(candidate: $candidate, reason: $reason) { id } }';
const UNDONE = `mutation ($task: String!) { undoAnswer(task: $task) { ${QUESTION} } }`;

interface Task {
  kind: string;
  labels: string[];
}

interface Question {
  id: string;
  text: string;
  textPair: string | null;
  choices: string[] | null;
  duplicates: number;
  reason: string;
  presentLabels: string[] | null;
  prediction: {
    confidence: number;
    disagreement: { dissenting: number; voters: number } | null;
    distribution: Distribution;
  };
}

type Distribution = { label: string; probability: number }[];

interface Leased {
  leaseQuestions: { totalCount: number; questions: Question[] };
}

interface Options {
  strategy?: string;
  contested?: boolean;
  label?: string;
  priority?: number;
}

export function labelCommand(program: Command): void {
  program
    .command('label <task>')
    .description('answer the review queue, a key per label')
    .option('--strategy <name>', STRATEGIES.join(', '), oneOf(STRATEGIES))
    .option('--contested', 'of what a strategy chooses, only texts on which the members differ')
    .option('--label <name>', 'of what a strategy chooses, only texts that are predicted to be that')
    .option('--priority <least>', 'only questions that are asked again, with that priority or more', above0)
    .action(label);
}

async function label(task: string, options: Options, command: Command): Promise<void> {
  const { strategy, priority: minPriority, ...rest } = options;
  const filter = { ...rest, minPriority };
  const { client, json } = contextOf(command);
  const { task: found } = await client.request<{ task: Task | null }>(TASK, { name: task });
  if (!found) throw new Failure(`there is no task ${task}`, 'TASK_NOT_FOUND');
  const counts = { answered: 0, skipped: 0, undone: 0 };
  const lease = async () =>
    (await client.request<Leased>(LEASE, { task, first: PAGE, strategy, filter })).leaseQuestions;
  let { questions, totalCount: left } = await lease();
  // After what may fail: a terminal that is left to single keys takes no Ctrl-C, and keeps the process alive.
  const keys = keyReader();
  let refused: Failure | null = null;
  try {
    while (questions.length > 0) {
      const question = questions[0]!;
      const answer = await ask(question, found, left, keys);
      if (answer.kind === 'quit') break;
      if (answer.kind === 'none') {
        refused = new Failure(`line ${keys.line} is no answer: ${answer.why}; ${linesTaken(keys.line)}`, 'BAD_INPUT');
        break;
      }
      if (answer.kind === 'undo') {
        const again = await undo(client, task);
        if (!again) continue;
        counts.undone++;
        questions = [again, ...questions.filter(({ id }) => id !== again.id)];
        left += 1;
        continue;
      }
      const candidate = question.id;
      if (answer.kind === 'skip') await client.request(SKIPPED, { candidate, reason: answer.reason });
      else await client.request(LABEL, { candidate, labels: answer.labels });
      counts[answer.kind === 'skip' ? 'skipped' : 'answered']++;
      questions = questions.slice(1);
      left -= 1;
      if (questions.length === 0) ({ questions, totalCount: left } = await lease());
    }
    await client.request(RELEASE, { task });
  } finally {
    keys.close();
  }
  if (refused) throw refused;
  if (json) printJson(counts);
  else
    print(`${counts.answered} answered, ${counts.skipped} skipped${counts.undone ? `, ${counts.undone} undone` : ''}`);
}

function linesTaken(bad: number): string {
  const taken = bad > 1 ? `the ${bad - 1} before it were taken, it and what follows were not` : 'nothing was taken';
  return `${taken}: mend it, and give label the lines from it on`;
}

/** The question that is to be answered anew; null where no answer can be taken back. */
async function undo(client: Client, task: string): Promise<Question | null> {
  try {
    return (await client.request<{ undoAnswer: Question }>(UNDONE, { task })).undoAnswer;
  } catch (error) {
    if (!(error instanceof Failure) || error.code !== 'CONFLICT') throw error;
    say(`  ${error.message}`);
    return null;
  }
}

interface NoAnswer {
  kind: 'none';
  why: string;
}

type Answer =
  | { kind: 'labels'; labels: string[] }
  | { kind: 'skip'; reason: string | null }
  | { kind: 'undo' }
  | { kind: 'quit' }
  | NoAnswer;

const WHY: Record<string, string> = {
  SECOND_ANSWER: ', asked of two labelers',
  ADJUDICATION: ', two labelers differ: your answer decides',
  LABEL_ISSUE: ', its label is in doubt',
  CHALLENGER: ', a version on trial answers otherwise',
};

async function ask(question: Question, { kind, labels }: Task, left: number, keys: KeyReader): Promise<Answer> {
  const all = question.choices ?? labels;
  const several = kind === 'MULTI_LABEL';
  const { disagreement, distribution } = question.prediction;
  const options = onKeys(all, distribution);
  const probability = new Map(distribution.map((score) => [score.label, score.probability]));
  const dissent = disagreement ? `, ${disagreement.dissenting} of ${disagreement.voters} dissent` : '';
  const alike = question.duplicates > 0 ? `, answers ${question.duplicates} more like it` : '';
  say(`\n${left < COUNTED ? left : 'many'} left${dissent}${alike}${WHY[question.reason] ?? ''}`);
  say(question.text + (question.textPair === null ? '' : `\n— ${question.textPair}`));
  if (question.presentLabels) say(`  now: ${question.presentLabels.join(', ') || 'none'}`);
  options.forEach((name, i) => say(`  ${KEYS[i]}  ${name}  ${((probability.get(name) ?? 0) * 100).toFixed(0)}%`));
  if (all.length > options.length) {
    say(
      `  ${NAME}  one of ${all.length - options.length} more, by its name or the beginning of it; enter alone lists all`,
    );
  }
  say(`  ${SKIP}  skip   ${UNDO}  undo the last   ${QUIT}  quit${several ? '   enter  done' : ''}`);
  return several ? answerSeveral({ options, all }, keys) : answerOne({ options, all }, keys);
}

/** Labels in the order of their keys: as the task has them, or the most probable of them where they are too many. */
export function onKeys(labels: string[], distribution: Distribution): string[] {
  if (labels.length <= KEYS.length) return labels;
  const probability = new Map(distribution.map((score) => [score.label, score.probability]));
  const of = (label: string) => probability.get(label) ?? 0;
  return labels.toSorted((a, b) => of(b) - of(a)).slice(0, KEYS.length);
}

/** Labels of that name, of that name but for case, or else those that begin with it. */
export function namedBy(text: string, labels: string[]): string[] {
  const lower = text.toLowerCase();
  const ways = [
    (label: string) => label === text,
    (label: string) => label.toLowerCase() === lower,
    (label: string) => label.toLowerCase().startsWith(lower),
  ];
  return ways.map((fits) => labels.filter(fits)).find((found) => found.length > 0) ?? [];
}

interface Labels {
  /** By their keys. */
  options: string[];
  all: string[];
}

/** Labels of keys, then of names. On a terminal a key that has none is nothing; in a line it is no answer. */
export async function chosenBy(
  pressed: string,
  { options, all }: Labels,
  keys: KeyReader,
): Promise<string[] | NoAnswer> {
  const [single = '', ...names] = pressed.split(/(?:^|\s+)\//u);
  if (names.length > 0 && !keys.byLine) {
    say('  its name, or the beginning of it; enter alone lists all');
    const text = await typed(keys);
    say('');
    if (text === null) return [];
    names[0] = text;
  }
  const ofKeys = Array.from(single.replaceAll(/\s/gu, ''), (key) => ({ key, label: options[KEYS.indexOf(key)] }));
  const found = names.map((name) => ({ name, labels: namedBy(name, all) }));
  const wrong = [
    ...ofKeys.flatMap(({ key, label }) =>
      keys.byLine && label === undefined ? [`${key} is the key of no label`] : [],
    ),
    ...found.flatMap(({ name, labels }) => {
      if (labels.length === 1) return [];
      return [labels.length === 0 ? `none begins with ${name}` : `which? ${labels.join(', ')}`];
    }),
  ];
  if (wrong.length > 0) return { kind: 'none', why: [...new Set(wrong)].join('; ') };
  return [...ofKeys.flatMap(({ label }) => label ?? []), ...found.flatMap(({ labels }) => labels)];
}

async function answerOne(labels: Labels, keys: KeyReader): Promise<Answer> {
  for (;;) {
    const pressed = await nextKey(keys);
    const other = await otherThanLabels(pressed, keys);
    if (other) return other;
    const chosen = await chosenBy(pressed!, labels, keys);
    if (!Array.isArray(chosen)) {
      if (keys.byLine) return chosen;
      say(`  ${chosen.why}`);
    } else if (chosen.length === 1) return { kind: 'labels', labels: chosen };
    else if (keys.byLine) return { kind: 'none', why: `a text has one label, and it names ${chosen.length || 'none'}` };
  }
}

async function answerSeveral(labels: Labels, keys: KeyReader): Promise<Answer> {
  const chosen = new Set<string>();
  for (;;) {
    const pressed = await nextKey(keys);
    const other = await otherThanLabels(pressed, keys);
    if (other) return other;
    const found = await chosenBy(pressed!, labels, keys);
    if (keys.byLine) return Array.isArray(found) ? { kind: 'labels', labels: [...new Set(found)] } : found;
    if (!Array.isArray(found)) {
      say(`  ${found.why}`);
      continue;
    }
    for (const label of found) if (!chosen.delete(label)) chosen.add(label);
    if (pressed === ENTER) return { kind: 'labels', labels: [...chosen] };
    say(`  = ${[...chosen].join(', ') || 'none'}`);
  }
}

/** A key is the same in capitals; what is typed is not. */
async function nextKey(keys: KeyReader): Promise<string | null> {
  const pressed = await keys.next();
  return keys.byLine || pressed === null ? pressed : pressed.toLowerCase();
}

/** Null where the key, or the line, is for labels. */
async function otherThanLabels(pressed: string | null, keys: KeyReader): Promise<Answer | null> {
  if (pressed === null || pressed === QUIT) return { kind: 'quit' };
  if (pressed === UNDO) return { kind: 'undo' };
  if (keys.byLine) {
    const [first, ...rest] = pressed.split(' ');
    return first === SKIP ? { kind: 'skip', reason: rest.join(' ') || null } : null;
  }
  if (pressed !== SKIP) return null;
  say('  why? enter: no reason');
  const reason = await typed(keys);
  return reason === null ? { kind: 'quit' } : { kind: 'skip', reason: reason || null };
}

/** What is typed up to enter; null at the end of the input. */
async function typed(keys: KeyReader): Promise<string | null> {
  let text = '';
  for (;;) {
    const key = await keys.next();
    if (key === null) return null;
    if (BACKSPACE.includes(key)) text = Array.from(text).slice(0, -1).join('');
    else if (key.includes(ENTER)) return (text + key.replaceAll(ENTER, '')).trim();
    else text += key;
    process.stderr.write(`\r\u001b[K  ${text}`);
  }
}

interface KeyReader {
  /** Whether what comes next is a line, which is an answer, or a key. */
  byLine: boolean;
  /** How many lines have been read. */
  readonly line: number;
  /** Null at the end of the input, and on Ctrl-C. On a terminal the next key from now on, none that was pressed before. */
  next(): Promise<string | null>;
  close(): void;
}

function keyReader(): KeyReader {
  const { stdin } = process;
  if (!stdin.isTTY) {
    const lines = createInterface({ input: stdin });
    const iterator = lines[Symbol.asyncIterator]();
    let line = 0;
    return {
      byLine: true,
      get line() {
        return line;
      },
      next: async () => {
        const { done, value } = await iterator.next();
        if (done) return null;
        line += 1;
        return value.trim();
      },
      close: () => lines.close(),
    };
  }
  let isWanted = false;
  const close = () => {
    stdin.off('data', onKey);
    stdin.setRawMode(false);
    stdin.pause();
  };
  // In raw mode Ctrl-C is a key, and nobody waits for one while the service is asked: it ends the command all the same.
  const onKey = (bytes: Buffer) => {
    if (!isWanted && bytes.includes(CTRL_C)) {
      close();
      process.kill(process.pid, 'SIGINT');
    }
    isWanted = false;
  };
  stdin.setRawMode(true);
  stdin.on('data', onKey);
  stdin.resume();
  return {
    byLine: false,
    line: 0,
    next: async () => {
      isWanted = true;
      const [bytes] = (await once(stdin, 'data')) as [Buffer];
      const key = bytes.toString('utf8');
      return key.includes(CTRL_C) || key === CTRL_D ? null : key;
    },
    close,
  };
}
