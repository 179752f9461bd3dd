/**
 * Stands for the trainer: `copy-bundle.mjs TEMPLATE -m fewloop_trainer run … FOLDER` answers a run with a bundle that was
 * trained before, as the run's own. Its graphs get digests of their own, so that it needs model hosts of its own.
 */
import { createHash } from 'node:crypto';
import { appendFileSync, cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const [template, ...rest] = process.argv.slice(2);
const folder = rest.at(-1);
const settings = JSON.parse(readFileSync(join(folder, 'run.json'), 'utf8'));
const bundle = join(folder, 'bundle');
cpSync(template, bundle, { recursive: true });

const file = join(bundle, 'manifest.json');
const manifest = JSON.parse(readFileSync(file, 'utf8'));
const digest = (path) => createHash('sha256').update(readFileSync(path)).digest('hex');
// Every reader of protobuf skips a field that it does not know: number 100, the task's name.
const name = Buffer.from(settings.task);
for (const graph of manifest.graphs) {
  delete graph.variants;
  appendFileSync(join(bundle, graph.file), Buffer.from([0xa2, 0x06, name.length, ...name]));
  graph.sha256 = digest(join(bundle, graph.file));
}
delete manifest.precisions;
const { task, version, taskRevision, definition, definitionDigest, runId } = settings;
const own = { task, version, taskRevision, definition, definitionDigest, origin: `run:${runId}` };
writeFileSync(file, JSON.stringify({ ...manifest, ...own }));
writeFileSync(join(folder, 'result.json'), JSON.stringify({ ok: true, version, bundle: 'bundle' }));
