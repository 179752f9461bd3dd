/** Subscriptions over graphql-ws: on the process where it happens, and on another one on the same database. */
import { createClient, type Client } from 'graphql-ws';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { type Service, startService } from '../fixtures/service.js';

const APPLY = 'mutation ($definition: String!) { applyTask(definition: $definition) { activeVersion { version } } }';
const IMPORT = `mutation ($examples: [ExampleInput!]!) {
  importExamples(task: "reviews", examples: $examples) { added }
}`;
const PATIENCE = { timeout: 20_000 };

let here: Service;
let elsewhere: Service;
let clients: Client[];

beforeAll(async () => {
  here = await startService();
  elsewhere = await startService({ ...here.shared, FEWLOOP_ROLE: 'api' });
  clients = [here, elsewhere].map(({ url }) =>
    createClient({ url: url.replace('http', 'ws'), webSocketImpl: WebSocket, retryAttempts: 0 }),
  );
  await applyRevision('reviews', 32);
  await applyRevision('second', 32);
});

afterAll(async () => {
  for (const client of clients ?? []) await client.dispose();
  await elsewhere?.close();
  await here?.close();
});

interface Heard<T> {
  events: T[];
  errors: { extensions?: { code?: string } }[];
  /** Resolves when the subscription is over. */
  over: Promise<unknown>;
}

function listen<T>(client: Client, field: string): Heard<T> {
  const events: T[] = [];
  const errors: Heard<T>['errors'] = [];
  const over = new Promise<unknown>((resolve) => {
    client.subscribe<{ it: T }>(
      { query: `subscription { it: ${field} }` },
      {
        next(result) {
          if (result.data) events.push(result.data.it);
          errors.push(...((result.errors ?? []) as readonly Heard<T>['errors'][number][]));
        },
        error(error) {
          errors.push(...(error as Heard<T>['errors']));
          resolve(error);
        },
        complete: () => resolve(undefined),
      },
    );
  });
  return { events, errors, over };
}

/** Another length is another revision, whose zero-shot version becomes active. Resolves to its number. */
async function applyRevision(task: string, maxLength: number): Promise<number> {
  const labels = [
    { name: 'positive', words: ['好'] },
    { name: 'negative', words: ['差'] },
  ];
  const definition = { name: task, kind: 'single-label', labels, templates: ['{text}很{mask}'], maxLength };
  const { applyTask } = await here.request<{ applyTask: { activeVersion: { version: number } } }>(APPLY, {
    definition: JSON.stringify(definition),
  });
  return applyTask.activeVersion.version;
}

describe('modelActivated', () => {
  it('tells of every task or of one, here and elsewhere', async () => {
    interface Activated {
      task: string;
      version: number;
      activatedAt: string;
    }
    const of = (args: string) =>
      clients.map((client) => listen<Activated>(client, `modelActivated${args} { task version activatedAt }`));
    const every = of('');
    const one = of('(task: "second")');
    const newest = { reviews: 0, second: 0 };
    let maxLength = 33;
    const activateBoth = async () => {
      newest.reviews = await applyRevision('reviews', maxLength);
      newest.second = await applyRevision('second', maxLength++);
    };
    // A subscription has no sign that it has begun but its first event.
    await expect
      .poll(async () => {
        await activateBoth();
        return [...every, ...one].every(({ events }) => events.length > 0);
      }, PATIENCE)
      .toBe(true);
    await activateBoth();
    for (const { events, errors } of every) {
      const last = [
        { task: 'reviews', version: newest.reviews },
        { task: 'second', version: newest.second },
      ];
      await expect.poll(() => events.slice(-2), PATIENCE).toMatchObject(last);
      expect(errors).toEqual([]);
    }
    for (const { events } of one) {
      await expect.poll(() => events.at(-1)?.version, PATIENCE).toBe(newest.second);
      expect(new Set(events.map(({ task }) => task))).toEqual(new Set(['second']));
      expect(events.at(-1)!.activatedAt).toMatch(/^\d{4}-\d\d-\d\dT/u);
    }
  });

  it('of a task that is not there is TASK_NOT_FOUND', async () => {
    const heard = listen(clients[0]!, 'modelActivated(task: "nobody") { version }');
    await heard.over;
    expect(heard.events).toEqual([]);
    expect(heard.errors).toMatchObject([{ extensions: { code: 'TASK_NOT_FOUND' } }]);
  });
});

describe('trainingRunProgress', () => {
  it('begins with the run as it is and ends with its end, here and elsewhere', async () => {
    interface Run {
      id: string;
      state: string;
      progress: number;
    }
    const examples = ['positive', 'negative'].map((label) => ({ text: `${label}的`, labels: [label], split: 'TRAIN' }));
    await here.request(IMPORT, { examples });
    // Without a trainer's environment the run waits for it.
    const { run } = await here.request<{ run: { id: string } }>(
      'mutation { run: startRetrain(task: "reviews") { id } }',
    );
    const { id } = run;
    const field = `trainingRunProgress(id: "${id}") { id state progress }`;
    const watching = clients.map((client) => listen<Run>(client, field));
    for (const { events } of watching) {
      await expect.poll(() => events[0], PATIENCE).toMatchObject({ id, progress: expect.any(Number) });
      expect(['QUEUED', 'RUNNING']).toContain(events[0]!.state);
    }
    await here.request('mutation ($id: ID!) { cancelRun(id: $id) { id } }', { id });
    for (const { events, errors, over } of watching) {
      expect(await over).toBeUndefined();
      expect(errors).toEqual([]);
      expect(events.filter(({ state }) => state === 'CANCELLED')).toEqual([events.at(-1)]);
    }
  });

  it('of a run that is not there is RUN_NOT_FOUND', async () => {
    const heard = listen(clients[0]!, 'trainingRunProgress(id: "x") { state }');
    await heard.over;
    expect(heard.events).toEqual([]);
    expect(heard.errors).toMatchObject([{ extensions: { code: 'RUN_NOT_FOUND' } }]);
  });
});

it('predictions at a rate that is none is BAD_INPUT', async () => {
  const heard = listen(clients[0]!, 'predictions(task: "reviews", perSecond: 0) { id }');
  await heard.over;
  expect(heard.errors).toMatchObject([{ extensions: { code: 'BAD_INPUT', field: 'perSecond' } }]);
});
