/** What versions there are and who serves them: for reading alone. Imports of other modules: storage. */
import { Inject, Injectable } from '@nestjs/common';
import type { ModelVersionRow } from '../storage/entities/model-version.js';
import type { ReplicaRow } from '../storage/entities/replica.js';
import { ReplicasRepository } from '../storage/replicas.repository.js';
import { VersionsRepository } from '../storage/versions.repository.js';

export interface ReplicaOfVersion {
  id: string;
  state: 'SERVING' | 'BEHIND' | 'FAILED';
  serves: number | null;
  message: string | null;
  seenAt: Date;
}

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

  /** How far each replica is with a version that all are to serve. */
  async replicasOf(task: string, version: number): Promise<ReplicaOfVersion[]> {
    return (await this.replicaRows.list()).map(({ id, activeVersions, failures, seenAt }) => {
      const serves = activeVersions[task] ?? null;
      const failure = failures[task]?.version === version ? failures[task] : undefined;
      const state = serves === version ? 'SERVING' : failure ? 'FAILED' : 'BEHIND';
      return { id, state, serves, message: failure?.message ?? null, seenAt };
    });
  }
}
