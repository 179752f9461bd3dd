import { ServiceUnavailableException } from '@nestjs/common';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { Health, type PartHealth } from '../common/health.js';
import { HealthController } from './health.controller.js';

let parts: Record<'database' | 'stream', PartHealth>;
let controller: HealthController;

beforeEach(() => {
  const health = new Health();
  parts = { database: { ok: true }, stream: { ok: true } };
  health.register('database', () => parts.database);
  health.register('stream', () => parts.stream, { required: false });
  controller = new HealthController(health);
});

const refused = async (answer: Promise<unknown>) => {
  const error = await answer.then(
    () => undefined,
    (thrown: unknown) => thrown as ServiceUnavailableException,
  );
  expect(error).toBeInstanceOf(ServiceUnavailableException);
  return error!.getResponse();
};

describe('ready', () => {
  it('names every part', async () => {
    expect(await controller.ready()).toEqual({
      status: 'ready',
      parts: { database: { ok: true, required: true }, stream: { ok: true, required: false } },
    });
  });

  it('is refused for a part that is required', async () => {
    parts.database = { ok: false, reason: 'connection refused' };
    expect(await refused(controller.ready())).toMatchObject({
      status: 'not ready',
      parts: { database: { ok: false, reason: 'connection refused' }, stream: { ok: true } },
    });
  });

  it('shows another part and goes on', async () => {
    parts.stream = { ok: false, reason: 'no topic is read yet' };
    expect(await controller.ready()).toMatchObject({
      parts: { stream: { ok: false, reason: 'no topic is read yet' } },
    });
  });

  it('a check that throws, or does not answer, is not in order', async () => {
    vi.useFakeTimers();
    const health = new Health();
    health.register('broken', () => Promise.reject(new Error('no such host')));
    health.register('silent', () => new Promise(() => undefined));
    const report = health.report();
    await vi.advanceTimersByTimeAsync(5000);
    vi.useRealTimers();
    expect(await report).toEqual({
      broken: { ok: false, reason: 'no such host', required: true },
      silent: { ok: false, reason: 'does not answer', required: true },
    });
  });
});

it('started is refused until it was ready once, and stays', async () => {
  parts.database = { ok: false };
  expect(await refused(controller.started())).toMatchObject({ status: 'not started' });
  parts.database = { ok: true };
  expect(await controller.started()).toMatchObject({ status: 'started' });
  parts.database = { ok: false };
  expect(await controller.started()).toMatchObject({ status: 'started' });
  expect(controller.live()).toEqual({ status: 'live' });
});
