/** Records that could not be scored: `dlq list`, `dlq replay`, `dlq drop`. */
import type { Command } from 'commander';
import { contextOf, count } from '../context.js';
import { print, printJson, say, table } from '../output.js';

const LIST = `query ($task: String!, $first: Int) { deadLetters(task: $task, first: $first) {
  totalCount nodes { source code message key value at }
} }`;
const REPLAY = 'mutation ($task: String!, $first: Int) { count: replayDeadLetters(task: $task, first: $first) }';
const DROP = 'mutation ($task: String!, $first: Int) { count: dropDeadLetters(task: $task, first: $first) }';
const LEFT = `query ($task: String!) { deadLetters(task: $task, first: 1) { totalCount nodes { source } } }`;
const SHOWN = 60;

interface DeadLetter {
  source: string;
  code: string;
  message: string;
  key: string | null;
  value: string | null;
  at: string;
}

interface Left {
  totalCount: number;
  nodes: object[];
}

interface Options {
  first: number;
}

export function deadLetterCommands(program: Command): void {
  const dlq = program.command('dlq').description('records that could not be scored, of the input that a task reads');
  const command = (name: string, description: string) =>
    dlq.command(`${name} <task>`).description(description).option('--first <n>', 'the oldest so many', count, 100);
  command('list', 'what they are and why').action(list);
  command('replay', 'send them through the stream once more').action(replay);
  command('drop', 'give them up').action(drop);
}

async function list(task: string, { first }: Options, command: Command): Promise<void> {
  const { client, json } = contextOf(command);
  const { deadLetters } = await client.request<{ deadLetters: { totalCount: number; nodes: DeadLetter[] } }>(LIST, {
    task,
    first,
  });
  if (json) return printJson(deadLetters);
  const rows = deadLetters.nodes.map(({ at, source, code, message, value }) => [
    at,
    source,
    code,
    message,
    (value ?? '').replaceAll(/\s+/gu, ' ').slice(0, SHOWN),
  ]);
  print(table(['AT', 'SOURCE', 'CODE', 'MESSAGE', 'VALUE'], rows));
  say(`${deadLetters.nodes.length} shown`);
}

async function replay(task: string, options: Options, command: Command): Promise<void> {
  await change(REPLAY, 'replayed', task, options, command);
}

async function drop(task: string, options: Options, command: Command): Promise<void> {
  await change(DROP, 'dropped', task, options, command);
}

async function change(mutation: string, done: string, task: string, { first }: Options, command: Command) {
  const { client, json } = contextOf(command);
  const { count: changed } = await client.request<{ count: number }>(mutation, { task, first });
  if (json) printJson({ [done]: changed });
  else print(`${changed} ${done}`);
  if (changed < first) return;
  const { deadLetters: left } = await client.request<{ deadLetters: Left }>(LEFT, { task });
  // In Kafka markers of transactions count too, also where no letter is left.
  if (left.nodes.length > 0) say(`at most ${left.totalCount} are left: a call takes ${first} (--first)`);
}
