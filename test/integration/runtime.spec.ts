import { execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { copyFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { availableParallelism, constants, getPriority, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { Logger } from '@nestjs/common';
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { Config } from '../../src/config/config.js';
import { refuseUnusableDevices } from '../../src/registry/device-check.js';
import { findLayout, layoutsOf } from '../../src/registry/host-layout.js';
import { estimatedBytes } from '../../src/runtime/host-memory.js';
import { HostPool, type GraphFile } from '../../src/runtime/host-pool.js';
import { HostProcess } from '../../src/runtime/host-process.js';
import { graphBatch } from '../fixtures/graph-batch.js';
import { descendants, isAlive, until } from '../fixtures/processes.js';

const MODEL = join(import.meta.dirname, '../fixtures/tiny-model/model.onnx');
const graph = (sha256: string, path = MODEL): GraphFile => ({ id: 'g0', path, sha256 });

it('measures how many hosts and threads are fastest once, and leaves none of them', async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'fewloop-layout-'));
  try {
    const config = Config.load({}).with({ dataDir, baseModel: dirname(MODEL) });
    const found = await findLayout(config);
    expect(layoutsOf('cpu', availableParallelism(), 64)).toContainEqual(found);
    expect(descendants(process.pid)).toEqual([]);
    const file = join(dataDir, 'host-layouts.json');
    const measured = await readFile(file, 'utf8');
    expect(await findLayout(config)).toEqual(found);
    expect(await readFile(file, 'utf8')).toBe(measured);
  } finally {
    await rm(dataDir, { recursive: true });
  }
});

it.skipIf(existsSync('/dev/nvidia0'))(
  'refuses a GPU that ONNX Runtime cannot use, and says what is missing',
  async () => {
    const said = refuseUnusableDevices({ device: 'cuda:0', baseModel: dirname(MODEL) });
    await expect(said).rejects.toThrow(/^FEWLOOP_DEVICE=cuda:0: cuda:0 cannot be used: .*cuda/isu);
    await refuseUnusableDevices({ device: 'cpu', baseModel: '/nowhere' });
    expect(descendants(process.pid)).toEqual([]);
  },
);

it('shares hosts out to the devices in turn', async () => {
  const devices: string[] = [];
  const start = HostProcess.start.bind(HostProcess);
  const spy = vi.spyOn(HostProcess, 'start').mockImplementation((graphs, settings, events) => {
    devices.push(settings.device);
    return start(graphs, { ...settings, device: 'cpu' }, events);
  });
  const pool = new HostPool({ hosts: 4, threads: 1, device: 'cuda:0,3' });
  try {
    const lease = await pool.open([graph('a')]);
    expect(devices).toEqual(['cuda:0', 'cuda:3', 'cuda:0', 'cuda:3']);
    expect(lease.fixedShapes).toBe(true);
  } finally {
    spy.mockRestore();
    await pool.close();
  }
});

