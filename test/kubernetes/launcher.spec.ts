/**
 * The launcher against a real API server with the rights of k8s/base/trainer/rbac.yaml alone: real admission (Pod
 * Security "restricted"), real Job controller, garbage collector and disruption; the kubelet is played (kubelet.ts), and
 * pods' commands run as processes of this machine. Not part of npm test: KUBE_BIN=FOLDER npm run test:kubernetes.
 */
import { BatchV1Api, CoreV1Api, type V1Job } from '@kubernetes/client-node';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { Cluster } from '../../src/launch/kubernetes-cluster.js';
import { jobName, jobOf, type JobSettings } from '../../src/launch/kubernetes-job.js';
import { KubernetesLauncher } from '../../src/launch/kubernetes.js';
import type { RunProgress } from '../../src/launch/run-folder.js';
import { until } from '../fixtures/processes.js';
import { makeDataDir, startServiceProcess, trainerPython } from '../fixtures/service-process.js';
import { startControlPlane, type ControlPlane } from './control-plane.js';
import { playKubelet, type Kubelet, type Run } from './kubelet.js';

const NAMESPACE = 'fewloop';
const FAKE = path.join(import.meta.dirname, '../fixtures/fake-trainer.mjs');
const BASE = path.join(import.meta.dirname, '../../k8s/base');
const PATIENCE_MS = 60_000;

let plane: ControlPlane;
let token: string;
let kubelet: Kubelet;
let dataDir: string;
let runs = 0;
let folder: string;
let name: string;
let settings: JobSettings;
let seen: RunProgress[];
/** What a pod does. */
let mode: string;

const waitFor = (condition: () => boolean) => until(condition, PATIENCE_MS);
const stages = () => seen.map(({ stage }) => stage);
const admin = () => plane.configFor();
const batch = () => admin().makeApiClient(BatchV1Api);
const core = () => admin().makeApiClient(CoreV1Api);
const newLauncher = (changes: Partial<JobSettings> = {}, by = token) =>
  new KubernetesLauncher(new Cluster(plane.configFor(by), NAMESPACE), { ...settings, ...changes });
const start = (launcher = newLauncher()) => launcher.start(folder, (progress) => seen.push(progress));
const jobs = async (): Promise<V1Job[]> => (await batch().listNamespacedJob({ namespace: NAMESPACE })).items;
const pods = async () => (await core().listNamespacedPod({ namespace: NAMESPACE })).items;

/** The fake trainer in the manner that `mode` names; `gated`: well, once the folder holds `go`. */
const runFake: Run = (pod) => {
  const command = pod.spec?.containers[0]?.command ?? [];
  const at = command.at(-1) ?? '';
  if (mode === 'no image') return null;
  if (mode !== 'gated') return { program: process.execPath, args: [FAKE, mode, at] };
  const wait = 'while [ ! -e "$1/go" ]; do sleep 0.05; done; exec "$2" "$3" succeed "$1"';
  return { program: 'sh', args: ['-c', wait, 'sh', at, process.execPath, FAKE] };
};

beforeAll(async () => {
  plane = await startControlPlane();
  plane.kubectl('apply', '-f', path.join(BASE, 'namespace.yaml'));
  plane.kubectl('apply', '--namespace', NAMESPACE, '-f', path.join(BASE, 'trainer/rbac.yaml'));
  plane.kubectl('apply', '--namespace', NAMESPACE, '-f', path.join(BASE, 'api/service-account.yaml'));
  token = plane.kubectl('create', 'token', 'fewloop-trainer', '--namespace', NAMESPACE).trim();
  // Of pods that name no service account; a controller makes it.
  await waitFor(() => plane.kubectl('get', 'serviceaccounts', '-n', NAMESPACE, '-o', 'name').includes('/default'));
});
afterAll(() => plane?.stop());

beforeEach(async () => {
  dataDir = mkdtempSync(path.join(tmpdir(), 'fewloop-kubernetes-'));
  const runId = `7f3b2c1e-0000-4000-8000-${String(++runs).padStart(12, '0')}`;
  folder = path.join(dataDir, 'runs/reviews', runId);
  name = jobName(runId);
  mkdirSync(folder, { recursive: true });
  writeFileSync(
    path.join(folder, 'run.json'),
    JSON.stringify({ formatVersion: 1, runId, task: 'reviews', version: 2 }),
  );
  const resources = { cpus: 2, memory: '4Gi', gpus: 0, processes: 1, deadlineS: 600, nodes: '' };
  settings = { image: 'fewloop-trainer:1', claim: 'fewloop-runs', dataDir, baseModel: '/app/models', ...resources };
  seen = [];
  kubelet = await playKubelet(admin(), NAMESPACE, plane.certificate, runFake);
});
afterEach(async () => {
  await batch().deleteCollectionNamespacedJob({ namespace: NAMESPACE, propagationPolicy: 'Background' });
  while ((await pods()).length > 0) await new Promise((resolve) => setTimeout(resolve, 100));
  await kubelet.stop();
  rmSync(dataDir, { recursive: true });
});

