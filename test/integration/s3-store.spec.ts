/** The bundle store in S3, on a real S3 server. */
import { GetObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import type { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { Config } from '../../src/config/config.js';
import { openBundleStore } from '../../src/registry/bundle-store.js';
import { describeBundleStore } from '../fixtures/bundle-stores.js';
import { sha256, TINY_MODEL } from '../fixtures/bundle.js';
import { startS3, type S3 } from '../fixtures/s3.js';

let s3: S3;

const configOf = (env: Record<string, string>) => Config.load({ FEWLOOP_BASE_MODEL: TINY_MODEL, ...s3.env, ...env });
const open = async (env: Record<string, string> = {}) => (await openBundleStore(configOf(env)))!;

beforeAll(async () => {
  s3 = await startS3();
  // The SDK reads these itself.
  for (const [name, value] of Object.entries(s3.env)) if (name.startsWith('AWS_')) vi.stubEnv(name, value);
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await s3?.stop();
});

describe('S3Store', () => {
  describeBundleStore(async () => ({
    store: await open(),
    async write(path, Body) {
      await s3.client.send(new PutObjectCommand({ Bucket: s3.bucket, Key: `models/tests/${path}`, Body }));
    },
  }));

  it('large files go by parts, and are not sent again', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'fewloop-parts-'));
    const bytes = randomBytes(40 * 2 ** 20);
    await writeFile(join(folder, 'g0.onnx'), bytes);
    const [bundle, files] = [{ task: 'parts', digest: 'd'.repeat(64) }, [{ file: 'g0.onnx', sha256: sha256(bytes) }]];
    const store = await open();
    const told: number[] = [];
    const put = () => store.put(bundle, folder, files, (more) => told.push(more));
    // The manifest is not there yet: it ends after the file.
    await expect(put()).rejects.toThrow('manifest.json');
    expect(told.length).toBeGreaterThan(2);
    expect(told.reduce((a, b) => a + b)).toBe(bytes.length);
    await writeFile(join(folder, 'manifest.json'), '{}');
    told.length = 0;
    await put();
    expect(told).toEqual([]);
    const Key = `models/tests/parts/${bundle.digest}/g0.onnx`;
    const { Body, ETag } = await s3.client.send(new GetObjectCommand({ Bucket: s3.bucket, Key }));
    expect(ETag).toMatch(/-3"?$/u); // of three parts
    expect((await buffer(Body as Readable)).equals(bytes)).toBe(true);
    await rm(folder, { recursive: true });
  });

  it.each([
    [{ FEWLOOP_BUNDLE_STORE: 's3://no-such-bucket' }, /s3:\/\/no-such-bucket: .*404/u],
    [{ FEWLOOP_S3_ENDPOINT: 'http://127.0.0.1:9' }, /ECONNREFUSED/u],
  ])('says why it cannot be used: %o', async (env, message) => {
    await expect((await open(env)).check()).rejects.toThrow(message);
  });
});