describe('model hosts', () => {
  let folder: string;
  let pool: HostPool;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'fewloop-runtime-'));
    pool = new HostPool({ hosts: 2, threads: 1, device: 'cpu' });
  });
  afterEach(async () => {
    await pool.close();
    await rm(folder, { recursive: true });
  });

  it('answers many batches at once, each with its own result', async () => {
    const lease = await pool.open([graph('a')]);
    const alone = [];
    for (let seed = 0; seed < 6; seed++) alone.push(await lease.run(graphBatch('g0', 2, 12, seed)));
    const together = await Promise.all(alone.map((_, seed) => lease.run(graphBatch('g0', 2, 12, seed))));
    expect(together.map((r) => [...r.logits])).toEqual(alone.map((r) => [...r.logits]));
    expect(alone[0]!.logits).toHaveLength(6);
    expect(alone[0]!.embeddings.length % 2).toBe(0);
    expect(alone[0]!.logits).not.toEqual(alone[1]!.logits);
    await lease.release();
  });

  it('shares hosts between bundles with the same graphs, and ends them with the last lease', async () => {
    const first = await pool.open([graph('a')]);
    const second = await pool.open([{ ...graph('a'), id: 'base' }]);
    const other = await pool.open([graph('b')]);
    expect(second.pids()).toEqual(first.pids());
    expect(other.pids()).toHaveLength(2);
    // By which their rows take turns.
    expect(second.hosts).toBe(first.hosts);
    expect(other.hosts).not.toBe(first.hosts);
    const pids = first.pids();
    await first.release();
    await expect(first.run(graphBatch('g0', 1, 8))).rejects.toMatchObject({ code: 'INTERNAL' });
    await second.run(graphBatch('base', 1, 8));
    await second.release();
    await second.release();
    expect(pids.filter(isAlive)).toEqual([]);
    await other.run(graphBatch('g0', 1, 8));
  });

  it('gives what is spare to hosts of its own, whose computing threads yield to every other process', async () => {
    const wide = new HostPool({ hosts: 1, threads: 2, device: 'cpu' });
    try {
      const [lease, spare, sharing] = [
        await wide.open([graph('a')]),
        await wide.open([graph('a')], { spare: true }),
        await wide.open([graph('a')], { spare: true }),
      ];
      const [[ordinary], [yielding]] = [lease.pids(), spare.pids()];
      expect(yielding).not.toBe(ordinary);
      expect(sharing.pids()).toEqual([yielding]);
      expect(getPriority(ordinary)).toBe(getPriority());
      expect(getPriority(yielding)).toBe(constants.priority.PRIORITY_LOW);
      const batch = graphBatch('g0', 2, 12, 1);
      expect((await spare.run(batch)).logits).toEqual((await lease.run(batch)).logits);
      // Those that ONNX Runtime has made are the last.
      const newest = Math.max(...(await readdir(`/proc/${yielding}/task`)).map(Number));
      expect(newest).not.toBe(yielding);
      expect(getPriority(newest)).toBe(constants.priority.PRIORITY_LOW);
      const { stdout } = await promisify(execFile)('chrt', ['--pid', String(newest)]);
      expect(stdout).toContain('SCHED_IDLE');
    } finally {
      await wide.close();
    }
  });

  it('shares the memory of a machine with the hosts of other processes, which give back what they hold over their share', async () => {
    const settings = {
      hosts: 1,
      threads: 1,
      device: 'cpu',
      claimsFolder: join(folder, 'claims'),
      memoryBytes: Infinity,
    };
    const [here, there] = [new HostPool(settings), new HostPool(settings)];
    try {
      const resting = await there.open([graph('a')]);
      await there.open([graph('b')]);
      const given = new Promise<void>((resolve) => {
        there.makeRoom = async () => {
          there.makeRoom = async () => false;
          await resting.release();
          resolve();
          return true;
        };
      });
      // Whoever has nothing is let in.
      settings.memoryBytes = there.bytes;
      const lease = await here.open([graph('a')]);
      const refused = await here.open([graph('b')]).catch((error: unknown) => error);
      expect(refused).toMatchObject({ code: 'OVERLOADED' });
      expect(String(refused)).toMatch(/beside the \d+ MB of those in use, [1-9]\d* MB in other processes/);
      await given;
      // What hosts are measured at is less, the more processes share Node's pages: by that the estimate may not fit.
      settings.memoryBytes = here.bytes + there.bytes + estimatedBytes([graph('b')], 1);
      await here.open([graph('b')]);
      await lease.release();
      // What is over is nobody's any more.
      settings.memoryBytes = here.bytes + there.bytes + 1;
      await expect(there.open([graph('a')])).rejects.toMatchObject({ code: 'OVERLOADED' });
      await here.close();
      settings.memoryBytes = 2 ** 40;
      await there.open([graph('a')]);
    } finally {
      await Promise.all([here.close(), there.close()]);
    }
  });

  it('finishes accepted batches before it ends', async () => {
    const lease = await pool.open([graph('a')]);
    const runs = Array.from({ length: 40 }, (_, seed) => lease.run(graphBatch('g0', 8, 64, seed)));
    const [results] = await Promise.all([Promise.all(runs), lease.release()]);
    expect(results).toHaveLength(40);
  });

  it('takes note of how hosts have grown, and has given back what then is too much', async () => {
    const settings = { hosts: 1, threads: 1, device: 'cpu', memoryBytes: Infinity };
    const growing = new HostPool(settings);
    try {
      const [idle, busy] = [await growing.open([graph('a')]), await growing.open([graph('b')])];
      const before = growing.bytes;
      growing.makeRoom = vi.fn(async () => (await idle.release(), true));
      await growing.measure();
      expect(growing.makeRoom).not.toHaveBeenCalled();
      await busy.run(graphBatch('g0', 64, 128));
      settings.memoryBytes = before;
      await growing.measure();
      expect(growing.makeRoom).toHaveBeenCalledTimes(1);
      expect(growing.bytes).toBeGreaterThan(before / 2);
      expect(busy.bytes).toBe(growing.bytes);
      // What is to be opened again is known to grow.
      await busy.release();
      settings.memoryBytes = Infinity;
      const again = await growing.open([graph('b')]);
      expect(again.bytes).toBe(growing.bytes);
    } finally {
      await growing.close();
    }
  });

  it('replaces a host that was killed and loses no batch', async () => {
    const lease = await pool.open([graph('a')]);
    const before = lease.pids();
    const runs = Array.from({ length: 60 }, (_, seed) => lease.run(graphBatch('g0', 16, 64, seed)));
    await Promise.race(runs);
    process.kill(before[0]!, 'SIGKILL');
    expect(await Promise.all(runs)).toHaveLength(60);
    await until(() => lease.pids().length === 2);
    expect(lease.pids()).not.toContain(before[0]);
  });

  it('says with what a host ended, and why none comes in its place', async () => {
    const warned = vi.spyOn(Logger.prototype, 'warn');
    const failed = vi.spyOn(Logger.prototype, 'error');
    try {
      const path = join(folder, 'model.onnx');
      await copyFile(MODEL, path);
      const lease = await pool.open([graph('a', path)]);
      const [pid] = lease.pids();
      await rm(path);
      process.kill(pid!, 'SIGKILL');
      await until(() => failed.mock.calls.length > 0);
      expect(warned).toHaveBeenCalledWith(`a model host (pid ${pid}) ended with SIGKILL: 1 of 2 left for ${path}`);
      expect(failed).toHaveBeenCalledWith(
        expect.stringMatching(/^no model host in its place for .*model\.onnx: .*; tried again in 0\.1 s$/su),
      );
      expect(pool.states()).toEqual([{ loaded: 1, expected: 2, spare: false }]);
      await lease.run(graphBatch('g0', 1, 8));
      // Those of another that is tried besides are told apart.
      await pool.open([graph('a')], { spare: true });
      expect(pool.states()).toContainEqual({ loaded: 2, expected: 2, spare: true });
    } finally {
      vi.restoreAllMocks();
    }
  });

  it('gives a batch up after two hosts have ended on it, and serves on', async () => {
    const start = HostProcess.start.bind(HostProcess);
    const spy = vi.spyOn(HostProcess, 'start');
    onTestFinished(() => spy.mockRestore());
    // Stopped before they are given the batch, so that it is still theirs when they are killed.
    for (let stopped = 0; stopped < 2; stopped++) {
      spy.mockImplementationOnce(async (...given) => {
        const host = await start(...given);
        process.kill(host.pid, 'SIGSTOP');
        return host;
      });
    }
    pool = new HostPool({ hosts: 1, threads: 1, device: 'cpu' });
    const lease = await pool.open([graph('a')]);
    const fatal = lease.run(graphBatch('g0', 1, 8)).catch((error: unknown) => error);
    for (let kills = 0; kills < 2; kills++) {
      await until(() => lease.pids().length === 1);
      const [pid] = lease.pids();
      process.kill(pid!, 'SIGKILL');
      await until(() => !lease.pids().includes(pid!));
    }
    expect(await fatal).toMatchObject({ code: 'INTERNAL' });
    await lease.run(graphBatch('g0', 1, 8));
    await lease.release();
  });

  it('rejects a batch that the graph refuses, and only that', async () => {
    const lease = await pool.open([graph('a')]);
    const wrong = { ...graphBatch('g0', 1, 8), maskPositions: new BigInt64Array([900n]) };
    const [bad, good] = await Promise.allSettled([lease.run(wrong), lease.run(graphBatch('g0', 1, 8))]);
    expect(bad).toMatchObject({ status: 'rejected', reason: { code: 'INTERNAL' } });
    expect(good.status).toBe('fulfilled');
    await expect(lease.run(graphBatch('unknown', 1, 8))).rejects.toMatchObject({ code: 'INTERNAL' });
  });

  it('says BUNDLE_INVALID for a file that is no graph, leaves no process, and can open again', async () => {
    const path = join(folder, 'model.onnx');
    await writeFile(path, 'not a graph');
    await expect(pool.open([graph('a', path)])).rejects.toMatchObject({ code: 'BUNDLE_INVALID' });
    expect(descendants(process.pid).length).toBe(0);
    await copyFile(MODEL, path);
    await (await pool.open([graph('a', path)])).release();
  });

  it('ignores signals to the process group: the parent drains first', async () => {
    const lease = await pool.open([graph('a')]);
    for (const pid of lease.pids()) process.kill(pid, 'SIGINT');
    for (const pid of lease.pids()) process.kill(pid, 'SIGTERM');
    const pids = lease.pids();
    await lease.run(graphBatch('g0', 1, 8));
    expect(lease.pids()).toEqual(pids);
  });

  it('ends when its parent is gone', async () => {
    const host = new URL('../../src/runtime/host.ts', import.meta.url).pathname;
    const script = `
      const host = require('node:child_process').fork(${JSON.stringify(host)}, { serialization: 'advanced' });
      host.on('message', () => console.log(host.pid));
      host.send({ type: 'load', graphs: [{ sha256: 'a', path: ${JSON.stringify(MODEL)} }], settings: { threads: 1, device: 'cpu' } });`;
    const parent = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    const pid = Number(
      await new Promise<string>((resolve) => parent.stdout.once('data', (data) => resolve(String(data)))),
    );
    expect(isAlive(pid)).toBe(true);
    parent.kill('SIGKILL');
    await until(() => !isAlive(pid));
  });
});
