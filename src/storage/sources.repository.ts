import { Inject, Injectable } from '@nestjs/common';
import { DataSource } from 'typeorm';
import type { ExampleOrigin } from './entities/example.js';
import type { Tx } from './transactions.js';

/** Examples of one source; what is null is not asked about. */
export interface Source {
  labeler: string | null;
  origin: ExampleOrigin | null;
  /** Query strategy that chose the question. */
  strategy: string | null;
  /** By when the label was given, the first moment included, the last one not. */
  since: Date | null;
  until: Date | null;
}

/** Who gave a label, how and when. */
export interface GivenLabel {
  answeredBy: string | null;
  origin: ExampleOrigin;
  strategy: string | null;
  /** ISO 8601; null: not known, and then within every range of time. */
  givenAt: string | null;
}

const OF_SOURCE = `task = $1 AND ($2::text IS NULL OR answered_by = $2) AND ($3::text IS NULL OR origin = $3)
  AND ($4::timestamptz IS NULL OR updated_at >= $4) AND ($5::timestamptz IS NULL OR updated_at < $5)
  AND ($6::text IS NULL OR strategy = $6)`;

/** As OF_SOURCE, of one label by the source that a ledger entry names. */
const NAMED_BY_ENTRY = `(body ->> 'labeler' IS NULL OR body ->> 'labeler' = $3)
  AND (body ->> 'origin' IS NULL OR body ->> 'origin' = $4)
  AND ($5::timestamptz IS NULL OR body ->> 'since' IS NULL OR $5 >= (body ->> 'since')::timestamptz)
  AND ($5::timestamptz IS NULL OR body ->> 'until' IS NULL OR $5 < (body ->> 'until')::timestamptz)
  AND (body ->> 'strategy' IS NULL OR body ->> 'strategy' = $6)`;

@Injectable()
export class SourcesRepository {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  /** Those of the source that are revoked already, or are not. */
  async count(task: string, source: Source, revoked: boolean): Promise<number> {
    const [row] = await this.dataSource.manager.query<{ count: number }[]>(
      `SELECT count(*)::int AS count FROM example WHERE ${OF_SOURCE} AND (revoked_at IS NOT NULL) = $7`,
      [...valuesOf(task, source), revoked],
    );
    return row!.count;
  }

  /** `updated_at` stays: it tells when the label was given. Answers how many. */
  async setRevoked(task: string, source: Source, revokedAt: Date | null, tx: Tx): Promise<number> {
    const [, count] = await tx.query<[unknown, number]>(
      `UPDATE example SET revoked_at = $7 WHERE ${OF_SOURCE} AND (revoked_at IS NULL) = ($7::timestamptz IS NOT NULL)`,
      [...valuesOf(task, source), revokedAt],
    );
    return count;
  }

  /**
   * The last word since then on whether a label's source is trusted, by the ledger: for a label that is not on its row,
   * where `setRevoked` does not find it. Null: none.
   */
  async lastSaid(
    task: string,
    { answeredBy, origin, strategy, givenAt }: GivenLabel,
    since: Date,
    tx: Tx,
  ): Promise<{ kind: 'revoked' | 'restored'; at: Date } | null> {
    const [row] = await tx.query<{ kind: 'revoked' | 'restored'; at: Date }[]>(
      `SELECT kind, at FROM ledger_entry
       WHERE task = $1 AND kind IN ('revoked', 'restored') AND at >= $2 AND ${NAMED_BY_ENTRY} ORDER BY seq DESC LIMIT 1`,
      [task, since, answeredBy, origin, givenAt, strategy],
    );
    return row ?? null;
  }
}

function valuesOf(task: string, { labeler, origin, strategy, since, until }: Source): unknown[] {
  return [task, labeler, origin, since, until, strategy];
}
