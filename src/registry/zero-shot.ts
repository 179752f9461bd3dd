/**
 * A version without training: the base model's graph, one member a template, label words as the graph's inputs.
 * Label words differ in how readily the base model says them, whatever the text; each member's offsets take that out,
 * by matching its mean prediction on the task's own texts to the prior, or, where there are none, its prediction on an
 * empty text (Zhao et al. 2021, "Calibrate Before Use"). They are frozen in the manifest.
 */
import { Inject, Injectable } from '@nestjs/common';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { bootstrap, type Statistic } from '../common/bootstrap.js';
import { packageVersion } from '../common/package-version.js';
import { Config } from '../config/config.js';
import type { InferenceEngine } from '../inference/engine.js';
import { contextualCalibration, matchPriors, meanDistribution } from '../inference/priors.js';
import type { Member, ServedModel } from '../inference/types.js';
import { HostPool } from '../runtime/host-pool.js';
import { definitionDigest } from '../task/definition.js';
import { dataSetDigest, itemKey } from '../task/keys.js';
import type { MeasuredPrior } from '../task/lint.js';
import type { Item, TaskDefinition } from '../task/types.js';
import { digest, fileDigest } from './bundle.js';
import { goldenItems, madeItem } from './golden-items.js';
import { goldenOf, rawScores } from './golden.js';
import { BUNDLE_FORMAT_VERSION, RENDERING, type BundleFile, type BundleManifest, type GoldenFile } from './manifest.js';
import { refuseExternalData } from './onnx-file.js';
import { RehearsalEngine } from './rehearsal.js';
import { openBundle } from './served-model.js';

export interface ZeroShotRequest {
  definition: TaskDefinition;
  version: number;
  revision: number;
  /** Unlabelled and valid for the task; of train groups only. May be empty. */
  items: Item[];
  /** Of the labels, in the definition's order; sums to one. Ignored for multiple-choice. */
  prior: number[];
  /** Where the bundle is to be; must not be in use. */
  outFolder: string;
}

/** `report.json` of a zero-shot version. */
interface ZeroShotReport extends Record<'accuracy' | 'macroF1' | 'ece' | 'augrc', typeof NO_LABELS> {
  kind: 'zero-shot';
  latency: Latency;
  /** What the offsets were matched on: there is nothing to match where a choice is a label of one item alone. */
  priorFrom: 'texts' | 'empty-text' | 'none';
  texts: number;
  prior?: number[];
  members?: MemberReport[];
}

type Matching = Pick<ZeroShotReport, 'priorFrom' | 'texts' | 'prior' | 'members'>;

/** Mean milliseconds a text, rendering and tokenizing included, of texts asked one at a time. */
interface Latency {
  value: number;
  /** 95 %. */
  interval: [number, number];
  /** Of the texts, as `dataSetDigest` has it. */
  digest: string;
  unit: 'ms';
  /** The task's own, or golden ones where it has none. */
  texts: number;
}

/** PET has no shortlist, so that a member is in the manifest what it is in memory. */
type PetMember = Omit<Member, 'shortlist'>;

interface MemberReport {
  member: string;
  /** Mean predicted distribution without and with the offsets, in label order. */
  before: number[];
  after: number[];
}

/** More texts hardly move the offsets (a share's standard error is under 2.3 % already) and cost seconds. */
const TEXTS_TO_MATCH = 512;
const ITEMS_AT_ONCE = 64;
const TIMED_ANSWERS = 20;
const GRAPH = 'base';
const NO_LABELS = {
  value: null,
  interval: null,
  digest: null,
  reason: 'no labelled row took part: the gate measures the version beside the one that comes after it',
};

