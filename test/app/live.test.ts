/** The way of one event through the running app: a row in the outbox and a ring, a frame on a socket. */

import jwt from 'jsonwebtoken';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { startApp } from '../../src/app.js';
import type { App } from '../../src/app.js';
import { parseConfig } from '../../src/config.js';
import { createLogger } from '../../src/log.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { addPost, addUsers, socialConfig, socialSql, testSecret } from '../support/social.js';

let database: TestDatabase;
let app: App;
let ada: string, bo: string, post: string;

beforeAll(async () => {
  database = await createTestDatabase({ prepare: socialSql });
  [ada = '', bo = ''] = await addUsers(database.pool, 'Ada', 'Bo');
  post = await addPost(database.pool, ada);
  const config = parseConfig(
    socialConfig(database.url, 'server: { host: 127.0.0.1, port: 0 }'),
    {},
    { path: 'test.yaml' },
  );
  app = await startApp(config, { role: 'all', log: createLogger({ level: 'warn', name: 'test' }) });
});

afterAll(async () => {
  await app.stop();
  await database.drop();
});

it('pushes a like to the author', async () => {
  const socket = new WebSocket(`ws://127.0.0.1:${String(app.port)}/ws`);
  const frames: unknown[] = [];
  const arrived = new Promise<void>((resolve) => {
    socket.on('message', (data: Buffer) => {
      const frame = JSON.parse(data.toString()) as { event?: string };
      frames.push(frame);
      if (frame.event === 'synced') {
        void database.pool.query(
          `with e as (insert into belfry.outbox (source, op, new) values ('post_like', 'created', $1) returning 1) select belfry.ring() from e`,
          [{ user_id: Number(bo), post_id: Number(post) }],
        );
      }
      if (frame.event === 'badge') resolve();
    });
  });
  socket.on('open', () => {
    socket.send(JSON.stringify({ id: 1, op: 'auth', token: jwt.sign({ sub: ada }, testSecret, { expiresIn: '1h' }) }));
  });
  await arrived;
  expect(frames).toMatchObject([
    { id: 1, ok: { user_id: ada, seq: 0, recovered: true } },
    { event: 'synced', seq: 0 },
    { event: 'notification', seq: 1, data: { message: 'Bo liked your post' } },
    { event: 'badge', data: { unseen: 1, unread: 1 } },
  ]);
  socket.close();
});
