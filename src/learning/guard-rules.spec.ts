import { describe, expect, it, vi } from 'vitest';
import { ServedWindows, type ServedWindow } from '../inference/served-windows.js';
import { fraction, itemKey } from '../task/keys.js';
import { labelShift, reasonsToGoBack, type Watched } from './guard-rules.js';
import type { Accuracy } from './live-accuracy.js';
import { wilson } from './gate-statistics.js';
import * as permutation from './permutation.js';
import { generatorOf } from './permutation.js';

vi.mock('./permutation.js', { spy: true });

function served({
  failed = 0,
  ms = 20,
  requests = 100,
  labels = { a: 500, b: 500 },
}: Partial<{ failed: number; ms: number; requests: number; labels: Record<string, number> }> = {}): ServedWindow {
  const answered = Object.values(labels).reduce((sum, count) => sum + count, 0);
  const latenciesMs = Array.from({ length: requests }, (_, i) => ms * (1 + i / requests));
  return { answered, failed, labels: new Map(Object.entries(labels)), latenciesMs };
}

function accuracy(right: number, rows: number): Accuracy {
  const { point, low, high } = wilson(right, rows);
  return { right, rows, accuracy: point, low, high };
}

const watched = (changes: Partial<Watched>): Watched => ({
  before: served(),
  now: served(),
  expectedShift: 0.05,
  audit: { before: accuracy(90, 100), now: accuracy(90, 100) },
  ...changes,
});

it('stays where nothing has changed, and where there is nothing to compare with', async () => {
  expect(await reasonsToGoBack(watched({}))).toEqual([]);
  const none = served({ requests: 0, labels: {} });
  expect(await reasonsToGoBack(watched({ before: none, audit: { before: null, now: null } }))).toEqual([]);
  expect(await reasonsToGoBack(watched({ now: none }))).toEqual([]);
});

describe('failures', () => {
  it('go back where clearly more answers fail, also without a version before', async () => {
    const now = served({ failed: 60 });
    expect(await reasonsToGoBack(watched({ now }))).toEqual([
      expect.stringContaining('of its answers failed (60 of 1060)'),
    ]);
    expect(await reasonsToGoBack(watched({ now, before: served({ labels: {} }) }))).toHaveLength(1);
  });

  it('stay where as many failed before, or few are known', async () => {
    expect(await reasonsToGoBack(watched({ before: served({ failed: 60 }), now: served({ failed: 65 }) }))).toEqual([]);
    expect(await reasonsToGoBack(watched({ now: served({ failed: 10, labels: { a: 20, b: 15 } }) }))).toEqual([]);
    expect(await reasonsToGoBack(watched({ now: served({ failed: 3 }) }))).toEqual([]);
  });
});

describe('latency', () => {
  it('goes back at more than twice and 50 ms longer', async () => {
    expect(await reasonsToGoBack(watched({ now: served({ ms: 70 }) }))).toEqual([
      expect.stringContaining('before 39 ms'),
    ]);
  });

  it('stays under either, or on few requests', async () => {
    expect(await reasonsToGoBack(watched({ before: served({ ms: 5 }), now: served({ ms: 15 }) }))).toEqual([]);
    expect(await reasonsToGoBack(watched({ before: served({ ms: 100 }), now: served({ ms: 190 }) }))).toEqual([]);
    expect(await reasonsToGoBack(watched({ now: served({ ms: 500, requests: 20 }) }))).toEqual([]);
  });
});

describe('labels', () => {
  const now = served({ labels: { a: 900, b: 100 } });

  it('go back where they moved further than on the same texts', async () => {
    expect(await reasonsToGoBack(watched({ now }))).toEqual([
      expect.stringMatching(/is 90.0 % of the texts, before 50.0 %/u),
    ]);
  });

  it('stay where the new version was known to answer so, or nothing is known of it', async () => {
    expect(await reasonsToGoBack(watched({ now, expectedShift: 0.35 }))).toEqual([]);
    expect(await reasonsToGoBack(watched({ now, expectedShift: null }))).toEqual([]);
    expect(await reasonsToGoBack(watched({ now: served({ labels: { a: 90, b: 10 } }) }))).toEqual([]);
  });

  it('are 0 apart for equal shares, whatever their number, and 1 where nothing is common', async () => {
    expect((await labelShift(new Map([['a', 10]]), new Map([['a', 300]]))).shift).toBe(0);
    expect((await labelShift(new Map([['a', 300]]), new Map([['b', 300]]))).shift).toBeGreaterThan(0.99);
    expect(await labelShift(new Map(), new Map([['a', 1]]))).toEqual({ shift: 0, p: 1 });
  });
});

