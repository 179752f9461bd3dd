/**
 * Plays scheduler and kubelet for one node: binds pods, runs their container's command as a process of this machine (no
 * container, no mounts: paths are what they are here), patches their status, serves their logs to the API server, ends
 * them when they are deleted. What runs in the place of a command is the test's to say.
 */
import { CoreV1Api, ListWatch, Watch, type KubeConfig, type V1Pod, type V1PodStatus } from '@kubernetes/client-node';
import { type ChildProcess, spawn } from 'node:child_process';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const NODE = 'node-1';

/** Null: the pod waits, as where its image cannot be had. */
export type Run = (pod: V1Pod) => { program: string; args: string[]; cwd?: string; env?: NodeJS.ProcessEnv } | null;

export interface Kubelet {
  /** Pods that were started, in order. */
  readonly started: V1Pod[];
  /** Does not answer for logs any more. */
  loseLogs(): void;
  /** As the kernel does at a memory limit. */
  killForMemory(pod: string): void;
  stop(): Promise<void>;
}

interface Running {
  child: ChildProcess;
  log: string;
  reason?: string;
}

export async function playKubelet(
  config: KubeConfig,
  namespace: string,
  certificate: { cert: string; key: string },
  run: Run,
): Promise<Kubelet> {
  const core = config.makeApiClient(CoreV1Api);
  const running = new Map<string, Running>();
  const started: V1Pod[] = [];
  let answersLogs = true;
  const server = createServer(certificate, (request, response) => {
    const [, , , pod = ''] = (request.url ?? '').split('?')[0]?.split('/') ?? [];
    const log = running.get(pod)?.log;
    if (answersLogs) response.writeHead(log === undefined ? 404 : 200).end(log ?? 'no such pod');
    else response.destroy();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  await registerNode(core, server);

  /** As a kubelet does: again, where somebody else changed the pod meanwhile, or the API server is away. */
  const setStatus = async (name: string, status: V1PodStatus): Promise<void> => {
    for (let tries = 0; ; tries += 1) {
      try {
        const pod = await core.readNamespacedPod({ name, namespace });
        const body = Object.assign({}, pod, { status: Object.assign({}, pod.status, status) });
        await core.replaceNamespacedPodStatus({ name, namespace, body });
        return;
      } catch (error) {
        if (tries === 100 || (error as { code?: number }).code === 404) throw error;
        await sleep(200);
      }
    }
  };

  const start = async (pod: V1Pod): Promise<void> => {
    const name = nameOf(pod);
    const container = pod.spec?.containers[0];
    const command = run(pod);
    const status = (state: object) => [
      { name: container?.name ?? '', image: container?.image ?? '', imageID: '', ready: false, restartCount: 0, state },
    ];
    if (command === null) {
      const waiting = { reason: 'ErrImagePull', message: 'no such image' };
      await setStatus(name, { phase: 'Pending', containerStatuses: status({ waiting }) });
      return;
    }
    const { program, args, ...options } = command;
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
    const entry: Running = { child, log: '' };
    running.set(name, entry);
    started.push(pod);
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => (entry.log += chunk.toString('utf8')));
    }
    const ended = new Promise<number>((resolve) => {
      child.once('close', (code, signal) => resolve(code ?? (signal === 'SIGTERM' ? 143 : 137)));
    });
    await setStatus(name, { phase: 'Running', containerStatuses: status({ running: { startedAt: new Date() } }) });
    const exitCode = await ended;
    const reason = entry.reason ?? (exitCode === 0 ? 'Completed' : 'Error');
    // FallbackToLogsOnError: the kubelet keeps 2048 bytes.
    const terminated = { exitCode, reason, ...(exitCode === 0 ? {} : { message: entry.log.slice(-2048) }) };
    await setStatus(name, {
      phase: exitCode === 0 ? 'Succeeded' : 'Failed',
      containerStatuses: status({ terminated }),
    });
  };

  const seen = new Set<string>();
  const ended = new Map<string, Promise<void>>();
  const remove = async (pod: V1Pod): Promise<void> => {
    const name = nameOf(pod);
    running.get(name)?.child.kill('SIGTERM');
    await ended.get(name);
    await core.deleteNamespacedPod({ name, namespace, gracePeriodSeconds: 0 }).catch(() => undefined);
  };
  const look = (pod: V1Pod): void => {
    const name = nameOf(pod);
    if (pod.metadata?.deletionTimestamp !== undefined) {
      if (seen.has(`-${name}`)) return;
      seen.add(`-${name}`);
      void remove(pod);
    } else if (pod.spec?.nodeName === undefined) {
      if (seen.has(name)) return;
      seen.add(name);
      const binding = { metadata: { name }, target: { kind: 'Node', name: NODE } };
      const bound = core.createNamespacedPodBinding({ name, namespace, body: binding }).catch(ignoreEmptyAnswer);
      ended.set(
        name,
        bound
          .then(() => start(pod))
          .catch((error: unknown) => void process.stderr.write(`kubelet: ${String(error)}\n`)),
      );
    }
  };
  const path = `/api/v1/namespaces/${namespace}/pods`;
  const informer = new ListWatch(path, new Watch(config), () => core.listNamespacedPod({ namespace }), false);
  informer.on('change', look);
  informer.on('error', () => setTimeout(() => void informer.start(), 300));
  await informer.start();

  return {
    started,
    loseLogs: () => (answersLogs = false),
    killForMemory: (name) => {
      const entry = running.get(name);
      if (!entry) throw new Error(`no pod ${name} runs`);
      entry.reason = 'OOMKilled';
      entry.child.kill('SIGKILL');
    },
    stop: async () => {
      informer.off('change', look);
      await informer.stop();
      for (const { child } of running.values()) child.kill('SIGKILL');
      await Promise.all(ended.values());
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** The API server asks the node's address for logs. */
async function registerNode(core: CoreV1Api, server: Server): Promise<void> {
  const { port } = server.address() as AddressInfo;
  await core.deleteNode({ name: NODE }).catch(() => undefined);
  const node = await core.createNode({ body: { metadata: { name: NODE } } });
  const status = {
    addresses: [{ type: 'InternalIP', address: '127.0.0.1' }],
    daemonEndpoints: { kubeletEndpoint: { Port: port } },
  };
  await core.replaceNodeStatus({ name: NODE, body: Object.assign({}, node, { status }) });
}

function nameOf(pod: V1Pod): string {
  return pod.metadata?.name ?? '';
}

/** The library wants a Binding back; the API server answers a Status. */
function ignoreEmptyAnswer(error: unknown): void {
  if ((error as { code?: number }).code !== undefined && (error as { code: number }).code >= 400) throw error;
}
