import { describe, expect, it } from 'vitest';
import { Config } from './config.js';
import { environment, environmentTable } from './environment.js';

const base = { FEWLOOP_BASE_MODEL: 'test/fixtures/tiny-model' };

describe('Config', () => {
  it('has a default for every variable', () => {
    const config = Config.load(base);
    expect(config).toMatchObject({ port: 3000, host: '127.0.0.1', role: 'all', hosts: '', textsPerRequest: 1000 });
    expect(config.dataDir).toMatch(/^\/.*\.fewloop$/u);
    expect(config.baseModel).toMatch(/^\/.*tiny-model$/u);
  });

  it('takes an empty variable as an unset one', () => {
    expect(Config.load({ ...base, PORT: '' }).port).toBe(3000);
  });

  it.each([
    [{ PORT: 'x' }, 'PORT'],
    [{ FEWLOOP_ROLE: 'everything' }, 'FEWLOOP_ROLE'],
    [{ DATABASE_URL: 'mysql://localhost/x' }, 'DATABASE_URL'],
    [{ FEWLOOP_HOST: '0.0.0.0' }, 'FEWLOOP_AUTH=none'],
    [{ FEWLOOP_AUTH: 'required' }, 'not in this version'],
    [{ KAFKA_BROKERS: 'localhost' }, 'KAFKA_BROKERS'],
    [{ KAFKA_SASL_MECHANISM: 'plain', KAFKA_USERNAME: 'app' }, 'needs KAFKA_USERNAME and KAFKA_PASSWORD'],
    [{ KAFKA_PASSWORD: 'x', KAFKA_PASSWORD_FILE: 'package.json' }, 'both set'],
    [{ KAFKA_SSL_CERT_FILE: 'package.json' }, 'belong together'],
    [{ KAFKA_SSL_CA_FILE: '/nowhere' }, 'no such file'],
    [{ FEWLOOP_LAUNCHER: 'kubernetes' }, 'not in this version'],
    [{ FEWLOOP_DEVICE: 'cuda:77' }, 'no CUDA device 77'],
    [{ FEWLOOP_DEVICE: 'gpu' }, 'FEWLOOP_DEVICE'],
    [{ FEWLOOP_ROLE: 'api' }, 'DATABASE_URL'],
    [{ FEWLOOP_BASE_MODEL: 'hfl/nowhere' }, 'FEWLOOP_BASE_MODEL'],
  ])('refuses %o', (env, message) => {
    expect(() => Config.load({ ...base, ...env })).toThrow(message);
  });

  it('renders each variable into the table', () => {
    const table = environmentTable();
    for (const { name, description } of Object.values(environment)) {
      expect(table).toContain(`| \`${name}\` |`);
      expect(table).toContain(description);
    }
  });
});
