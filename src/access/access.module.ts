/** Who may do what: keys and tokens, roles, tasks, limits. Imports storage alone. */
import { Module } from '@nestjs/common';
import { Authenticator } from './authenticator.js';
import { KeyDirectory } from './key-directory.js';
import { KeyService } from './keys.js';
import { TaskOf } from './task-of.js';
import { Usage } from './usage.js';

@Module({
  providers: [Authenticator, KeyDirectory, KeyService, TaskOf, Usage],
  exports: [Authenticator, KeyService, TaskOf, Usage],
})
export class AccessModule {}
