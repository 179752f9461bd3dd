/** A source of labels that is no longer trusted. */
import { InvalidArgumentError, type Command } from 'commander';
import { contextOf, oneOf } from '../context.js';
import { print, printJson } from '../output.js';
import { STRATEGIES } from './label.js';

const REVOKE = `mutation ($task: String!, $source: SourceInput!, $restore: Boolean!, $dryRun: Boolean!) {
  revokeExamples(task: $task, source: $source, restore: $restore, dryRun: $dryRun) { examples already dryRun }
}`;

interface Options {
  labeler?: string;
  origin?: string;
  strategy?: string;
  since?: string;
  until?: string;
  restore: boolean;
  dryRun: boolean;
}

interface Revocation {
  examples: number;
  already: number;
  dryRun: boolean;
}

export function revokeCommand(program: Command): void {
  program
    .command('revoke <task>')
    .description('take the labels of a source out of all later runs, gates and figures; they stay kept')
    .option('--labeler <name>', 'labels that this person or app gave')
    .option('--origin <origin>', 'import, answer (a strategy chose the question) or audit', oneOf(ORIGINS))
    .option('--strategy <name>', 'answers to questions that this query strategy chose', oneOf(STRATEGIES))
    .option('--since <time>', 'labels given then or later, ISO 8601', time)
    .option('--until <time>', 'labels given before', time)
    .option('--restore', 'take an earlier revocation back', false)
    .option('--dry-run', 'only count', false)
    .action(revoke);
}

const ORIGINS = ['import', 'answer', 'audit'] as const;

async function revoke(task: string, options: Options, command: Command): Promise<void> {
  const { client, json } = contextOf(command);
  const { labeler, origin, strategy, since, until, restore, dryRun } = options;
  const source = { labeler, origin: origin?.toUpperCase(), strategy, since, until };
  const variables = { task, source, restore, dryRun };
  const { revokeExamples } = await client.request<{ revokeExamples: Revocation }>(REVOKE, variables);
  if (json) return printJson(revokeExamples);
  const { examples, already } = revokeExamples;
  const verb = dryRun ? `would be ${restore ? 'restored' : 'revoked'}` : restore ? 'restored' : 'revoked';
  print(`${task}: ${examples} ${verb}${already > 0 ? `, ${already} were already` : ''}`);
}

function time(value: string): string {
  const parsed = new Date(value);
  if (Number.isNaN(parsed.getTime())) throw new InvalidArgumentError('It must be a time as of ISO 8601.');
  return parsed.toISOString();
}
