/** Who uses replicas while something ends them: callers, of whom each request is told apart, and a labeler. */
import { setTimeout as sleep } from 'node:timers/promises';
import { graphqlClient } from '../fixtures/graphql.js';

const EVERY_MS = 100;
/** Of one attempt; and when a caller with a second try gives up. */
const ATTEMPT_MS = 2000;
const GIVE_UP_MS = 10_000;
const PAUSE_MS = 100;

export interface Asked {
  atMs: number;
  /** By the first attempt, which is all that a caller without a second try has. */
  first: boolean;
  /** By another replica, too, until it gave up. */
  answered: boolean;
  latencyMs: number;
}

/** The GraphQL data; throws where there is none, in time. */
async function request<T>(url: string, query: string, variables: object): Promise<T> {
  const late = new Promise<never>((_, reject) => {
    setTimeout(() => reject(new Error('no answer in time')), ATTEMPT_MS).unref();
  });
  return Promise.race([graphqlClient(url).request<T>(query, variables), late]);
}

/** A text each 100 ms, whether or not the last was answered, to the replicas in turn; no two are the same. */
export class Callers {
  readonly asked: Asked[] = [];
  readonly #stop = new AbortController();
  readonly #ended: Promise<void>;

  constructor(
    private readonly urls: string[],
    private readonly task: string,
  ) {
    this.#ended = this.#ask();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#ended;
  }

  async #ask(): Promise<void> {
    const waiting: Promise<void>[] = [];
    const begun = performance.now();
    for (let i = 0; !this.#stop.signal.aborted; i++) {
      waiting.push(this.#one(i));
      await sleep(Math.max(0, (i + 1) * EVERY_MS - (performance.now() - begun)));
    }
    await Promise.all(waiting);
  }

  async #one(number: number): Promise<void> {
    const query = '{ classify(task: "' + this.task + '", inputs: [{text: "第' + number + '问"}]) { label } }';
    const [atMs, begun] = [Date.now(), performance.now()];
    const waited = () => performance.now() - begun;
    for (let attempt = 0; ; attempt++) {
      const url = this.urls[(number + attempt) % this.urls.length]!;
      const answered = await request(url, query, {}).then(
        () => true,
        () => false,
      );
      if (answered || waited() > GIVE_UP_MS) {
        this.asked.push({ atMs, first: answered && attempt === 0, answered, latencyMs: waited() });
        return;
      }
      await sleep(PAUSE_MS);
    }
  }
}

const QUEUE = 'query ($task: String!) { reviewQueue(task: $task, first: 5) { edges { node { id } } } }';
const LABEL = 'mutation ($id: ID!) { label(candidate: $id, labels: ["positive"]) { id } }';

/** Answers questions, each by whichever replica takes it; what one acknowledged is to be kept. */
export class Labeler {
  readonly acknowledged: string[] = [];
  readonly #stop = new AbortController();
  readonly #ended: Promise<void>;

  constructor(
    private readonly urls: string[],
    private readonly task: string,
  ) {
    this.#ended = this.#answer();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#ended;
  }

  async #answer(): Promise<void> {
    for (let turn = 0; !this.#stop.signal.aborted; turn++) {
      const url = this.urls[turn % this.urls.length]!;
      // What was not acknowledged is asked again, or was answered all the same.
      await this.#page(url).catch(() => undefined);
      await sleep(PAUSE_MS);
    }
  }

  async #page(url: string): Promise<void> {
    type Page = { reviewQueue: { edges: { node: { id: string } }[] } };
    const { reviewQueue } = await request<Page>(url, QUEUE, { task: this.task });
    for (const { node } of reviewQueue.edges) {
      await request(url, LABEL, { id: node.id });
      this.acknowledged.push(node.id);
    }
  }
}
