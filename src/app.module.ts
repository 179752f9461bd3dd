/** The only file that sees every module: what a process of each role is made of. */
import { type DynamicModule, Global, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import { Logger } from 'nestjs-pino';
import { ApiModule } from './api/api.module.js';
import { endConnections } from './api/last-answers.js';
import { isSubscriber } from './api/sockets.js';
import { followRequests, requestId } from './common/logging/request-id.js';
import { loggingModule } from './common/logging/logging.module.js';
import { ObservationModule } from './common/observation.module.js';
import { Config } from './config/config.js';
import { LearningModule } from './learning/learning.module.js';
import { RegistryModule } from './registry/registry.module.js';
import { StorageModule } from './storage/storage.module.js';
import { StreamGatewayModule } from './stream/gateway.module.js';
import { StreamModule } from './stream/stream.module.js';

@Global()
@Module({})
class ConfigModule {
  static of(config: Config): DynamicModule {
    return { module: ConfigModule, providers: [{ provide: Config, useValue: config }], exports: [Config] };
  }
}

const serves = ({ role }: Config, other: Config['role']) => role === 'all' || role === other;

@Module({})
class AppModule {
  static register(config: Config): DynamicModule {
    const { logLevel } = config;
    return {
      module: AppModule,
      imports: [
        loggingModule(logLevel),
        ConfigModule.of(config),
        ObservationModule,
        StorageModule,
        RegistryModule,
        StreamGatewayModule.register(config),
        LearningModule,
        ...(serves(config, 'stream') ? [StreamModule.register(config)] : []),
        ApiModule.register([RegistryModule, LearningModule], serves(config, 'api')),
      ],
    };
  }
}

/** The application, not listening yet. Its `close` ends what it started, the embedded database last. */
export async function createApp(config: Config): Promise<NestFastifyApplication> {
  const adapter = new FastifyAdapter({
    bodyLimit: config.maxBodyBytes,
    forceCloseConnections: 'idle',
    genReqId: requestId,
    // Of the whole request, body and all; Node looks every so often.
    requestTimeout: config.requestTimeoutS * 1000,
    http: {
      // A longer one, as Node's own minute, would hold for the body too.
      headersTimeout: config.requestTimeoutS * 1000,
      connectionsCheckingInterval: Math.min(5_000, config.requestTimeoutS * 500),
      shouldUpgradeCallback: (request) => serves(config, 'api') && isSubscriber(request),
    },
  });
  followRequests(adapter.getInstance());
  endConnections(adapter.getInstance());
  const options = { bufferLogs: true, abortOnError: false };
  const app = await NestFactory.create<NestFastifyApplication>(AppModule.register(config), adapter, options);
  app.useLogger(app.get(Logger));
  return app;
}
