import { copyFile, mkdtemp, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { sha256, TINY_MODEL, writeManifest, writeTinyBundle } from '../../test/fixtures/bundle.js';
import { readBundle } from './bundle.js';
import type { BundleManifest, GoldenFile } from './manifest.js';

type Spoil = (manifest: BundleManifest, folder: string) => unknown;

describe('readBundle', () => {
  let parent: string;
  let folder: string;
  let manifest: BundleManifest;
  const read = () => readBundle(folder, { baseModel: TINY_MODEL });

  beforeEach(async () => {
    parent = await mkdtemp(join(tmpdir(), 'fewloop-bundle-'));
    folder = join(parent, 'bundle');
    manifest = await writeTinyBundle(folder);
  });
  afterEach(() => rm(parent, { recursive: true }));

  it('reads a whole bundle', async () => {
    const bundle = await read();
    expect(bundle.manifest).toEqual(manifest);
    expect(bundle.digest).toBe(sha256(await readFile(join(folder, 'manifest.json'))));
    expect(bundle.graphs).toEqual([
      { id: 'g0', path: join(bundle.folder, 'g0.onnx'), sha256: manifest.graphs[0]!.sha256 },
    ]);
    expect(bundle.golden.rows).toHaveLength(1);
    expect(bundle.report).toEqual({ kind: 'test' });
  });

  it('takes the base graph from the base model, by its digest', async () => {
    Object.assign(manifest.graphs[0]!, { base: true, file: 'model.onnx' });
    await writeManifest(folder, manifest);
    expect((await read()).graphs[0]!.path).toBe(join(TINY_MODEL, 'model.onnx'));
    manifest.graphs[0]!.sha256 = sha256('another base model');
    await writeManifest(folder, manifest);
    await expect(read()).rejects.toMatchObject({
      code: 'BUNDLE_INVALID',
      message: expect.stringContaining('another base'),
    });
  });

  it.each(['g0.onnx', 'tokenizer.json', 'golden.json', 'report.json'])('finds one flipped bit in %s', async (file) => {
    const bytes = await readFile(join(folder, file));
    bytes[Math.floor(bytes.length / 2)]! ^= 1;
    await writeFile(join(folder, file), bytes);
    await expect(read()).rejects.toMatchObject({ code: 'BUNDLE_INVALID', message: expect.stringContaining(file) });
  });

  it.each(['g0.onnx', 'tokenizer.json', 'golden.json', 'report.json', 'manifest.json'])('misses %s', async (file) => {
    await rm(join(folder, file));
    await expect(read()).rejects.toMatchObject({ code: 'BUNDLE_INVALID', message: expect.stringContaining(file) });
  });

  it('misses the folder', async () => {
    await rm(folder, { recursive: true });
    await expect(read()).rejects.toMatchObject({ code: 'BUNDLE_INVALID' });
  });

  it('refuses links that leave the folder, and follows those that stay', async () => {
    await rename(join(folder, 'g0.onnx'), join(parent, 'outside.onnx'));
    await symlink(join(parent, 'outside.onnx'), join(folder, 'g0.onnx'));
    await expect(read()).rejects.toMatchObject({ code: 'BUNDLE_INVALID', message: expect.stringContaining('leaves') });
    await rm(join(folder, 'g0.onnx'));
    await copyFile(join(parent, 'outside.onnx'), join(folder, 'other.onnx'));
    await symlink('other.onnx', join(folder, 'g0.onnx'));
    await read();
  });

  it.each(['graph', 'variant'])('refuses a %s with weights in another file', async (where) => {
    const external = join(import.meta.dirname, '../../test/fixtures/external.onnx');
    await copyFile(external, join(folder, 'external.onnx'));
    const entry = { file: 'external.onnx', sha256: sha256(await readFile(external)) };
    const [graph] = manifest.graphs;
    if (where === 'graph') Object.assign(graph!, entry);
    else graph!.variants = [{ precision: 'int8', ...entry }];
    await writeManifest(folder, manifest);
    await expect(read()).rejects.toMatchObject({
      code: 'BUNDLE_INVALID',
      message: 'the bundle cannot be used: external.onnx takes weights from another file (external data)',
    });
  });

  describe('with a student in int8 beside a teacher', () => {
    beforeEach(async () => {
      const [graph] = manifest.graphs;
      const [teacher] = manifest.members;
      await copyFile(join(folder, 'g0.onnx'), join(folder, 'g1.int8.onnx'));
      const variant = { precision: 'int8' as const, file: 'g1.int8.onnx', sha256: graph!.sha256 };
      manifest.graphs.push({ ...graph!, id: 'g1', variants: [variant] });
      manifest.members.push({ ...teacher!, id: 'student', role: 'student', graph: 'g1' });
      const golden = JSON.parse(await readFile(join(folder, 'golden.json'), 'utf8')) as GoldenFile;
      golden.rows[0]!.members.push({ ...golden.rows[0]!.members[0]!, member: 'student' });
      await writeFile(join(folder, 'golden.json'), JSON.stringify(golden));
      manifest.golden.sha256 = sha256(await readFile(join(folder, 'golden.json')));
    });

    it('says whose student it is', async () => {
      manifest.precisions = [{ precision: 'int8', admitted: true, roles: ['student'], reason: null }];
      manifest.members[1]!.teachers = ['t0'];
      await writeManifest(folder, manifest);
      expect((await read()).manifest.members.map(({ teachers }) => teachers)).toEqual([undefined, ['t0']]);
    });

    it('has the teacher in fp32 where int8 was admitted for the student alone', async () => {
      manifest.precisions = [
        { precision: 'int8', admitted: true, roles: ['student'], reason: 'ensemble: agrees on 98 %' },
      ];
      await writeManifest(folder, manifest);
      const { graphs, precisions } = await read();
      expect(precisions.get('int8')).toEqual([graphs[0], { ...graphs[1]!, path: join(folder, 'g1.int8.onnx') }]);
      expect(precisions.get('fp32')).toBe(graphs);
    });

    it('is refused with two int8 graphs for one', async () => {
      manifest.precisions = [{ precision: 'int8', admitted: true, roles: ['student'], reason: null }];
      const { variants } = manifest.graphs[1]!;
      variants!.push(variants![0]!);
      await writeManifest(folder, manifest);
      await expect(read()).rejects.toMatchObject({ message: expect.stringMatching(/2 int8 graphs for 1 graphs/) });
    });

    it.each([
      ['is in it for all', {}],
      ['is in it for teachers too', { roles: ['teacher' as const, 'student' as const] }],
    ])('is refused where the version %s', async (_what, roles) => {
      manifest.precisions = [{ precision: 'int8', admitted: true, reason: null, ...roles }];
      await writeManifest(folder, manifest);
      await expect(read()).rejects.toMatchObject({
        code: 'BUNDLE_INVALID',
        message: 'the bundle cannot be used: it has no int8 graph for g0',
      });
    });
  });

  it.each<[string, Spoil, RegExp]>([
    ['an unknown format', (m) => (m.formatVersion = 2), /format is 2/],
    ['an unknown rendering', (m) => Object.assign(m, { rendering: 3 }), /rendering/],
    ['a path above', (m) => (m.graphs[0]!.file = '../bundle/../outside.onnx'), /leaves/],
    ['an absolute path', (m, f) => (m.graphs[0]!.file = join(f, 'g0.onnx')), /leaves/],
    ['the folder itself as a file', (m) => (m.report.file = '.'), /leaves/],
    ['a sibling with the same beginning', (m) => (m.tokenizer.file = '../bundle2/tokenizer.json'), /leaves/],
    ['no members', (m) => (m.members = []), /members/],
    ['a member without its graph', (m) => (m.members[0]!.graph = 'g7'), /g7/],
    ['a student of nobody', (m) => (m.members[0]!.teachers = ['t7']), /names teacher t7/],
    ['two members of one name', (m) => m.members.push(m.members[0]!), /two of the member t0/],
    ['a member without golden text', (m) => m.members.push({ ...m.members[0]!, id: 't1' }), /no text for member t1/],
    ['a negative weight', (m) => (m.members[0]!.weight = -1), /weight/],
    ['no weight at all', (m) => (m.members[0]!.weight = 0), /no member with a weight/],
    [
      'a student policy without a student',
      (m) => (m.policies.student = { temperature: 1, calibrated: true }),
      /student/,
    ],
    [
      'a cascade without its student',
      (m) => (m.policies.cascade = { temperature: 1, calibrated: true }),
      /cascade lacks the policy/,
    ],
    ['words of another label', (m) => (m.members[0]!.labelWords = { positive: ['好'] }), /labels are/],
    ['a temperature of zero', (m) => (m.policies.ensemble!.temperature = 0), /temperature/],
    ['another definition than its digest says', (m) => (m.definition.maxLength = 64), /digest differs/],
    ['another task than it defines', (m) => (m.task = 'other'), /it is for other/],
    ['a digest that is none', (m) => (m.graphs[0]!.sha256 = 'abc'), /SHA-256/],
  ])('refuses %s', async (_name, spoil, message) => {
    spoil(manifest, folder);
    await writeManifest(folder, manifest);
    await expect(read()).rejects.toMatchObject({ code: 'BUNDLE_INVALID', message: expect.stringMatching(message) });
  });

  it.each(['', '[]x', 'null', '"text"', '[]', '{}'])('refuses a manifest of %j', async (text) => {
    await writeFile(join(folder, 'manifest.json'), text);
    await expect(read()).rejects.toMatchObject({ code: 'BUNDLE_INVALID' });
  });
});
