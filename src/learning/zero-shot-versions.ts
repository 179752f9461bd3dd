/**
 * Building and activating zero-shot versions. One at a time in a process, and one at a time per task over all replicas:
 * the database holds a lock for as long as it takes (seconds), and what is needed is decided once it is held.
 */
import { Inject, Injectable, Logger, type OnApplicationBootstrap } from '@nestjs/common';
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { FewloopError } from '../common/errors.js';
import { Config } from '../config/config.js';
import { ActivationService } from '../registry/activation.js';
import { fileDigest } from '../registry/bundle.js';
import { ConvergenceService } from '../registry/convergence.js';
import type { BundleManifest } from '../registry/manifest.js';
import { ModelRegistry } from '../registry/versions.js';
import { ZeroShotBuilder } from '../registry/zero-shot.js';
import type { TaskRow } from '../storage/entities/task.js';
import { ExamplesRepository } from '../storage/examples.repository.js';
import { LedgerRepository } from '../storage/ledger.repository.js';
import { TasksRepository } from '../storage/tasks.repository.js';
import { TrainingTextsRepository } from '../storage/training-texts.repository.js';
import { Transactions } from '../storage/transactions.js';
import { VersionsRepository } from '../storage/versions.repository.js';
import { validateItem } from '../task/item.js';
import { hasZeroShot } from '../task/support.js';
import type { Item, TaskDefinition } from '../task/types.js';
import { itemOf, trainingData } from './data-set.js';
import { LearningEvents } from './events.js';
import { LedgerService } from './ledger.js';
import { Outbox } from './outbox.js';

/** With fewer texts priors are matched poorly: a share's standard error is over 3.5 %. */
const TEXTS_TO_REMATCH = 200;
const TEXTS_TO_READ = 1000;
const CHECK_MS = 5_000;
/** Texts in number of which the task can take too few are read again only after so long. */
const READ_MS = 60_000;
const SERVICE = 'fewloop';

