/** A network that goes silent without closing anything: the relay notices, lets go, and goes on when it is back. */

import { connect, createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest';
import { startApp } from '../../src/app.js';
import type { App } from '../../src/app.js';
import { installCapture } from '../../src/capture/install.js';
import { parseConfig } from '../../src/config.js';
import { createLogger } from '../../src/log.js';
import { createTestDatabase, withPort } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { startProxy } from '../support/proxy.js';
import type { Proxy } from '../support/proxy.js';
import { addPost, addUsers, like, socialConfig, socialSql } from '../support/social.js';

let database: TestDatabase;
let proxy: Proxy;
let app: App;
let people: string[];

beforeAll(async () => {
  database = await createTestDatabase({ prepare: socialSql });
  people = await addUsers(database.pool, 'Ada', 'Bo', 'Cleo');
  proxy = await startProxy({ host: '127.0.0.1', port: Number(new URL(database.url).port) });
  const text = socialConfig(withPort(database.url, proxy.port));
  const config = parseConfig(text, {}, { path: 'test.yaml' });
  await installCapture(await database.client(), config);
  app = await startApp(config, { role: 'all', log: createLogger({ level: 'fatal', name: 'test' }) });
});

afterAll(async () => {
  await proxy.close();
  await app.stop();
  await database.drop();
});

const unread = async (): Promise<string | undefined> =>
  (await database.pool.query<{ events: string }>('select events from belfry.lag')).rows[0]?.events;

it('a database that falls silent in the middle costs time, and nothing else', { timeout: 110_000 }, async () => {
  const [ada = '', bo = '', cleo = ''] = people;
  const post = await addPost(database.pool, ada);
  await like(database.pool, bo, post);
  await expect.poll(unread, { timeout: 20_000 }).toBe('0');
  proxy.pause();
  await like(database.pool, cleo, post);
  // Longer than the lease: it must be given up, and every connection of before with it.
  await new Promise((resolve) => setTimeout(resolve, 10_000));
  proxy.reset();
  proxy.resume();
  await expect.poll(unread, { timeout: 30_000 }).toBe('0');
  // A connection that makes days may have fallen silent with its locks: then the second like was not captured, and is made good.
  const told = async () =>
    (await database.pool.query('select from belfry.notification_event where removed_at is null')).rowCount;
  await expect.poll(told, { timeout: 45_000 }).toBe(2);
  expect((await database.pool.query('select error from belfry.dead_event')).rows).toEqual([]);
});

it('connections that stay silent for good are let go with the lease', { timeout: 90_000 }, async () => {
  const other = await createTestDatabase({ prepare: socialSql });
  onTestFinished(() => other.drop());
  const links: { silent: boolean; readonly near: Socket; readonly far: Socket }[] = [];
  let silent = false;
  const server = createServer((near) => {
    const far = connect(Number(new URL(other.url).port), '127.0.0.1');
    const link = { silent, near, far };
    links.push(link);
    near.on('data', (data) => (link.silent ? false : far.write(data)));
    far.on('data', (data) => (link.silent ? false : near.write(data)));
    for (const socket of [near, far]) socket.on('error', () => undefined);
    near.on('close', () => (link.silent ? undefined : far.destroy()));
    far.on('close', () => (link.silent ? undefined : near.destroy()));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const text = socialConfig(withPort(other.url, (server.address() as AddressInfo).port));
  const config = parseConfig(text, {}, { path: 'test.yaml' });
  await installCapture(await other.client(), config);
  const relay = await startApp(config, { role: 'relay', log: createLogger({ level: 'fatal', name: 'test' }) });
  onTestFinished(async () => {
    for (const { near, far } of links) for (const socket of [near, far]) socket.destroy();
    server.close();
    await relay.stop();
  });
  const [ada = '', bo = '', cleo = ''] = await addUsers(other.pool, 'Ada', 'Bo', 'Cleo');
  const post = await addPost(other.pool, ada);
  const unreadThere = async () =>
    (await other.pool.query<{ events: string }>('select events from belfry.lag')).rows[0]?.events;
  await like(other.pool, bo, post);
  await expect.poll(unreadThere, { timeout: 20_000 }).toBe('0');
  silent = true;
  for (const link of links) link.silent = true;
  await like(other.pool, cleo, post);
  // Longer than the lease; what is connected anew is heard.
  await new Promise((resolve) => setTimeout(resolve, 10_000));
  silent = false;
  await expect.poll(unreadThere, { timeout: 45_000 }).toBe('0');
});
