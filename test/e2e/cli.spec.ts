/** The fewloop command, as built, against the whole service. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runCli, startCli } from '../fixtures/cli.js';
import { type Service, startService } from '../fixtures/service.js';

const TASK = `name: reviews
kind: single-label
labels: [{name: positive, words: [好]}, {name: negative, words: [差]}]
templates: ["这是一条{mask}评。{text}"]
maxLength: 64
`;

let service: Service;
let folder: string;

const fewloop = (args: string[], input?: string) => runCli(service.url, args, input);

async function file(name: string, content: string): Promise<string> {
  await writeFile(join(folder, name), content);
  return join(folder, name);
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fewloop-cli-'));
  service = await startService();
  const { code, err } = await fewloop(['task', 'apply', await file('task.yaml', TASK)]);
  if (code !== 0) throw new Error(err);
});

afterAll(async () => {
  await service?.close();
  await rm(folder, { recursive: true, force: true });
});

describe('task', () => {
  it('lints without a service and names what is mistyped', async () => {
    expect(await fewloop(['task', 'lint', join(folder, 'task.yaml')])).toMatchObject({ code: 0 });
    const unfit = await file('unfit.yaml', TASK.replace('single-label', 'multi-label'));
    expect(await fewloop(['task', 'lint', unfit])).toMatchObject({
      code: 1,
      out: expect.stringContaining('pet does not go with multi-label'),
    });
    const typo = await file('typo.yaml', TASK.replace('maxLength', 'maxLenght'));
    const { code, out } = await fewloop(['--json', 'task', 'lint', typo]);
    expect(code).toBe(1);
    expect(JSON.parse(out)).toMatchObject([{ severity: 'error', field: 'maxLenght' }]);
  });

  it('warns at apply of a word that can hardly win, as measured', async () => {
    const path = await file(
      'skewed.yaml',
      TASK.replace('reviews', 'skewed').replace('差', '你').replace('这是一条{mask}评', '很{mask}'),
    );
    expect(await fewloop(['task', 'lint', path])).toMatchObject({ code: 0 });
    const { code, err } = await fewloop(['task', 'apply', path]);
    expect(code).toBe(0);
    expect(err).toMatch(/skewed\.yaml: warning: templates\.0: gives "negative" .* % for an empty text/u);
    const { findings } = JSON.parse((await fewloop(['task', 'show', 'skewed'])).out) as { findings: object[] };
    expect(findings).toMatchObject([{ severity: 'WARNING', field: 'templates.0' }]);
  });

  it('takes a label that has examples away only with --retire', async () => {
    const mixed = '{name: mixed, words: [中]}';
    const shorter = await file('shorter.yaml', TASK.replace('name: reviews', 'name: retiring'));
    const longer = await file('longer.yaml', (await readFile(shorter, 'utf8')).replace('}]', `}, ${mixed}]`));
    expect(await fewloop(['task', 'apply', longer])).toMatchObject({ code: 0 });
    const rows = ['positive', 'mixed'].map((label) => JSON.stringify({ text: `${label}的一条`, label }));
    const examples = await file('retiring.jsonl', rows.join('\n'));
    expect(await fewloop(['import', 'retiring', examples])).toMatchObject({ code: 0 });

    const refused = await fewloop(['task', 'apply', shorter]);
    expect(refused).toMatchObject({ code: 1, out: '' });
    expect(refused.err).toContain('mixed');
    expect(refused.err).toContain('--retire');

    const { code, out } = await fewloop(['--json', 'task', 'apply', shorter, '--retire']);
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ revision: 2, labels: ['positive', 'negative'] });
    const shown = JSON.parse((await fewloop(['task', 'show', 'retiring'])).out);
    expect(shown).toMatchObject({ revision: 2, examples: { byLabel: { positive: 1, mixed: 1 } } });
    const { out: answer } = await fewloop(['--json', 'classify', 'retiring', '还行']);
    const { distribution } = JSON.parse(answer) as { distribution: { label: string }[] };
    expect(distribution.map(({ label }) => label).sort()).toEqual(['negative', 'positive']);
  });

  it('lists and shows', async () => {
    expect((await fewloop(['task', 'list'])).out).toContain('reviews');
    expect(JSON.parse((await fewloop(['task', 'show', 'reviews'])).out)).toMatchObject({
      activeVersion: { version: 1 },
    });
    expect(await fewloop(['task', 'show', 'nobody'])).toMatchObject({ code: 1, out: '' });
  });
});

describe('files', () => {
  it('takes 99 of 100 lines and names line 57', async () => {
    const lines = Array.from({ length: 100 }, (_, i) =>
      JSON.stringify({ text: `第${i}条\u2028不错`, label: 'positive' }),
    );
    lines[56] = '{"text": "断';
    const path = await file('examples.jsonl', lines.join('\n'));
    const first = await fewloop(['--json', 'import', 'reviews', path, '--split', 'train']);
    expect(first.code).toBe(1);
    expect(JSON.parse(first.out)).toMatchObject({ added: 99, rejected: [{ line: 57, code: 'BAD_INPUT' }] });
    const { out, err } = await fewloop(['import', 'reviews', path]);
    expect(out).toContain('99 unchanged, 1 rejected');
    expect(err).toContain('line 57: ');
  });

  it('refuses a label that the task lacks, by its line', async () => {
    const rows = [
      { text: '屏幕碎了', label: 'strange' },
      { text: '😀 \u0007', label: 'negative' },
    ];
    const path = await file('strange.jsonl', rows.map((row) => JSON.stringify(row)).join('\n'));
    const { code, out } = await fewloop(['--json', 'import', 'reviews', path, '--split', 'train']);
    expect(code).toBe(1);
    expect(JSON.parse(out)).toMatchObject({ added: 1, rejected: [{ line: 1, code: 'BAD_INPUT' }] });
  });

  it('reads CSV with a byte-order mark and quotes', async () => {
    const path = await file('examples.csv', '\ufefftext,label\r\n"他说""差"", 真的",negative\r\n"两\n行",negative\r\n');
    const { out } = await fewloop(['--json', 'import', 'reviews', path]);
    expect(JSON.parse(out)).toMatchObject({ added: 2, rejected: [] });
  });

  it.each(['jsonl', 'csv', 'label-studio', 'doccano', 'prodigy', 'fewclue', 'parquet'])(
    'import of a %s export changes nothing',
    async (format) => {
      const path = join(folder, `export.${format}`);
      expect((await fewloop(['export', 'reviews', '--format', format, '--out', path])).code).toBe(0);
      expect((await readFile(path, 'utf8')).length).toBeGreaterThan(1000);
      const { out } = await fewloop(['--json', 'import', 'reviews', path]);
      expect(JSON.parse(out)).toMatchObject({ added: 0, updated: 0, unchanged: 102, rejected: [] });
    },
  );

  it('exports what waits to be answered with what the service says of it', async () => {
    const path = await file('questions.txt', Array.from({ length: 30 }, (_, i) => `还行吧，第${i}次来`).join('\n'));
    await fewloop(['ingest', 'reviews', path]);
    const out = join(folder, 'questions.json');
    type Task = { annotations: unknown[]; predictions: { score: number; model_version: string }[] };
    const exported = async () => {
      await fewloop(['export', 'reviews', '--format', 'label-studio', '--questions', '--out', out]);
      return JSON.parse(await readFile(out, 'utf8')) as Task[];
    };
    await expect.poll(async () => (await exported()).length, { timeout: 30_000, interval: 500 }).toBeGreaterThan(0);
    for (const { annotations, predictions } of await exported()) {
      expect(annotations).toEqual([]);
      expect(predictions).toMatchObject([{ model_version: '1', score: expect.any(Number) }]);
    }
    expect(JSON.parse((await fewloop(['--json', 'import', 'reviews', out])).out)).toMatchObject({
      added: 0,
      rejected: [],
    });
  });

  it('leaves no half file behind where a text has no place in the format', async () => {
    const out = join(folder, 'none.parquet');
    const { code, err } = await fewloop(['export', 'nowhere', '--format', 'parquet', '--out', out]);
    expect([code, err.includes('there is no task nowhere')]).toEqual([1, true]);
    expect((await readdir(folder)).filter((name) => name.startsWith('none'))).toEqual([]);
  });

  it('goes on where a killed import was, and every row is there once', async () => {
    const rows = 20_000;
    const lines = Array.from({ length: rows }, (_, i) =>
      JSON.stringify({ text: `第${i}条，一切都好`, label: 'positive' }),
    );
    lines[70] = 'no JSON';
    const path = await file('many.jsonl', lines.join('\n'));
    const state = { XDG_STATE_HOME: folder };
    const args = ['--json', 'import', 'many', path, '--split', 'train', '--rejects', join(folder, 'rejects.jsonl')];
    const taskFile = await file('many.yaml', TASK.replace('reviews', 'many'));
    expect(await fewloop(['task', 'apply', taskFile])).toMatchObject({ code: 0 });
    const first = startCli(service.url, args, '', state);
    const sending = join(folder, 'fewloop', 'sending');
    await expect
      .poll(
        async () => {
          const [checkpoint] = (await readdir(sending).catch(() => [])).filter((name) => name.endsWith('.json'));
          return checkpoint
            ? (JSON.parse(await readFile(join(sending, checkpoint), 'utf8')) as { entries: number }).entries
            : 0;
        },
        { timeout: 60_000, interval: 20 },
      )
      .toBeGreaterThan(1500);
    first.child.kill('SIGKILL');
    await first.done;
    const second = await startCli(service.url, args, '', state).done;
    const result = JSON.parse(second.out) as Record<string, number>;
    expect(result).toMatchObject({ rejectedCount: 1, rejected: [{ line: 71 }] });
    expect(result['resumedAfter']).toBeGreaterThan(1500);
    // What was being taken when it was killed is known by the second.
    expect(result['added']! + result['unchanged']!).toBe(rows - 1);
    expect(result['unchanged']).toBeLessThanOrEqual(500);
    expect(await readFile(join(folder, 'rejects.jsonl'), 'utf8')).toContain('"line":71');
    const count = await service.request<{ task: { examples: { train: number } } }>(
      '{ task(name: "many") { examples { train } } }',
    );
    expect(count.task.examples.train).toBe(rows - 1);
    expect(await readdir(sending)).toEqual([]);
  });

  it('ingests plain lines once', async () => {
    const path = await file('texts.txt', '快递很快\n包装破了\u2028很差\n\n快递很快\n');
    expect(JSON.parse((await fewloop(['--json', 'ingest', 'reviews', path])).out)).toMatchObject({
      accepted: 2,
      duplicates: 1,
    });
    expect(JSON.parse((await fewloop(['--json', 'ingest', 'reviews', path])).out)).toMatchObject({
      accepted: 0,
      duplicates: 3,
    });
  });
});

describe('the rest', () => {
  it('classifies arguments and standard input, a bad line among good ones', async () => {
    const one = await fewloop(['classify', 'reviews', '很好']);
    expect(one).toMatchObject({ code: 0 });
    expect(one.out).toMatch(/^(positive|negative)\t0\.\d{3}\t(ACCEPT|REVIEW)\t很好\n$/u);
    const several = await fewloop(['--json', 'classify', 'reviews'], `很好\n${'长'.repeat(30_000)}\n很差\n`);
    expect(several.code).toBe(1);
    const [first, second, third] = several.out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as object);
    expect([first, third]).toMatchObject([{ text: '很好' }, { text: '很差' }]);
    expect(second).toMatchObject({ error: { code: 'BAD_INPUT' } });
  });

  it('labels what the stream brought', async () => {
    const more = ['送货', '客服', '颜色', '味道', '尺码', '音质', '屏幕', '电池', '价格', '做工', '说明书', '退款'];
    const path = await file(
      'more.txt',
      more.map((what, i) => `${what}${'真不错'.repeat(i % 3)}，${what}怎么样`).join('\n'),
    );
    await fewloop(['ingest', 'reviews', path]);
    await expect
      .poll(async () => JSON.parse((await fewloop(['task', 'show', 'reviews'])).out).pool.awaitingReview, {
        timeout: 20_000,
      })
      .toBeGreaterThan(3);
    // Answered, taken back, and the same question skipped, with the reason.
    const { code, out, err } = await fewloop(['--json', 'label', 'reviews'], '1\nu\ns says nothing\n/Posit\nq\n');
    expect(code).toBe(0);
    expect(JSON.parse(out)).toEqual({ answered: 2, skipped: 1, undone: 1 });
    const asked = err.split('\n').filter((_, i, lines) => / left/u.test(lines[i - 1] ?? ''));
    const [first, second] = asked;
    expect(asked.slice(0, 4)).toEqual([first, second, first, second]);
    expect(second).not.toBe(first);
  });

  it('forgets', async () => {
    const { out } = await fewloop(['--json', 'forget', 'reviews', '--text', '两\n行']);
    expect(JSON.parse(out)).toMatchObject({ examples: 1 });
    const [entry] = JSON.parse((await fewloop(['--json', 'ledger', 'list', 'reviews'])).out) as { hash: string }[];
    expect(entry).toMatchObject({ kind: 'forgotten' });
    const verified = await fewloop(['ledger', 'verify', '--hash', entry!.hash]);
    expect(verified).toMatchObject({ code: 0 });
    expect(verified.out).toMatch(/^\d+ entries hold; the last hash is [0-9a-f]{64}\n$/u);
    const other = await fewloop(['ledger', 'verify', '--hash', 'f'.repeat(64)]);
    expect(other.code).toBe(1);
    expect(other.err).toContain('is not in the chain');
    const machine = await fewloop(['--json', 'ledger', 'verify', '--hash', 'f'.repeat(64)]);
    expect([machine.code, JSON.parse(machine.out)]).toMatchObject([1, { brokenAt: null, contains: false }]);
  });

  it.each([[['nonsense']], [['classify']], [['forget', 'reviews']], [['import', 'reviews', 'x', '--split', 'half']]])(
    '%j is wrong use: 2',
    async (args) => {
      expect((await fewloop(args)).code).toBe(2);
    },
  );

  it('says where nobody answers: 1', async () => {
    const { code, err } = await fewloop(['--url', 'http://127.0.0.1:9/graphql', 'task', 'list']);
    expect(code).toBe(1);
    expect(err).toContain('npm start');
  });
});
