import type { Command } from 'commander';
import { Failure } from '../client.js';
import { contextOf } from '../context.js';
import { longWork, print, printJson, table } from '../output.js';

const FIELDS = `id verdict firstApprovalBy decision decidedBy comment requestedAt decidedAt report
  version { task version state } champion { version } replicas { id state serves message }`;
const LIST = `query ($name: String!) { task(name: $name) { promotions { ${FIELDS} } } }`;
const APPROVE = `mutation ($id: ID!, $comment: String, $override: Boolean) {
  approvePromotion(id: $id, comment: $comment, override: $override) { ${FIELDS} }
}`;
const REJECT = `mutation ($id: ID!, $comment: String!) { rejectPromotion(id: $id, comment: $comment) { ${FIELDS} } }`;
const ROLLBACK = `mutation ($task: String!, $reason: String!) {
  rollback(task: $task, reason: $reason) { task version state }
}`;

const WAITING =
  'still waiting: the version is tried, and compared again where another became active since, which takes minutes';

interface Promotion {
  id: string;
  verdict: string;
  firstApprovalBy: string | null;
  decision: string | null;
  requestedAt: string;
  version: { task: string; version: number; state: string };
  champion: { version: number } | null;
}

export function promotionCommands(program: Command): void {
  program.command('promotions <task>').description('requests to make a version active').action(promotions);
  program
    .command('approve <id>')
    .description('make the version active')
    .option('--comment <text>', 'kept with the decision')
    .option('--override', 'although the verdict is under what the task asks for; needs a comment')
    .action(approve);
  program
    .command('reject <id>')
    .description('keep the champion')
    .requiredOption('--comment <text>', 'kept with the decision')
    .action(reject);
  program
    .command('rollback <task>')
    .description('back to the version that was active before')
    .requiredOption('--reason <text>', 'kept in the ledger')
    .action(rollback);
}

async function promotions(task: string, _: object, command: Command): Promise<void> {
  const { client, json } = contextOf(command);
  const { task: found } = await client.request<{ task: { promotions: Promotion[] } | null }>(LIST, { name: task });
  if (!found) throw new Failure(`there is no task ${task}`, 'TASK_NOT_FOUND');
  if (json) return printJson(found.promotions);
  const rows = found.promotions.map(({ id, requestedAt, version, champion, verdict, ...rest }) => {
    return [id, requestedAt, version.version, champion?.version ?? null, verdict, stateOf(rest)];
  });
  print(table(['PROMOTION', 'REQUESTED', 'VERSION', 'CHAMPION', 'VERDICT', 'DECISION'], rows));
}

async function approve(id: string, options: { comment?: string; override?: boolean }, command: Command): Promise<void> {
  const { client, json } = contextOf(command);
  const variables = { id, comment: options.comment, override: options.override ?? false };
  const asked = client.request<{ approvePromotion: Promotion }>(APPROVE, variables);
  const { approvePromotion } = await longWork(asked, WAITING);
  printDecision(approvePromotion, json);
}

async function reject(id: string, { comment }: { comment: string }, command: Command): Promise<void> {
  const { client, json } = contextOf(command);
  const { rejectPromotion } = await client.request<{ rejectPromotion: Promotion }>(REJECT, { id, comment });
  printDecision(rejectPromotion, json);
}

async function rollback(task: string, { reason }: { reason: string }, command: Command): Promise<void> {
  const { client, json } = contextOf(command);
  const { rollback: version } = await client.request<{ rollback: Promotion['version'] }>(ROLLBACK, { task, reason });
  if (json) printJson(version);
  else print(`${version.task}: version ${version.version} ${version.state}`);
}

function printDecision(promotion: Promotion, json: boolean): void {
  const { version } = promotion;
  if (json) printJson(promotion);
  else print(`${version.task}: version ${version.version} ${stateOf(promotion)}, now ${version.state}`);
}

function stateOf({ decision, firstApprovalBy }: Pick<Promotion, 'decision' | 'firstApprovalBy'>): string {
  if (decision !== null || firstApprovalBy === null) return decision ?? 'open';
  return `approved by ${firstApprovalBy}, open for a second person`;
}