@Injectable()
export class ZeroShotBuilder {
  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(HostPool) private readonly hostPool: HostPool,
    @Inject(RehearsalEngine) private readonly engine: RehearsalEngine,
  ) {}

  /** Writes the bundle and returns its manifest. The version answers once it is registered and activated. */
  async build(request: ZeroShotRequest): Promise<BundleManifest> {
    const { baseModel } = this.config;
    const path = join(baseModel, 'model.onnx');
    const sha256 = await fileDigest(path);
    await refuseExternalData(path, sha256);
    const tokenizerJson = await readFile(join(baseModel, 'tokenizer.json'), 'utf8');
    const drafted = request.definition.templates.map((template, i) =>
      zeroShotMember(request.definition, template, `t${i}`),
    );
    const draft = await draftManifest(request, drafted, baseModel, sha256);
    const graphs = [{ id: GRAPH, path, sha256 }];
    const bundle = { manifest: draft, members: drafted, tokenizerJson, graphs };
    const { model, release } = await openBundle(bundle, this.hostPool);
    try {
      const { members, matching } = await matchMembers(this.engine, model, drafted, request);
      const items = goldenItems(request.definition);
      const golden = await goldenOf(this.engine, { ...model, members }, items);
      const texts = sample(request.items).slice(0, TIMED_ANSWERS);
      const latency = await latencyOf(this.engine, model, texts.length > 0 ? texts : items);
      const report = reportOf(matching, latency);
      return await writeBundle(request, { ...draft, members }, { tokenizerJson, golden, report });
    } finally {
      await release();
    }
  }
}

/** What each template gave each label when the version was built, for the linter. None for a version of another origin. */
export function measuredPriors(version: { manifest: object; report: object }): MeasuredPrior[] {
  const { origin, definition, members } = version.manifest as BundleManifest;
  if (origin !== 'zero-shot') return [];
  const { texts, members: reports = [] } = version.report as ZeroShotReport;
  return reports.flatMap(({ member, before }) => {
    const template = members.find(({ id }) => id === member)?.template;
    if (template === undefined) return [];
    const means = Object.fromEntries(definition.labels.map(({ name }, i) => [name, before[i]!]));
    return [{ template, means, texts }];
  });
}

async function draftManifest(
  { definition, version, revision }: ZeroShotRequest,
  members: PetMember[],
  baseModel: string,
  baseGraph: string,
): Promise<BundleManifest> {
  const placeholder = { file: '', sha256: '' };
  const uncalibrated = { temperature: 1, calibrated: false };
  return {
    formatVersion: BUNDLE_FORMAT_VERSION,
    task: definition.name,
    version,
    taskRevision: revision,
    definitionDigest: definitionDigest(definition),
    definition,
    rendering: RENDERING,
    origin: 'zero-shot',
    createdAt: new Date().toISOString(),
    graphs: [{ id: GRAPH, kind: 'pet', precision: 'fp32', base: true, file: 'model.onnx', sha256: baseGraph }],
    members,
    policies: { ensemble: uncalibrated },
    tokenizer: placeholder,
    golden: placeholder,
    report: placeholder,
    baseModel: { name: basename(baseModel), digest: await fileDigest(join(baseModel, 'model.safetensors')) },
    trainingData: null,
    libraries: {
      node: process.versions.node,
      'onnxruntime-node': packageVersion('onnxruntime-node'),
      tokenizers: packageVersion('tokenizers'),
    },
  };
}

function zeroShotMember(definition: TaskDefinition, template: string, id: string): PetMember {
  return {
    id,
    role: 'teacher',
    method: 'pet',
    graph: GRAPH,
    template,
    labelWords: Object.fromEntries(definition.labels.map(({ name, words }) => [name, words])),
    strategy: 'zero-shot',
    weight: 1 / definition.templates.length,
    offsets: {},
  };
}

