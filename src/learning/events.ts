/**
 * What happens, for whoever watches: subscriptions and the log. Local subscribers hear at once; other processes by
 * NOTIFY, which carries keys, and the rows are read there. Nothing relies on an event: a lost one is a missing frame.
 */
import { Inject, Injectable, Logger, type OnApplicationBootstrap } from '@nestjs/common';
import { randomUUID } from 'node:crypto';
import { Subject } from 'rxjs';
import type { Prediction } from '../inference/types.js';
import type { ModelVersionRow } from '../storage/entities/model-version.js';
import type { TrainingRunRow } from '../storage/entities/training-run.js';
import { Notifications } from '../storage/notifications.js';
import { RunsRepository } from '../storage/runs.repository.js';
import { VersionsRepository } from '../storage/versions.repository.js';

export interface PredictionEvent {
  task: string;
  /** The producer's id of the text. */
  id: string;
  prediction: Prediction;
}

type Message = { from: string } & (
  | { kind: 'run'; id: string }
  | { kind: 'model'; task: string; version: number }
  | { kind: 'examples'; task: string }
  | ({ kind: 'prediction' } & PredictionEvent)
);

const CHANNEL = 'fewloop_events';
/** Of each task's predictions, a second; the rest is not sent. */
const SAMPLES_PER_SECOND = 20;

@Injectable()
export class LearningEvents implements OnApplicationBootstrap {
  readonly runChanged$ = new Subject<TrainingRunRow>();
  readonly modelActivated$ = new Subject<ModelVersionRow>();
  /** The task whose examples became more or other. */
  readonly examplesChanged$ = new Subject<string>();
  readonly predictions$ = new Subject<PredictionEvent>();

  readonly #log = new Logger(LearningEvents.name);
  readonly #self = randomUUID();
  readonly #samples = new Map<string, { second: number; sent: number }>();

  constructor(
    @Inject(Notifications) private readonly notifications: Notifications,
    @Inject(RunsRepository) private readonly runs: RunsRepository,
    @Inject(VersionsRepository) private readonly versions: VersionsRepository,
  ) {}

  onApplicationBootstrap(): void {
    this.notifications.on(CHANNEL, (payload) => {
      this.#receive(JSON.parse(payload) as Message).catch((error: unknown) => this.#log.warn(String(error)));
    });
  }

  runChanged(run: TrainingRunRow): void {
    this.runChanged$.next(run);
    this.#send({ from: this.#self, kind: 'run', id: run.id });
  }

  modelActivated(version: ModelVersionRow): void {
    this.modelActivated$.next(version);
    this.#send({ from: this.#self, kind: 'model', task: version.task, version: version.version });
  }

  examplesChanged(task: string): void {
    this.examplesChanged$.next(task);
    this.#send({ from: this.#self, kind: 'examples', task });
  }

  /** Passes a sample on, without the members, which are most of it and shown to nobody who watches. */
  predicted({ task, id, prediction }: PredictionEvent): void {
    const second = Math.floor(Date.now() / 1000);
    const before = this.#samples.get(task);
    const sent = before?.second === second ? before.sent : 0;
    if (sent >= SAMPLES_PER_SECOND) return;
    this.#samples.set(task, { second, sent: sent + 1 });
    const event = { task, id, prediction: { ...prediction, members: [] } };
    this.predictions$.next(event);
    this.#send({ from: this.#self, kind: 'prediction', ...event });
  }

  #send(message: Message): void {
    // The database may be away: then the other processes miss a frame.
    this.notifications.notify(CHANNEL, JSON.stringify(message)).catch(() => undefined);
  }

  async #receive(message: Message): Promise<void> {
    if (message.from === this.#self) return;
    if (message.kind === 'prediction') {
      this.predictions$.next({ task: message.task, id: message.id, prediction: message.prediction });
    } else if (message.kind === 'examples') {
      this.examplesChanged$.next(message.task);
    } else if (message.kind === 'run') {
      const run = await this.runs.find(message.id);
      if (run) this.runChanged$.next(run);
    } else {
      const version = await this.versions.find(message.task, message.version);
      if (version) this.modelActivated$.next(version);
    }
  }
}
