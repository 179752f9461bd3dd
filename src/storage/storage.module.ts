/** The database for the whole application: the connection, the repositories, notifications. Imports config and common. */
import { Global, Inject, Module, type OnApplicationShutdown } from '@nestjs/common';
import { DataSource } from 'typeorm';
import { Health } from '../common/health.js';
import { Config } from '../config/config.js';
import { AccessKeysRepository } from './access-keys.repository.js';
import { AccessUsageRepository } from './access-usage.repository.js';
import { AuditRepository } from './audit.repository.js';
import { AnswersRepository } from './answers.repository.js';
import { CandidatesRepository } from './candidates.repository.js';
import { connect, Database } from './database.js';
import { DriftRepository } from './drift.repository.js';
import { ErasuresRepository } from './erasures.repository.js';
import { ExamplesRepository } from './examples.repository.js';
import { LedgerRepository } from './ledger.repository.js';
import { LoopCountsRepository } from './loop-counts.repository.js';
import { Notifications } from './notifications.js';
import { OutboxRepository } from './outbox.repository.js';
import { PromotionsRepository } from './promotions.repository.js';
import { QuestionsRepository } from './questions.repository.js';
import { ReplicasRepository } from './replicas.repository.js';
import { RunsRepository } from './runs.repository.js';
import { StreamItemsRepository } from './stream-items.repository.js';
import { StreamRecordsRepository } from './stream-records.repository.js';
import { TasksRepository } from './tasks.repository.js';
import { SourcesRepository } from './sources.repository.js';
import { TrainingTextsRepository } from './training-texts.repository.js';
import { Transactions } from './transactions.js';
import { TrialsRepository } from './trials.repository.js';
import { VersionAgreementsRepository } from './version-agreements.repository.js';
import { WebhookDeliveriesRepository } from './webhook-deliveries.repository.js';
import { VersionsRepository } from './versions.repository.js';

const REPOSITORIES = [
  AccessKeysRepository,
  AccessUsageRepository,
  AuditRepository,
  AnswersRepository,
  CandidatesRepository,
  DriftRepository,
  ErasuresRepository,
  ExamplesRepository,
  LedgerRepository,
  LoopCountsRepository,
  Notifications,
  OutboxRepository,
  PromotionsRepository,
  QuestionsRepository,
  ReplicasRepository,
  RunsRepository,
  SourcesRepository,
  StreamItemsRepository,
  StreamRecordsRepository,
  TasksRepository,
  TrainingTextsRepository,
  Transactions,
  TrialsRepository,
  VersionAgreementsRepository,
  VersionsRepository,
  WebhookDeliveriesRepository,
];

@Global()
@Module({
  providers: [
    { provide: Database, inject: [Config], useFactory: (config: Config) => Database.open(config) },
    { provide: DataSource, inject: [Database], useFactory: (database: Database) => connect(database.url) },
    ...REPOSITORIES,
  ],
  exports: [Database, DataSource, ...REPOSITORIES],
})
export class StorageModule implements OnApplicationShutdown {
  constructor(
    @Inject(Database) private readonly database: Database,
    @Inject(DataSource) private readonly dataSource: DataSource,
    @Inject(Health) health: Health,
  ) {
    health.register('database', async () => {
      await this.dataSource.query('SELECT 1');
      return { ok: true };
    });
  }

  async onApplicationShutdown(): Promise<void> {
    await this.dataSource.destroy();
    await this.database.stop();
  }
}
