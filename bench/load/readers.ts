/**
 * The load client of the stalled bench: sockets that read and note how late each event comes, and sockets that stand still.
 * Both subscribe to `post:1`.
 */

import { createSecretKey } from 'node:crypto';
import jwt from 'jsonwebtoken';
import WebSocket from 'ws';
import { serveWorker } from '../lib/processes.js';

export type ReadersJob =
  | {
      readonly do: 'connect';
      readonly port: number;
      readonly secret: string;
      readonly reading: number;
      readonly stalled: number;
    }
  /** Waits until every reader has got this many events since the last `collect`. */
  | { readonly do: 'collect'; readonly events: number };

export interface ReadersAnswer {
  /** Milliseconds from the schedule of an event to a reader. */
  readonly latenciesMs: readonly number[];
}

const AT_ONCE = 100;

let readers = 0;
let latenciesMs: number[] = [];
let wake: () => void = () => undefined;

serveWorker<ReadersJob, ReadersAnswer>(async (job) => {
  if (job.do === 'connect') {
    readers = job.reading;
    const total = job.reading + job.stalled;
    for (let from = 0; from < total; from += AT_ONCE) {
      const users = Array.from({ length: Math.min(AT_ONCE, total - from) }, (_, n) => from + n + 1);
      await Promise.all(users.map((user) => open(job, user)));
    }
    return { latenciesMs: [] };
  }
  while (latenciesMs.length < job.events * readers) await new Promise<void>((resolve) => (wake = resolve));
  const collected = latenciesMs;
  latenciesMs = [];
  return { latenciesMs: collected };
});

async function open({ port, secret, reading }: ReadersJob & { do: 'connect' }, user: number): Promise<void> {
  const token = jwt.sign({ sub: String(user) }, createSecretKey(Buffer.from(secret)), { expiresIn: '1h' });
  const socket = new WebSocket(`ws://127.0.0.1:${port}/ws`, { headers: { authorization: `Bearer ${token}` } });
  socket.on('error', () => undefined);
  await new Promise<void>((resolve, reject) => {
    socket.on('close', () => reject(new Error('closed before it had subscribed')));
    socket.on('message', (message: Buffer) => {
      const frame = JSON.parse(message.toString()) as { event?: string; id?: number; data?: { at?: number } };
      if (frame.event === 'synced') socket.send('{"id":1,"op":"subscribe","channel":"post:1"}');
      else if (frame.id === 1) resolve();
      else if (frame.data?.at !== undefined) {
        latenciesMs.push(performance.timeOrigin + performance.now() - frame.data.at);
        wake();
      }
    });
  });
  if (user > reading) socket.pause();
}
