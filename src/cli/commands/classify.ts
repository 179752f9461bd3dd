import type { Command } from 'commander';
import { type AnswerError, type Client, failureOf, patiently } from '../client.js';
import { contextOf } from '../context.js';
import { decoded, linesIn } from '../formats/sources.js';
import { print, say } from '../output.js';

const CHUNK = 64;
/** Characters of a text that is not answered. */
const SHOWN = 60;
/** Of a text that has none of a multi-label task's labels. */
const NONE = '-';
const CLASSIFY = `query ($task: String!, $inputs: [TextInput!]!) { classify(task: $task, inputs: $inputs) {
  label labels confidence calibrated margin entropy route modelVersion taskRevision
  disagreement { voters dissenting unanimous voteEntropy jensenShannon } distribution { label probability }
} }`;

interface Prediction {
  labels: string[];
  confidence: number;
  calibrated: boolean;
  route: string;
}

export function classifyCommand(program: Command): void {
  program
    .command('classify <task> [text...]')
    .description('predictions for the texts, or for standard input, a line each; --json prints an object a line')
    .action(classify);
}

async function classify(task: string, texts: string[], _: object, command: Command): Promise<void> {
  const { client, json } = contextOf(command);
  let chunk: string[] = [];
  const flush = async () => {
    if (chunk.length > 0)
      await patiently(
        () => classifyChunk(client, task, chunk, json),
        (seconds) => say(`the service is busy, asking again in ${seconds} s`),
      );
    chunk = [];
  };
  for await (const text of texts.length > 0 ? texts : standardInput()) {
    if (chunk.push(text) >= CHUNK) await flush();
  }
  await flush();
}

async function classifyChunk(client: Client, task: string, texts: string[], json: boolean): Promise<void> {
  const inputs = texts.map((text) => ({ text }));
  const { data, errors } = await client.ask<{ classify: (Prediction | null)[] }>(CLASSIFY, { task, inputs });
  const failed = new Map<unknown, AnswerError>(errors.map((error) => [error.path?.[1], error]));
  const [whole] = errors.filter((error) => typeof error.path?.[1] !== 'number');
  if (whole) throw failureOf(whole);
  texts.forEach((text, i) => {
    // The schema's items are not null: where one fails, a strict server may give none.
    const prediction = data?.classify[i] ?? null;
    const error = failed.get(i);
    if (json) print(JSON.stringify(prediction ? { text, ...prediction } : { text, error: describe(error) }));
    else if (prediction)
      print(
        `${prediction.labels.join(',') || NONE}\t${prediction.confidence.toFixed(3)}\t${prediction.route}\t${text}`,
      );
    else say(`${beginning(text)}: ${error?.message ?? 'not answered'}`);
    if (!prediction) process.exitCode = 1;
  });
}

/** A text may be too long for the service, and is for a line then. */
function beginning(text: string): string {
  const characters = Array.from(text);
  return characters.length > SHOWN ? `${characters.slice(0, SHOWN).join('')}…` : text;
}

function describe(error: AnswerError | undefined): object {
  return { code: error?.extensions?.code ?? 'INTERNAL', message: error?.message ?? 'not answered' };
}

async function* standardInput(): AsyncGenerator<string> {
  for await (const { value } of linesIn(decoded(process.stdin, 'standard input'))) yield value;
}
