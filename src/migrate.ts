/**
 * Brings the database to this version and ends: run before a roll-out, so that a migration that fails is seen while
 * the version before serves. Processes of the service migrate as well when they start, and then find nothing to do.
 */
import 'reflect-metadata';
import { Config } from './config/config.js';
import { connect } from './storage/database.js';

async function main(): Promise<void> {
  const { databaseUrl } = Config.load();
  if (databaseUrl === '') throw new Error('DATABASE_URL is not set: an embedded database migrates when it starts');
  const database = await connect(databaseUrl);
  await database.destroy();
  process.stdout.write('the database is of this version\n');
}

main().catch((error: unknown) => {
  process.stderr.write(`fewloop: ${(error as Error).message}\n`);
  process.exit(1);
});
