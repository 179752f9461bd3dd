/** A training run as a Kubernetes Job: a function of the settings and the run. */
import type { V1Job, V1PodSpec } from '@kubernetes/client-node';
import path from 'node:path';

import { sha256 } from '../task/keys.js';
import { processOptions, WITHOUT_TRIMMING } from './trainer-program.js';

export interface JobSettings {
  image: string;
  /** Its root is `dataDir` of this process. */
  claim: string;
  /** Absolute. */
  dataDir: string;
  /** Absolute; of the image, or in `dataDir`. */
  baseModel: string;
  cpus: number;
  /** As Kubernetes writes quantities. */
  memory: string;
  gpus: number;
  /** That share a run's models out, a GPU each where there are any; empty: the trainer decides. */
  processes: number | '';
  deadlineS: number;
  /** `key=value` by commas; empty: any node. */
  nodes: string;
}

/** Of the trainer's image (docker/Dockerfile), which sets MALLOC_TRIM_THRESHOLD_ as the service's does. */
const PYTHON = '/opt/trainer/bin/python';

export const CONTAINER = 'trainer';
const RUN_LABEL = 'fewloop.io/run';
const TASK_LABEL = 'fewloop.io/task';
const CLAIM_LABEL = 'fewloop.io/claim';
/** Of the images (docker/), and of what the service writes to the claim. */
const USER = 10_001;
/** The trainer stops within 10 s of SIGTERM. */
const GRACE_S = 30;
/** What is over stays for whoever wants to look at it. */
const KEPT_S = 3600;

/** The same for every attempt at a run, so that none is started twice. */
export function jobName(runId: string): string {
  return `fewloop-run-${runId}`;
}

/** Jobs and pods of a run. */
export function runSelector(runId: string): string {
  return `${RUN_LABEL}=${runId}`;
}

/** Those of a task; the claim tells installations in one namespace apart. */
export function taskSelector(task: string, { claim }: Pick<JobSettings, 'claim'>): string {
  return `${TASK_LABEL}=${labelValue(task)},${CLAIM_LABEL}=${labelValue(claim)}`;
}

/**
 * One pod at a time (`podReplacementPolicy`), never a second try (`backoffLimit`): the service counts tries. A pod
 * that its node loses to a drain, a preemption or its own end is no try: the next one resumes in the run's folder.
 */
export function jobOf(settings: JobSettings, run: { runId: string; task: string }, folder: string): V1Job {
  const labels = {
    'app.kubernetes.io/name': 'fewloop',
    'app.kubernetes.io/component': 'training-run',
    [RUN_LABEL]: run.runId,
    [TASK_LABEL]: labelValue(run.task),
    [CLAIM_LABEL]: labelValue(settings.claim),
  };
  return {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { name: jobName(run.runId), labels },
    spec: {
      backoffLimit: 0,
      completions: 1,
      parallelism: 1,
      podReplacementPolicy: 'Failed',
      podFailurePolicy: {
        rules: [{ action: 'Ignore', onPodConditions: [{ type: 'DisruptionTarget', status: 'True' }] }],
      },
      activeDeadlineSeconds: settings.deadlineS,
      ttlSecondsAfterFinished: KEPT_S,
      template: { metadata: { labels }, spec: podSpec(settings, folder) },
    },
  };
}

function podSpec(settings: JobSettings, folder: string): V1PodSpec {
  const { image, claim, dataDir, baseModel, cpus, memory, gpus, processes, nodes } = settings;
  const gpu: Record<string, string> = gpus > 0 ? { 'nvidia.com/gpu': String(gpus) } : {};
  return {
    restartPolicy: 'Never',
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    terminationGracePeriodSeconds: GRACE_S,
    ...(nodes === '' ? {} : { nodeSelector: Object.fromEntries(nodes.split(',').map(pair)) }),
    ...(gpus > 0 ? { tolerations: [{ key: 'nvidia.com/gpu', operator: 'Exists', effect: 'NoSchedule' }] } : {}),
    securityContext: {
      runAsNonRoot: true,
      runAsUser: USER,
      runAsGroup: USER,
      fsGroup: USER,
      fsGroupChangePolicy: 'OnRootMismatch',
      seccompProfile: { type: 'RuntimeDefault' },
    },
    containers: [
      {
        name: CONTAINER,
        image,
        command: [...WITHOUT_TRIMMING, PYTHON, '-m', 'fewloop_trainer', 'run', ...processOptions(processes), folder],
        workingDir: '/app/trainer',
        env: [{ name: 'HOME', value: '/tmp' }],
        resources: {
          requests: { cpu: String(cpus), memory, ...gpu },
          // None of processors: the run's threads are as many as it may have.
          limits: { memory, ...gpu },
        },
        securityContext: {
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ['ALL'] },
        },
        // What it printed last is in the pod's status, even where its node can no longer be asked for the log.
        terminationMessagePolicy: 'FallbackToLogsOnError',
        volumeMounts: [
          { name: 'data', mountPath: folder, subPath: path.relative(dataDir, folder) },
          ...baseModelMount(dataDir, baseModel),
          { name: 'tmp', mountPath: '/tmp' },
        ],
      },
    ],
    volumes: [
      { name: 'data', persistentVolumeClaim: { claimName: claim } },
      { name: 'tmp', emptyDir: {} },
    ],
  };
}

/** None where the image holds it. */
function baseModelMount(dataDir: string, baseModel: string) {
  const subPath = path.relative(dataDir, baseModel);
  return subPath.startsWith('..') ? [] : [{ name: 'data', mountPath: baseModel, subPath, readOnly: true }];
}

function pair(text: string): [string, string] {
  const at = text.indexOf('=');
  return [text.slice(0, at), text.slice(at + 1)];
}

/** Names may be longer than a label's value, or end in a hyphen. */
function labelValue(name: string): string {
  return /^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$/u.test(name) ? name : `sha256.${sha256(name).slice(0, 32)}`;
}
