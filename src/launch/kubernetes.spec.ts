import type { V1PodStatus } from '@kubernetes/client-node';
import { appendFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { KubernetesApi, NAMESPACE } from '../../test/fixtures/kubernetes-api.js';
import { Cluster, ToldWatch } from './kubernetes-cluster.js';
import { jobName, jobOf, taskSelector, type JobSettings } from './kubernetes-job.js';
import { KubernetesLauncher } from './kubernetes.js';
import type { RunProgress } from './run-folder.js';

const RUN = '7f3b2c1e-0000-4000-8000-000000000001';
const JOB = jobName(RUN);
const POD = `${JOB}-pod`;
const RUNNING: V1PodStatus = { phase: 'Running' };
const BACKOFF = { type: 'Failed', reason: 'BackoffLimitExceeded', message: 'Job has reached the limit' };

let api: KubernetesApi;
let dataDir: string;
let folder: string;
let settings: JobSettings;
let seen: RunProgress[];

beforeEach(async () => {
  api = await KubernetesApi.start();
  dataDir = mkdtempSync(path.join(tmpdir(), 'fewloop-kubernetes-'));
  folder = path.join(dataDir, 'runs/reviews', RUN);
  mkdirSync(folder, { recursive: true });
  write('run.json', { formatVersion: 1, runId: RUN, task: 'reviews' });
  const image = 'fewloop-trainer:1';
  const resources = { cpus: 4, memory: '6Gi', gpus: 0, processes: 1, deadlineS: 7200, nodes: '' };
  settings = { image, claim: 'fewloop-runs', dataDir, baseModel: '/app/models/base-zh', ...resources };
  seen = [];
});

afterEach(async () => {
  await api.stop();
  rmSync(dataDir, { recursive: true });
});

const write = (name: string, value: unknown) => writeFileSync(path.join(folder, name), JSON.stringify(value));
const newLauncher = () =>
  new KubernetesLauncher(new Cluster(api.config, NAMESPACE), { ...settings, resultVisibleMs: 0 });
const start = (launcher = newLauncher()) => launcher.start(folder, (progress) => seen.push(progress));
const stages = () => seen.map(({ stage }) => stage);
const until = (check: () => boolean) => vi.waitUntil(check, { timeout: 10_000, interval: 5 });
const created = () => until(() => api.job(JOB) !== undefined && api.watches === 2);
const succeed = () => {
  write('result.json', { ok: true, version: 2, bundle: 'bundle' });
  api.endJob(JOB, { type: 'Complete' });
};

function ended(exitCode: number, reason: string, message?: string): V1PodStatus {
  const state = { terminated: { exitCode, reason, ...(message === undefined ? {} : { message }) } };
  const status = { name: 'trainer', state, ready: false, restartCount: 0, image: 'i', imageID: 'i' };
  return { phase: exitCode === 0 ? 'Succeeded' : 'Failed', containerStatuses: [status] };
}

describe('KubernetesLauncher', () => {
  it('creates the Job, follows it to its end, and answers what the trainer wrote', async () => {
    const trainer = start();
    await created();
    api.setPod(JOB, RUNNING);
    appendFileSync(path.join(folder, 'progress.jsonl'), '{"at":"2026-01-01","stage":"training","progress":0.4}\n');
    await until(() => stages().includes('training'));
    api.logs.set(POD, 'epoch 1\n');
    succeed();
    await expect(trainer.done).resolves.toMatchObject({ ok: true, version: 2 });
    expect(readFileSync(path.join(folder, 'trainer.log'), 'utf8')).toBe('epoch 1\n');
    await until(() => api.watches === 0);
  });

  it('says what the pod waits for', async () => {
    const trainer = start();
    await created();
    const condition = { type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message: '0/3 nodes' };
    api.setPod(JOB, { phase: 'Pending', conditions: [condition] });
    await until(() => stages().includes('waiting for its pod: Unschedulable: 0/3 nodes'));
    succeed();
    await expect(trainer.done).resolves.toMatchObject({ ok: true });
  });

  it.each(['the server drops it', 'the server ends it', 'its version is forgotten', 'the server fails'])(
    'goes on where a watch breaks: %s',
    async (how) => {
      const trainer = start();
      await created();
      if (how === 'its version is forgotten') api.forgetHistory();
      if (how === 'the server fails') api.refuse(/GET .*\/jobs$/u, 500);
      if (how === 'the server ends it') api.endWatches();
      else api.dropWatches();
      // While nobody watches: what happened meanwhile must not be missed.
      api.setPod(JOB, ended(1, 'Error'));
      api.logs.set(POD, 'no such label\n');
      api.endJob(JOB, BACKOFF);
      if (how === 'its version is forgotten') api.forgetHistory();
      await expect(trainer.done).resolves.toMatchObject({
        ok: false,
        message: expect.stringContaining('no such label'),
      });
      const lists = api.requests.filter((request) => request.endsWith('/jobs') && request.startsWith('GET'));
      expect(lists.length).toBeGreaterThan(2);
    },
  );

  it('ends the error with the end of the log', async () => {
    const trainer = start();
    await created();
    api.setPod(JOB, ended(3, 'Error'));
    api.logs.set(POD, `${'x'.repeat(5000)}\nKeyError: negative\n`);
    api.endJob(JOB, BACKOFF);
    const result = await trainer.done;
    expect(result).toMatchObject({ ok: false, code: 'CRASHED' });
    expect(result).toMatchObject({ message: expect.stringMatching(/\(Error, exit status 3\).*KeyError: negative$/su) });
    expect(JSON.stringify(result).length).toBeLessThan(2300);
  });

  it('takes what the pod’s status keeps of the log where the node does not answer', async () => {
    const trainer = start();
    await created();
    api.setPod(JOB, ended(137, 'Error', 'kept by the kubelet'));
    api.endJob(JOB, BACKOFF);
    await expect(trainer.done).resolves.toMatchObject({ message: expect.stringContaining('kept by the kubelet') });
  });

  it('hands on the reason that the trainer gives', async () => {
    const trainer = start();
    await created();
    write('result.json', { ok: false, code: 'TOO_FEW_ROWS', message: 'label negative has no row' });
    api.setPod(JOB, ended(1, 'Error'));
    api.endJob(JOB, BACKOFF);
    await expect(trainer.done).resolves.toMatchObject({ code: 'TOO_FEW_ROWS', message: 'label negative has no row' });
  });

  it('names the setting where the memory or the time was too little', async () => {
    const first = start();
    await created();
    api.setPod(JOB, ended(137, 'OOMKilled'));
    api.endJob(JOB, BACKOFF);
    const message = expect.stringContaining('FEWLOOP_TRAINER_MEMORY=6Gi');
    await expect(first.done).resolves.toMatchObject({ code: 'OUT_OF_MEMORY', message });
    api.removeJob(JOB);
    const second = start();
    await created();
    api.endJob(JOB, { type: 'Failed', reason: 'DeadlineExceeded' });
    const late = expect.stringContaining('FEWLOOP_TRAINER_DEADLINE_S=7200');
    await expect(second.done).resolves.toMatchObject({ code: 'DEADLINE_EXCEEDED', message: late });
  });

  it('leaves the Job at work when it is released, and finds it again', async () => {
    const before = start();
    await created();
    api.setPod(JOB, RUNNING);
    await before.release();
    await expect(before.done).resolves.toMatchObject({ code: 'STOPPED' });
    expect(api.job(JOB)?.metadata?.deletionTimestamp).toBeUndefined();
    const uid = api.job(JOB)?.metadata?.uid;
    const after = start();
    await until(() => api.watches === 2);
    succeed();
    await expect(after.done).resolves.toMatchObject({ ok: true });
    expect(api.job(JOB)?.metadata?.uid).toBe(uid);
    expect(api.requests.filter((request) => request.startsWith('POST'))).toHaveLength(1);
  });

  it('takes the result of a Job that ended while no service looked', async () => {
    api.addJob(jobOf(settings, { runId: RUN, task: 'reviews' }, folder));
    succeed();
    await expect(start().done).resolves.toMatchObject({ ok: true, version: 2 });
  });

  it('makes a Job anew for another try, and waits until the failed one is gone', async () => {
    const launcher = newLauncher();
    const first = start(launcher);
    await created();
    const uid = api.job(JOB)?.metadata?.uid;
    api.setPod(JOB, ended(1, 'Error'));
    write('result.json', { ok: false, code: 'OLD', message: 'of the first try' });
    api.endJob(JOB, BACKOFF);
    await first.done;
    await until(() => api.watches === 0);
    const second = start(launcher);
    await until(() => api.job(JOB)?.metadata?.deletionTimestamp !== undefined && api.watches > 0);
    expect(stages()).toContain('waiting for the Job before it to end');
    api.removePod(POD);
    api.removeJob(JOB);
    await until(() => (api.job(JOB)?.metadata?.uid ?? uid) !== uid && api.watches === 2);
    api.endJob(JOB, BACKOFF);
    await expect(second.done).resolves.toMatchObject({ code: 'CRASHED' });
  });

  it('ends what is left of another run of the task, and of no other installation', async () => {
    const other = { runId: 'other', task: 'reviews' };
    api.addJob(jobOf(settings, other, folder));
    api.addJob(jobOf({ ...settings, claim: 'theirs' }, { runId: 'theirs', task: 'reviews' }, folder));
    const trainer = start();
    await until(() => api.job(jobName('other'))?.metadata?.deletionTimestamp !== undefined);
    expect(api.job(JOB)).toBeUndefined();
    api.removeJob(jobName('other'));
    await created();
    expect(api.job(jobName('theirs'))?.metadata?.deletionTimestamp).toBeUndefined();
    succeed();
    await trainer.done;
  });

  it('is stopped once the Job and its pods are gone', async () => {
    const trainer = start();
    await created();
    api.setPod(JOB, RUNNING);
    let over = false;
    const stopped = trainer.stop().then(() => (over = true));
    await until(() => api.job(JOB)?.metadata?.deletionTimestamp !== undefined && api.watches === 2);
    expect(over).toBe(false);
    api.removePod(POD);
    api.removeJob(JOB);
    await stopped;
    await expect(trainer.done).resolves.toMatchObject({ code: 'STOPPED', message: 'the trainer was stopped' });
  });

  it('ends the Job of a run that was cancelled while no service looked', async () => {
    api.addJob(jobOf(settings, { runId: RUN, task: 'reviews' }, folder));
    const ending = newLauncher().end(folder);
    await until(() => api.job(JOB)?.metadata?.deletionTimestamp !== undefined);
    api.removeJob(JOB);
    await ending;
    await expect(newLauncher().end(folder)).resolves.toBeUndefined();
    await expect(newLauncher().end(path.join(dataDir, 'nothing'))).resolves.toBeUndefined();
  });

  it('says so where the Job is deleted by somebody else', async () => {
    const trainer = start();
    await created();
    api.removeJob(JOB);
    await expect(trainer.done).resolves.toMatchObject({ code: 'CRASHED', message: expect.stringContaining('deleted') });
  });

  it('waits for an API server that is away, and not for one that refuses', async () => {
    api.refuse(/^POST/u, 503, 'starting');
    const trainer = start();
    await created();
    expect(stages()).toContain('waiting for the Kubernetes API: starting');
    succeed();
    await trainer.done;
    api.removeJob(JOB);
    api.refuse(/^POST/u, 403, 'jobs.batch is forbidden');
    const refused = await start().done;
    expect(refused).toMatchObject({ code: 'ENVIRONMENT', message: expect.stringContaining('jobs.batch is forbidden') });
    expect(refused).toMatchObject({ message: expect.stringContaining('rbac.yaml') });
  });
});

it('waits for an API server that cannot be reached', async () => {
  const config = api.config;
  await api.stop();
  const trainer = start(new KubernetesLauncher(new Cluster(config, NAMESPACE), settings));
  await until(() => stages().some((stage) => /^waiting for the Kubernetes API: .*ECONNREFUSED/u.test(stage)));
  await trainer.release();
  await expect(trainer.done).resolves.toMatchObject({ code: 'STOPPED' });
  api = await KubernetesApi.start();
});

it('is told of a watch for which there are no credentials, as of others that end', async () => {
  const { config } = api;
  vi.spyOn(config, 'applySecurityAuthentication').mockRejectedValueOnce(new Error('no token'));
  const done = vi.fn<(error: unknown) => void>();
  await new ToldWatch(config).watch('/api/v1/pods', {}, () => undefined, done);
  expect(done).toHaveBeenCalledExactlyOnceWith(new Error('no token'));
});

describe('Cluster.connect', () => {
  const connect = (kubeconfig: string) => () => Cluster.connect({ kubeconfig, kubernetesNamespace: '' });

  it('says what is wrong with the file', () => {
    const file = path.join(dataDir, 'config');
    writeFileSync(file, '{');
    expect(connect(file)).toThrow(`KUBECONFIG=${file}: `);
    writeFileSync(file, 'clusters: []\ncontexts: []\nusers: []\n');
    expect(connect(file)).toThrow('names no cluster');
  });

  it('takes the namespace of the context', () => {
    const file = path.join(dataDir, 'config');
    const context = { name: 'c', context: { cluster: 'k', user: 'u', namespace: 'ml' } };
    const cluster = { name: 'k', cluster: { server: 'https://127.0.0.1:1' } };
    const users = [{ name: 'u', user: {} }];
    writeFileSync(file, JSON.stringify({ clusters: [cluster], contexts: [context], users, 'current-context': 'c' }));
    expect(connect(file)().namespace).toBe('ml');
  });
});

describe('jobOf', () => {
  const job = (changes: Partial<JobSettings> = {}) =>
    jobOf({ ...settings, ...changes }, { runId: RUN, task: 'reviews' }, folder).spec?.template.spec;

  it('mounts the run’s folder alone, at the path that it has here', () => {
    const [container] = job()?.containers ?? [];
    expect(container?.command?.at(-1)).toBe(folder);
    expect(container?.volumeMounts).toEqual([
      { name: 'data', mountPath: folder, subPath: `runs/reviews/${RUN}` },
      { name: 'tmp', mountPath: '/tmp' },
    ]);
    const base = path.join(dataDir, 'models/large');
    expect(job({ baseModel: base })?.containers[0]?.volumeMounts).toContainEqual({
      name: 'data',
      mountPath: base,
      subPath: 'models/large',
      readOnly: true,
    });
  });

  it('asks for a GPU, and for nodes, where they are set', () => {
    expect(job()?.tolerations).toBeUndefined();
    const spec = job({ gpus: 2, processes: 2, nodes: 'pool=gpu,zone=' });
    expect(spec?.containers[0]?.resources?.limits).toEqual({ memory: '6Gi', 'nvidia.com/gpu': '2' });
    expect(spec?.containers[0]?.command?.slice(-4)).toEqual(['run', '--processes', '2', folder]);
    expect(job()?.containers[0]?.command?.slice(-2)).toEqual(['run', folder]);
    expect(spec?.nodeSelector).toEqual({ pool: 'gpu', zone: '' });
    expect(spec?.tolerations).toHaveLength(1);
  });

  it('has labels that Kubernetes takes, whatever the task is called', () => {
    for (const task of ['reviews', 'ends-', 'a'.repeat(63)]) {
      expect(taskSelector(task, settings)).toMatch(/^fewloop\.io\/task=[a-z0-9][a-z0-9.-]{0,61}[a-z0-9],fewloop/u);
    }
    expect(taskSelector('a-', settings)).not.toBe(taskSelector('a', settings));
  });
});
