/**
 * The cluster as the launcher needs it: one namespace, its Jobs, their pods. Calls throw the client library's
 * ApiException where the API server answers with an error; `isPassing` tells which of those pass.
 */
import {
  ApiException,
  BatchV1Api,
  CoreV1Api,
  KubeConfig,
  ListWatch,
  Watch,
  type KubernetesListObject,
  type KubernetesObject,
  type V1Job,
  type V1Pod,
} from '@kubernetes/client-node';
import { existsSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import { SERVICE_ACCOUNT_DIR } from '../config/config.js';
import { CONTAINER } from './kubernetes-job.js';

const LOG_LINES = 20_000;
const LOG_BYTES = 8 * 2 ** 20;
const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 30_000;

export class Cluster {
  private readonly batch: BatchV1Api;
  private readonly core: CoreV1Api;

  constructor(
    private readonly config: KubeConfig,
    readonly namespace: string,
  ) {
    this.batch = config.makeApiClient(BatchV1Api);
    this.core = config.makeApiClient(CoreV1Api);
  }

  /** Throws an Error that says which variable to change. */
  static connect({ kubeconfig, kubernetesNamespace }: { kubeconfig: string; kubernetesNamespace: string }): Cluster {
    const config = new KubeConfig();
    try {
      if (kubeconfig === '') config.loadFromCluster();
      else config.loadFromFile(kubeconfig);
    } catch (error) {
      throw new Error(`KUBECONFIG=${kubeconfig}: ${(error as Error).message}`, { cause: error });
    }
    if (!config.getCurrentCluster()) throw new Error(`KUBECONFIG=${kubeconfig}: its current context names no cluster`);
    return new Cluster(config, kubernetesNamespace || namespaceOf(config));
  }

  async findJob(name: string): Promise<V1Job | null> {
    try {
      return await this.batch.readNamespacedJob({ name, namespace: this.namespace });
    } catch (error) {
      if (codeOf(error) === 404) return null;
      throw error;
    }
  }

  async listJobs(labelSelector: string): Promise<V1Job[]> {
    return (await this.batch.listNamespacedJob({ namespace: this.namespace, labelSelector })).items;
  }

  async listPods(labelSelector: string): Promise<V1Pod[]> {
    return (await this.core.listNamespacedPod({ namespace: this.namespace, labelSelector })).items;
  }

  /** Where there is one of its name, that one stays. */
  async createJob(body: V1Job): Promise<void> {
    try {
      await this.batch.createNamespacedJob({ namespace: this.namespace, body });
    } catch (error) {
      if (codeOf(error) !== 409) throw error;
    }
  }

  /** It is there until its pods are gone. */
  async deleteJob(name: string): Promise<void> {
    try {
      await this.batch.deleteNamespacedJob({ name, namespace: this.namespace, propagationPolicy: 'Foreground' });
    } catch (error) {
      if (codeOf(error) !== 404) throw error;
    }
  }

  /** The last of what the trainer printed; null where its node cannot be asked. */
  async log(pod: V1Pod): Promise<string | null> {
    const name = pod.metadata?.name ?? '';
    const request = { name, namespace: this.namespace, container: CONTAINER };
    try {
      return await this.core.readNamespacedPodLog({ ...request, tailLines: LOG_LINES, limitBytes: LOG_BYTES });
    } catch {
      return null;
    }
  }

  /** Jobs and pods of the selector from now on. */
  follow(labelSelector: string): Followed {
    const { namespace } = this;
    const jobs = new Kept<V1Job>(
      this.config,
      `/apis/batch/v1/namespaces/${namespace}/jobs`,
      () => this.batch.listNamespacedJob({ namespace, labelSelector }),
      labelSelector,
    );
    const pods = new Kept<V1Pod>(
      this.config,
      `/api/v1/namespaces/${namespace}/pods`,
      () => this.core.listNamespacedPod({ namespace, labelSelector }),
      labelSelector,
    );
    return new Followed(jobs, pods);
  }
}

/** One that cannot be opened ends as others do: the library awaits that where nobody takes the error. */
export class ToldWatch extends Watch {
  override async watch(...[path, query, callback, done]: Parameters<Watch['watch']>): Promise<AbortController> {
    try {
      return await super.watch(path, query, callback, done);
    } catch (error) {
      done(error);
      return new AbortController();
    }
  }
}

/** Objects of a selector, kept up by the library's list and watch. */
class Kept<T extends KubernetesObject> {
  /** Whether what is there was listed once: before that, that an object is missing says nothing. */
  listed = false;
  onChange: () => void = () => undefined;
  private readonly informer: ListWatch<T>;
  private retry: NodeJS.Timeout | undefined;
  private retryMs = FIRST_RETRY_MS;
  private closed = false;
  private starting: Promise<void>;

  constructor(config: KubeConfig, path: string, list: () => Promise<KubernetesListObject<T>>, selector: string) {
    this.informer = new ListWatch(path, new ToldWatch(config), () => this.noted(list()), false, selector);
    this.informer.on('change', () => this.changed());
    // It begins anew by itself where the server closed the watch or no longer knows its version (410); not after errors.
    this.informer.on('error', () => this.again());
    this.starting = this.informer.start();
  }

  get objects(): readonly T[] {
    return this.informer.list();
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.retry);
    void this.informer.stop();
    // A watch that is being opened is not closed by that.
    void this.starting.then(() => this.informer.stop());
  }

  private async noted(list: Promise<KubernetesListObject<T>>): Promise<KubernetesListObject<T>> {
    const answer = await list;
    this.listed = true;
    // After the informer has taken it in: an empty list changes nothing, and is worth telling.
    setImmediate(() => this.changed());
    return answer;
  }

  private changed(): void {
    this.retryMs = FIRST_RETRY_MS;
    if (!this.closed) this.onChange();
  }

  private again(): void {
    if (this.closed) return;
    clearTimeout(this.retry);
    this.retry = setTimeout(() => {
      this.starting = this.informer.start();
    }, this.retryMs);
    this.retryMs = Math.min(2 * this.retryMs, LAST_RETRY_MS);
  }
}

