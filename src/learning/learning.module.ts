/** The pool and its questions, runs, the gate, promotion. Imports registry, inference, launch, storage, task. */
import { Module } from '@nestjs/common';

import { Config } from '../config/config.js';
import { LAUNCHER } from '../launch/launcher.js';
import { makeLauncher } from '../launch/make-launcher.js';
import { RegistryModule } from '../registry/registry.module.js';
import { AuditService } from './audit.js';
import { ActiveVersion } from './active-version.js';
import { AgreementService } from './agreement.js';
import { AnswerExamples } from './answer-examples.js';
import { CanaryService } from './canary.js';
import { DiverseQuestions } from './diverse-questions.js';
import { DriftChecks } from './drift-checks.js';
import { LearningEvents } from './events.js';
import { ExampleExport } from './example-export.js';
import { ExampleService } from './examples.js';
import { ForgetService } from './forget.js';
import { GateService } from './gate.js';
import { GuardService } from './guard.js';
import { IngestService } from './ingest.js';
import { JobQueue } from './job-queue.js';
import { LabelIssues } from './label-issues.js';
import { LedgerService } from './ledger.js';
import { LearningObservation } from './observation.js';
import { Outbox } from './outbox.js';
import { PoolService } from './pool.js';
import { PromotionService } from './promotion.js';
import { ReproductionService } from './reproduction.js';
import { QuestionQueue } from './question-queue.js';
import { RetentionService } from './retention.js';
import { ReviewService } from './review.js';
import { RevocationService } from './revocation.js';
import { RunData } from './run-data.js';
import { RunErasure } from './run-erasure.js';
import { RunVersions } from './run-versions.js';
import { RunWorker } from './run-worker.js';
import { RunService } from './runs.js';
import { StreamHistory } from './stream-history.js';
import { TaskLinter } from './task-linter.js';
import { TaskService } from './task-service.js';
import { TrialService } from './trials.js';
import { TriggerService } from './triggers.js';
import { WebhookSender } from './webhooks.js';
import { VersionAgreement } from './version-agreement.js';
import { ZeroShotVersions } from './zero-shot-versions.js';

/** What the edges (GraphQL, stream) call. */
const SERVICES = [
  AuditService,
  DriftChecks,
  AgreementService,
  ExampleExport,
  ExampleService,
  ForgetService,
  IngestService,
  LearningEvents,
  LedgerService,
  Outbox,
  PoolService,
  PromotionService,
  ReproductionService,
  ReviewService,
  RevocationService,
  RunService,
  StreamHistory,
  TaskService,
  TrialService,
  VersionAgreement,
  ZeroShotVersions,
];

@Module({
  imports: [RegistryModule],
  providers: [
    {
      provide: LAUNCHER,
      inject: [Config],
      useFactory: makeLauncher,
    },
    ActiveVersion,
    AnswerExamples,
    CanaryService,
    DiverseQuestions,
    GateService,
    GuardService,
    JobQueue,
    LabelIssues,
    LearningObservation,
    QuestionQueue,
    RetentionService,
    RunData,
    RunErasure,
    RunVersions,
    RunWorker,
    TaskLinter,
    TriggerService,
    WebhookSender,
    ...SERVICES,
  ],
  exports: [RunWorker, ...SERVICES],
})
export class LearningModule {}
