/**
 * Starts the process in its role. It ends on SIGTERM and SIGINT in this order: no new requests, workers, model hosts,
 * database connections, the embedded PostgreSQL; a second signal does not hurry it. SIGUSR2 switches the level of its logs.
 */
import 'reflect-metadata';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { randomUUID } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Logger } from 'nestjs-pino';
import { createApp } from './app.module.js';
import { switchLevelOnSignal } from './common/logging/level.js';
import { Config } from './config/config.js';

async function main(): Promise<void> {
  const config = readConfig();
  mkdirSync(config.dataDir, { recursive: true });
  await refuseSecond(config);
  const endTracing = await startTraces(config);
  const app = await createApp(config);
  endOnSignal(app, config, endTracing);
  switchLevelOnSignal(config.logLevel, app.get(Logger));
  await app.listen(config.port, config.host);
  const url = `${await app.getUrl()}/graphql`;
  writeServiceFile(config, url);
  process.stdout.write(`ready ${url}\n`);
}

/** What is wrong with the environment is for whoever set it: said without a stack, and before anything is made. */
function readConfig(): Config {
  try {
    return Config.load();
  } catch (error) {
    process.stderr.write(`fewloop: ${(error as Error).message}\n`);
    return process.exit(1);
  }
}

function serviceFile(config: Config): string {
  return join(config.dataDir, 'service.json');
}

/** For the start script and for a second process. Written aside and renamed: readers never see half of it. */
function writeServiceFile(config: Config, url: string): void {
  const file = serviceFile(config);
  // Containers that share the folder may all be process 7.
  const aside = `${file}.${randomUUID()}`;
  writeFileSync(aside, JSON.stringify({ pid: process.pid, url }));
  renameSync(aside, file);
}

/** Two services in one data folder would end each other's database. */
async function refuseSecond(config: Config): Promise<void> {
  if (config.databaseUrl !== '') return;
  const { pid, url } = readServiceFile(config);
  if (pid === undefined || url === undefined || pid === process.pid) return;
  const alive = await fetch(new URL('/health/live', url), { signal: AbortSignal.timeout(2000) }).then(
    (response) => response.ok,
    () => false,
  );
  if (alive) throw new Error(`another service (process ${pid}, ${url}) uses ${config.dataDir}`);
}

function readServiceFile(config: Config): { pid?: number; url?: string } {
  try {
    return JSON.parse(readFileSync(serviceFile(config), 'utf8')) as { pid: number; url: string };
  } catch {
    return {}; // none, or not whole: nobody has started here
  }
}

/** The libraries are loaded where they are wanted alone. */
async function startTraces({
  otlpEndpoint: endpoint,
  serviceName,
  traceShare: share,
}: Config): Promise<() => Promise<void>> {
  if (endpoint === '') return async () => undefined;
  const { startTracing } = await import('./common/tracing/sdk.js');
  return startTracing({ endpoint, serviceName, share });
}

function endOnSignal(app: NestFastifyApplication, config: Config, endTracing: () => Promise<void>): void {
  let ending = false;
  const end = async (signal: string) => {
    if (ending) return;
    ending = true;
    app.get(Logger).log(`${signal}: ending`);
    rmSync(serviceFile(config), { force: true });
    await app.close();
    // A collector that is away is no reason to fail.
    await endTracing().catch(() => undefined);
    process.exit(0);
  };
  for (const signal of ['SIGINT', 'SIGTERM']) {
    process.on(signal, () => {
      end(signal).catch((error: unknown) => fail(error));
    });
  }
}

function fail(error: unknown): never {
  process.stderr.write(`fewloop: ${error instanceof Error ? error.message : String(error)}\n`);
  if (error instanceof Error && error.stack) process.stderr.write(`${error.stack}\n`);
  process.exit(1);
}

main().catch(fail);
