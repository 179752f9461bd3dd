/** The learning module as a process has it: everything it needs is provided, and it lets go of everything it holds. */
import { Module } from '@nestjs/common';
import { Test } from '@nestjs/testing';
import { rmSync } from 'node:fs';
import { expect, it } from 'vitest';
import { Config } from '../../src/config/config.js';
import { LearningModule } from '../../src/learning/learning.module.js';
import { RunService } from '../../src/learning/runs.js';
import { ObservationModule } from '../../src/common/observation.module.js';
import { StorageModule } from '../../src/storage/storage.module.js';
import { StreamGatewayModule } from '../../src/stream/gateway.module.js';
import { TINY_MODEL } from '../fixtures/bundle.js';
import { createDatabase } from '../fixtures/database.js';
import { makeDataDir } from '../fixtures/learning.js';

it('starts and ends', async () => {
  const database = await createDatabase();
  const dataDir = makeDataDir();
  const config = Config.load({}).with({ databaseUrl: database.url, dataDir, baseModel: TINY_MODEL, hosts: 1 });
  @Module({ providers: [{ provide: Config, useValue: config }], exports: [Config] })
  class ConfigModule {}
  const imports = [
    { module: ConfigModule, global: true },
    ObservationModule,
    StorageModule,
    StreamGatewayModule.register(config),
    LearningModule,
  ];
  const testing = await Test.createTestingModule({ imports }).compile();
  const service = await testing.init();
  await expect(service.get(RunService, { strict: false }).start('none', 'MANUAL', 'ann')).rejects.toMatchObject({
    code: 'TASK_NOT_FOUND',
  });
  await service.close();
  await database.drop();
  rmSync(dataDir, { recursive: true, force: true });
});
