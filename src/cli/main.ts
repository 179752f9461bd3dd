/**
 * The `fewloop` command. It speaks to a running service by GraphQL; what needs no service says so. Exit 0 done, 1 failed,
 * 2 wrong use, 141 nobody reads what it prints. Imports task and launch alone: the rest is over GraphQL.
 */
import { onOutputError } from './output.js';
import { run } from './program.js';

process.stdout.on('error', onOutputError);
await run(process.argv);
