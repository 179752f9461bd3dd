/** From a run's bundle to a model version, once. */
import { Inject, Injectable } from '@nestjs/common';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';

import { writeWhole } from '../common/whole-file.js';
import { readResult, readRunSettings } from '../launch/run-folder.js';
import type { BundleManifest } from '../registry/manifest.js';
import { ModelRegistry } from '../registry/versions.js';
import type { ModelVersionRow } from '../storage/entities/model-version.js';
import type { TrainingRunRow } from '../storage/entities/training-run.js';
import { TasksRepository } from '../storage/tasks.repository.js';
import { Transactions } from '../storage/transactions.js';
import { VersionsRepository } from '../storage/versions.repository.js';

/** More than a run can be behind the newest version. */
const RECENT = 100;

@Injectable()
export class RunVersions {
  constructor(
    @Inject(ModelRegistry) private readonly registry: ModelRegistry,
    @Inject(VersionsRepository) private readonly versions: VersionsRepository,
    @Inject(TasksRepository) private readonly tasks: TasksRepository,
    @Inject(Transactions) private readonly transactions: Transactions,
  ) {}

  /** The version that the run has made already; null before. */
  async ofRun(run: TrainingRunRow): Promise<ModelVersionRow | null> {
    const recent = await this.versions.list(run.task, RECENT);
    return recent.find(({ runId }) => runId === run.id) ?? null;
  }

  /** Whether an earlier attempt's trainer brought its work to an end. */
  async isTrained(folder: string): Promise<boolean> {
    return (await readResult(folder))?.ok === true;
  }

  /**
   * Puts the run's bundle into the bundle store, if there is one, before anything waits for its registration. Throws
   * BUNDLE_INVALID, and an Error that is none of ours where the store cannot be used.
   */
  async keep(folder: string): Promise<void> {
    const bundle = await bundleOf(folder);
    if (existsSync(bundle)) await this.registry.keep(bundle);
  }

  /**
   * Takes the run's bundle in. Its number was the next one when the run began; where another version (priors matched
   * again, say) has taken it since, it gets the number that is the next one now, which nobody else takes meanwhile.
   * Throws BUNDLE_INVALID.
   */
  async register(run: TrainingRunRow, folder: string): Promise<ModelVersionRow> {
    const settings = await readRunSettings(folder);
    const bundle = await bundleOf(folder);
    if (!settings) throw new Error(`${folder} has no finished run`);
    return this.transactions.run(async (tx) => {
      await this.tasks.lockVersions(run.task, tx);
      let { version } = settings;
      if (await this.versions.find(run.task, version)) {
        version = await this.versions.next(run.task);
        // Moved already, under the number that it still has, where a process ended before its row was kept.
        if (existsSync(bundle)) await renumber(bundle, version);
      }
      return this.registry.registerVersion({ task: run.task, version, folder: bundle, runId: run.id });
    });
  }
}

/** Where the trainer left it; it is moved when it is registered. */
async function bundleOf(folder: string): Promise<string> {
  const result = await readResult(folder);
  if (!result?.ok) throw new Error(`${folder} has no finished run`);
  return path.join(folder, result.bundle);
}

async function renumber(bundle: string, version: number): Promise<void> {
  const file = path.join(bundle, 'manifest.json');
  const manifest = JSON.parse(await readFile(file, 'utf8')) as BundleManifest;
  await writeWhole(file, `${JSON.stringify({ ...manifest, version }, null, 2)}\n`);
}
