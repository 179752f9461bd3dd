/** What follows the transaction that made a version active: it answers here, and all are told. */
import { Inject, Injectable, Logger } from '@nestjs/common';
import { FewloopError } from '../common/errors.js';
import { ConvergenceService } from '../registry/convergence.js';
import type { ModelVersionRow } from '../storage/entities/model-version.js';
import type { Tx } from '../storage/transactions.js';
import { VersionsRepository } from '../storage/versions.repository.js';
import { LearningEvents } from './events.js';

@Injectable()
export class ActiveVersion {
  readonly #log = new Logger(ActiveVersion.name);

  constructor(
    @Inject(ConvergenceService) private readonly convergence: ConvergenceService,
    @Inject(VersionsRepository) private readonly versions: VersionsRepository,
    @Inject(LearningEvents) private readonly events: LearningEvents,
  ) {}

  /** Told to every replica; done here before the caller is answered. */
  async announce(task: string, version: number): Promise<ModelVersionRow> {
    // It was prepared: what fails now is this process' own trouble, which convergence tries again.
    await this.convergence.announce(task).catch((error: unknown) => this.#log.error(error));
    const row = await this.versions.find(task, version);
    if (!row) throw new FewloopError('VERSION_NOT_FOUND', `task ${task} has no version ${version}`);
    this.events.modelActivated(row);
    return row;
  }

  /** SHA-256 of the versions' manifests, for the ledger. */
  async digests(tx: Tx, task: string, named: Record<string, number | null>): Promise<Record<string, string>> {
    const digests: Record<string, string> = {};
    for (const [name, version] of Object.entries(named)) {
      const row = version === null ? null : await this.versions.find(task, version, tx);
      if (row) digests[name] = row.digest;
    }
    return digests;
  }
}
