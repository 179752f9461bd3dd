/**
 * This service beside the limit of the machine and its peers: one run, whose ratios count (README.md here).
 *   node bench/serving/serving.ts DATA_FOLDER OUT_FOLDER --python PYTHON --mlserver-python PYTHON [--seconds 15] …
 * Every load is given to all contestants in turn before the next load, in two rounds. A contestant is started anew for
 * each, alone on the machine. What was measured stands in OUT_FOLDER/raw.jsonl, and is not measured again: a run that was
 * cut off goes on.
 */
import { appendFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { fewloop, fewloopStudent, firstAnswer, peers, startFewloop, type Contestant, type Places, type Setting } from './contestants.ts';
import { checkAnswers, ingest, limit, overload, settingName, underLoad, type LimitFigures, type LimitSetting } from './measure.ts';
import type { Figures, Load, Overload } from './measure.ts';
import { query } from '../loop/service.ts';
import { readTexts, root, tokenize, type SetName } from './texts.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: 'string' },
    'mlserver-python': { type: 'string' },
    'trainer-python': { type: 'string' },
    // A data folder of bench/savings: its student in the precisions that it was admitted in, beside all that.
    student: { type: 'string' },
    seconds: { type: 'string', default: '15' },
    'warm-seconds': { type: 'string', default: '3' },
    'overload-seconds': { type: 'string', default: '120' },
    rounds: { type: 'string', default: '2' },
    texts: { type: 'string', default: '4000' },
    peers: { type: 'string', default: 'litserve,bentoml,mlserver,ray' },
    // To look at a part: a pattern of "set level", and how many of the peers' settings are tried.
    levels: { type: 'string', default: '' },
    settings: { type: 'string', default: '9' },
  },
});
const [data, outFolder] = positionals;
if (!data || !outFolder || !values.python) throw new Error('usage: serving.ts DATA_FOLDER OUT_FOLDER --python PYTHON …');
const out = resolve(outFolder);
const seconds = Number(values.seconds);
const warmSeconds = Number(values['warm-seconds']);
const places: Places = {
  model: join(root, 'models/base-zh'),
  out,
  python: values.python,
  mlserverPython: values['mlserver-python'] ?? values.python,
  rows: 8,
};
mkdirSync(out, { recursive: true });

const OPEN_SHARES = [0.5, 0.7, 0.9];
const CHECKED = 16;
const PIPELINE_TEXTS = 200;
const DEADLINE_MS = 2000;
const OVERLOAD = 3;

const sets = readTexts(data, Number(values.texts));
/** A limit goes through all of its texts. */
const LIMIT_TEXTS = Number(values.texts) / 2;
/** key → what was measured. */
const known = new Map<string, unknown>();
const raw = join(out, 'raw.jsonl');
if (existsSync(raw)) {
  for (const line of readFileSync(raw, 'utf8').split('\n').filter(Boolean)) {
    const { key, value } = JSON.parse(line) as { key: string; value: unknown };
    known.set(key, value);
  }
}

/** `key`: parts that the report reads. A failure is a result too. */
async function once<T>(key: (string | number)[], measure: () => Promise<T>): Promise<T | { error: string }> {
  const name = key.join(' | ');
  if (known.has(name)) return known.get(name) as T;
  const value = await measure().catch((error: unknown) => ({ error: String(error) }));
  appendFileSync(raw, `${JSON.stringify({ key: name, value })}\n`);
  known.set(name, value);
  process.stderr.write(`${new Date().toISOString().slice(11, 19)} ${name}: ${JSON.stringify(value)}\n`);
  return value;
}

const succeeded = <T extends object>(value: T | { error: string }): value is T => !('error' in value);

interface Level {
  name: string;
  set: SetName;
  /** Of the settings tried, those that were best here. */
  tunedAt: string;
  load: Load;
}

const closed = (connections: number, textsPerRequest = 1): Load => ({ connections, textsPerRequest, warmSeconds, seconds });
const TUNED: Record<string, Load> = { '8': closed(8), '32': closed(32), '64 texts': closed(4, 64) };
const CLOSED: Level[] = [
  { name: '1 connection', set: 'mixed', tunedAt: '8', load: closed(1) },
  { name: '8 connections', set: 'mixed', tunedAt: '8', load: closed(8) },
  { name: '32 connections', set: 'mixed', tunedAt: '32', load: closed(32) },
  { name: '128 connections', set: 'mixed', tunedAt: '32', load: closed(128) },
  { name: '64 texts a request', set: 'mixed', tunedAt: '64 texts', load: closed(4, 64) },
  { name: '32 connections', set: 'reviews', tunedAt: '32', load: closed(32) },
  { name: '32 connections', set: 'titles', tunedAt: '32', load: closed(32) },
];

const STUDENT_LOADS = ['8 connections', '32 connections', '64 texts a request'];

const contestants = [
  fewloop(out),
  ...peers(places).filter(({ name }) => values.peers.split(',').includes(name)),
];
const checked = sets.mixed.slice(0, CHECKED);
const checkedLogits = await logitsOf(checked);

