/** Lifecycle events as the world outside reads them: CloudEvents 1.0, structured mode. Pure. */
export type LifecycleType =
  | 'run.finished'
  | 'promotion.requested'
  | 'shadow.ended'
  | 'canary.started'
  | 'canary.stopped'
  | 'model.activated'
  | 'model.rolled-back';

export interface LifecycleEvent {
  id: string;
  type: LifecycleType;
  task: string;
  at: Date;
  data: object;
}

export const CLOUD_EVENT_TYPE = 'application/cloudevents+json; charset=UTF-8';

export interface CloudEvent {
  specversion: '1.0';
  id: string;
  source: '/fewloop';
  type: string;
  /** The task. */
  subject: string;
  time: string;
  datacontenttype: 'application/json';
  data: object;
}

export function cloudEventOf({ id, type, task, at, data }: LifecycleEvent): CloudEvent {
  return {
    specversion: '1.0',
    id,
    source: '/fewloop',
    type: `fewloop.${type}`,
    subject: task,
    time: at.toISOString(),
    datacontenttype: 'application/json',
    data,
  };
}
