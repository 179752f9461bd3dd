/** Where the folders of runs are, and what of them others may ask. */
import { createReadStream, existsSync } from 'node:fs';
import { open, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';

import { LABELLED_FILE, UNLABELLED_FILE, type UnlabelledRow } from '../launch/run-folder.js';
import type { Item } from '../task/types.js';

/** Relative to the data folder. */
export function runFolder(task: string, runId: string): string {
  return path.join('runs', task, runId);
}

export interface TrainedGroups {
  groups: Set<string>;
  /** False where the folder is no longer here, or its unlabelled texts were erased for their age (retention.ts). */
  complete: boolean;
}

/** Split groups of all texts that took part in the run's training, labelled or not; dev rows, which did not, left out. */
export async function trainedGroups(folder: string): Promise<TrainedGroups> {
  const groups = new Set<string>();
  let complete = true;
  for (const name of [LABELLED_FILE, UNLABELLED_FILE]) {
    const file = await open(path.join(folder, name)).catch(() => null);
    if (!file) {
      complete = false;
      continue;
    }
    for await (const line of file.readLines()) {
      const row = JSON.parse(line) as { splitGroup: string; split?: string };
      if (row.split !== 'dev') groups.add(row.splitGroup);
    }
  }
  return { groups, complete };
}

/** The unlabelled items of these keys; those that were forgotten since are not among them. */
export async function unlabelledItems(folder: string, keys: ReadonlySet<string>): Promise<Map<string, Item>> {
  const items = new Map<string, Item>();
  const file = path.join(folder, UNLABELLED_FILE);
  if (!existsSync(file)) return items;
  for await (const line of createInterface({ input: createReadStream(file) })) {
    if (line === '') continue;
    const { itemKey, splitGroup: _, reservoir: __, ...item } = JSON.parse(line) as UnlabelledRow;
    if (keys.has(itemKey)) items.set(itemKey, item);
  }
  return items;
}

/** Erases the texts of the split groups from all runs of a task; how many rows. */
export async function eraseFromRuns(dataDir: string, task: string, groups: ReadonlySet<string>): Promise<number> {
  const parent = path.join(dataDir, 'runs', task);
  let erased = 0;
  for (const run of await readdir(parent).catch(() => [])) erased += await eraseFromRun(path.join(parent, run), groups);
  return erased;
}

/** A trainer that reads the folder right now has the text in memory until it ends; none that starts later sees it. */
export async function eraseFromRun(folder: string, groups: ReadonlySet<string>): Promise<number> {
  let erased = 0;
  for (const name of [LABELLED_FILE, UNLABELLED_FILE]) {
    const file = path.join(folder, name);
    const content = await readFile(file, 'utf8').catch(() => null);
    const lines = content?.split('\n') ?? [];
    const kept = lines.filter(
      (line) => line === '' || !groups.has((JSON.parse(line) as { splitGroup: string }).splitGroup),
    );
    if (kept.length === lines.length) continue;
    erased += lines.length - kept.length;
    await writeFile(`${file}.erasing`, kept.join('\n'));
    await rename(`${file}.erasing`, file);
  }
  return erased;
}

/** Removes the folders of a task's oldest runs; `keep` of the newest stay, and those named. */
export async function pruneRunFolders(dataDir: string, task: string, keep: number, needed: Set<string>): Promise<void> {
  const parent = path.join(dataDir, 'runs', task);
  const ids = await readdir(parent).catch(() => []);
  const aged = await Promise.all(ids.map(async (id) => ({ id, at: (await stat(path.join(parent, id))).mtimeMs })));
  aged.sort((a, b) => b.at - a.at);
  for (const { id } of aged.slice(keep)) {
    if (!needed.has(id)) await rm(path.join(parent, id), { recursive: true, force: true });
  }
}
