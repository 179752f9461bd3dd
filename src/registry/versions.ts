/**
 * The model versions of all tasks: where a finished bundle becomes a version, and where a version becomes the desired
 * one. What happens in each process because of that is for convergence.ts and activation.ts.
 */
import { Inject, Injectable } from '@nestjs/common';
import { cp, mkdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { FewloopError } from '../common/errors.js';
import { Config } from '../config/config.js';
import type { ModelVersionRow } from '../storage/entities/model-version.js';
import { TasksRepository } from '../storage/tasks.repository.js';
import { Transactions, type Tx } from '../storage/transactions.js';
import { VersionsRepository } from '../storage/versions.repository.js';
import { invalid, readBundle } from './bundle.js';
import { Bundles } from './bundles.js';

export interface NewVersion {
  task: string;
  version: number;
  /** The verified bundle's folder; it is moved into the data folder. */
  folder: string;
  runId: string | null;
}

@Injectable()
export class ModelRegistry {
  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(TasksRepository) private readonly tasks: TasksRepository,
    @Inject(VersionsRepository) private readonly versions: VersionsRepository,
    @Inject(Transactions) private readonly transactions: Transactions,
    @Inject(Bundles) private readonly bundles: Bundles,
  ) {}

  /** Relative to the data folder, as the database keeps it. */
  folderOf(task: string, version: number): string {
    return join('bundles', task, String(version));
  }

  /**
   * Takes a bundle in as a CANDIDATE, into the bundle store before there is a row that names it. May be repeated after a crash at any point. Throws BUNDLE_INVALID, and CONFLICT
   * where the version exists with other content. The files are moved under the database's lock, so that of two bundles
   * with one number the folder is that of the one whose row it is.
   */
  async registerVersion(version: NewVersion): Promise<ModelVersionRow> {
    const moved = !(await exists(version.folder));
    await this.bundles.keep(moved ? this.#target(version) : version.folder);
    return this.transactions.run(async (tx) => {
      await this.versions.lockRegistration(version.task, tx);
      return this.register(version, tx);
    });
  }

  /**
   * Puts a verified bundle that will be registered into the bundle store, if there is one, so that no lock is held for as
   * long as that takes.
   */
  keep(folder: string): Promise<void> {
    return this.bundles.keep(folder);
  }

  /**
   * Makes the version the one that every replica is to serve, as part of the caller's transaction. Before it, call
   * `ActivationService.prepare`, so that a bundle which cannot serve changes nothing; after the commit,
   * `ConvergenceService.announce`. Throws VERSION_NOT_FOUND.
   */
  async setActive(task: string, version: number, tx: Tx): Promise<void> {
    if (!(await this.versions.find(task, version, tx))) {
      throw new FewloopError('VERSION_NOT_FOUND', `task ${task} has no version ${version}`);
    }
    await this.tasks.setActive(task, version, tx);
    await this.versions.markActive(task, version, tx);
  }

  #target({ task, version }: Pick<NewVersion, 'task' | 'version'>): string {
    return resolve(this.config.dataDir, this.folderOf(task, version));
  }

  private async register({ task, version, folder, runId }: NewVersion, tx: Tx): Promise<ModelVersionRow> {
    const relative = this.folderOf(task, version);
    const target = this.#target({ task, version });
    const moved = !(await exists(folder)) && (await exists(target));
    const bundle = await readBundle(moved ? target : folder, { baseModel: this.config.baseModel });
    const { manifest, digest, report } = bundle;
    if (manifest.task !== task || manifest.version !== version) {
      throw invalid(`it is version ${manifest.version} of ${manifest.task}, expected was ${version} of ${task}`);
    }
    const known = await this.versions.find(task, version, tx);
    if (known && known.digest !== digest) {
      throw new FewloopError('CONFLICT', `task ${task} has another version ${version} already`);
    }
    if (!moved && resolve(folder) !== target && !known) await move(folder, target);
    if (known) return known;
    const { taskRevision } = manifest;
    return this.versions.insert(
      { task, version, state: 'CANDIDATE', digest, manifest, report, folder: relative, taskRevision, runId },
      tx,
    );
  }
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

async function move(from: string, to: string): Promise<void> {
  await rm(to, { recursive: true, force: true }); // Left by a crash before its row was written: nobody serves it.
  await mkdir(dirname(to), { recursive: true });
  try {
    await rename(from, to);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EXDEV') throw error;
    await cp(from, `${to}.partial`, { recursive: true });
    await rename(`${to}.partial`, to);
    await rm(from, { recursive: true });
  }
}
