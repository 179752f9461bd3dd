/**
 * A task whose texts may have several labels, from its file to its second version, through the whole service and the
 * command. The trainer is a stand-in that hands out a bundle made here: members of other methods than PET.
 */
import { chmodSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Member } from '../../src/inference/types.js';
import { HostPool } from '../../src/runtime/host-pool.js';
import { parseTask } from '../../src/task/definition.js';
import { splitOf, splitGroup } from '../../src/task/keys.js';
import { classifierMember, writeClassifierBundle } from '../fixtures/classifier-bundle.js';
import { runCli } from '../fixtures/cli.js';
import { type Service, startService } from '../fixtures/service.js';

const TASK = `name: topics
kind: multi-label
method: [fine-tune, efl]
labels:
  - {name: logistics, description: 说到物流。}
  - {name: quality, description: 说到质量。}
maxLength: 32
pool: {auditRate: 0}
learning: {trigger: {newLabels: null}}
`;
const CLASSIFY = `query ($inputs: [TextInput!]!) { classify(task: "topics", inputs: $inputs, options: {members: true}) {
  label labels confidence margin entropy route distribution { label probability }
  disagreement { voters dissenting } members { member label labels }
} }`;
const PROMOTIONS = '{ task(name: "topics") { promotions { id verdict champion { version } report } } }';

interface Answer {
  label: string | null;
  labels: string[];
  confidence: number;
  distribution: { label: string; probability: number }[];
}

let folder: string;
let service: Service;
const fewloop = (args: string[], input?: string) => runCli(service.url, args, input);
const write = (name: string, content: string) => {
  writeFileSync(join(folder, name), content);
  return join(folder, name);
};
const classify = async (text: string) =>
  (await service.request<{ classify: Answer[] }>(CLASSIFY, { inputs: [{ text }] })).classify[0]!;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fewloop-multi-label-'));
  const template = join(folder, 'template');
  const member = classifierMember({ weight: 0.5 });
  const hypotheses = { logistics: '说到物流。', quality: '说到质量。' };
  const tagging: Member = { ...member, id: 'm1', method: 'efl', template: '{text}{sep}{hypothesis}', hypotheses };
  const hostPool = new HostPool({ hosts: 1, threads: 1, device: 'cpu' });
  await writeClassifierBundle(template, parseTask(TASK), [member, tagging], hostPool, { quality: 0.4 });
  await hostPool.close();
  const trainer = resolve(import.meta.dirname, '../fixtures/fake-trainer.mjs');
  const python = write(
    'python',
    `#!/bin/sh\nfor last; do :; done\nexec ${process.execPath} ${trainer} succeed ${template} "$last"\n`,
  );
  chmodSync(python, 0o755);
  service = await startService({ FEWLOOP_PYTHON: python });
});

afterAll(async () => {
  await service?.close();
  await rm(folder, { recursive: true, force: true });
});

