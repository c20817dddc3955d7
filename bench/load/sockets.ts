/**
 * The sockets of the load client: for every contestant the same `ws` client, so that it costs the same, with as much of
 * the contestant's protocol as a receiver needs.
 */

import { createSecretKey } from 'node:crypto';
import jwt from 'jsonwebtoken';
import WebSocket from 'ws';

export type Protocol = 'belfry' | 'notify-pipe' | 'socket-io' | 'flask';

/** Called with the post of a notification, and the time of the commit (ms since the epoch) where the push tells it. */
export type OnLike = (postId: string, committedAtMs?: number) => void;

export interface SocketOptions {
  readonly protocol: Protocol;
  readonly port: number;
  /** Only for belfry. */
  readonly secret: string;
}

/** Opens and authenticates a socket; resolves when pushes may come. */
export function openSocket(options: SocketOptions, user: string, onLike: OnLike): Promise<WebSocket> {
  return OPEN[options.protocol](options, user, onLike);
}

/** Opens many, a hundred at a time. */
export async function openSockets(
  options: SocketOptions,
  users: readonly string[],
  onLike: OnLike,
): Promise<WebSocket[]> {
  const sockets: WebSocket[] = [];
  for (let from = 0; from < users.length; from += 100) {
    const some = users.slice(from, from + 100);
    sockets.push(...(await Promise.all(some.map((user) => openSocket(options, user, onLike)))));
  }
  return sockets;
}

interface Push {
  readonly event?: string;
  readonly data?: { readonly post_id?: string };
  readonly error?: unknown;
}

const OPEN: Record<Protocol, (options: SocketOptions, user: string, onLike: OnLike) => Promise<WebSocket>> = {
  belfry: ({ port, secret }, user, onLike) =>
    open(`ws://127.0.0.1:${port}/ws`, (socket, text, ready) => {
      if (text === null) {
        const token = jwt.sign({ sub: user }, createSecretKey(Buffer.from(secret)), {
          algorithm: 'HS256',
          expiresIn: '1h',
        });
        socket.send(JSON.stringify({ id: 1, op: 'auth', token }));
        return;
      }
      receive(text, onLike, ready);
    }),
  'notify-pipe': ({ port }, user, onLike) =>
    open(`ws://127.0.0.1:${port}/?user=${user}`, (_socket, text, ready) => {
      if (text !== null) receive(text, onLike, ready);
    }),
  'socket-io': socketIo,
  flask: socketIo,
};

/** Engine.IO 4 by hand: 0 open, 2 ping, 3 pong, 40 connect, 42 event. */
function socketIo({ port }: SocketOptions, user: string, onLike: OnLike): Promise<WebSocket> {
  return open(`ws://127.0.0.1:${port}/socket.io/?EIO=4&transport=websocket`, (socket, text, ready) => {
    if (text === null) return;
    if (text.startsWith('42')) {
      const [event, data] = JSON.parse(text.slice(2)) as [string, { post_id?: string; committed_at?: number }];
      if (event === 'notification' && data.post_id !== undefined) onLike(data.post_id, data.committed_at);
    } else if (text === '2') socket.send('3');
    else if (text.startsWith('0')) socket.send(`40${JSON.stringify({ user })}`);
    else if (text.startsWith('40')) ready();
    else throw new Error(`socket.io said ${text}`);
  });
}

function receive(text: string, onLike: OnLike, ready: () => void): void {
  const push = JSON.parse(text) as Push;
  if (push.event === 'notification') {
    if (push.data?.post_id !== undefined) onLike(push.data.post_id);
  } else if (push.event === 'synced') ready();
  else if (push.error !== undefined) throw new Error(`refused: ${text}`);
}

/** `on` is called with null when the socket opens, then with every text frame. */
function open(
  url: string,
  on: (socket: WebSocket, text: string | null, ready: () => void) => void,
): Promise<WebSocket> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, { perMessageDeflate: false });
    const ready = (): void => resolve(socket);
    socket.on('open', () => on(socket, null, ready));
    socket.on('message', (data) => on(socket, (data as Buffer).toString('utf8'), ready));
    socket.on('error', reject);
    socket.on('close', (code, reason) => {
      // Before it was ready this is the answer; later it is the end of the measurement, or it fails by missing pushes.
      reject(new Error(`${url} closed with ${code} ${reason.toString()}`));
    });
  });
}
