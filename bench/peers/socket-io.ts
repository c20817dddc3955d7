/**
 * Socket.IO with @socket.io/postgres-adapter: one server that holds the sockets. Whoever writes the like emits to the
 * author's room through an adapter of its own, which is a second transaction (a NOTIFY) after the insert.
 */

import { createServer } from 'node:http';
import { type AddressInfo } from 'node:net';
import { createAdapter } from '@socket.io/postgres-adapter';
import pg from 'pg';
import { Server } from 'socket.io';
import { serveWorker, workerConfig } from '../lib/processes.js';

const { url } = workerConfig<{ url: string }>();

const http = createServer();
const io = new Server(http, { transports: ['websocket'] });
io.adapter(createAdapter(new pg.Pool({ connectionString: url, max: 4 })));
io.use((socket, next) => {
  const { user } = socket.handshake.auth as { user?: unknown };
  if (typeof user !== 'string') return next(new Error('unauthorized'));
  void socket.join(`user:${user}`);
  next();
});
await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));

serveWorker<'status', { port: number }>(() => Promise.resolve({ port: (http.address() as AddressInfo).port }));
