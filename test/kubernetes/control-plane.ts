/**
 * A real control plane of one process each, without nodes: etcd, kube-apiserver, kube-controller-manager, made by
 * build.sh and found in KUBE_BIN. What it keeps is in a folder that goes with it.
 */
import { KubeConfig } from '@kubernetes/client-node';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { until } from '../fixtures/processes.js';

const ADMIN_TOKEN = 'admin-of-the-test';
/** Those that have to do with Jobs, their pods and their end; no scheduler, no nodes. */
const CONTROLLERS = [
  'job-controller',
  'garbage-collector-controller',
  'ttl-after-finished-controller',
  'pod-garbage-collector-controller',
  'serviceaccount-controller',
  'namespace-controller',
  'disruption-controller',
];

export interface ControlPlane {
  url: string;
  /** Of the cluster's admin; a file. */
  kubeconfig: string;
  /** Serving certificate and key, PEM; good for a kubelet that nobody verifies too. */
  certificate: { cert: string; key: string };
  /** The configuration of whoever has the token. */
  configFor(token?: string): KubeConfig;
  kubectl(...args: string[]): string;
  /** SIGKILL, and a new one on the same data: every watch breaks. */
  restartApiServer(): Promise<void>;
  stop(): Promise<void>;
}

export function binary(name: string): string {
  const file = path.join(process.env['KUBE_BIN'] ?? '', name);
  if (existsSync(file)) return file;
  throw new Error(
    `KUBE_BIN=${process.env['KUBE_BIN'] ?? ''} has no ${name}: make it by test/kubernetes/build.sh FOLDER`,
  );
}

export async function startControlPlane(): Promise<ControlPlane> {
  const folder = mkdtempSync(path.join(tmpdir(), 'fewloop-control-plane-'));
  const file = (name: string) => path.join(folder, name);
  const [clients, peers, port] = [await freePort(), await freePort(), await freePort()];
  const url = `https://127.0.0.1:${port}`;
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  writeFileSync(file('sa.key'), privateKey.export({ type: 'pkcs1', format: 'pem' }));
  writeFileSync(file('sa.pub'), publicKey.export({ type: 'spki', format: 'pem' }));
  writeFileSync(file('tokens.csv'), `${ADMIN_TOKEN},admin,admin,system:masters\n`);

  const configFor = (token = ADMIN_TOKEN) => {
    const config = new KubeConfig();
    config.loadFromClusterAndUser({ name: 'test', server: url, skipTLSVerify: true }, { name: 'user', token });
    return config;
  };
  writeFileSync(file('kubeconfig'), configFor().exportConfig());

  const run = (name: string, args: string[]): ChildProcess => {
    const log = openSync(file(`${name}.log`), 'a');
    const child = spawn(binary(name), args, { stdio: ['ignore', log, log] });
    closeSync(log);
    return child;
  };
  const etcd = run('etcd', [
    `--data-dir=${file('etcd')}`,
    `--listen-client-urls=http://127.0.0.1:${clients}`,
    `--advertise-client-urls=http://127.0.0.1:${clients}`,
    `--listen-peer-urls=http://127.0.0.1:${peers}`,
    '--unsafe-no-fsync',
  ]);
  const startApi = () =>
    run('kube-apiserver', [
      `--etcd-servers=http://127.0.0.1:${clients}`,
      `--secure-port=${port}`,
      '--bind-address=127.0.0.1',
      `--cert-dir=${file('certs')}`,
      `--token-auth-file=${file('tokens.csv')}`,
      '--authorization-mode=RBAC',
      '--service-cluster-ip-range=10.0.0.0/24',
      '--service-account-issuer=https://kubernetes.default.svc',
      `--service-account-key-file=${file('sa.pub')}`,
      `--service-account-signing-key-file=${file('sa.key')}`,
      '--kubelet-preferred-address-types=InternalIP',
    ]);
  let api = startApi();
  const ready = () =>
    until(() => kubectl(file('kubeconfig'), ['get', '--raw', '/readyz']).stdout === 'ok', 120_000).catch(() => {
      throw new Error(readFileSync(file('kube-apiserver.log'), 'utf8').slice(-3000));
    });
  await ready();
  const manager = run('kube-controller-manager', [
    `--kubeconfig=${file('kubeconfig')}`,
    `--controllers=${CONTROLLERS.join(',')}`,
    `--service-account-private-key-file=${file('sa.key')}`,
    '--leader-elect=false',
    '--bind-address=127.0.0.1',
    `--secure-port=${await freePort()}`,
    `--cert-dir=${file('manager-certs')}`,
  ]);
  const pem = (name: string) => readFileSync(path.join(folder, 'certs', name), 'utf8');

  return {
    url,
    kubeconfig: file('kubeconfig'),
    certificate: { cert: pem('apiserver.crt'), key: pem('apiserver.key') },
    configFor,
    kubectl: (...args) => {
      const { status, stdout, stderr } = kubectl(file('kubeconfig'), args);
      if (status !== 0) throw new Error(`kubectl ${args.join(' ')}: ${stderr}`);
      return stdout;
    },
    restartApiServer: async () => {
      await end(api);
      api = startApi();
      await ready();
    },
    stop: async () => {
      for (const child of [manager, api, etcd]) await end(child);
      rmSync(folder, { recursive: true });
    },
  };
}

function kubectl(kubeconfig: string, args: string[]) {
  return spawnSync(binary('kubectl'), ['--kubeconfig', kubeconfig, ...args], { encoding: 'utf8' });
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  await ended;
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
