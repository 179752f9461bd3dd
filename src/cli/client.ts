/** The service over GraphQL: requests by HTTP, subscriptions by WebSocket. */
import { request as overHttp, type ClientRequest } from 'node:http';
import { request as overHttps } from 'node:https';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { createClient } from 'graphql-ws';
import { WebSocket } from 'ws';

/** The service or the way to it said no: printed without a stack, exit 1. */
export class Failure extends Error {
  constructor(
    message: string,
    readonly code: string | null = null,
    /** Of OVERLOADED: when to ask again. */
    readonly retryAfterMs: number | null = null,
  ) {
    super(message);
  }
}

export interface AnswerError {
  message: string;
  path?: (string | number)[];
  extensions?: { code?: string; field?: string; retryAfterMs?: number };
}

export interface Answer<T> {
  data: T | null;
  errors: AnswerError[];
}

export function failureOf({ message, extensions }: AnswerError): Failure {
  return new Failure(message, extensions?.code ?? null, extensions?.retryAfterMs ?? null);
}

/** Runs `work` again and again while the service is overloaded, as late as it asks for: long work is not to be lost. */
export async function patiently<T>(work: () => Promise<T>, onWait: (seconds: number) => void): Promise<T> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof Failure) || error.code !== 'OVERLOADED') throw error;
      const ms = error.retryAfterMs ?? 1000;
      onWait(Math.ceil(ms / 1000));
      await sleep(ms);
    }
  }
}

const GATEWAY_TIMEOUT = 504;
/** TCP's own tries take more than two minutes. */
const CONNECT_MS = 10_000;
const AT_IT = 'the service may still be at it: look before you ask again';

function parsed(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return null;
  }
}

/** Ends a request that has no connection in time; for its answer it may wait. */
function connectInTime(request: ClientRequest, connected: 'connect' | 'secureConnect'): void {
  request.once('socket', (socket) => {
    // One that was kept alive is connected.
    if (!socket.connecting) return;
    const late = Object.assign(new Error('no connection in time'), { code: 'ETIMEDOUT' });
    const timer = setTimeout(() => request.destroy(late), CONNECT_MS);
    const stop = () => clearTimeout(timer);
    socket.once(connected, stop).once('close', stop);
  });
}

export class Client {
  constructor(
    readonly url: string,
    private readonly token: string | undefined,
  ) {}

  /** The data; throws the first error as a Failure. */
  async request<T>(query: string, variables: object = {}): Promise<T> {
    const { data, errors } = await this.ask<T>(query, variables);
    const [error] = errors;
    if (error) throw failureOf(error);
    return data!;
  }

  /** What the caller's role may see: by the first query, each of which asks for less, that is not FORBIDDEN as a whole. */
  async requestAllowed<T>([query, ...less]: readonly [string, ...string[]], variables: object = {}): Promise<T> {
    const [next, ...rest] = less;
    try {
      return await this.request<T>(query, variables);
    } catch (error) {
      if (next === undefined || !(error instanceof Failure) || error.code !== 'FORBIDDEN') throw error;
      return this.requestAllowed<T>([next, ...rest], variables);
    }
  }

  /** Data and errors, for answers of which a part may fail. */
  async ask<T>(query: string, variables: object): Promise<Answer<T>> {
    const { status, body } = await this.post(JSON.stringify({ query, variables }));
    const answer = parsed(body) as { data?: T | null; errors?: AnswerError[] } | null;
    if (!answer || (!answer.data && !answer.errors)) {
      const why = status === GATEWAY_TIMEOUT ? `: no answer in its time; ${AT_IT}` : ', and not as GraphQL does';
      throw new Failure(`${this.url} answered ${status}${why}`);
    }
    return { data: answer.data ?? null, errors: answer.errors ?? [] };
  }

  /** As late as it answers: fetch gives up after five minutes, and a comparison of versions may take longer. */
  private async post(body: string): Promise<{ status: number; body: string }> {
    let isSent = false;
    try {
      return await new Promise((resolve, reject) => {
        const isSecure = this.url.startsWith('https:');
        const send = isSecure ? overHttps : overHttp;
        const request = send(this.url, { method: 'POST', headers: this.headers() }, (response) => {
          text(response).then((received) => resolve({ status: response.statusCode!, body: received }), reject);
        });
        connectInTime(request, isSecure ? 'secureConnect' : 'connect');
        request.on('finish', () => (isSent = true)).on('error', reject);
        request.end(body);
      });
    } catch (error) {
      const cause = (error as NodeJS.ErrnoException).code ?? String(error);
      const why = isSent
        ? `the connection to ${this.url} ended before the answer (${cause}); ${AT_IT}`
        : `no service answers at ${this.url} (${cause}); start it with npm start`;
      throw new Failure(why);
    }
  }

  /** Every payload until the service ends the subscription. */
  async *subscribe<T>(query: string, variables: Record<string, unknown>): AsyncGenerator<T> {
    const url = this.url.replace(/^http/u, 'ws');
    const client = createClient({
      url,
      webSocketImpl: WebSocket,
      retryAttempts: 0,
      ...(this.token && { connectionParams: { authorization: `Bearer ${this.token}` } }),
    });
    try {
      for await (const { data, errors } of client.iterate<T & Record<string, unknown>>({ query, variables })) {
        const [error] = (errors ?? []) as AnswerError[];
        if (error) throw failureOf(error);
        if (data) yield data as Awaited<T>;
      }
    } catch (error) {
      if (error instanceof Failure) throw error;
      // The library throws the socket's events as they are.
      const { reason, message } = error as { reason?: string; message?: string };
      throw new Failure(`the connection to ${url} ended: ${reason || message || 'no reason given'}`);
    } finally {
      await client.dispose();
    }
  }

  private headers(): Record<string, string> {
    const headers = { 'content-type': 'application/json' };
    return this.token ? { ...headers, authorization: `Bearer ${this.token}` } : headers;
  }
}
