/** What answers make of examples: in the transaction of the answer, which holds the task's examples. */
import { Inject, Injectable } from '@nestjs/common';
import { FewloopError } from '../common/errors.js';
import type { AnswerRow, BeforeAnswer } from '../storage/entities/answer.js';
import type { CandidateRow } from '../storage/entities/candidate.js';
import type { ExampleRow } from '../storage/entities/example.js';
import { ExamplesRepository, type LabelSource } from '../storage/examples.repository.js';
import { SourcesRepository } from '../storage/sources.repository.js';
import type { Tx } from '../storage/transactions.js';
import type { TaskDefinition } from '../task/types.js';
import { namedNow } from './data-set.js';
import { LedgerService } from './ledger.js';

type ExampleBefore = NonNullable<BeforeAnswer['example']>;

@Injectable()
export class AnswerExamples {
  constructor(
    @Inject(ExamplesRepository) private readonly examples: ExamplesRepository,
    @Inject(SourcesRepository) private readonly sources: SourcesRepository,
    @Inject(LedgerService) private readonly ledger: LedgerService,
  ) {}

  /** Null: the candidate's item is no example. */
  async find({ task, itemKey }: CandidateRow, tx: Tx): Promise<ExampleRow | null> {
    return (await this.examples.findByKeys(task, [itemKey], tx))[0] ?? null;
  }

  /** Throws CONFLICT where the text is held out and was not drawn for the audit. */
  async put(candidate: CandidateRow, labels: string[], by: string, strategy: string | null, tx: Tx): Promise<void> {
    const { task, itemKey, audit, reason } = candidate;
    const known = await this.find(candidate, tx);
    const source = { answeredBy: by, strategy };
    if (!known) return this.insert(candidate, labels, audit ? 'AUDIT' : 'ANSWER', source, tx);
    // Imported since it was admitted, or looked at again; the newer word counts.
    await this.examples.setLabels(known.id, labels, known.origin, source, tx);
    if (reason !== 'LABEL_ISSUE' || sameLabels(labels, known.labels)) return;
    // What judges models may be corrected too, and then it is to be seen that it was. Live accuracy goes on with the
    // audit's own answer (storage/audit.repository.ts).
    const { labels: from, split } = known;
    await this.ledger.append(tx, task, 'label-corrected', { itemKey, split, from, to: labels, by });
  }

  /** Until somebody decides it is no example; what a file says stays. */
  async withdraw(candidate: CandidateRow, tx: Tx): Promise<void> {
    const known = await this.find(candidate, tx);
    if (known && known.origin !== 'IMPORT') await this.examples.delete(known.id, tx);
  }

  /** As it was before the answer, by its labels' present names. What the answer did not make is a later file's or another labeler's, and stays. */
  async restore(definition: TaskDefinition, candidate: CandidateRow, answer: AnswerRow, tx: Tx): Promise<void> {
    const before = answer.before.example;
    const known = await this.find(candidate, tx);
    if (known && !isOf(known, answer)) return;
    if (!before) {
      if (known) await this.examples.delete(known.id, tx);
      return;
    }
    const labels = namedNow(definition, before.labels);
    const source = await this.sourceNow(candidate.task, before, answer.answeredAt, tx);
    if (known) {
      // Revoked since the answer: taking that back is no restoring.
      const revokedAt = known.revokedAt ?? source.revokedAt;
      await this.examples.setLabels(known.id, labels, before.origin, { ...source, revokedAt }, tx);
    } else {
      await this.insert(candidate, labels, before.origin, source, tx);
    }
  }

  /** A source that was revoked or restored while another label stood in its place is so for this one too. */
  private async sourceNow(task: string, before: ExampleBefore, since: Date, tx: Tx): Promise<Required<LabelSource>> {
    const { answeredBy, origin, strategy = null, revokedAt = null, givenAt = null } = before;
    const said = await this.sources.lastSaid(task, { answeredBy, origin, strategy, givenAt }, since, tx);
    if (said) return { answeredBy, strategy, revokedAt: said.kind === 'revoked' ? said.at : null };
    return { answeredBy, strategy, revokedAt: revokedAt === null ? null : new Date(revokedAt) };
  }

  private async insert(
    candidate: CandidateRow,
    labels: string[],
    origin: ExampleRow['origin'],
    source: LabelSource,
    tx: Tx,
  ): Promise<void> {
    const { task, itemKey, splitGroup, nearGroup, text, textPair, choices, fields, audit } = candidate;
    const split = (await this.examples.splitsOfGroups(task, [splitGroup], tx)).get(splitGroup) ?? candidate.split;
    if (!audit && split !== 'train') {
      throw new FewloopError('CONFLICT', `this text is held out (${split}) and was not drawn for the audit`);
    }
    const item = { itemKey, splitGroup, nearGroup, text, textPair, choices, fields };
    await this.examples.insert([{ ...item, task, labels, split, origin, ...source }], tx);
  }
}

/** By the source too: the same label, given anew by another, is theirs. */
function isOf(example: ExampleRow, { labels, answeredBy, strategy }: AnswerRow): boolean {
  return sameLabels(example.labels, labels) && example.answeredBy === answeredBy && example.strategy === strategy;
}

/** Whatever their order: that is the task's of when they were given. */
export function sameLabels(a: readonly string[] | null, b: readonly string[] | null): boolean {
  if (a === null || b === null) return a === b;
  return a.length === b.length && a.every((label) => b.includes(label));
}