it('runs the trainer in a pod that the restricted standard admits, and answers its result', async () => {
  mode = 'succeed';
  await expect(start().done).resolves.toMatchObject({ ok: true, version: 2 });
  expect(stages()).toContain('export');
  expect(kubelet.started).toHaveLength(1);
  const [job] = await jobs();
  expect(job?.spec).toMatchObject({ ttlSecondsAfterFinished: 3600, backoffLimit: 0, podReplacementPolicy: 'Failed' });
});

it('asks the node for the log, and ends the error with it; another try is another Job', async () => {
  mode = 'dieAlways';
  const launcher = newLauncher();
  const died = await start(launcher).done;
  expect(died).toMatchObject({ ok: false, code: 'CRASHED', message: expect.stringContaining('exit status 137') });
  expect(died).toMatchObject({ message: expect.stringMatching(/out of memory, it says$/u) });
  expect(readFileSync(path.join(folder, 'trainer.log'), 'utf8')).toContain('out of memory, it says');
  const [first] = await jobs();
  mode = 'succeed';
  await expect(start(launcher).done).resolves.toMatchObject({ ok: true });
  const [second, ...others] = await jobs();
  expect(others).toEqual([]);
  expect(second?.metadata?.uid).not.toBe(first?.metadata?.uid);
});

it('takes the end of the log from the pod’s status where the node does not answer', async () => {
  mode = 'dieAlways';
  kubelet.loseLogs();
  await expect(start().done).resolves.toMatchObject({ message: expect.stringContaining('out of memory, it says') });
});

it('names the setting where the kernel ended the trainer at its memory limit', async () => {
  mode = 'slow';
  const trainer = start();
  await waitFor(() => stages().includes('training'));
  kubelet.killForMemory(kubelet.started[0]?.metadata?.name ?? '');
  const message = expect.stringContaining('FEWLOOP_TRAINER_MEMORY=4Gi');
  await expect(trainer.done).resolves.toMatchObject({ code: 'OUT_OF_MEMORY', message });
});

it('stops: the trainer hears SIGTERM, and Job and pods are gone', async () => {
  mode = 'slow';
  const trainer = start();
  await waitFor(() => stages().includes('training'));
  await trainer.stop();
  await expect(trainer.done).resolves.toMatchObject({ code: 'STOPPED', message: 'the trainer was stopped' });
  expect(JSON.parse(readFileSync(path.join(folder, 'result.json'), 'utf8'))).toMatchObject({ code: 'STOPPED' });
  expect(await jobs()).toEqual([]);
  expect(await pods()).toEqual([]);
});

it('finds the Job again after both the service and the API server were gone', async () => {
  mode = 'gated';
  const before = start();
  await waitFor(() => kubelet.started.length === 1);
  await before.release();
  const [job] = await jobs();
  const after = start();
  await plane.restartApiServer();
  writeFileSync(path.join(folder, 'go'), '');
  await expect(after.done).resolves.toMatchObject({ ok: true });
  const [still, ...others] = await jobs();
  expect(others).toEqual([]);
  expect(still?.metadata?.uid).toBe(job?.metadata?.uid);
});

it('goes on in another pod where the first one’s node is drained', async () => {
  mode = 'gated';
  const trainer = start();
  await waitFor(() => kubelet.started.length === 1);
  const pod = kubelet.started[0]?.metadata?.name ?? '';
  const body = { metadata: { name: pod, namespace: NAMESPACE } };
  await core().createNamespacedPodEviction({ name: pod, namespace: NAMESPACE, body });
  await waitFor(() => kubelet.started.length === 2);
  writeFileSync(path.join(folder, 'go'), '');
  await expect(trainer.done).resolves.toMatchObject({ ok: true });
});

it('says what the pod waits for, and ends it at the deadline', async () => {
  mode = 'no image';
  const result = await start(newLauncher({ deadlineS: 4 })).done;
  expect(stages()).toContain('waiting for its pod: ErrImagePull: no such image');
  expect(result).toMatchObject({
    code: 'DEADLINE_EXCEEDED',
    message: expect.stringMatching(/FEWLOOP_TRAINER_DEADLINE_S=4; it waited for its pod: ErrImagePull/u),
  });
});

