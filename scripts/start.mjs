/**
 * `npm start`: installs what is missing, builds, starts the service with everything embedded under the pinned Node,
 * applies the example task where there is none, and installs the trainer's environment behind the running service.
 */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { builtMain, pinnedNode, prepare, root, say } from './prepare.mjs';

const EXAMPLE = join(root, 'examples', 'reviews', 'task.yaml');
const dataDir = resolve(root, process.env.FEWLOOP_DATA_DIR || '.fewloop');
const serviceFile = join(dataDir, 'service.json');

async function main() {
  await prepare();
  rmSync(serviceFile, { force: true });
  const service = spawn(pinnedNode, ['--enable-source-maps', builtMain], {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, MALLOC_TRIM_THRESHOLD_: '131072' },
  });
  const installer = { child: undefined };
  const ended = new Promise((resolveEnd) =>
    service.once('exit', (code, signal) => resolveEnd(code ?? (signal ? 1 : 0))),
  );
  // A Ctrl-C at the terminal reaches the service by itself; SIGTERM comes to this process alone.
  process.on('SIGINT', () => installer.child?.kill('SIGTERM'));
  process.on('SIGTERM', () => {
    installer.child?.kill('SIGTERM');
    service.kill('SIGTERM');
  });
  void ended.then(() => installer.child?.kill('SIGTERM'));

  const url = await Promise.race([serviceUrl(service.pid), ended.then(() => undefined)]);
  if (url !== undefined) {
    await welcome(url);
    // In a process of its own, so that its stop is a plain signal and pip's output cannot mix with the service's.
    if (!process.env.FEWLOOP_PYTHON) {
      installer.child = spawn(process.execPath, [join(root, 'scripts', 'trainer-env.mjs')], {
        cwd: root,
        stdio: ['ignore', 'inherit', 'inherit'],
        env: { ...process.env, FEWLOOP_DATA_DIR: dataDir },
      });
    }
  }
  process.exitCode = await ended;
}

/** The service writes its address when it listens. */
async function serviceUrl(pid) {
  for (;;) {
    if (existsSync(serviceFile)) {
      try {
        const service = JSON.parse(readFileSync(serviceFile, 'utf8'));
        if (service.pid === pid) return service.url;
      } catch {
        // half written: read again
      }
    }
    await sleep(100);
  }
}

async function welcome(url) {
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
