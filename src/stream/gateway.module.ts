/** How texts get into the stream and what is done with its dead letters, for the services of every role. */
import { type DynamicModule, Module } from '@nestjs/common';
import type { Config } from '../config/config.js';
import { DEAD_LETTERS, TEXT_SINK } from '../learning/stream-ports.js';
import { EmbeddedSink } from './embedded/embedded-sink.js';
import { KafkaSink } from './kafka/kafka-sink.js';

@Module({})
export class StreamGatewayModule {
  static register({ kafkaBrokers }: Pick<Config, 'kafkaBrokers'>): DynamicModule {
    const sink = kafkaBrokers === '' ? EmbeddedSink : KafkaSink;
    return {
      module: StreamGatewayModule,
      global: true,
      providers: [sink, { provide: TEXT_SINK, useExisting: sink }, { provide: DEAD_LETTERS, useExisting: sink }],
      exports: [TEXT_SINK, DEAD_LETTERS],
    };
  }
}
