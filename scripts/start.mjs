/**
 * `npm start`: installs what is missing, builds, starts the service with everything embedded under the pinned Node,
 * applies the example task where there is none, and installs the trainer's environment behind the running service.
 */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { builtMain, pinnedNode, prepare, root, say, serviceFlags } from './prepare.mjs';

const EXAMPLE = join(root, 'examples', 'reviews', 'task.yaml');
const dataDir = resolve(root, process.env.FEWLOOP_DATA_DIR || '.fewloop');
const serviceFile = join(dataDir, 'service.json');

async function main() {
  await prepare();
  const service = spawn(pinnedNode, [...serviceFlags, builtMain], {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, MALLOC_TRIM_THRESHOLD_: '131072' },
  });
  let installer;
  let ending = false;
  // It is a process group, because what Python starts must end with it.
  const endInstaller = () => {
    ending = true;
    if (installer?.exitCode === null && installer.signalCode === null) process.kill(-installer.pid, 'SIGTERM');
  };
  const ended = new Promise((resolveEnd) =>
    service.once('exit', (code, signal) => resolveEnd(code ?? (signal ? 1 : 0))),
  );
  // A Ctrl-C at the terminal reaches the service by itself; the others come to this process alone.
  process.on('SIGINT', endInstaller);
  for (const signal of ['SIGTERM', 'SIGHUP']) {
    process.on(signal, () => {
      endInstaller();
      service.kill('SIGTERM');
    });
  }
  void ended.then(endInstaller);

  const url = await serviceUrl(service);
  if (url !== undefined) {
    await welcome(url).catch(async (error) => {
      service.kill('SIGTERM');
      await ended;
      throw error;
    });
    // In a process of its own, so that its stop is a plain signal and pip's output cannot mix with the service's.
    if (!process.env.FEWLOOP_PYTHON && !ending) {
      installer = spawn(process.execPath, [join(root, 'scripts', 'trainer-env.mjs')], {
        cwd: root,
        detached: true,
        stdio: ['ignore', 'inherit', 'inherit'],
        env: { ...process.env, FEWLOOP_DATA_DIR: dataDir },
      });
    }
  }
  process.exitCode = await ended;
}

/** The service writes its address when it listens; undefined where it ends before. */
async function serviceUrl(service) {
  while (service.exitCode === null && service.signalCode === null) {
    if (existsSync(serviceFile)) {
      try {
        const { pid, url } = JSON.parse(readFileSync(serviceFile, 'utf8'));
        // An earlier service that was killed left its own.
        if (pid === service.pid) return url;
      } catch {
        // half written: read again
      }
    }
    await sleep(100);
  }
}

async function welcome(url) {
  // They answer no GraphQL.
  if (['stream', 'trainer'].includes(process.env.FEWLOOP_ROLE)) return say(`Health   ${new URL('/health/ready', url)}`);
  // Whose key it would be to ask with is for whoever set it up.
  if (process.env.FEWLOOP_AUTH === 'required') return say(`GraphQL  ${url}, with an access key`);
  const { tasks } = await query(url, '{ tasks { name } }');
  if (tasks.length === 0) {
    const mutation = 'mutation ($definition: String!) { applyTask(definition: $definition) { name } }';
    const { applyTask } = await query(url, mutation, { definition: readFileSync(EXAMPLE, 'utf8') });
    tasks.push(applyTask);
    say(`Applied examples/reviews/task.yaml: task ${applyTask.name}`);
  }
  say(`Serving ${tasks.map((task) => task.name).join(', ')}`);
  say(`GraphQL  ${url}`);
  say(`Try      npx fewloop classify ${tasks[0].name} 物流很快，包装完好，下次还买`);
}

async function query(url, text, variables = {}) {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ query: text, variables }),
  });
  const { data, errors } = await response.json();
  if (errors) throw new Error(errors[0].message);
  return data;
}

main().catch((error) => {
  say(error.message);
  process.exit(1);
});
