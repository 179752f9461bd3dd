/** Fills a run's folder, once: a resumed run finds there what it began with. */
import { Inject, Injectable } from '@nestjs/common';
import { availableParallelism } from 'node:os';
import path from 'node:path';

import { badInput, FewloopError } from '../common/errors.js';
import { Config } from '../config/config.js';
import { dataDigest, readRunSettings, writeRunFolder, type RunSettings } from '../launch/run-folder.js';
import { fileDigest } from '../registry/bundle.js';
import type { TaskRow } from '../storage/entities/task.js';
import type { TrainingRunRow } from '../storage/entities/training-run.js';
import { ExamplesRepository } from '../storage/examples.repository.js';
import { TasksRepository } from '../storage/tasks.repository.js';
import { TrainingTextsRepository } from '../storage/training-texts.repository.js';
import { VersionsRepository } from '../storage/versions.repository.js';
import { sha256 } from '../task/keys.js';
import type { TaskDefinition } from '../task/types.js';
import { trainingData, unlabelledLimit } from './data-set.js';
import { ReproductionService } from './reproduction.js';
import { RunErasure } from './run-erasure.js';
import { pruneRunFolders } from './run-folders.js';

@Injectable()
export class RunData {
  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(TasksRepository) private readonly tasks: TasksRepository,
    @Inject(ExamplesRepository) private readonly examples: ExamplesRepository,
    @Inject(TrainingTextsRepository) private readonly texts: TrainingTextsRepository,
    @Inject(VersionsRepository) private readonly versions: VersionsRepository,
    @Inject(ReproductionService) private readonly reproductions: ReproductionService,
    @Inject(RunErasure) private readonly erasure: RunErasure,
  ) {}

  /** Answers the digest of the data. Throws BAD_INPUT where nothing is left to train on, CONFLICT as `fill` of a repetition. */
  async prepare(run: TrainingRunRow, folder: string): Promise<string> {
    await this.erasure.fill(run.task, folder, async () => {
      if ((await readRunSettings(folder))?.runId === run.id) return;
      await (run.reproduces === null ? this.fill(run, folder) : this.reproductions.fill(run, folder));
    });
    return dataDigest(folder);
  }

  /** Old folders go, but for those of the versions that serve or would after a rollback: the gate asks them. */
  async prune(taskName: string): Promise<void> {
    const task = await this.tasks.find(taskName);
    const needed = new Set<string>();
    for (const version of [task?.activeVersion, task?.previousVersion]) {
      const row = typeof version === 'number' ? await this.versions.find(taskName, version) : null;
      if (row?.runId) needed.add(row.runId);
    }
    await pruneRunFolders(this.config.dataDir, taskName, this.config.runKeep, needed);
  }

  private async fill(run: TrainingRunRow, folder: string): Promise<void> {
    const task = await this.tasks.find(run.task);
    if (!task) throw new FewloopError('TASK_NOT_FOUND', `there is no task ${run.task}`);
    const definition = task.definition as TaskDefinition;
    // A text may stand in several candidates, which count once: some more are asked for than are written.
    const unlabelled = await this.texts.unlabelledForTraining(run.task, 2 * unlabelledLimit(definition));
    const data = trainingData(definition, await this.examples.list(run.task), unlabelled);
    if (!data.labelled.some(({ split }) => split === 'train')) {
      throw badInput('task', `none of its labelled train texts has a label of revision ${task.revision}`);
    }
    await writeRunFolder(folder, await this.settings(run, task, data.prior), data);
  }

  private async settings(run: TrainingRunRow, task: TaskRow, prior: number[] | null): Promise<RunSettings> {
    const definition = task.definition as TaskDefinition;
    const base = this.config.baseModel;
    return {
      formatVersion: 1,
      runId: run.id,
      task: task.name,
      version: await this.versions.next(task.name),
      taskRevision: task.revision,
      definitionDigest: task.definitionDigest,
      definition,
      seed: Number.parseInt(sha256(`seed:${run.id}`).slice(0, 7), 16),
      baseModel: {
        name: path.basename(base),
        folder: path.resolve(base),
        digest: await fileDigest(path.join(base, 'model.safetensors')),
      },
      budgetSeconds: definition.learning.budgetSeconds,
      // Part of what results depend on; a Job's processors are not this machine's.
      threads: this.config.launcher === 'kubernetes' ? this.config.trainerCpus : availableParallelism(),
      prior,
    };
  }
}
