/** Who may do what: keys and tokens, roles, tasks, limits. Imports storage, and learning for the ledger. */
import { Module } from '@nestjs/common';
import { LearningModule } from '../learning/learning.module.js';
import { Authenticator } from './authenticator.js';
import { KeyDirectory } from './key-directory.js';
import { KeyService } from './keys.js';
import { TaskOf } from './task-of.js';
import { Usage } from './usage.js';

@Module({
  imports: [LearningModule],
  providers: [Authenticator, KeyDirectory, KeyService, TaskOf, Usage],
  exports: [Authenticator, KeyService, TaskOf, Usage],
})
export class AccessModule {}
