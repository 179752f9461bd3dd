import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { TINY_MODEL } from '../../test/fixtures/bundle.js';
import { refuseExternalData } from './onnx-file.js';

const FIXTURES = join(import.meta.dirname, '../../test/fixtures');
const BASE_MODEL = join(import.meta.dirname, '../../models/base-zh/model.onnx');

let folder: string;
/** Another one each time: what was found is remembered. */
let digests = 0;
const check = (path: string) => refuseExternalData(path, `digest ${(digests += 1)}`);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fewloop-onnx-'));
});
afterAll(() => rm(folder, { recursive: true }));

it.each([
  join(TINY_MODEL, 'model.onnx'),
  join(FIXTURES, 'classifier.onnx'),
  join(FIXTURES, 'tiny-int8.onnx'),
  BASE_MODEL,
])('takes what is exported: %s', async (path) => {
  await expect(check(path)).resolves.toBeUndefined();
});

it.each(['external.onnx', 'external-if.onnx'])('refuses weights in another file: %s', async (name) => {
  await expect(check(join(FIXTURES, name))).rejects.toThrow(/external data/u);
});

it('refuses them wherever they lie', async () => {
  const bytes = await readFile(join(FIXTURES, 'external.onnx'));
  const inside = Buffer.from(bytes.toString('latin1').replace('../outside.bin', 'weights/w1.bin'), 'latin1');
  await writeFile(join(folder, 'inside.onnx'), inside);
  await expect(check(join(folder, 'inside.onnx'))).rejects.toThrow(/external data/u);
});

it('refuses what is no model, or half of one', async () => {
  const whole = await readFile(join(TINY_MODEL, 'model.onnx'));
  for (const bytes of [Buffer.alloc(0), Buffer.from('ORTM of another format'), whole.subarray(0, 100_000)]) {
    await writeFile(join(folder, 'bad.onnx'), bytes);
    await expect(check(join(folder, 'bad.onnx'))).rejects.toThrow('it is no ONNX model');
  }
});

it("refuses a name that the runtime takes for another format's", async () => {
  await copyFile(join(FIXTURES, 'external.onnx'), join(folder, 'model.ort'));
  await expect(check(join(folder, 'model.ort'))).rejects.toThrow(/\.onnx/u);
});