describe('labels of a canary that gets 10 % of the requests, by text', () => {
  const isCanarys = (text: string) => fraction('canary', 't', text) < 0.1;
  /** 4,000 requests, one in five of them for `hot`, most of the others for a text of its own. */
  async function wentBack({ hot, canarysLabel }: { hot: string; canarysLabel: (usual: string) => string }) {
    const windows = new ServedWindows();
    const random = generatorOf(7);
    for (let i = 0; i < 4000; i++) {
      const text = random() < 0.2 ? hot : `text ${Math.floor(1e6 * random())}`;
      const usual = text === hot ? 'rare' : fraction('audit', 't', text) < 0.5 ? 'a' : 'b';
      const labels = [isCanarys(text) ? canarysLabel(usual) : usual];
      windows.note('t', isCanarys(text) ? 2 : 1, [{ ok: true, itemKey: itemKey({ text }), prediction: { labels } }], 5);
    }
    return reasonsToGoBack(watched({ before: windows.of('t', 1, 0), now: windows.of('t', 2, 0) }));
  }
  const hotTexts = Array.from({ length: 100 }, (_, i) => `hot ${i}`);
  const [canarys, others] = [hotTexts.find(isCanarys)!, hotTexts.find((text) => !isCanarys(text))!];

  it.each([canarys, others])('stay though one text makes up much of what one version answers: %s', async (hot) => {
    expect(await wentBack({ hot, canarysLabel: (usual) => usual })).toEqual([]);
  });

  it.each([canarys, others])('go back all the same where it says something else of many texts: %s', async (hot) => {
    const now = await wentBack({ hot, canarysLabel: (usual) => (usual === 'b' ? 'a' : usual) });
    expect(now).toEqual([expect.stringMatching(/is (99|100)\.\d % of the texts, before [45]\d\.\d %$/u)]);
  });
});

describe('the test of labels', () => {
  it('is not made where labels moved too little to matter, and decides as it does where it is always made', async () => {
    const test = vi.mocked(permutation.permutationTestByTurns);
    const many = (moved: number) =>
      Object.fromEntries(Array.from({ length: 30 }, (_, i) => [`label ${i}`, i === 0 ? 8 + moved : 8]));
    const pairs = [
      ...[100, 110, 130, 150, 180].map(
        (a) =>
          [
            { a: 100, b: 100 },
            { a, b: 200 - a },
          ] as const,
      ),
      ...[0, 40, 120].map((moved) => [many(0), many(moved)] as const),
    ];
    let [back, without] = [0, 0];
    for (const pair of pairs) {
      const [before, now] = pair.map((labels) => served({ labels }));
      const { shift, p } = await labelShift(before!.labels, now!.labels);
      for (const expectedShift of [0, 0.1, 0.3]) {
        test.mockClear();
        const reasons = await reasonsToGoBack(watched({ before, now, expectedShift }));
        expect(reasons.length > 0).toBe(p <= 1e-4 && shift > expectedShift + 0.15);
        back += reasons.length;
        without += Number(test.mock.calls.length === 0);
      }
    }
    expect(back).toBeGreaterThan(2);
    expect(without).toBeGreaterThan(8);
  });

  it('lets the process do other things meanwhile', async () => {
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    const { p } = await labelShift(new Map([['a', 300]]), new Map([['b', 300]]));
    clearInterval(timer);
    expect(p).toBeLessThan(1e-4);
    expect(turns).toBeGreaterThan(3);
  });
});

describe('audit answers', () => {
  it('go back where the accuracy is clearly lower', async () => {
    const audit = { before: accuracy(180, 200), now: accuracy(30, 50) };
    expect(await reasonsToGoBack(watched({ audit }))).toEqual([
      '60.0 % of 50 audit answers have it right, before 90.0 %',
    ]);
  });

  it('stay on few', async () => {
    expect(await reasonsToGoBack(watched({ audit: { before: accuracy(180, 200), now: accuracy(5, 20) } }))).toEqual([]);
    expect(await reasonsToGoBack(watched({ audit: { before: accuracy(180, 200), now: accuracy(42, 50) } }))).toEqual(
      [],
    );
  });
});
