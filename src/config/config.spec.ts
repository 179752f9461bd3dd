import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Config } from './config.js';
import { environment, environmentTable } from './environment.js';

const base = { FEWLOOP_BASE_MODEL: 'test/fixtures/tiny-model' };
const IN_CLUSTER = {
  FEWLOOP_LAUNCHER: 'kubernetes',
  FEWLOOP_TRAINER_IMAGE: 'fewloop-trainer:1',
  FEWLOOP_TRAINER_CLAIM: 'fewloop-runs',
  KUBECONFIG: 'package.json',
};

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
    [{ FEWLOOP_AUTH: 'none', FEWLOOP_HOST: '::' }, 'FEWLOOP_AUTH=none'],
    [{ FEWLOOP_ADMIN_KEY: 'short' }, '32 characters'],
    [{ FEWLOOP_ADMIN_KEY_FILE: '/nowhere' }, 'no such file'],
    [{ FEWLOOP_ADMIN_KEY_FILE: '.prettierignore', FEWLOOP_ADMIN_KEY: 'k'.repeat(32) }, 'both set'],
    [{ DATABASE_URL_FILE: 'package.json' }, 'DATABASE_URL_FILE'],
    [{ FEWLOOP_OIDC_ISSUER: 'https://id.example' }, 'FEWLOOP_OIDC_AUDIENCE'],
    [{ FEWLOOP_OIDC_ISSUER: 'http://id.example', FEWLOOP_OIDC_AUDIENCE: 'fewloop' }, 'use https'],
    [{ FEWLOOP_TRUSTED_DOCUMENTS: '/nowhere' }, 'no such file'],
    [{ KAFKA_BROKERS: 'localhost' }, 'KAFKA_BROKERS'],
    [{ KAFKA_SASL_MECHANISM: 'plain', KAFKA_USERNAME: 'app' }, 'needs KAFKA_USERNAME and KAFKA_PASSWORD'],
    [{ KAFKA_PASSWORD: 'x', KAFKA_PASSWORD_FILE: 'package.json' }, 'both set'],
    [{ KAFKA_SSL_CERT_FILE: 'package.json' }, 'belong together'],
    [{ KAFKA_SSL_CA_FILE: '/nowhere' }, 'no such file'],
    [{ FEWLOOP_BUNDLE_STORE: 'https://bucket.example' }, 's3://bucket'],
    [{ FEWLOOP_BUNDLE_STORE: 's3://Bad_Bucket' }, 'FEWLOOP_BUNDLE_STORE'],
    [{ FEWLOOP_S3_ENDPOINT: 'localhost:9000' }, 'FEWLOOP_S3_ENDPOINT'],
    [
      { FEWLOOP_WEBHOOK_URLS: 'https://app:hidden@hooks.example' },
      /FEWLOOP_WEBHOOK_URLS=…: must be .* without a name/u,
    ],
    [{ FEWLOOP_LAUNCHER: 'kubernetes' }, 'FEWLOOP_TRAINER_IMAGE'],
    [{ FEWLOOP_LAUNCHER: 'kubernetes', FEWLOOP_TRAINER_IMAGE: 'i' }, 'FEWLOOP_TRAINER_CLAIM'],
    [{ ...IN_CLUSTER, KUBECONFIG: '' }, 'there is no cluster'],
    [{ ...IN_CLUSTER, KUBECONFIG: '/nowhere' }, 'KUBECONFIG=/nowhere: no such file'],
    [{ ...IN_CLUSTER, FEWLOOP_TRAINER_MEMORY: '4GB' }, 'FEWLOOP_TRAINER_MEMORY=4GB: must be …Mi or …Gi'],
    [{ ...IN_CLUSTER, FEWLOOP_TRAINER_GPUS: '65' }, 'FEWLOOP_TRAINER_GPUS=65'],
    [{ ...IN_CLUSTER, FEWLOOP_TRAINER_NODES: 'gpu' }, 'must be key=value'],
    [{ FEWLOOP_DEVICE: 'cuda:77' }, 'no CUDA device 77'],
    [{ FEWLOOP_DEVICE: 'gpu' }, 'FEWLOOP_DEVICE'],
    [{ FEWLOOP_ROLE: 'api' }, 'DATABASE_URL'],
    [{ FEWLOOP_BASE_MODEL: '/no/where' }, /FEWLOOP_BASE_MODEL=\/no\/where: no such folder$/],
    [
      { FEWLOOP_BASE_MODEL: 'hfl/nowhere@v1' },
      '`.venv/bin/python -m fewloop_trainer fetch-base hfl/nowhere@v1 FOLDER`',
    ],
    [{ FEWLOOP_BASE_MODEL: 'hfl/nowhere', FEWLOOP_PYTHON: '/my/python' }, '`/my/python -m fewloop_trainer fetch-base'],
  ])('refuses %o', (env, message) => {
    expect(() => Config.load({ ...base, ...env })).toThrow(message);
  });

  it('takes any address with access control', () => {
    expect(Config.load({ ...base, FEWLOOP_HOST: '0.0.0.0', FEWLOOP_AUTH: 'required' }).auth).toBe('required');
  });

  it('starts runs in a cluster that it can reach; the roles that start none need not', () => {
    expect(Config.load({ ...base, ...IN_CLUSTER })).toMatchObject({ trainerCpus: 2, trainerMemory: '4Gi' });
    const api = { FEWLOOP_LAUNCHER: 'kubernetes', FEWLOOP_ROLE: 'api', DATABASE_URL: 'postgres://db/x' };
    expect(Config.load({ ...base, ...api }).launcher).toBe('kubernetes');
  });

  it('reads secrets from files, without the line end, and once', () => {
    const folder = mkdtempSync(join(tmpdir(), 'fewloop-secrets-'));
    const write = (name: string, text: string) => {
      writeFileSync(join(folder, name), text);
      return join(folder, name);
    };
    const config = Config.load({
      ...base,
      FEWLOOP_ADMIN_KEY_FILE: write('key', `${'k'.repeat(40)}\n`),
      DATABASE_URL_FILE: write('url', 'postgres://app:hidden@db/x\n'),
    });
    expect(config).toMatchObject({ adminKey: 'k'.repeat(40), databaseUrl: 'postgres://app:hidden@db/x' });
    expect(config.with({ port: 1 })).toMatchObject({ adminKey: 'k'.repeat(40) });
    rmSync(folder, { recursive: true });
  });

  it('tells no secret that it refuses', () => {
    const load = () => Config.load({ ...base, FEWLOOP_ADMIN_KEY: 'hidden', DATABASE_URL: 'mysql://app:hidden@db' });
    expect(load).toThrow(/^(?!.*hidden)[^]*DATABASE_URL=…[^]*FEWLOOP_ADMIN_KEY=…/u);
  });

  it('renders each variable into the table', () => {
    const table = environmentTable();
    for (const { name, description } of Object.values(environment)) {
      expect(table).toContain(`| \`${name}\` |`);
      expect(table).toContain(description);
    }
  });
});
