import { Inject, Injectable } from '@nestjs/common';
import { DataSource, IsNull } from 'typeorm';
import { TrialFlipRow, TrialRow, type TrialOutcome } from './entities/trial.js';
import type { Tx } from './transactions.js';

export type NewTrial = Pick<
  TrialRow,
  'task' | 'version' | 'against' | 'kind' | 'percent' | 'startedBy' | 'startedAt' | 'endsAt'
>;

export interface TrialCounts {
  answered: number;
  compared: number;
  changed: number;
  failed: number;
  missed: number;
  asked: number;
}

export type Flip = Pick<TrialFlipRow, 'champion' | 'challenger' | 'texts'>;

/** A trial may go on until somebody stops it: what is more than an integer holds stays at the most that it does. */
const more = (column: string, count: string): string => `least(${column}::bigint + ${count}, ${2 ** 31 - 1})`;

@Injectable()
export class TrialsRepository {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  /** Null where another of the task is open. */
  async insert(trial: NewTrial, tx: Tx): Promise<TrialRow | null> {
    const { raw } = await tx
      .createQueryBuilder()
      .insert()
      .into(TrialRow)
      .values(trial)
      .orIgnore()
      .returning('id')
      .execute();
    const [row] = raw as { id: string }[];
    return row ? tx.findOneByOrFail(TrialRow, { id: row.id }) : null;
  }

  /** That is open, of every task. */
  listOpen(): Promise<TrialRow[]> {
    return this.dataSource.manager.findBy(TrialRow, { endedAt: IsNull() });
  }

  openOf(task: string, tx?: Tx): Promise<TrialRow | null> {
    return (tx ?? this.dataSource.manager).findOneBy(TrialRow, { task, endedAt: IsNull() });
  }

  find(id: string): Promise<TrialRow | null> {
    return this.dataSource.manager.findOneBy(TrialRow, { id });
  }

  /** Newest first. */
  listOf(task: string, version: number): Promise<TrialRow[]> {
    return this.dataSource.manager.find(TrialRow, { where: { task, version }, order: { startedAt: 'DESC' } });
  }

  /** False where it has ended: the first end stands. */
  async end(id: string, at: Date, outcome: TrialOutcome, reason: string | null, tx: Tx): Promise<boolean> {
    const ended = await tx.update(TrialRow, { id, endedAt: IsNull() }, { endedAt: at, outcome, reason });
    return (ended.affected ?? 0) > 0;
  }

  /** Null: the process that failed has opened it. */
  async setFailure(id: string, failure: string | null): Promise<void> {
    await this.dataSource.manager.update(TrialRow, { id }, { failure });
  }

  async add(id: string, counts: TrialCounts, flips: Flip[]): Promise<void> {
    await this.dataSource.transaction(async (tx) => {
      await tx.query(
        `UPDATE trial SET answered = ${more('answered', '$2')}, compared = ${more('compared', '$3')},
           changed = ${more('changed', '$4')}, failed = ${more('failed', '$5')}, missed = ${more('missed', '$6')},
           asked = ${more('asked', '$7')} WHERE id = $1`,
        [id, counts.answered, counts.compared, counts.changed, counts.failed, counts.missed, counts.asked],
      );
      // In one order, so that replicas which add at once do not wait for each other in a circle.
      await tx.query(
        `INSERT INTO trial_flip (trial, champion, challenger, texts)
         SELECT $1, r.champion, r.challenger, r.texts
         FROM jsonb_to_recordset($2::jsonb) AS r(champion text, challenger text, texts integer)
         ORDER BY r.champion, r.challenger
         ON CONFLICT (trial, champion, challenger) DO UPDATE SET texts = ${more('trial_flip.texts', 'excluded.texts')}`,
        [id, JSON.stringify(flips)],
      );
    });
  }

  /** The most frequent first. */
  flips(trial: string, first: number): Promise<Flip[]> {
    return this.dataSource.manager.find(TrialFlipRow, {
      where: { trial },
      order: { texts: 'DESC', champion: 'ASC', challenger: 'ASC' },
      take: first,
    });
  }
}
