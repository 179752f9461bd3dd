/**
 * The `fewloop` command. It speaks to a running service by GraphQL; what needs no service says so. Exit 0 done, 1 failed,
 * 2 wrong use. Imports task and launch alone: the rest is over GraphQL.
 */
import { run } from './program.js';

await run(process.argv);
