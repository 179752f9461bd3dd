/** Whether whoever asked over HTTP still listens. */
import type { Socket } from 'node:net';

const signals = new WeakMap<Socket, AbortSignal>();

/** Aborted when the connection closes: what was asked over it and is unanswered then has nobody to answer to. */
export function hangUpOf(socket: Socket): AbortSignal {
  if (socket.destroyed) return AbortSignal.abort();
  const known = signals.get(socket);
  if (known) return known;
  const controller = new AbortController();
  socket.once('close', () => controller.abort());
  signals.set(socket, controller.signal);
  return controller.signal;
}
