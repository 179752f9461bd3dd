/** Which task an id leads to: fields that name one by id are of its task's scope. */
import { Inject, Injectable } from '@nestjs/common';
import { CandidatesRepository } from '../storage/candidates.repository.js';
import { PromotionsRepository } from '../storage/promotions.repository.js';
import { RunsRepository } from '../storage/runs.repository.js';

export type IdKind = 'candidate' | 'promotion' | 'run';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/iu;

@Injectable()
export class TaskOf {
  constructor(
    @Inject(CandidatesRepository) private readonly candidates: CandidatesRepository,
    @Inject(PromotionsRepository) private readonly promotions: PromotionsRepository,
    @Inject(RunsRepository) private readonly runs: RunsRepository,
  ) {}

  /** Undefined where there is nothing of that id. */
  async find(kind: IdKind, id: string): Promise<string | undefined> {
    if (!UUID.test(id)) return undefined;
    const rows = { candidate: this.candidates, promotion: this.promotions, run: this.runs };
    return (await rows[kind].find(id))?.task;
  }
}
