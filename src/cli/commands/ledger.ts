/** What was decided, by whom and why: read, and checked to be what was written. */
import type { Command } from 'commander';
import { contextOf, count } from '../context.js';
import { print, printJson, say, table } from '../output.js';

/** As many as the service answers at once. */
const PAGE = 500;
const LIST = `query ($task: String!, $first: Int!, $after: String) {
  ledger(task: $task, first: $first, after: $after) { seq at kind body hash }
}`;
const VERIFY = 'query ($hash: String) { verifyLedger(hash: $hash) { entries brokenAt lastHash contains } }';

interface Entry {
  seq: string;
  at: string;
  kind: string;
  body: { by?: string };
  hash: string;
}

interface Finding {
  entries: number;
  brokenAt: string | null;
  lastHash: string;
  contains: boolean | null;
}

export function ledgerCommand(program: Command): void {
  const ledger = program.command('ledger').description('decisions, erasures and corrections, hash-chained');
  ledger
    .command('list <task>')
    .description('newest first; --json has the whole entries')
    .option('--first <count>', 'how many', count, 50)
    .option('--all', 'every entry of the task', false)
    .action(list);
  ledger
    .command('verify')
    .description('whether every entry is what was written; the last hash, kept elsewhere, shows an end cut off')
    .option('--hash <hash>', 'the last one of an earlier look: it must still be in the chain')
    .action(verify);
}

async function list(task: string, options: { first: number; all: boolean }, command: Command): Promise<void> {
  const { client, json } = contextOf(command);
  const wanted = options.all ? Infinity : options.first;
  const found: Entry[] = [];
  while (found.length < wanted) {
    const first = Math.min(PAGE, wanted - found.length);
    const page = { task, first, after: found.at(-1)?.seq };
    const { ledger } = await client.request<{ ledger: Entry[] }>(LIST, page);
    found.push(...ledger);
    if (ledger.length < first) break;
  }
  if (json) return printJson(found);
  const rows = found.map(({ seq, at, kind, body, hash }) => [seq, at, kind, body.by ?? '', hash.slice(0, 12)]);
  print(table(['ENTRY', 'AT', 'KIND', 'BY', 'HASH'], rows));
}

async function verify({ hash }: { hash?: string }, command: Command): Promise<void> {
  const { client, json } = contextOf(command);
  const { verifyLedger } = await client.request<{ verifyLedger: Finding }>(VERIFY, { hash });
  const { entries, brokenAt, lastHash, contains } = verifyLedger;
  if (json) printJson(verifyLedger);
  if (brokenAt === null && contains !== false) {
    if (!json) print(`${entries} entries hold; the last hash is ${lastHash}`);
    return;
  }
  const broken = `entry ${brokenAt} is not what was written, or one before it was taken out; ${entries} hold`;
  const cut = `${hash} is not in the chain: it was cut off, or is of another ledger`;
  // No Failure: the finding is the answer, and with --json all of it.
  say(`fewloop: ${brokenAt === null ? cut : broken}`);
  process.exitCode = 1;
}