describe('a multi-label task', () => {
  it('is taken without templates and words, and answers once its first run is promoted', async () => {
    expect(await fewloop(['task', 'apply', write('task.yaml', TASK)])).toMatchObject({ code: 0 });
    const { errors } = await service.ask(CLASSIFY, { inputs: [{ text: '很快' }] });
    expect(errors?.[0]).toMatchObject({
      message: expect.stringContaining('once its first run is promoted'),
      extensions: { code: 'NO_ACTIVE_MODEL' },
    });
  });

  it('takes examples with several labels and with none, and gives them back', async () => {
    const rows = Array.from({ length: 40 }, (_, i) => ({
      text: `第${i}条，快递${i % 3}天`,
      labels: [['logistics'], [], ['quality', 'logistics'], ['quality']][i % 4],
    }));
    const file = write('labelled.jsonl', rows.map((row) => JSON.stringify(row)).join('\n'));
    expect(await fewloop(['import', 'topics', file])).toMatchObject({ out: expect.stringContaining('40 added') });
    for (const format of ['jsonl', 'doccano', 'label-studio', 'prodigy']) {
      const out = join(folder, `export-${format}`);
      await fewloop(['export', 'topics', '--format', format, '--out', out]);
      expect(await fewloop(['import', 'topics', out])).toMatchObject({ out: expect.stringContaining('40 unchanged') });
    }
    const mixed = write('mixed.csv', 'text,labels\n好,quality|nothing\n');
    expect(await fewloop(['import', 'topics', mixed])).toMatchObject({
      err: expect.stringContaining('"nothing" is not one'),
    });
  });

  it('trains on whole sets of labels; its first version waits for a person', async () => {
    expect(await fewloop(['retrain', 'topics', '--wait'])).toMatchObject({ code: 0 });
    const runs = join(service.shared['FEWLOOP_DATA_DIR']!, 'runs', 'topics');
    const rows = readFileSync(join(runs, readdirSync(runs)[0]!, 'labelled.jsonl'), 'utf8')
      .trim()
      .split('\n');
    const labelled = rows.map((line) => JSON.parse(line) as { text: string; labels: string[]; label?: string });
    expect(labelled.every(({ labels, label }) => Array.isArray(labels) && label === undefined)).toBe(true);
    expect(labelled.find(({ labels }) => labels.length === 2)?.labels).toEqual(['logistics', 'quality']);
    const { task } = await service.request<{ task: { promotions: { id: string }[] } }>(PROMOTIONS);
    expect(task.promotions).toMatchObject([
      { verdict: 'NOT_WORSE', champion: null, report: { challengerAlone: { rows: expect.any(Number) } } },
    ]);
    const { out } = await fewloop(['approve', task.promotions[0]!.id, '--comment', 'the first']);
    expect(out).toContain('version 1');
  });

  it('answers with every label over its threshold', async () => {
    const answer = await classify('快递很快');
    const chosen = answer.distribution.filter(
      ({ label, probability }) => probability >= (label === 'quality' ? 0.4 : 0.5),
    );
    expect(answer.labels).toEqual(chosen.map(({ label }) => label));
    expect(answer.label).toBe(answer.labels[0] ?? null);
    expect(answer).toMatchObject({ disagreement: { voters: 2 }, members: [{ member: 'm0' }, { member: 'm1' }] });
    const { out } = await fewloop(['classify', 'topics', '快递很快']);
    expect(out.split('\t')[0]).toBe(answer.labels.join(',') || '-');
  });

  it('asks about doubtful texts, and takes several labels or none for an answer', async () => {
    const texts = Array.from({ length: 60 }, (_, i) => `问${i}号，包装${i}`).filter(
      (text) => splitOf(splitGroup(text)) === 'train',
    );
    await fewloop(['ingest', 'topics', write('texts.txt', texts.join('\n'))]);
    const queue = async () =>
      (await service.request<{ reviewQueue: { totalCount: number } }>('{ reviewQueue(task: "topics") { totalCount } }'))
        .reviewQueue;
    await expect.poll(async () => (await queue()).totalCount, { timeout: 60_000 }).toBeGreaterThan(3);
    const { out, err } = await fewloop(['label', 'topics'], '12\n\ns\nq\n');
    expect(out).toContain('2 answered, 1 skipped');
    expect(err).toContain('enter  done');
    const { out: exported } = await fewloop(['export', 'topics', '--format', 'jsonl']);
    const answers = exported
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { text: string; labels?: string[] });
    const given = answers.filter(({ text }) => text.startsWith('问')).map(({ labels }) => labels);
    expect(given).toEqual(expect.arrayContaining([['logistics', 'quality'], []]));
    expect(given).toHaveLength(2);
  });

  it('compares the next version by whole sets, macro-F1 and calibration', async () => {
    expect(await fewloop(['retrain', 'topics', '--wait'])).toMatchObject({ code: 0 });
    const { task } = await service.request<{ task: { promotions: { verdict: string; report: object }[] } }>(PROMOTIONS);
    const [promotion] = task.promotions;
    const { report } = promotion!;
    expect(promotion).toMatchObject({ champion: { version: 1 } });
    const { rows } = report as { rows: number };
    expect(rows).toBeGreaterThan(3);
    // The same bundle twice: what one has right, so has the other.
    expect(report).toMatchObject({
      counts: { onlyChallengerRight: 0, onlyChampionRight: 0 },
      macroF1: { champion: expect.any(Number), challenger: expect.any(Number) },
      calibrationError: { champion: expect.any(Number), challenger: expect.any(Number) },
      labels: ['logistics', 'quality'],
      outOfFold: { figures: { folds: 2 } },
    });
  });
});
