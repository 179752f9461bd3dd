/**
 * Runs explained and repeated. A run's folder has its data and settings as they were when it began; a repetition gets the
 * very same, seed and threads included, makes a version of its own, and says whether that is the first one's. It asks
 * for no promotion. Imports of other modules: launch, registry, storage.
 */
import { Inject, Injectable } from '@nestjs/common';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, rename } from 'node:fs/promises';
import path from 'node:path';
import { FewloopError } from '../common/errors.js';
import { writeWhole } from '../common/whole-file.js';
import { Config } from '../config/config.js';
import {
  dataDigest,
  LABELLED_FILE,
  type PseudoLabel,
  readPseudoLabels,
  readRunSettings,
  UNLABELLED_FILE,
} from '../launch/run-folder.js';
import { fileDigest } from '../registry/bundle.js';
import { Bundles } from '../registry/bundles.js';
import type { BundleManifest, GoldenFile } from '../registry/manifest.js';
import type { ModelVersionRow } from '../storage/entities/model-version.js';
import type { TrainingRunRow } from '../storage/entities/training-run.js';
import { RunsRepository } from '../storage/runs.repository.js';
import { VersionsRepository } from '../storage/versions.repository.js';
import type { Item } from '../task/types.js';
import { runFolder, unlabelledItems } from './run-folders.js';

export interface Reproduction {
  statement: string;
  /** The version of the first run; null where it made none. */
  version: number | null;
  /** Whether all graphs of both have the same digests. */
  sameGraphs: boolean | null;
  /** Of the golden texts' distributions, the greatest difference of a probability. */
  goldenDifference: number | null;
  /** Libraries of the trainer that have other versions now. */
  otherLibraries: string[];
}

export interface PseudoLabels {
  totalCount: number;
  nodes: (PseudoLabel & { item: Item | null })[];
}