export class Followed {
  constructor(
    private readonly jobs: Kept<V1Job>,
    private readonly pods: Kept<V1Pod>,
  ) {}

  /** Null where it is not there; undefined while that is not known. */
  job(name: string): V1Job | null | undefined {
    const job = this.jobs.objects.find(({ metadata }) => metadata?.name === name);
    return job ?? (this.jobs.listed ? null : undefined);
  }

  /** Those of a Job; undefined while they are not known. */
  podsOf(job: string): V1Pod[] | undefined {
    if (!this.pods.listed) return undefined;
    return this.pods.objects.filter(({ metadata }) => metadata?.labels?.['job-name'] === job);
  }

  /** Asks at each change, until there is an answer. Rejects with the signal's reason. */
  until<T>(ask: () => T | undefined, signal: AbortSignal): Promise<T> {
    return new Promise((resolve, reject) => {
      const look = () => {
        const answer = ask();
        if (answer !== undefined) resolve(answer);
      };
      this.jobs.onChange = look;
      this.pods.onChange = look;
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
      if (signal.aborted) reject(signal.reason as Error);
      look();
    });
  }

  close(): void {
    this.jobs.close();
    this.pods.close();
  }
}

/** Calls until an error comes that does not pass. `onTrouble` is told of those that do. Rejects with the signal's reason. */
export async function persistently<T>(
  call: () => Promise<T>,
  signal: AbortSignal,
  onTrouble: (message: string) => void,
): Promise<T> {
  for (let waitMs = FIRST_RETRY_MS; ; waitMs = Math.min(2 * waitMs, LAST_RETRY_MS)) {
    signal.throwIfAborted();
    try {
      return await call();
    } catch (error) {
      if (!isPassing(error)) throw error;
      onTrouble(messageOf(error));
    }
    await sleep(waitMs, undefined, { signal }).catch(() => undefined);
  }
}

/** The API server is away, starts, or is too busy. */
function isPassing(error: unknown): boolean {
  const code = codeOf(error);
  // fetch's word for a connection that was not made, or broke, is a TypeError with a cause.
  if (code === undefined) return error instanceof TypeError && error.cause !== undefined;
  return code === 429 || code >= 500;
}

/** What the API server says, in its own words. */
export function messageOf(error: unknown): string {
  if (!(error instanceof ApiException)) {
    const { message, cause } = error as Error;
    return cause instanceof Error ? `${message}: ${cause.message}` : message;
  }
  const body: unknown = error.body;
  try {
    const status = (typeof body === 'string' ? JSON.parse(body) : body) as { message?: string };
    return status.message ?? `status ${error.code}`;
  } catch {
    return `status ${error.code}`;
  }
}

export function codeOf(error: unknown): number | undefined {
  return error instanceof ApiException ? error.code : undefined;
}

function namespaceOf(config: KubeConfig): string {
  const file = `${SERVICE_ACCOUNT_DIR}/namespace`;
  const ofContext = config.getContextObject(config.getCurrentContext())?.namespace;
  return ofContext ?? (existsSync(file) ? readFileSync(file, 'utf8').trim() : 'default');
}