it('ends what is left of another run of the task', async () => {
  mode = 'slow';
  const other = path.join(dataDir, 'runs/reviews/other');
  mkdirSync(other, { recursive: true });
  writeFileSync(path.join(other, 'run.json'), readFileSync(path.join(folder, 'run.json'), 'utf8'));
  await batch().createNamespacedJob({
    namespace: NAMESPACE,
    body: jobOf(settings, { runId: 'other', task: 'reviews' }, other),
  });
  await waitFor(() => kubelet.started.length === 1);
  mode = 'succeed';
  await expect(start().done).resolves.toMatchObject({ ok: true });
  expect((await jobs()).map(({ metadata }) => metadata?.name)).toEqual([name]);
});

describe('rights', () => {
  it('a service account without them is told which file gives them', async () => {
    mode = 'succeed';
    const other = plane.kubectl('create', 'token', 'fewloop-api', '--namespace', NAMESPACE).trim();
    const result = await start(newLauncher({}, other)).done;
    expect(result).toMatchObject({
      code: 'ENVIRONMENT',
      message: expect.stringContaining('cannot list resource "jobs"'),
    });
    expect(result).toMatchObject({ message: expect.stringContaining('k8s/base/trainer/rbac.yaml') });
  });

  it.each(['get secrets', 'create pods', 'create pods/exec', 'patch jobs', 'list jobs -A', 'delete pods'])(
    'the trainer’s may not %s',
    (what) => {
      const as = `system:serviceaccount:${NAMESPACE}:fewloop-trainer`;
      const can = () => plane.kubectl('auth', 'can-i', '-n', NAMESPACE, ...what.split(' '), '--as', as);
      expect(can).toThrow('kubectl auth can-i');
    },
  );

  it('what a Job asks of GPUs and nodes is accepted', async () => {
    const body = jobOf({ ...settings, gpus: 1, nodes: 'pool=gpu' }, { runId: 'gpu', task: 'a-' }, folder);
    await expect(batch().createNamespacedJob({ namespace: NAMESPACE, body, dryRun: 'All' })).resolves.toBeDefined();
  });
});

it('the service trains a version by the real trainer, and is killed meanwhile', async () => {
  const task = `name: reviews
kind: single-label
labels: [{name: positive, words: [好]}, {name: negative, words: [差]}]
templates: ["这是一条{mask}评。{text}"]
maxLength: 32
learning: {budgetSeconds: 20, trigger: {newLabels: null, schedule: null}}
`;
  await kubelet.stop();
  const python = trainerPython();
  const trainerDir = path.join(import.meta.dirname, '../../trainer');
  kubelet = await playKubelet(admin(), NAMESPACE, plane.certificate, (pod) => {
    const command = pod.spec?.containers[0]?.command ?? [];
    return { program: python, args: command.slice(command.indexOf('-m')), cwd: trainerDir };
  });
  const serviceDir = makeDataDir();
  const kubeconfig = path.join(dataDir, 'kubeconfig');
  writeFileSync(kubeconfig, plane.configFor(token).exportConfig());
  const env = {
    FEWLOOP_LAUNCHER: 'kubernetes',
    KUBECONFIG: kubeconfig,
    FEWLOOP_KUBERNETES_NAMESPACE: NAMESPACE,
    FEWLOOP_TRAINER_IMAGE: 'fewloop-trainer:1',
    FEWLOOP_TRAINER_CLAIM: 'fewloop-runs',
    FEWLOOP_TRAINER_CPUS: '1',
  };
  let service = await startServiceProcess(serviceDir, undefined, env);
  await service.request('mutation ($definition: String!) { applyTask(definition: $definition) { name } }', {
    definition: task,
  });
  const examples = ['手机', '衣服', '水果', '酒店', '书', '电脑', '洗发水', '平板'].flatMap((thing) => [
    { text: `${thing}很好，满意`, labels: ['positive'], split: 'TRAIN' },
    { text: `${thing}太差了，失望`, labels: ['negative'], split: 'TRAIN' },
  ]);
  await service.request(
    'mutation ($examples: [ExampleInput!]!) { importExamples(task: "reviews", examples: $examples) { added } }',
    { examples },
  );
  const { startRetrain } = await service.request<{ startRetrain: { id: string } }>(
    'mutation { startRetrain(task: "reviews") { id } }',
  );
  const work = path.join(serviceDir, 'runs/reviews', startRetrain.id, 'work');
  await until(() => existsSync(work), 120_000);
  await service.kill();
  service = await startServiceProcess(serviceDir, undefined, env);
  const run = async () => {
    const asked = `{ trainingRun(id: "${startRetrain.id}") { state error produced { version } } }`;
    return (await service.request<{ trainingRun: { state: string } }>(asked)).trainingRun;
  };
  await expect.poll(async () => (await run()).state, { timeout: 240_000, interval: 500 }).toMatch(/^[^QR]/u);
  expect(await run()).toEqual({ state: 'SUCCEEDED', error: null, produced: { version: 2 } });
  expect(kubelet.started).toHaveLength(1);
  await service.end();
  rmSync(serviceDir, { recursive: true, force: true });
});