await once(['machine'], async () => ({
  cpu: cpus()[0]?.model,
  cores: cpus().length,
  node: process.version,
  at: new Date().toISOString(),
  texts: Object.fromEntries(Object.entries(sets).map(([name, texts]) => [name, texts.length])),
  seconds,
}));
const limits = limitPrograms();
const best = await sweepLimits();
const chosen = await tune();
for (let round = 1; round <= Number(values.rounds); round++) {
  for (const level of CLOSED) await measureLevel(round, level, true);
  if (isAsked('mixed ingest')) await measureIngest(round);
  if (isAsked('mixed pipeline')) await measurePipeline(round);
}
const capacity = (name: string) => closedRate(name, '32 connections');
const bestPeer = Math.max(...contestants.slice(1).map(({ name }) => capacity(name)));
if (bestPeer > 0) {
  for (let round = 1; round <= Number(values.rounds); round++) {
    for (const share of OPEN_SHARES) {
      const ratePerSecond = Math.round(share * bestPeer);
      const load = { ratePerSecond, textsPerRequest: 1, warmSeconds, seconds: 2 * seconds };
      await measureLevel(round, { name: `open ${share}`, set: 'mixed', tunedAt: '32', load }, false);
    }
  }
}
for (let round = 1; values.student && round <= Number(values.rounds); round++) await measureStudent(round, values.student);
if (isAsked('mixed free core')) await measureFreeCore();
if (isAsked('mixed overload')) await measureOverload();

function isAsked(level: string): boolean {
  return new RegExp(values.levels, 'u').test(level);
}

function limitPrograms(): Record<string, string[]> {
  return {
    'limit (Python)': [places.python, join(root, 'bench/serving/limit.py')],
    'limit (Node)': [process.execPath, join(root, 'bench/serving/limit.ts')],
  };
}

/** Every text's word logits by the graph alone. */
async function logitsOf(texts: string[]): Promise<number[][]> {
  const file = await rowsFile('checked', texts);
  const program = [process.execPath, join(root, 'bench/serving/limit.ts'), '--scores'];
  return (await limit(program, [places.model, file], {}, 0)) as unknown as number[][];
}

async function rowsFile(name: string, texts: string[]): Promise<string> {
  const file = join(out, `rows-${name}.json`);
  writeFileSync(file, JSON.stringify(await tokenize(places.model, texts)));
  return file;
}

/** The best batch size, sessions and threads of each limit, on the mixed texts. */
async function sweepLimits(): Promise<Record<string, LimitSetting>> {
  const file = await rowsFile('sweep', sets.mixed.slice(0, LIMIT_TEXTS / 4));
  const found: Record<string, LimitSetting> = {};
  for (const [name, program] of Object.entries(limits)) {
    let most = 0;
    for (const [sessions, threads] of [
      [2, 1],
      [1, 2],
    ] as const) {
      for (const batch of [1, 4, 8, 16, 32, 64]) {
        const setting = { batch, sessions, threads };
        const key = ['sweep', name, `${sessions}×${threads}`, batch];
        const figures = await once(key, () => limit(program, [places.model, file], setting, 1));
        if (!succeeded(figures) || figures.textsPerSecond <= most) continue;
        most = figures.textsPerSecond;
        found[name] = setting;
      }
    }
  }
  places.rows = found['limit (Python)']?.batch ?? 8;
  return found;
}

/** Contestant → tuned load → its best setting. */
async function tune(): Promise<Map<string, Record<string, Setting | undefined>>> {
  const found = new Map<string, Record<string, Setting | undefined>>();
  for (const contestant of contestants) {
    const rates: Record<string, number> = {};
    const own: Record<string, Setting | undefined> = {};
    for (const setting of contestant.settings.slice(0, Number(values.settings))) {
      const key = (load: string) => ['tune', contestant.name, settingName(setting), load];
      if (Object.keys(TUNED).some((load) => !known.has(key(load).join(' | ')))) {
        await using(contestant, setting, async (server) => {
          for (const [name, load] of Object.entries(TUNED)) {
            const short = { ...load, warmSeconds: 2, seconds: Math.min(8, seconds) };
            await once(key(name), () => underLoad(contestant, server, sets.mixed, short));
          }
        }).catch((error: unknown) => process.stderr.write(`${contestant.name}: ${String(error)}\n`));
      }
      for (const name of Object.keys(TUNED)) {
        const figures = known.get(key(name).join(' | ')) as Figures | { error: string } | undefined;
        if (!figures || !succeeded(figures) || figures.textsPerSecond <= (rates[name] ?? 0)) continue;
        rates[name] = figures.textsPerSecond;
        own[name] = setting;
      }
    }
    found.set(contestant.name, own);
  }
  return found;
}

type Use<T> = (server: Awaited<ReturnType<Contestant['start']>>) => Promise<T>;

