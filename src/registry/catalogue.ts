/** What versions there are and who serves them: for reading alone. Imports of other modules: storage. */
import { Inject, Injectable } from '@nestjs/common';
import type { ModelVersionRow } from '../storage/entities/model-version.js';
import type { ReplicaRow } from '../storage/entities/replica.js';
import { ReplicasRepository } from '../storage/replicas.repository.js';
import { VersionsRepository } from '../storage/versions.repository.js';

@Injectable()
export class Catalogue {
  constructor(
    @Inject(VersionsRepository) private readonly rows: VersionsRepository,
    @Inject(ReplicasRepository) private readonly replicaRows: ReplicasRepository,
  ) {}

  find(task: string, version: number): Promise<ModelVersionRow | null> {
    return this.rows.find(task, version);
  }

  /** Newest first. */
  list(task: string, first: number): Promise<ModelVersionRow[]> {
    return this.rows.list(task, first);
  }

  replicas(): Promise<ReplicaRow[]> {
    return this.replicaRows.list();
  }
}
