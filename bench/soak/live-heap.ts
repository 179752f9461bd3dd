/**
 * What a process of Node's still holds after a full collection, asked through its inspector: memory that grows without this
 * growing is memory that V8 or the allocator has not given back. Opened by SIGUSR1 on port 9229 of this machine alone.
 */
import { setTimeout as sleep } from 'node:timers/promises';

const LIST = 'http://127.0.0.1:9229/json/list';

export interface LiveHeap {
  /** MiB: objects that are reachable, the heap as it is reserved, buffers outside it. */
  ask(): Promise<{ live: number; reserved: number; buffers: number }>;
  close(): void;
}

export async function liveHeap(pid: number): Promise<LiveHeap> {
  process.kill(pid, 'SIGUSR1');
  const socket = new WebSocket(await address());
  await new Promise((open, failed) => {
    socket.addEventListener('open', open);
    socket.addEventListener('error', failed);
  });
  const waiting = new Map<number, (result: Record<string, number>) => void>();
  socket.addEventListener('message', ({ data }) => {
    const { id, result } = JSON.parse(String(data)) as { id: number; result: Record<string, number> };
    waiting.get(id)?.(result);
    waiting.delete(id);
  });
  let next = 1;
  const send = (method: string) =>
    new Promise<Record<string, number>>((resolve) => {
      waiting.set(next, resolve);
      socket.send(JSON.stringify({ id: next++, method }));
    });
  return {
    async ask() {
      await send('HeapProfiler.collectGarbage');
      const { usedSize = 0, totalSize = 0, backingStorageSize = 0 } = await send('Runtime.getHeapUsage');
      const mib = (bytes: number) => Number((bytes / 2 ** 20).toFixed(2));
      return { live: mib(usedSize), reserved: mib(totalSize), buffers: mib(backingStorageSize) };
    },
    close: () => socket.close(),
  };
}

async function address(): Promise<string> {
  for (;;) {
    const listed = await fetch(LIST)
      .then((response) => response.json() as Promise<{ webSocketDebuggerUrl: string }[]>)
      .catch(() => []);
    if (listed[0]) return listed[0].webSocketDebuggerUrl;
    await sleep(100);
  }
}
