/**
 * The load client of the stalled bench: sockets that subscribe to `post:1` and note how late each event comes, or read without looking, or
 * stand still.
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
      /** The first user, and how many from there on. */
      readonly from: number;
      readonly count: number;
      readonly how: 'measures' | 'reads' | 'stops';
    }
  /** Waits until every socket has got this many events since the last `collect`. */
  | { readonly do: 'collect'; readonly events: number }
  /** How many sockets have been closed; one that stands still is let go for that. */
  | { readonly do: 'closed' };

export interface ReadersAnswer {
  /** Milliseconds from the schedule of an event to a reader. */
  readonly latenciesMs: readonly number[];
  /** Sockets that were closed, by code. */
  readonly closed: Readonly<Record<string, number>>;
}

const AT_ONCE = 100;
/** Long enough for what is in the way of a close frame. */
const LET_GO_MS = 3_000;

const sockets: WebSocket[] = [];
const closed: Record<string, number> = {};
let latenciesMs: number[] = [];
let wake: () => void = () => undefined;

serveWorker<ReadersJob, ReadersAnswer>(async (job) => {
  switch (job.do) {
    case 'connect':
      for (let n = 0; n < job.count; n += AT_ONCE) {
        const users = Array.from({ length: Math.min(AT_ONCE, job.count - n) }, (_, i) => job.from + n + i);
        await Promise.all(users.map((user) => open(job, user)));
      }
      return { latenciesMs: [], closed };
    case 'collect': {
      while (latenciesMs.length < job.events * sockets.length)
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      const collected = latenciesMs;
      latenciesMs = [];
      return { latenciesMs: collected, closed };
    }
    case 'closed':
      for (const socket of sockets) socket.resume();
      await new Promise((resolve) => setTimeout(resolve, LET_GO_MS));
      return { latenciesMs: [], closed };
  }
});

async function open({ port, secret, how }: ReadersJob & { do: 'connect' }, user: number): Promise<void> {
  const token = jwt.sign({ sub: String(user) }, createSecretKey(Buffer.from(secret)), { expiresIn: '1h' });
  const socket = new WebSocket(`ws://127.0.0.1:${port}/ws`, { headers: { authorization: `Bearer ${token}` } });
  socket.on('error', () => undefined);
  await new Promise<void>((resolve, reject) => {
    socket.on('close', (code) => {
      closed[code] = (closed[code] ?? 0) + 1;
      reject(new Error('closed before it had subscribed'));
    });
    let subscribed = false;
    socket.on('message', (message: Buffer) => {
      if (subscribed && how !== 'measures') return;
      const frame = JSON.parse(message.toString()) as { event?: string; id?: number; data?: { at?: number } };
      if (frame.event === 'synced') socket.send('{"id":1,"op":"subscribe","channel":"post:1"}');
      else if (frame.id === 1) {
        subscribed = true;
        resolve();
      } else if (frame.data?.at !== undefined) {
        latenciesMs.push(performance.timeOrigin + performance.now() - frame.data.at);
        wake();
      }
    });
  });
  sockets.push(socket);
  if (how === 'stops') socket.pause();
}
