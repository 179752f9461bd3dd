/**
 * The `fewloop` command. It speaks to a running service by GraphQL; what needs no service says so. Exit 0 done, 1 failed,
 * 2 wrong use. Imports task and launch alone: the rest is over GraphQL.
 */
import { CommanderError } from 'commander';
import { Failure } from './client.js';
import { printJson, say } from './output.js';
import { createProgram } from './program.js';

const program = createProgram();

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
