/** What has become of a training Job, read from it and its pods. */
import type { V1ContainerStateTerminated, V1Job, V1Pod } from '@kubernetes/client-node';

import { CONTAINER } from './kubernetes-job.js';

export type Phase =
  /** `why`: what it waits for, as Kubernetes says it. */
  | { kind: 'waiting'; why: string }
  | { kind: 'running' }
  /** Its end is decided, and its pods are not gone yet. */
  | { kind: 'ending' }
  | { kind: 'complete' }
  /** `reason` of the Job: BackoffLimitExceeded, DeadlineExceeded, … */
  | { kind: 'failed'; reason: string; message: string }
  | { kind: 'gone' };

export type Ended = Extract<Phase, { kind: 'complete' | 'failed' | 'gone' }>;

export function isEnded(phase: Phase): phase is Ended {
  return phase.kind === 'complete' || phase.kind === 'failed' || phase.kind === 'gone';
}

/** `job`: null where it is there no more. */
export function phaseOf(job: V1Job | null, pods: V1Pod[]): Phase {
  if (job === null) return { kind: 'gone' };
  const condition = conditionOf(job, ['Complete', 'Failed']);
  if (condition?.type === 'Complete') return { kind: 'complete' };
  if (condition) return { kind: 'failed', reason: condition.reason ?? '', message: condition.message ?? '' };
  if (conditionOf(job, ['FailureTarget', 'SuccessCriteriaMet'])) return { kind: 'ending' };
  const pod = newest(pods);
  if (pod === undefined) return { kind: 'waiting', why: 'a pod' };
  if (pod.status?.phase === 'Pending') return { kind: 'waiting', why: hindrance(pod) };
  return { kind: 'running' };
}

export function isOver(job: V1Job): boolean {
  return conditionOf(job, ['Complete', 'Failed']) !== undefined;
}

/** Of the trainer's container; undefined where it has not ended, or never began. */
export function terminated(pod: V1Pod | undefined): V1ContainerStateTerminated | undefined {
  return containerStatus(pod)?.state?.terminated;
}

function conditionOf(job: V1Job, types: string[]) {
  return job.status?.conditions?.find(({ type, status }) => types.includes(type) && status === 'True');
}

export function newest(pods: V1Pod[]): V1Pod | undefined {
  const at = (pod: V1Pod) => new Date(pod.metadata?.creationTimestamp ?? 0).getTime();
  return pods.toSorted((a, b) => at(b) - at(a))[0];
}

function hindrance(pod: V1Pod): string {
  const waiting = containerStatus(pod)?.state?.waiting;
  const unscheduled = pod.status?.conditions?.find(({ type, status }) => type === 'PodScheduled' && status === 'False');
  const { reason, message } = waiting ?? unscheduled ?? {};
  return ['its pod', reason, message].filter((part) => part !== undefined && part !== '').join(': ');
}

function containerStatus(pod: V1Pod | undefined) {
  return pod?.status?.containerStatuses?.find(({ name }) => name === CONTAINER);
}
