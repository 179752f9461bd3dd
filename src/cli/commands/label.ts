/**
 * Review in the terminal: a key a label. Where a text may have several, keys put labels on and take them off, and enter
 * is the answer. Without a terminal a line holds the keys of one answer.
 */
import type { Command } from 'commander';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { Failure, type Client } from '../client.js';
import { contextOf, oneOf } from '../context.js';
import { print, printJson, say } from '../output.js';

const SKIP = 's';
const QUIT = 'q';
const ENTER = '\r';
const KEYS = Array.from('1234567890abcdefghijklmnoprtuvwxyz');
const PAGE = 10;
const STRATEGIES = ['LEAST_CONFIDENCE', 'BREAKING_TIES', 'VOTE_ENTROPY', 'RANDOM_AUDIT'] as const;

const TASK = 'query ($name: String!) { task(name: $name) { kind labels } }';
const QUEUE = `query ($task: String!, $first: Int!, $strategy: QueryStrategy) {
  reviewQueue(task: $task, first: $first, strategy: $strategy) { totalCount edges { node {
    id text textPair choices prediction { confidence disagreement { dissenting voters } distribution { label probability } }
  } } }
}`;
const LABEL =
  'mutation ($candidate: ID!, $labels: [String!]!) { label(candidate: $candidate, labels: $labels) { id } }';
const SKIPPED = 'mutation ($candidate: ID!) { skip(candidate: $candidate) { id } }';

interface Task {
  kind: string;
  labels: string[];
}

interface Question {
  id: string;
  text: string;
  textPair: string | null;
  choices: string[] | null;
  prediction: {
    confidence: number;
    disagreement: { dissenting: number; voters: number } | null;
    distribution: { label: string; probability: number }[];
  };
}

interface Queue {
  reviewQueue: { totalCount: number; edges: { node: Question }[] };
}

export function labelCommand(program: Command): void {
  program
    .command('label <task>')
    .description('answer the review queue, a key per label')
    .option('--strategy <name>', STRATEGIES.join(', '), oneOf(STRATEGIES))
    .action(label);
}

async function label(task: string, { strategy }: { strategy?: string }, command: Command): Promise<void> {
  const { client, json } = contextOf(command);
  const { task: found } = await client.request<{ task: Task | null }>(TASK, { name: task });
  if (!found) throw new Failure(`there is no task ${task}`, 'TASK_NOT_FOUND');
  const keys = keyReader();
  const counts = { answered: 0, skipped: 0 };
  try {
    for await (const { question, left } of questions(client, task, strategy)) {
      const answer = await ask(question, found, left, keys);
      if (answer === QUIT) break;
      if (answer === SKIP) await client.request(SKIPPED, { candidate: question.id });
      else await client.request(LABEL, { candidate: question.id, labels: answer });
      counts[answer === SKIP ? 'skipped' : 'answered']++;
    }
  } finally {
    keys.close();
  }
  if (json) printJson(counts);
  else print(`${counts.answered} answered, ${counts.skipped} skipped`);
}

async function* questions(client: Client, task: string, strategy: string | undefined) {
  for (;;) {
    const variables = { task, first: PAGE, strategy };
    const { totalCount, edges } = (await client.request<Queue>(QUEUE, variables)).reviewQueue;
    if (edges.length === 0) return;
    for (const [i, { node }] of edges.entries()) yield { question: node, left: totalCount - i };
  }
}

type Answer = string[] | typeof SKIP | typeof QUIT;

async function ask(question: Question, { kind, labels }: Task, left: number, keys: KeyReader): Promise<Answer> {
  const options = (question.choices ?? labels).slice(0, KEYS.length);
  const several = kind === 'MULTI_LABEL';
  const { disagreement, distribution } = question.prediction;
  const probability = new Map(distribution.map((score) => [score.label, score.probability]));
  say(`\n${left} left${disagreement ? `, ${disagreement.dissenting} of ${disagreement.voters} dissent` : ''}`);
  say(question.text + (question.textPair === null ? '' : `\n— ${question.textPair}`));
  options.forEach((name, i) => say(`  ${KEYS[i]}  ${name}  ${((probability.get(name) ?? 0) * 100).toFixed(0)}%`));
  say(`  ${SKIP}  skip   ${QUIT}  quit${several ? '   enter  done' : ''}`);
  return several ? answerSeveral(options, keys) : answerOne(options, keys);
}

async function answerOne(options: string[], keys: KeyReader): Promise<Answer> {
  for (;;) {
    const key = await keys.next();
    if (key === null || key === QUIT) return QUIT;
    if (key === SKIP) return SKIP;
    const chosen = options[KEYS.indexOf(key)];
    if (chosen !== undefined) return [chosen];
  }
}

async function answerSeveral(options: string[], keys: KeyReader): Promise<Answer> {
  const chosen = new Set<string>();
  for (;;) {
    const pressed = await keys.next();
    if (pressed === null || pressed === QUIT) return QUIT;
    if (pressed === SKIP) return SKIP;
    for (const key of pressed) {
      const label = options[KEYS.indexOf(key)];
      if (label !== undefined && !chosen.delete(label)) chosen.add(label);
    }
    if (keys.byLine || pressed === ENTER) return [...chosen];
    say(`  = ${[...chosen].join(', ') || 'none'}`);
  }
}

interface KeyReader {
  /** Whether what comes next is a line, which is an answer, or a key. */
  byLine: boolean;
  /** Null at the end of the input, and on Ctrl-C. */
  next(): Promise<string | null>;
  close(): void;
}

function keyReader(): KeyReader {
  const { stdin } = process;
  if (!stdin.isTTY) {
    const lines = createInterface({ input: stdin });
    const iterator = lines[Symbol.asyncIterator]();
    return {
      byLine: true,
      next: async () => {
        const { done, value } = await iterator.next();
        return done ? null : value.trim();
      },
      close: () => lines.close(),
    };
  }
  stdin.setRawMode(true);
  stdin.resume();
  return {
    byLine: false,
    next: async () => {
      const [bytes] = (await once(stdin, 'data')) as [Buffer];
      const key = bytes.toString('utf8');
      return key === '\u0003' || key === '\u0004' ? null : key.toLowerCase();
    },
    close: () => {
      stdin.setRawMode(false);
      stdin.pause();
    },
  };
}
