/**
 * The overlays against a real API server: strict validation and admission by a dry run on the server, with the
 * definitions of KEDA and prometheus-operator; k8s/roll-out.sh with a migration that runs, and one that fails.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { execFileSync } from 'node:child_process';
import { Client } from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';

import { createDatabase } from '../fixtures/database.js';
import { binary, startControlPlane, type ControlPlane } from './control-plane.js';
import { playKubelet, type Kubelet } from './kubelet.js';

const ROOT = path.join(import.meta.dirname, '../..');
const NAMESPACE = 'fewloop';

let plane: ControlPlane;
let kubelet: Kubelet;
let folder: string;
let database: Awaited<ReturnType<typeof createDatabase>>;
/** What the migration's container connects to. */
let databaseUrl: string;

beforeAll(async () => {
  plane = await startControlPlane();
  folder = mkdtempSync(path.join(tmpdir(), 'fewloop-manifests-'));
  symlinkSync(binary('kubectl'), path.join(folder, 'kubectl'));
  database = await createDatabase();
  const crds = path.join(process.env['KUBE_BIN'] ?? '', 'crds');
  for (const file of readdirSync(crds)) {
    plane.kubectl('create', '-f', path.join(crds, file));
  }
  plane.kubectl('wait', '--for=condition=Established', 'crd', '--all', '--timeout=60s');
  plane.kubectl('create', '-f', path.join(ROOT, 'k8s/base/namespace.yaml'));
  kubelet = await playKubelet(plane.configFor(), NAMESPACE, plane.certificate, (pod) => {
    const [program, ...args] = pod.spec?.containers[0]?.command ?? [];
    if (program !== 'node') return null;
    const local = args.map((argument) => argument.replace(/^\/app/u, ROOT));
    return { program: process.execPath, args: local, env: { DATABASE_URL: databaseUrl } };
  });
});
afterAll(async () => {
  await kubelet?.stop();
  await plane?.stop();
  await database?.drop();
  rmSync(folder, { recursive: true });
});

it.each(['cpu', 'gpu', 'kafka'])('the API server takes every object of the overlay %s', (overlay) => {
  const objects = execFileSync(binary('kustomize'), ['build', path.join(ROOT, 'k8s/overlays', overlay)], {
    encoding: 'utf8',
  });
  const file = path.join(folder, `${overlay}.yaml`);
  writeFileSync(file, objects);
  const out = plane.kubectl('apply', '--dry-run=server', '--validate=strict', '--warnings-as-errors', '-f', file);
  expect(out.trim().split('\n')).toHaveLength(objects.split(/^kind: /mu).length - 1);
});

it('Pod Security’s warnings would fail it', () => {
  const file = path.join(folder, 'root.yaml');
  const pod = { containers: [{ name: 'c', image: 'i' }] };
  const spec = { selector: { matchLabels: { a: 'b' } }, template: { metadata: { labels: { a: 'b' } }, spec: pod } };
  const metadata = { name: 'root', namespace: NAMESPACE };
  writeFileSync(file, JSON.stringify({ apiVersion: 'apps/v1', kind: 'Deployment', metadata, spec }));
  plane.kubectl('label', 'namespace', NAMESPACE, 'pod-security.kubernetes.io/warn=restricted', '--overwrite');
  const apply = () => plane.kubectl('apply', '--dry-run=server', '--warnings-as-errors', '-f', file);
  expect(apply).toThrow(/PodSecurity/u);
});

async function rollOut(): Promise<{ code: number | null; output: string }> {
  const env = {
    PATH: `${folder}:${process.env['PATH']}`,
    KUBECONFIG: plane.kubeconfig,
    ROLLOUT_TIMEOUT: '2s',
    HOME: folder,
  };
  const child = spawn(path.join(ROOT, 'k8s/roll-out.sh'), [path.join(ROOT, 'k8s/overlays/cpu')], { env });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += String(chunk)));
  return new Promise((resolve) => child.once('close', (code) => resolve({ code, output })));
}

const deployments = () => plane.kubectl('get', 'deployments', '-n', NAMESPACE, '-o', 'name').trim().split('\n');

it('a roll-out changes nothing of the service where the migration fails', async () => {
  const absent = new URL(database.url);
  absent.pathname = '/absent';
  databaseUrl = absent.href;
  const { code, output } = await rollOut();
  expect(code).toBe(1);
  expect(output).toContain('fewloop: database "absent" does not exist');
  expect(output).toContain('nothing of the service was changed');
  expect(deployments()).toEqual(['']);
});

it('migrates, then applies the rest', async () => {
  databaseUrl = database.url;
  await rollOut();
  const succeeded = 'jsonpath={.status.succeeded}';
  expect(plane.kubectl('get', 'job', 'fewloop-migrate', '-n', NAMESPACE, '-o', succeeded)).toBe('1');
  // Nobody plays the Deployments' controller: that they become ready is not seen here.
  expect(deployments()).toEqual([
    'deployment.apps/fewloop-api',
    'deployment.apps/fewloop-stream',
    'deployment.apps/fewloop-trainer',
  ]);
  const client = new Client({ connectionString: database.url });
  await client.connect();
  const { rows } = await client.query("SELECT to_regclass('training_run') IS NOT NULL AS there");
  await client.end();
  expect(rows).toEqual([{ there: true }]);
});
