/**
 * The `fewloop` command. It speaks to a running service by GraphQL; what needs no service says so. Exit 0 done, 1 failed,
 * 2 wrong use. Imports task and launch alone: the rest is over GraphQL.
 */
import { Command, CommanderError, Option } from 'commander';
import { Failure } from './client.js';
import { classifyCommand } from './commands/classify.js';
import { fileCommands } from './commands/files.js';
import { labelCommand } from './commands/label.js';
import { promotionCommands } from './commands/promotions.js';
import { runCommands } from './commands/runs.js';
import { taskCommands } from './commands/tasks.js';
import { printJson, say } from './output.js';

const program = new Command('fewloop')
  .description('Few-shot Chinese text classification: tasks, examples, review, training runs, promotions')
  .addOption(
    new Option('--url <url>', "the service's GraphQL address")
      .env('FEWLOOP_URL')
      .default('http://127.0.0.1:3000/graphql'),
  )
  .addOption(new Option('--token <token>', 'access token').env('FEWLOOP_TOKEN'))
  .option('--json', 'machine-readable output')
  .exitOverride()
  .showHelpAfterError('(--help shows what there is)');

taskCommands(program);
fileCommands(program);
classifyCommand(program);
labelCommand(program);
runCommands(program);
promotionCommands(program);
passExitOverride(program);

try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = fail(error);
}

function fail(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  const message = error instanceof Error ? error.message : String(error);
  if (program.opts<{ json?: boolean }>().json) {
    printJson({ error: { code: error instanceof Failure ? error.code : null, message } });
  }
  say(`fewloop: ${message}`);
  if (!(error instanceof Failure) && error instanceof Error && error.stack) say(error.stack);
  return 1;
}

/** Commander does not hand it down to commands that were made before. */
function passExitOverride(command: Command): void {
  for (const child of command.commands) {
    child.exitOverride();
    passExitOverride(child);
  }
}
