/** Where the database is, and the connection to it: embedded in the data folder unless a URL is configured. */
import { Logger } from '@nestjs/common';
import { setTimeout as sleep } from 'node:timers/promises';
import { join } from 'node:path';
import { DataSource } from 'typeorm';
import { dataSourceOptions } from './data-source.js';
import { startEmbeddedPostgres } from './embedded-postgres.js';

const FIRST_CONNECTION_MS = 30_000;
/** Several replicas start at once; one migrates, the others wait. */
export const MIGRATION_LOCK = 7_215_903_342;

/** For the parts that hold connections of their own: LISTEN, and the job queue. */
export class Database {
  constructor(
    readonly url: string,
    readonly stop: () => Promise<void>,
  ) {}

  static async open(config: { databaseUrl: string; dataDir: string }): Promise<Database> {
    if (config.databaseUrl) return new Database(config.databaseUrl, () => Promise.resolve());
    const log = new Logger('PostgreSQL');
    const dir = join(config.dataDir, 'postgres');
    const server = await startEmbeddedPostgres({ dir, log: (line) => log.debug(line) });
    return new Database(server.url, () => server.stop());
  }
}

/** Waits for a database that is still starting, then migrates. */
export async function connect(url: string): Promise<DataSource> {
  const giveUpAt = Date.now() + FIRST_CONNECTION_MS;
  for (;;) {
    const dataSource = new DataSource(dataSourceOptions(url));
    try {
      await dataSource.initialize();
      await migrate(dataSource);
      return dataSource;
    } catch (error) {
      if (dataSource.isInitialized) await dataSource.destroy();
      const { code } = error as { code?: string };
      const starting = code === 'ECONNREFUSED' || code === '57P03';
      if (!starting || Date.now() > giveUpAt) throw error;
      await sleep(500);
    }
  }
}

async function migrate(dataSource: DataSource): Promise<void> {
  const holder = dataSource.createQueryRunner();
  try {
    await holder.query('SELECT pg_advisory_lock($1)', [MIGRATION_LOCK]);
    await dataSource.runMigrations();
    await holder.query('SELECT pg_advisory_unlock($1)', [MIGRATION_LOCK]);
  } finally {
    await holder.release();
  }
}
