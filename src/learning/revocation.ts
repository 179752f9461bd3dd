/**
 * Takes a source of labels out of all that follows: the examples of a labeler, an origin, a query strategy or a time
 * range stay kept and take no part in any later run, gate, prior or figure, until they are restored or somebody labels
 * the text anew. A label that an answer has displaced meanwhile is revoked where it comes back (answer-examples.ts).
 * Pseudo-labels need no revoking: each run makes its own, from the labels that it has.
 */
import { Inject, Injectable } from '@nestjs/common';
import { badInput, checkCharacters } from '../common/errors.js';
import type { ExampleOrigin } from '../storage/entities/example.js';
import { ExamplesRepository } from '../storage/examples.repository.js';
import { SourcesRepository, type Source } from '../storage/sources.repository.js';
import { Transactions } from '../storage/transactions.js';
import { LearningEvents } from './events.js';
import { LedgerService } from './ledger.js';
import type { QueryStrategyName } from './query-strategies.js';
import { TaskService } from './task-service.js';

export interface RevocationRequest {
  labeler?: string | null;
  origin?: ExampleOrigin | null;
  strategy?: QueryStrategyName | null;
  since?: Date | null;
  until?: Date | null;
  /** Takes an earlier revocation back. */
  restore?: boolean | null;
  /** Only counts. */
  dryRun?: boolean | null;
}

export interface Revocation {
  /** Examples that change, or would. */
  examples: number;
  /** Of the same source, those that are that way already. */
  already: number;
  dryRun: boolean;
}

@Injectable()
export class RevocationService {
  constructor(
    @Inject(TaskService) private readonly tasks: TaskService,
    @Inject(ExamplesRepository) private readonly examples: ExamplesRepository,
    @Inject(SourcesRepository) private readonly sources: SourcesRepository,
    @Inject(LedgerService) private readonly ledger: LedgerService,
    @Inject(LearningEvents) private readonly events: LearningEvents,
    @Inject(Transactions) private readonly transactions: Transactions,
  ) {}

  /** Throws TASK_NOT_FOUND; BAD_INPUT where no source is named or could be, or no time lies in the range. */
  async revoke(task: string, request: RevocationRequest, by: string): Promise<Revocation> {
    await this.tasks.get(task);
    const source = checkedSource(request);
    const restore = request.restore ?? false;
    const dryRun = request.dryRun ?? false;
    const already = await this.sources.count(task, source, !restore);
    if (dryRun) return { examples: await this.sources.count(task, source, restore), already, dryRun };
    const examples = await this.transactions.run(async (tx) => {
      // An answer that is just being taken back brings a label back either before this, or knowing of it.
      await this.examples.lockTask(task, tx);
      const changed = await this.sources.setRevoked(task, source, restore ? null : new Date(), tx);
      await this.ledger.append(tx, task, restore ? 'restored' : 'revoked', { ...source, examples: changed, by });
      return changed;
    });
    if (examples > 0) this.events.examplesChanged(task);
    return { examples, already, dryRun };
  }
}

function checkedSource({
  labeler = null,
  origin = null,
  strategy = null,
  since = null,
  until = null,
}: RevocationRequest): Source {
  if ([labeler, origin, strategy, since, until].every((named) => named === null)) {
    throw badInput('labeler', 'name a source: a labeler, an origin, a strategy, a time range, or several of them');
  }
  if (labeler !== null) checkCharacters('labeler', labeler);
  if (since && until && since >= until) throw badInput('until', 'must be later than since');
  return { labeler, origin, strategy, since, until };
}
