/** API keys: `key create`, `key list`, `key rotate`, `key revoke`. */
import { InvalidArgumentError, Option, type Command } from 'commander';
import { contextOf } from '../context.js';
import { print, printJson, say, table } from '../output.js';

const FIELDS = `name role tasks requestsPerMinute tokensPerMinute subscriptions createdAt createdBy revokedAt
  secrets { id createdAt expiresAt lastUsedAt }`;
const LIST = `{ keys { ${FIELDS} } }`;
const CREATE = `mutation ($name: String!, $role: Role!, $tasks: [String!], $expiresInDays: Int,
  $requestsPerMinute: Int, $tokensPerMinute: Int, $subscriptions: Int) {
  made: createKey(name: $name, role: $role, tasks: $tasks, expiresInDays: $expiresInDays,
    requestsPerMinute: $requestsPerMinute, tokensPerMinute: $tokensPerMinute, subscriptions: $subscriptions) {
    key accessKey { ${FIELDS} }
  }
}`;
const ROTATE = `mutation ($name: String!, $graceMinutes: Int, $expiresInDays: Int) {
  made: rotateKey(name: $name, graceMinutes: $graceMinutes, expiresInDays: $expiresInDays) {
    key accessKey { ${FIELDS} }
  }
}`;
const REVOKE = `mutation ($name: String!) { revokeKey(name: $name) { ${FIELDS} } }`;

interface Secret {
  id: string;
  expiresAt: string | null;
  lastUsedAt: string | null;
}

interface AccessKey {
  name: string;
  role: string;
  tasks: string[] | null;
  revokedAt: string | null;
  secrets: Secret[];
}

interface Made {
  made: { key: string; accessKey: AccessKey };
}

export function keyCommands(program: Command): void {
  const key = program.command('key').description('access keys; for the role ADMIN');
  const days = new Option('--expires-in <days>', 'the key ends then').argParser(whole);
  key
    .command('create <name>')
    .description('make a key, and show it this once')
    .addOption(
      new Option('--role <role>', 'what it may do')
        .choices(['CLIENT', 'LABELER', 'ENGINEER', 'ADMIN'])
        .makeOptionMandatory(),
    )
    .option('--task <name...>', 'the tasks it may use; left out: all')
    .addOption(days)
    .option('--requests-per-minute <n>', 'at most; 0: any number', whole)
    .option('--tokens-per-minute <n>', 'texts × members × tokens; 0: any number', whole)
    .option('--subscriptions <n>', 'open at once; 0: any number', whole)
    .action(create);
  key.command('list').description('all keys, without what proves them').action(list);
  key
    .command('rotate <name>')
    .description('make a further secret for the key, and show it this once; the old ones end after the grace')
    .option('--grace <minutes>', 'how long the old ones last', whole, 1440)
    .addOption(days)
    .action(rotate);
  key.command('revoke <name>').description('end the key at once').action(revoke);
}

interface CreateOptions {
  role: string;
  task?: string[];
  expiresIn?: number;
  requestsPerMinute?: number;
  tokensPerMinute?: number;
  subscriptions?: number;
}

async function create(name: string, { task, expiresIn, ...rest }: CreateOptions, command: Command): Promise<void> {
  const variables = { name, tasks: task, expiresInDays: expiresIn, ...rest };
  const { client, json } = contextOf(command);
  show(await client.request<Made>(CREATE, variables), json);
}

async function rotate(name: string, options: { grace: number; expiresIn?: number }, command: Command): Promise<void> {
  const variables = { name, graceMinutes: options.grace, expiresInDays: options.expiresIn };
  const { client, json } = contextOf(command);
  show(await client.request<Made>(ROTATE, variables), json);
}

/** The key alone on standard output, so that it can go to a file. */
function show({ made }: Made, json: boolean): void {
  if (json) return printJson(made);
  print(made.key);
  say(`key ${made.accessKey.name}, ${made.accessKey.role}: it is not shown again`);
}

async function list(_: object, command: Command): Promise<void> {
  const { client, json } = contextOf(command);
  const { keys } = await client.request<{ keys: AccessKey[] }>(LIST);
  if (json) return printJson(keys);
  const rows = keys.map(({ name, role, tasks, revokedAt, secrets }) => {
    const [newest] = secrets;
    const used = secrets
      .map(({ lastUsedAt }) => lastUsedAt ?? '')
      .toSorted()
      .at(-1);
    const ends = revokedAt === null ? (newest?.expiresAt ?? 'never') : `revoked ${revokedAt}`;
    return [name, role, tasks?.join(' ') ?? 'all', ends, used || 'never'];
  });
  print(table(['KEY', 'ROLE', 'TASKS', 'ENDS', 'LAST USED'], rows));
}

async function revoke(name: string, _: object, command: Command): Promise<void> {
  const { client, json } = contextOf(command);
  const { revokeKey } = await client.request<{ revokeKey: AccessKey }>(REVOKE, { name });
  if (json) printJson(revokeKey);
  else print(`key ${revokeKey.name} revoked`);
}

function whole(value: string): number {
  if (!/^\d{1,9}$/u.test(value)) throw new InvalidArgumentError('A whole number.');
  return Number(value);
}
