/**
 * The job queue, pg-boss on the service's own database. A job's worker proves that it lives every few seconds; one
 * that was killed is noticed within about twenty, and its job goes to whoever asks next.
 */
import { Inject, Injectable, Logger } from '@nestjs/common';
import { PgBoss, type Job } from 'pg-boss';

import { Database } from '../storage/database.js';

interface QueueDefinition {
  /** How often a job may be claimed again after the process that held it ended. */
  retries: number;
}

/** What was sent is `data`; the queue does not know its type. */
type JobHandler = (data: unknown, signal: AbortSignal) => Promise<void>;

/** Seconds without a sign of life until a job is somebody else's; pg-boss allows no less than 10. */
const SILENT_SECONDS = 10;
const SIGN_OF_LIFE_SECONDS = 3;
const LONGEST_JOB_SECONDS = 23 * 3600;
const STOP_TIMEOUT_MS = 20_000;

@Injectable()
export class JobQueue {
  private readonly log = new Logger(JobQueue.name);
  private starting: Promise<PgBoss> | null = null;

  constructor(@Inject(Database) private readonly database: Database) {}

  /** Jobs of one id exist once: sending it again while it is kept does nothing. */
  async send(queue: string, id: string, data: object): Promise<void> {
    const boss = await this.started();
    await boss.send(queue, data, { id });
  }

  /** `open`: it waits or is worked on. `over`: it ended, well or not. */
  async stateOf(queue: string, id: string): Promise<'open' | 'over' | 'unknown'> {
    const boss = await this.started();
    const [job] = await boss.findJobs(queue, { id });
    if (!job) return 'unknown';
    return ['created', 'retry', 'active'].includes(job.state) ? 'open' : 'over';
  }

  async define(queue: string, { retries }: QueueDefinition): Promise<void> {
    const boss = await this.started();
    await boss.createQueue(queue, {
      retryLimit: retries,
      retryDelay: 1,
      heartbeatSeconds: SILENT_SECONDS,
      expireInSeconds: LONGEST_JOB_SECONDS,
    });
  }

  /**
   * Takes one job at a time. A handler that throws gives the job back for another try. `signal` is aborted when the
   * job is no longer this worker's.
   */
  async work(queue: string, handler: JobHandler): Promise<void> {
    const boss = await this.started();
    const options = { pollingIntervalSeconds: 0.5, heartbeatRefreshSeconds: SIGN_OF_LIFE_SECONDS };
    await boss.work<object>(queue, options, async ([job]: Job[]) => {
      if (job) await handler(job.data, job.signal);
    });
  }

  /** Fetches no further job, waits for those at work to end, then lets go of the database. */
  async stop(): Promise<void> {
    const boss = await this.starting?.catch(() => null);
    await boss?.stop({ graceful: true, timeout: STOP_TIMEOUT_MS });
  }

  private started(): Promise<PgBoss> {
    this.starting ??= this.start();
    return this.starting;
  }

  private async start(): Promise<PgBoss> {
    const boss = new PgBoss({
      connectionString: this.database.url,
      application_name: 'fewloop-queue',
      max: 4,
      // Task schedules are triggers.ts's, which catches up after a pause.
      schedule: false,
      superviseIntervalSeconds: 5,
      monitorIntervalSeconds: 5,
    });
    // Without a listener an error of its own loops (the database is away for a moment) would end the process.
    boss.on('error', (error) => this.log.warn(`job queue: ${error.message}`));
    await boss.start();
    return boss;
  }
}
