/** Backup and restore of database and bundles: where the service's data folder and database are. Needs no service. */
import type { Command } from 'commander';
import { FewloopError } from '../../common/errors.js';
import { Config } from '../../config/config.js';
import { Failure } from '../client.js';
import { print, printJson, say } from '../output.js';
import type { Summary } from '../../backup/format.js';

export function backupCommands(program: Command): void {
  program
    .command('backup <dir>')
    .description('the database, the bundles and the data of runs into a new folder, while the service runs')
    .option('--without <versions>', 'TASK/VERSION,… whose files are gone: their rows are kept, no bundles')
    .action(backup);
  program
    .command('restore <dir>')
    .description('a backup into an empty data folder and an empty database, all of it or nothing')
    .option('--digest <sha256>', 'what `backup` printed: the backup must be that one')
    .action(restore);
}

async function backup(dir: string, options: { without?: string }, command: Command): Promise<void> {
  // With its libraries it is loaded where it is wanted alone.
  const { makeBackup } = await import('../../backup/backup.js');
  const without = (options.without ?? '').split(',').filter((name) => name !== '');
  await report(command, 'backed up to', (config) => makeBackup(config, dir, say, { without }));
}

async function restore(dir: string, options: { digest?: string }, command: Command): Promise<void> {
  const { restoreBackup } = await import('../../backup/restore.js');
  await report(command, 'restored from', (config) => restoreBackup(config, dir, say, options));
}

async function report(command: Command, done: string, work: (config: Config) => Promise<Summary>): Promise<void> {
  const { json } = command.optsWithGlobals<{ json?: boolean }>();
  const startedMs = performance.now();
  const summary = await work(configuration()).catch((error: unknown) => {
    if (error instanceof FewloopError) throw new Failure(error.message, error.code);
    throw error;
  });
  const seconds = (performance.now() - startedMs) / 1000;
  if (json) return printJson({ ...summary, seconds });
  const { folder, digest, tables, rows, bundles, runs, bytes } = summary;
  print(
    `${done} ${folder}: ${tables} tables with ${rows} rows, ${bundles} bundles, ${runs} runs; ` +
      `${(bytes / 1e6).toFixed(1)} MB in ${seconds.toFixed(1)} s\ndigest ${digest}`,
  );
}

function configuration(): Config {
  try {
    return Config.load();
  } catch (error) {
    throw new Failure((error as Error).message);
  }
}
