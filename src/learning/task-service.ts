/**
 * Tasks: applying a task file, and the zero-shot version that serves until something better is promoted.
 * Invariants: a changed file is a new revision, the same file changes nothing; while the active version is a zero-shot
 * one it follows the file, and is built anew once there is a sample of the task's own texts to match priors on; routing
 * and the serving policy follow the file whatever version answers.
 */
import { Inject, Injectable, Logger } from '@nestjs/common';
import { badInput, FewloopError } from '../common/errors.js';
import { ConvergenceService } from '../registry/convergence.js';
import type { BundleManifest } from '../registry/manifest.js';
import { measuredPriors } from '../registry/zero-shot.js';
import { AnswersRepository } from '../storage/answers.repository.js';
import { CandidatesRepository } from '../storage/candidates.repository.js';
import type { TaskRow } from '../storage/entities/task.js';
import { ExamplesRepository } from '../storage/examples.repository.js';
import { TasksRepository } from '../storage/tasks.repository.js';
import { Transactions, type Tx } from '../storage/transactions.js';
import { VersionsRepository } from '../storage/versions.repository.js';
import { keptFrom } from '../task/answering.js';
import { definitionDigest, parseTask } from '../task/definition.js';
import type { LintFinding } from '../task/lint.js';
import { requireSupported } from '../task/support.js';
import type { TaskDefinition } from '../task/types.js';
import { TaskLinter } from './task-linter.js';
import { ZeroShotVersions } from './zero-shot-versions.js';

@Injectable()
export class TaskService {
  private readonly log = new Logger(TaskService.name);

  constructor(
    @Inject(TasksRepository) private readonly tasks: TasksRepository,
    @Inject(ExamplesRepository) private readonly examples: ExamplesRepository,
    @Inject(CandidatesRepository) private readonly candidates: CandidatesRepository,
    @Inject(AnswersRepository) private readonly answers: AnswersRepository,
    @Inject(VersionsRepository) private readonly versions: VersionsRepository,
    @Inject(Transactions) private readonly transactions: Transactions,
    @Inject(TaskLinter) private readonly linter: TaskLinter,
    @Inject(ZeroShotVersions) private readonly zeroShot: ZeroShotVersions,
    @Inject(ConvergenceService) private readonly convergence: Pick<ConvergenceService, 'announce'>,
  ) {}

  /**
   * Creates the task or a new revision of it, and serves it. `retire`: labels that have examples may be taken away;
   * the examples stay and take no part. Throws BAD_INPUT, with every error the linter finds; CONFLICT.
   */
  async apply(source: string, by: string, { retire = false } = {}): Promise<TaskRow> {
    const definition = parseTask(source);
    requireSupported(definition);
    const findings = await this.linter.lint(definition);
    const errors = findings.filter(({ severity }) => severity === 'error');
    if (errors[0]) {
      const others = errors.slice(1).map(({ field, message }) => `; ${field}: ${message}`);
      throw badInput(errors[0].field, errors[0].message + others.join(''));
    }
    await this.transactions.run((tx) => this.save(definition, by, retire, tx));
    // A revision that was kept but whose version could not be built is completed by applying the file again.
    await this.zeroShot.follow(definition.name, by);
    // Routing is by the newest revision, whichever version answers. What cannot be served here is tried again.
    await this.convergence.announce(definition.name).catch((error: unknown) => this.log.error(error));
    const task = await this.get(definition.name);
    for (const { field, message } of await this.findings(task)) {
      this.log.warn(`task ${definition.name}: ${field}: ${message}`);
    }
    return task;
  }

  /**
   * What the linter says of the file that is applied; of skewed priors too, while the zero-shot version serves, and of
   * what a trained one does not follow.
   */
  async findings(task: Pick<TaskRow, 'name' | 'definition' | 'activeVersion'>): Promise<LintFinding[]> {
    const { name, activeVersion } = task;
    const definition = task.definition as TaskDefinition;
    const version = activeVersion === null ? null : await this.versions.find(name, activeVersion);
    const findings = await this.linter.lint(definition, version ? measuredPriors(version) : []);
    const made = version?.manifest as BundleManifest | undefined;
    if (!made || made.origin === 'zero-shot') return findings;
    const until = `version ${made.version} keeps those of revision ${made.taskRevision} until a newly trained one is promoted`;
    const kept = keptFrom(made.definition, definition).map((field) => ({
      severity: 'warning' as const,
      field,
      message: until,
    }));
    return [...findings, ...kept];
  }

  list(): Promise<TaskRow[]> {
    return this.tasks.list();
  }

  /** Throws TASK_NOT_FOUND. */
  async get(name: string): Promise<TaskRow> {
    const task = NAME.test(name) ? await this.tasks.find(name) : null;
    if (!task) throw new FewloopError('TASK_NOT_FOUND', `there is no task ${name.slice(0, 100)}`);
    return task;
  }

  private async save(definition: TaskDefinition, by: string, retire: boolean, tx: Tx): Promise<void> {
    const { name, kind } = definition;
    const digest = definitionDigest(definition);
    // Before the task's row, as answers and imports do, which check labels by the file that is applied.
    await this.examples.lockTask(name, tx);
    const known = await this.tasks.lock(name, tx);
    if (known?.definitionDigest === digest) return;
    if (known && known.kind !== kind) {
      throw badInput('kind', `task ${name} is ${known.kind}; another kind is another task, with a name of its own`);
    }
    const renames = new Map(definition.labels.flatMap(({ name: to, was }) => was.map((from) => [from, to] as const)));
    if (known) {
      await this.examples.renameLabels(name, renames, tx);
      await this.candidates.renameLabels(name, renames, tx);
      await this.answers.renameLabels(name, renames, tx);
      if (!retire && kind !== 'multiple-choice') {
        // Former names too: by the file before, examples that have one still are their label's.
        const before = (known.definition as TaskDefinition).labels
          .flatMap((label) => [label.name, ...label.was])
          .map((label) => renames.get(label) ?? label);
        await this.requireLabelsKept(before, definition, tx);
      }
    }
    const revision = (known?.revision ?? 0) + 1;
    await this.tasks.saveRevision({ name, kind, revision, definition, definitionDigest: digest, appliedBy: by }, tx);
  }

  /** Of the labels `before`: what an earlier revision took away is gone already, and its examples are still there. */
  private async requireLabelsKept(before: string[], definition: TaskDefinition, tx: Tx): Promise<void> {
    const labels = new Set(definition.labels.map(({ name }) => name));
    const inUse = new Set(await this.examples.labelsInUse(definition.name, tx));
    const lost = before.filter((label) => inUse.has(label) && !labels.has(label));
    if (lost.length === 0) return;
    const hint = 'name its successor with `was`, or apply with --retire';
    throw badInput('labels', `${lost.join(', ')} would be gone and has examples: ${hint}`);
  }
}

const NAME = /^[a-z0-9-]{1,63}$/u;
