/**
 * The pipe that most people build: the trigger sends the push as NOTIFY payload, pg-listen hears it, `ws` forwards it.
 *
 * It checks nothing, stores nothing, and loses what is sent while it is not connected.
 */

import { type AddressInfo } from 'node:net';
import pgListen from 'pg-listen';
import { type WebSocket, WebSocketServer } from 'ws';
import { serveWorker, workerConfig } from '../lib/processes.js';

interface Like {
  readonly to: string;
  readonly type: string;
  readonly user_id: string;
  readonly post_id: string;
  readonly message: string;
  readonly timestamp: string;
}

export interface PipeAnswer {
  readonly port: number;
  /** NOTIFYs heard so far. */
  readonly heard: number;
}

const { url } = workerConfig<{ url: string }>();
const people = new Map<string, Set<WebSocket>>();
let heard = 0;

const server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
server.on('connection', (socket, request) => {
  const user = new URL(request.url ?? '/', 'http://localhost').searchParams.get('user') ?? '';
  const sockets = people.get(user) ?? new Set();
  people.set(user, sockets.add(socket));
  socket.on('close', () => sockets.delete(socket));
  socket.send(JSON.stringify({ event: 'synced' }));
});

const subscriber = pgListen.default<{ likes: Like }>({ connectionString: url });
subscriber.notifications.on('likes', ({ to, ...data }) => {
  heard += 1;
  const sockets = people.get(to);
  if (sockets === undefined || sockets.size === 0) return;
  const frame = JSON.stringify({ event: 'notification', data });
  for (const socket of sockets) socket.send(frame);
});
subscriber.events.on('error', (error) => {
  throw error;
});
await subscriber.connect();
await subscriber.listenTo('likes');

serveWorker<'status', PipeAnswer>(() => Promise.resolve({ port: (server.address() as AddressInfo).port, heard }));
