/** The stream: its worker, and what carries it. Imports learning, registry, inference, task; embedded/ also storage. */
import { Module } from '@nestjs/common';
import { LearningModule } from '../learning/learning.module.js';
import { RegistryModule } from '../registry/registry.module.js';
import { EmbeddedStream } from './embedded/embedded-stream.js';
import { STREAM_PORT } from './records.js';
import { StreamWorker } from './stream-worker.js';

@Module({
  imports: [LearningModule, RegistryModule],
  providers: [{ provide: STREAM_PORT, useClass: EmbeddedStream }, StreamWorker],
})
export class StreamModule {}
