/**
 * The one description of the database: entities, migrations, names.
 * Migrations are listed by hand, so that dist, tests and a container run the same ones in the same order.
 */
import { DefaultNamingStrategy, type DataSourceOptions, type Table } from 'typeorm';
import { First1795450000000 } from '../../migrations/1795450000000-first.js';
import { Kafka1795530000000 } from '../../migrations/1795530000000-kafka.js';
import { History1795600000000 } from '../../migrations/1795600000000-history.js';
import { Bald1795620000000 } from '../../migrations/1795620000000-bald.js';
import { RunEstimate1795630000000 } from '../../migrations/1795630000000-run-estimate.js';
import { Knowing1795720000000 } from '../../migrations/1795720000000-knowing.js';
import { Strategies1795840000000 } from '../../migrations/1795840000000-strategies.js';
import { QueueIndexes1795850000000 } from '../../migrations/1795850000000-queue-indexes.js';
import { TrialFailure1795860000000 } from '../../migrations/1795860000000-trial-failure.js';
import { FirstApproval1795860000001 } from '../../migrations/1795860000001-first-approval.js';
import { RunStores1795860000002 } from '../../migrations/1795860000002-run-stores.js';
import { NewestExamples1795870000000 } from '../../migrations/1795870000000-newest-examples.js';
import { Forgotten1795880000000 } from '../../migrations/1795880000000-forgotten.js';
import { StreamClaims1795880000001 } from '../../migrations/1795880000001-stream-claims.js';
import { AnswersTidied1795890000000 } from '../../migrations/1795890000000-answers-tidied.js';
import { Trials1795800000000 } from '../../migrations/1795800000000-trials.js';
import { Webhooks1795760000000 } from '../../migrations/1795760000000-webhooks.js';
import { ReplicaFailures1795750000000 } from '../../migrations/1795750000000-replica-failures.js';
import { Asking1795710000000 } from '../../migrations/1795710000000-asking.js';
import { AnswerRow } from './entities/answer.js';
import { Access1795740000000 } from '../../migrations/1795740000000-access.js';
import { AccessKeyRow, AccessSecretRow } from './entities/access-key.js';
import { AccessSubscriptionRow, AccessUsageRow } from './entities/access-usage.js';
import { CandidateRow } from './entities/candidate.js';
import { DriftCheckRow } from './entities/drift-check.js';
import { ExampleRow } from './entities/example.js';
import { LedgerEntryRow } from './entities/ledger-entry.js';
import { ModelVersionRow } from './entities/model-version.js';
import { OutboxEventRow } from './entities/outbox-event.js';
import { PromotionRow } from './entities/promotion.js';
import { ReplicaRow } from './entities/replica.js';
import { WebhookDeliveryRow } from './entities/webhook-delivery.js';
import { StreamItemRow } from './entities/stream-item.js';
import { StreamPrunedRow } from './entities/stream-pruned.js';
import { StreamRecordRow } from './entities/stream-record.js';
import { TaskRevisionRow, TaskRow } from './entities/task.js';
import { TrialFlipRow, TrialRow } from './entities/trial.js';
import { TrainingRunRow } from './entities/training-run.js';
import { RunStoreRow } from './entities/run-store.js';
import { VersionAgreementRow } from './entities/version-agreement.js';

const snake = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/** Snake case, and PostgreSQL's own names of constraints, so that migrations can be plain SQL. */
class PostgresNames extends DefaultNamingStrategy {
  override columnName(property: string, custom: string | undefined): string {
    return custom ?? snake(property);
  }
  override primaryKeyName(table: Table | string): string {
    return `${this.getTableName(table)}_pkey`;
  }
  override uniqueConstraintName(table: Table | string, columns: string[]): string {
    return `${this.getTableName(table)}_${columns.join('_')}_key`;
  }
  override foreignKeyName(table: Table | string, columns: string[]): string {
    return `${this.getTableName(table)}_${columns.join('_')}_fkey`;
  }
}

export function dataSourceOptions(url: string): DataSourceOptions {
  return {
    type: 'postgres',
    url,
    uuidExtension: 'pgcrypto', // gen_random_uuid(), which PostgreSQL has built in
    installExtensions: false,
    entities: [
      TaskRow,
      TaskRevisionRow,
      ModelVersionRow,
      ExampleRow,
      StreamItemRow,
      CandidateRow,
      AnswerRow,
      TrainingRunRow,
      PromotionRow,
      LedgerEntryRow,
      ReplicaRow,
      WebhookDeliveryRow,
      StreamRecordRow,
      StreamPrunedRow,
      OutboxEventRow,
      AccessKeyRow,
      AccessSecretRow,
      AccessUsageRow,
      AccessSubscriptionRow,
      DriftCheckRow,
      RunStoreRow,
      VersionAgreementRow,
      TrialRow,
      TrialFlipRow,
    ],
    migrations: [
      First1795450000000,
      Kafka1795530000000,
      History1795600000000,
      Bald1795620000000,
      RunEstimate1795630000000,
      Knowing1795720000000,
      Asking1795710000000,
      Access1795740000000,
      ReplicaFailures1795750000000,
      Webhooks1795760000000,
      Trials1795800000000,
      Strategies1795840000000,
      QueueIndexes1795850000000,
      TrialFailure1795860000000,
      FirstApproval1795860000001,
      RunStores1795860000002,
      NewestExamples1795870000000,
      Forgotten1795880000000,
      StreamClaims1795880000001,
      AnswersTidied1795890000000,
    ],
    migrationsTransactionMode: 'each',
    namingStrategy: new PostgresNames(),
    synchronize: false,
    poolSize: 10,
    applicationName: 'fewloop',
    logging: false,
  };
}
