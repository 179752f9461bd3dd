/**
 * Lifecycle events to webhooks: a POST of the CloudEvent, signed as Standard Webhooks has it (HMAC-SHA-256 of id, time and
 * body). A webhook that does not answer 2xx is tried again, ever less often, for about three days; what waits is in
 * PostgreSQL, so that nothing is lost with a process. At least once, and not in order: the id tells repetitions, the time
 * what came first.
 */
import {
  Inject,
  Injectable,
  Logger,
  type BeforeApplicationShutdown,
  type OnApplicationBootstrap,
} from '@nestjs/common';
import { Webhook } from 'standardwebhooks';
import { METRICS, type Metrics } from '../common/metrics/metrics.js';
import { Config } from '../config/config.js';
import { Notifications } from '../storage/notifications.js';
import { WebhookDeliveriesRepository } from '../storage/webhook-deliveries.repository.js';
import { CLOUD_EVENT_TYPE, type CloudEvent } from './cloud-event.js';
import { WEBHOOK_CHANNEL } from './outbox.js';

const POLL_MS = 5_000;
const AT_ONCE = 8;
const TIMEOUT_MS = 10_000;
const MINUTE = 60;
/** Between attempts, in seconds; the sum is three days. */
export const WAITS = [
  30,
  2 * MINUTE,
  10 * MINUTE,
  30 * MINUTE,
  2 * 60 * MINUTE,
  ...Array.from({ length: 12 }, () => 360 * MINUTE),
];
/** The receiver wants no more of it (Standard Webhooks). */
const GONE = 410;

@Injectable()
export class WebhookSender implements OnApplicationBootstrap, BeforeApplicationShutdown {
  readonly #log = new Logger(WebhookSender.name);
  readonly #stop = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(
    @Inject(Config) private readonly config: Pick<Config, 'role' | 'webhookUrls' | 'webhookSecret'>,
    @Inject(WebhookDeliveriesRepository) private readonly deliveries: WebhookDeliveriesRepository,
    @Inject(Notifications) private readonly notifications: Pick<Notifications, 'on'>,
    @Inject(METRICS) private readonly metrics: Metrics,
  ) {}

  onApplicationBootstrap(): void {
    if (this.config.webhookUrls === '' || !['all', 'api'].includes(this.config.role)) return;
    this.notifications.on(WEBHOOK_CHANNEL, () => this.#soon());
    this.#timer = setInterval(() => this.#soon(), POLL_MS).unref();
    this.#soon();
  }

  async beforeApplicationShutdown(): Promise<void> {
    clearInterval(this.#timer);
    this.#stop.abort();
    await this.#last;
  }

  /** Sends what is due. Returns how many were taken. */
  async sendDue(): Promise<number> {
    let taken = 0;
    while (!this.#stop.signal.aborted) {
      const due = await this.deliveries.begin(AT_ONCE, WAITS);
      if (due.length === 0) break;
      const sent = await Promise.all(
        due.map(async ({ seq, url, event, attempts }) => {
          const refusal = await this.#post(url, event as CloudEvent);
          if (refusal === null) {
            await this.deliveries.delete(seq);
            return true;
          }
          await this.#refused({ seq, url, id: (event as CloudEvent).id, attempts, refusal });
          return false;
        }),
      );
      taken += sent.filter(Boolean).length;
    }
    return taken;
  }

  async #refused(failed: { seq: string; url: string; id: string; attempts: number; refusal: string }): Promise<void> {
    const { seq, url, id, attempts, refusal } = failed;
    const { host } = new URL(url);
    const gone = refusal === `HTTP ${GONE}`;
    if (!gone && attempts <= WAITS.length) {
      this.#log.warn(`event ${id} to ${host}: ${refusal}; tried again in ${WAITS[attempts - 1]} s`);
      return;
    }
    this.#log.error(`event ${id} to ${host} is given up after ${attempts} attempts: ${refusal}`);
    this.metrics.add('fewloop_webhooks_given_up_total', { host });
    await this.deliveries.delete(seq);
  }

  /** Null where it was taken, else why not. */
  async #post(url: string, event: CloudEvent): Promise<string | null> {
    const body = JSON.stringify(event);
    const at = new Date();
    const headers = {
      'content-type': CLOUD_EVENT_TYPE,
      'webhook-id': event.id,
      'webhook-timestamp': String(Math.floor(at.getTime() / 1000)),
      'webhook-signature': new Webhook(this.config.webhookSecret).sign(event.id, at, body),
    };
    const signal = AbortSignal.any([this.#stop.signal, AbortSignal.timeout(TIMEOUT_MS)]);
    try {
      const answer = await fetch(url, { method: 'POST', body, headers, signal, redirect: 'manual' });
      await answer.body?.cancel();
      return answer.ok ? null : `HTTP ${answer.status}`;
    } catch (error) {
      const { cause, message } = error as Error;
      return cause instanceof Error ? cause.message : message;
    }
  }

  #soon(): void {
    this.#last = this.#last
      .then(() => this.sendDue())
      .catch((error: unknown) => this.#log.warn(`webhooks wait: ${(error as Error).message}`));
  }
}