/** Starts it, checks that it computes what all compute, and stops it, whatever happens. */
async function using<T>(contestant: Contestant, setting: Setting | undefined, use: Use<T>): Promise<T> {
  const server = await contestant.start(setting);
  try {
    await checkAnswers(contestant, server, checked, checkedLogits);
    return await use(server);
  } finally {
    await server.stop();
  }
}

async function measureLevel(round: number, { name, set, tunedAt, load }: Level, withLimit: boolean): Promise<void> {
  if (!isAsked(`${set} ${name}`)) return;
  for (const [limitName, program] of withLimit ? Object.entries(limits) : []) {
    const file = await rowsFile(set, sets[set].slice(0, LIMIT_TEXTS));
    await once([round, set, name, limitName], () => limit(program, [places.model, file], best[limitName] ?? {}, seconds));
  }
  for (const contestant of contestants) {
    const key = [round, set, name, contestant.name];
    const setting = chosen.get(contestant.name)?.[tunedAt];
    await once(key, () =>
      using(contestant, setting, async (server) => ({
        ...(await underLoad(contestant, server, sets[set], load)),
        ...(load.ratePerSecond && { ratePerSecond: load.ratePerSecond }),
        setting: settingName(setting),
      })),
    );
  }
}

async function measureIngest(round: number): Promise<void> {
  const file = await rowsFile('mixed', sets.mixed.slice(0, LIMIT_TEXTS));
  for (const [name, program] of Object.entries(limits)) {
    await once([round, 'mixed', 'ingest', name], () => limit(program, [places.model, file], best[name] ?? {}, seconds));
  }
  await once([round, 'mixed', 'ingest', 'fewloop'], async () => {
    const dataDir = join(out, 'fewloop-ingest');
    rmSync(dataDir, { recursive: true, force: true });
    const server = await startFewloop(dataDir, { FEWLOOP_CACHE_MB: '0' });
    try {
      await firstAnswer(fewloop(out), server, checked);
      return await ingest(server, 'bench', sets.mixed, 4 * seconds);
    } finally {
      await server.stop();
      rmSync(dataDir, { recursive: true, force: true });
    }
  });
}

/** Only where the trainer's environment is named: PyTorch is large. */
async function measurePipeline(round: number): Promise<void> {
  const python = values['trainer-python'];
  if (!python) return;
  const file = join(out, 'texts.json');
  writeFileSync(file, JSON.stringify(sets.mixed.slice(0, PIPELINE_TEXTS)));
  for (const kind of ['fill-mask', 'text-classification']) {
    const program = [python, join(root, 'bench/serving/pipeline.py'), '--kind', kind];
    const measured = () => limit(program, [places.model, file], { batch: 8 }, seconds);
    await once([round, 'mixed', '64 texts a request', `pipeline (${kind})`], measured);
  }
}

/** By turns in what it takes by itself and in fp32; its answers are another model's, so that none are compared. */
async function measureStudent(round: number, dataDir: string): Promise<void> {
  for (const { name, set, load } of CLOSED) {
    if (set !== 'mixed' || !STUDENT_LOADS.includes(name) || !isAsked(`${set} ${name}`)) continue;
    for (const precision of ['auto', 'fp32']) {
      const student = fewloopStudent(dataDir, precision);
      await once([round, set, name, student.name], async () => {
        const server = await student.start(undefined);
        try {
          await firstAnswer(student, server, checked);
          const text = '{ task(name: "savings") { activeVersion { precision } } }';
          const { task } = await query<{ task: { activeVersion: { precision: string } } }>(server.url, text);
          const figures = await underLoad(student, server, sets[set], load);
          return { ...figures, setting: `in ${task.activeVersion.precision}` };
        } finally {
          await server.stop();
        }
      });
    }
  }
}

/** As many model hosts as leave a core free for the service's event loop, which shares it with the client. */
async function measureFreeCore(): Promise<void> {
  if (cpus().length === 1) return;
  const own = fewloop(out, { FEWLOOP_HOSTS: String(cpus().length - 1), FEWLOOP_HOST_THREADS: '1' });
  await once(['free core'], () => using(own, undefined, (server) => underLoad(own, server, sets.mixed, closed(128))));
}

async function measureOverload(): Promise<void> {
  const [own] = contestants;
  const ratePerSecond = Math.round(OVERLOAD * closedRate('fewloop', '128 connections'));
  if (ratePerSecond === 0) return; // its capacity was not measured
  const settings = { ratePerSecond, seconds: Number(values['overload-seconds']), deadlineMs: DEADLINE_MS };
  await once<Overload>(['overload'], () => using(own!, undefined, (server) => overload(own!, server, sets.mixed, settings)));
}

/** Mean over the rounds; 0 where it was not measured. */
function closedRate(contestant: string, level: string): number {
  const found: number[] = [];
  for (let round = 1; round <= Number(values.rounds); round++) {
    const figures = known.get([round, 'mixed', level, contestant].join(' | ')) as Figures | LimitFigures | undefined;
    if (figures && succeeded(figures)) found.push(figures.textsPerSecond);
  }
  return found.reduce((sum, rate) => sum + rate, 0) / Math.max(1, found.length);
}