@Injectable()
export class ZeroShotVersions implements OnApplicationBootstrap {
  private readonly log = new Logger(ZeroShotVersions.name);
  /** The builds of this process follow each other, so that they hold one connection. */
  private last: Promise<unknown> = Promise.resolve();
  /** Task → when to look at its texts again, monotonic milliseconds. */
  private readonly lookAt = new Map<string, number>();

  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(TasksRepository) private readonly tasks: TasksRepository,
    @Inject(VersionsRepository) private readonly versions: VersionsRepository,
    @Inject(ExamplesRepository) private readonly examples: ExamplesRepository,
    @Inject(TrainingTextsRepository) private readonly texts: TrainingTextsRepository,
    @Inject(Transactions) private readonly transactions: Transactions,
    @Inject(ZeroShotBuilder) private readonly builder: ZeroShotBuilder,
    @Inject(ModelRegistry) private readonly registry: ModelRegistry,
    @Inject(ActivationService) private readonly activation: ActivationService,
    @Inject(ConvergenceService) private readonly convergence: ConvergenceService,
    @Inject(LedgerService) private readonly ledger: LedgerService,
    @Inject(LedgerRepository) private readonly entries: LedgerRepository,
    @Inject(LearningEvents) private readonly events: LearningEvents,
    @Inject(Outbox) private readonly outbox: Outbox,
  ) {}

  /** A service that comes with another base model than before cannot serve what was built on that one. */
  onApplicationBootstrap(): void {
    const outdated = async () => {
      for (const row of await this.tasks.list()) {
        if (row.activeVersion !== null && (await this.isNeeded(row, SERVICE))) await this.follow(row.name, SERVICE);
      }
    };
    outdated().catch((error: unknown) => this.log.error({ err: error }, 'zero-shot versions were not looked through'));
  }

  /** Makes and activates the zero-shot version that the task needs now, if it needs one. */
  follow(task: string, by: string): Promise<void> {
    const next = this.last.then(() => this.locked(task, by));
    this.last = next.catch(() => undefined);
    return next;
  }

  /** To be called when texts have come in: matches the priors on them once there are enough. Looks now and then. */
  async rematch(task: string): Promise<void> {
    const now = performance.now();
    if (now < (this.lookAt.get(task) ?? -Infinity)) return;
    this.lookAt.set(task, now + CHECK_MS);
    const row = await this.tasks.find(task);
    if (!row || !(await this.isShortOfTexts(row))) return;
    if (await this.hasTexts(row)) await this.follow(task, SERVICE);
    else this.lookAt.set(task, now + READ_MS);
  }

  private locked(task: string, by: string): Promise<void> {
    return this.transactions.run(async (tx) => {
      await this.tasks.lockVersions(task, tx);
      const row = await this.tasks.find(task);
      if (row && (await this.isNeeded(row, by))) await this.make(row, by);
    });
  }

  private async isNeeded(row: TaskRow, by: string): Promise<boolean> {
    if (!hasZeroShot(row.definition as TaskDefinition)) return false;
    if (row.activeVersion === null) return true;
    const active = await this.versions.find(row.name, row.activeVersion);
    const manifest = active?.manifest as BundleManifest | undefined;
    if (manifest?.origin !== 'zero-shot') return false;
    const isOfOtherFile = manifest.definitionDigest !== row.definitionDigest;
    if (isOfOtherFile && (by !== SERVICE || !(await this.wasGoneBackTo(row)))) return true;
    if (await this.isOfOtherBase(manifest)) return true;
    return (await this.isShortOfTexts(row)) && this.hasTexts(row);
  }

  private async isOfOtherBase({ graphs }: BundleManifest): Promise<boolean> {
    const onBase = graphs.filter(({ base }) => base);
    if (onBase.length === 0) return false;
    const digest = await fileDigest(join(this.config.baseModel, 'model.onnx'));
    return onBase.some(({ sha256 }) => sha256 !== digest);
  }

  /** What people or the guard went back to is not replaced because a newer one would be better. */
  private async wasGoneBackTo({ name, activeVersion }: TaskRow): Promise<boolean> {
    return (await this.entries.lastSwap(name, activeVersion!))?.kind === 'rolled-back';
  }

  /** Whether the active version was matched on too few, while there are more. */
  private async isShortOfTexts(row: TaskRow): Promise<boolean> {
    const { name, kind, activeVersion } = row;
    // A choice is a label of one item alone: there are no priors to match.
    if (activeVersion === null || kind === 'multiple-choice') return false;
    const active = await this.versions.find(name, activeVersion);
    if ((active?.manifest as BundleManifest | undefined)?.origin !== 'zero-shot') return false;
    const { texts = 0 } = (active?.report ?? {}) as { texts?: number };
    if (texts >= TEXTS_TO_REMATCH || (await this.texts.reservoirSize(name)) < TEXTS_TO_REMATCH) return false;
    return !(await this.wasGoneBackTo(row));
  }

  /** Whether a version that is made now would be matched on enough. */
  private async hasTexts({ definition }: TaskRow): Promise<boolean> {
    return (await this.items(definition as TaskDefinition)).length >= TEXTS_TO_REMATCH;
  }

  private async make(row: TaskRow, by: string): Promise<void> {
    const { name: task, revision } = row;
    const definition = row.definition as TaskDefinition;
    const outFolder = join(this.config.dataDir, 'bundles', task, `building-${randomUUID()}`);
    try {
      const version = await this.versions.next(task);
      const items = await this.items(definition);
      const prior = await this.prior(definition);
      await this.builder.build({ definition, version, revision, items, prior, outFolder });
      const made = await this.registry.registerVersion({ task, version, folder: outFolder, runId: null });
      await this.activate(row, version, made.digest, by);
      this.log.log(`task ${task}: zero-shot version ${version} by ${items.length} texts`);
    } finally {
      await rm(outFolder, { recursive: true, force: true });
    }
  }

  private async items(definition: TaskDefinition): Promise<Item[]> {
    const rows = await this.texts.reservoir(definition.name, TEXTS_TO_READ);
    // Texts that came under an earlier revision may lack what this one's templates name.
    return rows.map(itemOf).filter((item) => isValid(definition, item, this.config));
  }

  private async prior(definition: TaskDefinition): Promise<number[]> {
    const { prior } = trainingData(definition, await this.examples.list(definition.name), []);
    return prior ?? definition.labels.map(() => 1 / definition.labels.length);
  }

  private async activate(row: TaskRow, version: number, digest: string, by: string): Promise<void> {
    const task = row.name;
    await this.activation.prepare(task, version);
    await this.transactions.run(async (tx) => {
      const now = await this.tasks.lock(task, tx);
      if (now?.activeVersion !== row.activeVersion) {
        throw new FewloopError('CONFLICT', 'another version became active at the same moment: apply the file again');
      }
      await this.registry.setActive(task, version, tx);
      await this.ledger.append(tx, task, 'activated', { from: row.activeVersion, to: version, digest, by });
      await this.outbox.add('model.activated', task, { version, from: row.activeVersion, by }, tx);
    });
    await this.convergence.announce(task);
    const active = await this.versions.find(task, version);
    if (active) this.events.modelActivated(active);
  }
}

function isValid(definition: TaskDefinition, item: Item, limits: { maxTextLength: number }): boolean {
  try {
    validateItem(definition, item, limits);
    return true;
  } catch (error) {
    if (error instanceof FewloopError) return false;
    throw error;
  }
}