async function matchMembers(
  engine: InferenceEngine,
  model: ServedModel,
  drafted: PetMember[],
  { definition, items, prior }: ZeroShotRequest,
): Promise<{ members: PetMember[]; matching: Matching }> {
  if (definition.kind === 'multiple-choice') return { members: drafted, matching: { priorFrom: 'none', texts: 0 } };
  const texts = sample(items);
  const from = texts.length > 0 ? texts : [madeItem(definition, '', undefined)];
  const scores = await scoresOf(engine, model, from);
  const reports: MemberReport[] = [];
  const members = drafted.map((member) => {
    const rows = scores.get(member.id)!;
    const offsets = texts.length > 0 ? matchPriors(rows, prior) : towards(prior, contextualCalibration(rows));
    reports.push({ member: member.id, before: meanDistribution(rows, []), after: meanDistribution(rows, offsets) });
    return { ...member, offsets: Object.fromEntries(definition.labels.map(({ name }, i) => [name, offsets[i]!])) };
  });
  const priorFrom = texts.length > 0 ? 'texts' : 'empty-text';
  return { members, matching: { priorFrom, texts: texts.length, prior, members: reports } };
}

function reportOf(matching: Matching, latency: Latency): ZeroShotReport {
  const unknown = { accuracy: NO_LABELS, macroF1: NO_LABELS, ece: NO_LABELS, augrc: NO_LABELS };
  return { kind: 'zero-shot', ...unknown, latency, ...matching };
}

/** Of few texts each is asked several times. */
async function latencyOf(engine: InferenceEngine, model: ServedModel, items: Item[]): Promise<Latency> {
  const times: number[] = [];
  for (let i = 0; i < TIMED_ANSWERS; i++) {
    const startedAtMs = performance.now();
    await rawScores(engine, model, [items[i % items.length]!]);
    times.push(performance.now() - startedAtMs);
  }
  const mean: Statistic = (drawn) => Array.from(drawn, (i) => times[i]!).reduce((sum, ms) => sum + ms) / drawn.length;
  const { low, high } = bootstrap(times.length, mean);
  const digest = dataSetDigest(items.map((item) => ({ itemKey: itemKey(item), labels: [] })));
  return { value: mean([...times.keys()]), interval: [low, high], digest, unit: 'ms', texts: items.length };
}

/** The items whose keys are smallest: a random sample that is the same each time. */
function sample(items: Item[]): Item[] {
  const keyed = items.map((item) => ({ item, key: itemKey(item) })).sort((a, b) => (a.key < b.key ? -1 : 1));
  return keyed.slice(0, TEXTS_TO_MATCH).map(({ item }) => item);
}

/** Offsets that aim at the uniform distribution, aimed at `prior` instead. */
function towards(prior: number[], offsets: number[]): number[] {
  return offsets.map((offset, i) => offset + Math.log(Math.max(prior[i]!, 1e-6)));
}

/** Member → one row an item, of scores of the labels; in portions, so that requests in between need not wait. */
async function scoresOf(engine: InferenceEngine, model: ServedModel, items: Item[]): Promise<Map<string, number[][]>> {
  const byMember = new Map<string, number[][]>(model.members.map(({ id }) => [id, []]));
  for (let i = 0; i < items.length; i += ITEMS_AT_ONCE) {
    for (const { members } of await rawScores(engine, model, items.slice(i, i + ITEMS_AT_ONCE))) {
      for (const { member, scores } of members) byMember.get(member)!.push(scores);
    }
  }
  return byMember;
}

async function writeBundle(
  { outFolder }: ZeroShotRequest,
  draft: BundleManifest,
  { tokenizerJson, golden, report }: { tokenizerJson: string; golden: GoldenFile; report: ZeroShotReport },
): Promise<BundleManifest> {
  const partial = `${outFolder}.partial`;
  await rm(partial, { recursive: true, force: true });
  await mkdir(partial, { recursive: true });
  const write = async (file: string, content: string): Promise<BundleFile> => {
    await writeFile(join(partial, file), content);
    return { file, sha256: digest(content) };
  };
  const manifest: BundleManifest = {
    ...draft,
    tokenizer: await write('tokenizer.json', tokenizerJson),
    golden: await write('golden.json', JSON.stringify(golden)),
    report: await write('report.json', JSON.stringify(report)),
  };
  await write('manifest.json', JSON.stringify(manifest, null, 2));
  await rm(outFolder, { recursive: true, force: true });
  await rename(partial, outFolder);
  return manifest;
}
