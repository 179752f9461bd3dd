import { Inject, Injectable } from '@nestjs/common';
import { DataSource } from 'typeorm';
import { VersionAgreementRow } from './entities/version-agreement.js';

/** A version that a run made, with its gate's own figures. */
export interface CurvePoint {
  version: number;
  /** Labelled texts that it was trained on. */
  labels: number;
  /** Held-out rows of its gate, and those that it had right. */
  rows: number;
  right: number;
}

@Injectable()
export class VersionAgreementsRepository {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  /** Once a version. */
  async keep(agreement: VersionAgreementRow): Promise<void> {
    await this.dataSource.manager.upsert(VersionAgreementRow, agreement, ['task', 'version']);
  }

  /** Newest first. */
  list(task: string, limit: number): Promise<VersionAgreementRow[]> {
    return this.dataSource.manager.find(VersionAgreementRow, {
      where: { task },
      order: { version: 'DESC' },
      take: limit,
    });
  }

  /** Newest first; versions whose gate had held-out rows. */
  curve(task: string, limit: number): Promise<CurvePoint[]> {
    return this.dataSource.manager.query<CurvePoint[]>(
      `SELECT v.version, (v.manifest #>> '{trainingData,labelled}')::int AS labels,
         coalesce(p.report #>> '{challengerAlone,rows}', p.report ->> 'rows')::int AS rows,
         coalesce((p.report #>> '{challengerAlone,right}')::int,
           (p.report #>> '{counts,bothRight}')::int + (p.report #>> '{counts,onlyChallengerRight}')::int) AS right
       FROM model_version v JOIN LATERAL (
         SELECT report FROM promotion WHERE task = v.task AND version = v.version ORDER BY requested_at LIMIT 1) p ON true
       WHERE v.task = $1 AND v.manifest #>> '{trainingData,labelled}' IS NOT NULL
         AND coalesce(p.report #>> '{challengerAlone,rows}', p.report ->> 'rows')::int > 0
       ORDER BY v.version DESC LIMIT $2`,
      [task, limit],
    );
  }
}
