/** What the `fewloop` command takes: its options and every subcommand. */
import { Command, CommanderError, Option } from 'commander';
import { Failure } from './client.js';
import { backupCommands } from './commands/backup.js';
import { benchmarkCommand } from './commands/benchmark.js';
import { classifyCommand } from './commands/classify.js';
import { deadLetterCommands } from './commands/dead-letters.js';
import { fileCommands } from './commands/files.js';
import { keyCommands } from './commands/keys.js';
import { labelCommand } from './commands/label.js';
import { ledgerCommand } from './commands/ledger.js';
import { promotionCommands } from './commands/promotions.js';
import { revokeCommand } from './commands/revoke.js';
import { runCommands } from './commands/runs.js';
import { taskCommands } from './commands/tasks.js';
import { trialCommands } from './commands/trials.js';
import { messageOf, print, sayError } from './output.js';

export function createProgram(): Command {
  const program = new Command('fewloop')
    .description('Few-shot Chinese text classification: tasks, examples, review, training runs, promotions')
    .addOption(
      new Option('--url <url>', "the service's GraphQL address")
        .env('FEWLOOP_URL')
        .argParser((value, before: string) => value || before)
        .default('http://127.0.0.1:3000/graphql'),
    )
    .addOption(
      new Option('--token <token>', 'access key; better by FEWLOOP_TOKEN: arguments are seen by all users').env(
        'FEWLOOP_TOKEN',
      ),
    )
    .addOption(new Option('--token-file <file>', 'file that holds the access key').env('FEWLOOP_TOKEN_FILE'))
    .option('--json', 'machine-readable output')
    .exitOverride()
    .showHelpAfterError('(--help shows what there is)');

  taskCommands(program);
  fileCommands(program);
  deadLetterCommands(program);
  classifyCommand(program);
  labelCommand(program);
  runCommands(program);
  promotionCommands(program);
  trialCommands(program);
  ledgerCommand(program);
  keyCommands(program);
  revokeCommand(program);
  backupCommands(program);
  benchmarkCommand(program);
  passExitOverride(program);
  return program;
}

/** Commander does not hand it down to commands that were made before. */
function passExitOverride(command: Command): void {
  for (const child of command.commands) {
    child.exitOverride();
    passExitOverride(child);
  }
}

/** `argv`: as of the process, whose exit code it sets. */
export async function run(argv: string[]): Promise<void> {
  const program = createProgram();
  try {
    await program.parseAsync(argv);
  } catch (error) {
    process.exitCode = fail(error, program.opts<{ json?: boolean }>().json ?? false);
  }
}

function fail(error: unknown, json: boolean): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  // On one line: it may come after others, of a command that prints an object a line.
  const code = error instanceof Failure ? error.code : null;
  if (json) print(JSON.stringify({ error: { code, message: messageOf(error) } }));
  sayError(error);
  return 1;
}
