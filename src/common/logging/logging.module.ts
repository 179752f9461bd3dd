/** Logs: pino, a JSON object a line; for people where standard output is a terminal. */
import type { DynamicModule } from '@nestjs/common';
import { LoggerModule } from 'nestjs-pino';
import type { DestinationStream } from 'pino';
import pretty from 'pino-pretty';
import { idOfRequest } from './request-id.js';

/** What Nest says of its own start is of no use to who runs the service. */
const QUIET = new Set([
  'InstanceLoader',
  'RoutesResolver',
  'RouterExplorer',
  'NestFactory',
  'GraphQLModule',
  'NestApplication',
]);

export function loggingModule(level: string): DynamicModule {
  const stream: DestinationStream = process.stdout.isTTY
    ? pretty({ sync: true, ignore: 'pid,hostname' })
    : process.stdout;
  return LoggerModule.forRoot({
    // Its middleware does not see GraphQL's requests.
    forRoutes: [],
    pinoHttp: [
      {
        level,
        autoLogging: false,
        mixin: idOfRequest,
        serializers: { err: tellError },
        // Else pino-http puts all that an error holds into a plain object first, which the serializer could not tell from others.
        wrapSerializers: false,
        hooks: {
          logMethod(args, method, severity) {
            const [first] = args as unknown[];
            const context =
              typeof first === 'object' && first !== null ? (first as { context?: string }).context : undefined;
            if (severity <= 30 && context !== undefined && QUIET.has(context)) return;
            method.apply(this, args);
          },
        },
      },
      stream,
    ],
  });
}

/** Of an error only what says where it is from: a driver's has the statement's parameters in it, which are texts. */
export function tellError(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const { code, cause } = error as { code?: unknown; cause?: unknown };
  const { name: type, message, stack } = error;
  return {
    type,
    message,
    stack,
    ...(code !== undefined && { code }),
    ...(cause !== undefined && { cause: tellError(cause) }),
  };
}
