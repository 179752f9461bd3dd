/** The stream: its worker, and what carries it. Imports learning, registry, inference, task; embedded/ also storage. */
import { type DynamicModule, Module } from '@nestjs/common';
import type { Config } from '../config/config.js';
import { LearningModule } from '../learning/learning.module.js';
import { RegistryModule } from '../registry/registry.module.js';
import { EmbeddedStream } from './embedded/embedded-stream.js';
import { HistoryPruner } from './kafka/history-pruner.js';
import { KafkaStream } from './kafka/kafka-stream.js';
import { TaskDirectory } from './kafka/task-directory.js';
import { EventPublisher } from './kafka/event-publisher.js';
import { STREAM_PORT } from './records.js';
import { StreamWorker } from './stream-worker.js';

@Module({})
export class StreamModule {
  static register({ kafkaBrokers }: Pick<Config, 'kafkaBrokers'>): DynamicModule {
    const carrier =
      kafkaBrokers === '' ? [EmbeddedStream] : [KafkaStream, EventPublisher, HistoryPruner, TaskDirectory];
    return {
      module: StreamModule,
      imports: [LearningModule, RegistryModule],
      providers: [...carrier, { provide: STREAM_PORT, useExisting: carrier[0]! }, StreamWorker],
    };
  }
}
