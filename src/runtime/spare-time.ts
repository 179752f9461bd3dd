/** Processes that compute only while no other one wants the processor. */
import { execFile } from 'node:child_process';
import { constants, setPriority } from 'node:os';
import { promisify } from 'node:util';

/**
 * For the process and the threads that it starts from now on; it cannot be taken back without privileges. Linux lets
 * one of lowest priority finish its slice of some milliseconds before another takes over, and one of its idle class
 * not: that is taken where util-linux is at hand to ask for it.
 */
export async function yieldProcessor(pid: number): Promise<void> {
  setPriority(pid, constants.priority.PRIORITY_LOW);
  await promisify(execFile)('chrt', ['--idle', '--pid', '0', String(pid)]).catch(() => undefined);
}
