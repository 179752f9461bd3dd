/** Lifecycle events to webhooks: signed, tried again, kept over the end of a process. */
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Webhook } from 'standardwebhooks';
import type { DataSource } from 'typeorm';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { NO_METRICS } from '../../src/common/metrics/metrics.js';
import { Outbox } from '../../src/learning/outbox.js';
import { WebhookSender } from '../../src/learning/webhooks.js';
import { connect } from '../../src/storage/database.js';
import type { Notifications } from '../../src/storage/notifications.js';
import { OutboxRepository } from '../../src/storage/outbox.repository.js';
import { Transactions } from '../../src/storage/transactions.js';
import { WebhookDeliveriesRepository } from '../../src/storage/webhook-deliveries.repository.js';
import { createDatabase } from '../fixtures/database.js';

const SECRET = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;

let database: Awaited<ReturnType<typeof createDatabase>>;
let dataSource: DataSource;
let receiver: Server;
let answers: number[];
let received: { headers: IncomingHttpHeaders; body: string }[];
let urls: string;
let givenUp: number;

beforeEach(async () => {
  database = await createDatabase();
  dataSource = await connect(database.url);
  [answers, received, givenUp] = [[], [], 0];
  receiver = createServer((request, response) => {
    let body = '';
    request.on('data', (bytes: Buffer) => (body += bytes.toString()));
    request.on('end', () => {
      received.push({ headers: request.headers, body });
      response.writeHead(answers.shift() ?? 204, { location: '/elsewhere' }).end();
    });
  });
  await new Promise<void>((resolve) => receiver.listen(0, '127.0.0.1', resolve));
  urls = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/hook`;
});
afterEach(async () => {
  await new Promise((resolve) => receiver.close(resolve));
  await dataSource.destroy();
  await database.drop();
});

const deliveries = () => new WebhookDeliveriesRepository(dataSource);
const notifications = { on: () => () => undefined } as unknown as Notifications;

function sender(): WebhookSender {
  const config = { role: 'all', webhookUrls: urls, webhookSecret: SECRET } as const;
  const metrics = { ...NO_METRICS, add: () => void (givenUp += 1) };
  return new WebhookSender(config, deliveries(), notifications, metrics);
}

async function happened(version: number): Promise<void> {
  const transactions = new Transactions(dataSource);
  const config = { kafkaBrokers: '', webhookUrls: urls };
  const outbox = new Outbox(config, new OutboxRepository(), deliveries(), transactions, notifications);
  await transactions.run((tx) => outbox.add('model.activated', 'reviews', { version }, tx));
}

const waiting = () => dataSource.query('SELECT attempts, due_at > now() AS later FROM webhook_delivery ORDER BY seq');
const makeDue = () => dataSource.query('UPDATE webhook_delivery SET due_at = now()');

it('posts the CloudEvent with a signature that receivers can check', async () => {
  await happened(3);
  expect(await sender().sendDue()).toBe(1);
  const [{ headers, body }] = received as [{ headers: IncomingHttpHeaders; body: string }];
  expect(headers['content-type']).toContain('application/cloudevents+json');
  const signed = headers as Record<string, string>;
  expect(new Webhook(SECRET).verify(body, signed)).toMatchObject({
    specversion: '1.0',
    id: headers['webhook-id'],
    type: 'fewloop.model.activated',
    subject: 'reviews',
    data: { version: 3 },
  });
  expect(() => new Webhook(SECRET).verify(`${body} `, signed)).toThrow('No matching signature');
  expect(await waiting()).toEqual([]);
  expect(await sender().sendDue()).toBe(0);
});

it('tries again with the same id, also from another process, and follows no redirection', async () => {
  answers = [500, 302, 200];
  await happened(1);
  const first = sender();
  expect(await first.sendDue()).toBe(0);
  expect(await waiting()).toEqual([{ attempts: 1, later: true }]);
  // Not before it is due.
  expect(await first.sendDue()).toBe(0);
  expect(received).toHaveLength(1);
  await first.beforeApplicationShutdown();
  for (const taken of [0, 1]) {
    await makeDue();
    expect(await sender().sendDue()).toBe(taken);
  }
  expect(new Set(received.map(({ headers }) => headers['webhook-id'])).size).toBe(1);
  expect(received.map(({ headers }) => headers.host)).toHaveLength(3);
  expect(await waiting()).toEqual([]);
});

it('gives up what is not wanted any more, and what was never taken', async () => {
  answers = [410];
  await happened(1);
  await sender().sendDue();
  expect([await waiting(), givenUp]).toEqual([[], 1]);
  answers = [500];
  await happened(2);
  await dataSource.query('UPDATE webhook_delivery SET attempts = 17');
  await sender().sendDue();
  expect([await waiting(), givenUp]).toEqual([[], 2]);
});

it('waits where nobody answers', async () => {
  await happened(1);
  const open = urls;
  urls = urls.replace(/:\d+/u, ':9');
  await dataSource.query('UPDATE webhook_delivery SET url = $1', [urls]);
  expect(await sender().sendDue()).toBe(0);
  expect(await waiting()).toEqual([{ attempts: 1, later: true }]);
  urls = open;
});

it('two processes do not send the same at once', async () => {
  for (let version = 1; version <= 20; version++) await happened(version);
  const taken = await Promise.all([sender(), sender()].map((one) => one.sendDue()));
  expect(taken[0]! + taken[1]!).toBe(20);
  expect(new Set(received.map(({ headers }) => headers['webhook-id'])).size).toBe(20);
  expect(received).toHaveLength(20);
});

it('is of the transaction that made it true', async () => {
  const transactions = new Transactions(dataSource);
  const config = { kafkaBrokers: '', webhookUrls: urls };
  const outbox = new Outbox(config, new OutboxRepository(), deliveries(), transactions, notifications);
  const undone = transactions.run(async (tx) => {
    await outbox.add('model.activated', 'reviews', {}, tx);
    throw new Error('rolled back');
  });
  await expect(undone).rejects.toThrow('rolled back');
  expect(await waiting()).toEqual([]);
});
