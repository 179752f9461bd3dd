#!/usr/bin/env node
/** The `fewloop` command in a checkout: prepares it where needed and runs the built command under the pinned Node. */
import { spawn } from 'node:child_process';
import { builtCli, pinnedNode, prepare, say } from './prepare.mjs';

try {
  await prepare();
  const child = spawn(pinnedNode, ['--enable-source-maps', builtCli, ...process.argv.slice(2)], { stdio: 'inherit' });
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal));
  child.once('exit', (code, signal) => (process.exitCode = code ?? (signal ? 1 : 0)));
} catch (error) {
  say(error.message);
  process.exitCode = 1;
}