@Injectable()
export class ReproductionService {
  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(RunsRepository) private readonly runs: RunsRepository,
    @Inject(VersionsRepository) private readonly versions: VersionsRepository,
    @Inject(Bundles) private readonly bundles: Bundles,
  ) {}

  /** Settings, data, libraries, and whether it could be repeated now. */
  async explain(run: TrainingRunRow): Promise<Record<string, unknown>> {
    const settings = await readRunSettings(this.#folder(run));
    const version = run.producedVersion === null ? null : await this.versions.find(run.task, run.producedVersion);
    const manifest = version?.manifest as BundleManifest | undefined;
    return {
      reason: run.reason,
      startedBy: run.startedBy,
      dataDigest: run.dataDigest,
      settings,
      trainingData: manifest?.trainingData ?? null,
      libraries: manifest?.libraries ?? null,
      repeatable: await this.hindrance(run).then((why) => why ?? 'yes'),
    };
  }

  /**
   * What the student learned beside human labels, in the order of its selection; null where nothing was selected yet or
   * the folder is not kept by this process. The item is null where its text was forgotten since.
   */
  async pseudoLabels(run: TrainingRunRow, first: number, after: number): Promise<PseudoLabels | null> {
    const folder = this.#folder(run);
    const all = await readPseudoLabels(folder);
    if (!all) return null;
    const page = all.slice(after, after + first);
    const items = await unlabelledItems(folder, new Set(page.map(({ itemKey }) => itemKey)));
    const nodes = page.map((each) => ({ ...each, item: items.get(each.itemKey) ?? null }));
    return { totalCount: all.length, nodes };
  }

  /** Why the run cannot be repeated as it was; null where it can. */
  async hindrance(run: TrainingRunRow): Promise<string | null> {
    if (run.dataDigest === null) return `run ${run.id} ended before its data were fixed`;
    const folder = this.#folder(run);
    const settings = await readRunSettings(folder);
    if (!settings) return `the data of run ${run.id} are no longer kept (FEWLOOP_RUN_KEEP)`;
    if (!existsSync(path.join(folder, UNLABELLED_FILE))) {
      return `the unlabelled texts of run ${run.id} were erased for their age (retention.days)`;
    }
    if ((await dataDigest(folder)) !== run.dataDigest) {
      return `the data of run ${run.id} are not what they were: a text of them was forgotten since`;
    }
    const base = path.join(settings.baseModel.folder, 'model.safetensors');
    if (!existsSync(base)) return `the base model of run ${run.id} is no longer at ${settings.baseModel.folder}`;
    if ((await fileDigest(base)) !== settings.baseModel.digest) {
      return `the base model at ${settings.baseModel.folder} is another one than run ${run.id} had`;
    }
    return null;
  }

  /** Fills the folder of a run that repeats another. Throws CONFLICT where that cannot be repeated any more. */
  async fill(run: TrainingRunRow, folder: string): Promise<void> {
    const first = await this.runs.find(run.reproduces!);
    const why = first ? await this.hindrance(first) : `run ${run.reproduces} is gone`;
    if (!first || why !== null) throw new FewloopError('CONFLICT', why!);
    const settings = (await readRunSettings(this.#folder(first)))!;
    const version = await this.versions.next(run.task);
    await mkdir(folder, { recursive: true });
    for (const name of [LABELLED_FILE, UNLABELLED_FILE]) {
      await copyFile(path.join(this.#folder(first), name), path.join(folder, `${name}.partial`));
      await rename(path.join(folder, `${name}.partial`), path.join(folder, name));
    }
    const file = path.join(folder, 'run.json');
    await writeWhole(file, `${JSON.stringify({ ...settings, runId: run.id, version }, null, 2)}\n`);
  }

  /** What came of a repetition. */
  async compare(run: TrainingRunRow, version: number): Promise<Reproduction> {
    const first = await this.runs.find(run.reproduces!);
    const before =
      first && first.producedVersion !== null ? await this.versions.find(run.task, first.producedVersion) : null;
    const after = (await this.versions.find(run.task, version))!;
    if (!before) {
      const statement = `Run ${run.reproduces} made no version to compare with.`;
      return { statement, version: null, sameGraphs: null, goldenDifference: null, otherLibraries: [] };
    }
    const sameGraphs = JSON.stringify(graphDigests(before)) === JSON.stringify(graphDigests(after));
    const goldenDifference = greatestDifference(await this.#golden(before), await this.#golden(after));
    const statement = sameGraphs
      ? `Version ${version} is version ${before.version} again: all graphs have the same digests.`
      : goldenDifference === null
        ? `Version ${version} is not version ${before.version}: its members or golden texts are others.`
        : `Version ${version} is not bit for bit version ${before.version}; on the golden texts no probability differs by more than ${goldenDifference.toPrecision(2)}.`;
    return { statement, version: before.version, sameGraphs, goldenDifference, otherLibraries: changed(before, after) };
  }

  #folder(run: TrainingRunRow): string {
    return path.join(this.config.dataDir, runFolder(run.task, run.id));
  }

  async #golden(version: ModelVersionRow): Promise<GoldenFile> {
    return (await this.bundles.read(version)).golden;
  }
}

function graphDigests({ manifest }: ModelVersionRow): string[] {
  return (manifest as BundleManifest).graphs.map(({ id, sha256 }) => `${id} ${sha256}`).sort();
}

/** Names, where the versions differ. */
function changed(before: ModelVersionRow, after: ModelVersionRow): string[] {
  const [old, now] = [before, after].map(({ manifest }) => (manifest as BundleManifest).libraries);
  return [...new Set([...Object.keys(old!), ...Object.keys(now!)])].filter((name) => old![name] !== now![name]);
}

/** Null where the two have other texts or members. */
function greatestDifference(a: GoldenFile, b: GoldenFile): number | null {
  const [one, other] = [a, b].map(({ rows }) =>
    rows.flatMap(({ item, members }) =>
      members.map(({ member, distribution }) => ({ of: JSON.stringify([item, member]), distribution })),
    ),
  );
  if (one!.length !== other!.length) return null;
  let greatest = 0;
  for (const [i, { of, distribution }] of one!.entries()) {
    const twin = other![i]!;
    if (twin.of !== of || twin.distribution.length !== distribution.length) return null;
    distribution.forEach((value, j) => {
      greatest = Math.max(greatest, Math.abs(value - twin.distribution[j]!));
    });
  }
  return greatest;
}
