/**
 * A database that is fed by logical replication: its apply worker fires no statement triggers, and row triggers only where these are enabled
 * always. With `capture: row` what was replicated is captured, wakes the relay, and arrives. Two databases of one server of its own.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type pg from 'pg';
import pino from 'pino';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { MemoryBroker } from '../../src/broker/memory.js';
import { installCapture } from '../../src/capture/install.js';
import { verifyCapture } from '../../src/capture/verify.js';
import { parseConfig } from '../../src/config.js';
import type { Config } from '../../src/config.js';
import { startEmbeddedPostgres } from '../../src/embedded/postgres.js';
import type { EmbeddedPostgres } from '../../src/embedded/postgres.js';
import { seedCounters } from '../../src/inbox/seed.js';
import { createMetrics } from '../../src/metrics.js';
import { ensurePartitions } from '../../src/outbox/partitions.js';
import { connect } from '../../src/postgres/connect.js';
import { Relay } from '../../src/relay/relay.js';
import { migrate } from '../../src/schema/migrate.js';
import { withDatabase } from '../support/postgres.js';
import { testSecret } from '../support/social.js';

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });
const soon = { timeout: 60_000, interval: 20 };

const tables = `
create table posts (id bigint primary key, owner_id bigint);
create table likes (id bigint primary key, user_id bigint, post_id bigint);
create table follows (id bigint primary key, follower bigint, followed bigint);
create table parts (id bigint, day int, user_id bigint, owner_id bigint, primary key (id, day)) partition by range (day);
create table parts_1 partition of parts for values from (1) to (2);
`;
const sources = `
  - name: post_like
    type: like
    table: public.likes
    key: [id]
    actor: user_id
    object: { kind: post, id: post_id }
    recipient: { path: [{ from: post_id, table: public.posts, match: id, take: owner_id }] }
    channels: ['post:{post_id}']
    counter: { event: like_update, field: likes_count }
    capture: row
  - { name: part, type: part, table: public.parts, key: [id], actor: user_id, recipient: owner_id, capture: row }
  - { name: follow, type: follow, table: public.follows, key: [id], actor: follower, recipient: followed }
`;

let folder: string;
let server: EmbeddedPostgres;
let publisher: pg.Client;
let subscriber: pg.Client;
let config: Config;
let relay: Relay | null = null;

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'belfry-subscriber-'));
  server = await startEmbeddedPostgres({
    dataDir: folder,
    log: { info: () => undefined, warn: () => undefined },
    settings: { fsync: 'off', wal_level: 'logical' },
  });
  const admin = await connect(server.url, { applicationName: 'test' });
  await admin.query('create database publisher');
  await admin.query('create database subscriber');
  await admin.end();
  publisher = await connect(withDatabase(server.url, 'publisher'), { applicationName: 'test' });
  const url = withDatabase(server.url, 'subscriber');
  subscriber = await connect(url, { applicationName: 'test' });
  await publisher.query(`${tables} insert into posts values (10, 1); insert into likes values (1, 2, 10), (2, 3, 10)`);
  await subscriber.query(tables);
  config = parseConfig(
    `version: 1\ndatabase: { url: "${url}" }\nauth: { secret: ${testSecret}, issuer: null, audience: null }\nsources:${sources}`,
    {},
    { path: 'test.yaml' },
  );
  // What was there before Belfry came, by the first copy.
  await publisher.query('create publication app for all tables');
  await publisher.query(`select pg_create_logical_replication_slot('app', 'pgoutput')`);
  const upstream = withDatabase(server.url, 'publisher');
  await subscriber.query(
    `create subscription app connection '${upstream}' publication app with (create_slot = false, slot_name = 'app')`,
  );
  const copied = `select count(*)::int as n from pg_subscription_rel where srsubstate <> 'r'`;
  await vi.waitFor(async () => expect((await subscriber.query<{ n: number }>(copied)).rows).toEqual([{ n: 0 }]), soon);
  await migrate(subscriber);
  await ensurePartitions(subscriber, { today: true });
  await installCapture(subscriber, config);
  await seedCounters(subscriber, config, { info: () => undefined });
  const log = pino({ level: 'silent' });
  relay = new Relay({ config, broker: new MemoryBroker(), log, metrics: createMetrics().relay });
  await relay.start();
});

afterAll(async () => {
  await relay?.stop();
  await subscriber.query('alter subscription app disable');
  await subscriber.query('alter subscription app set (slot_name = none)');
  await subscriber.query('drop subscription app');
  await Promise.all([publisher.end(), subscriber.end()]);
  await server.stop();
  // As root the data is elsewhere, where the server's account may go.
  for (const each of [folder, server.dataDir]) await rm(each, { recursive: true, force: true });
});

/** `type: actors` of a person's notifications. */
async function inboxOf(user: string): Promise<string[]> {
  const { rows } = await subscriber.query<{ line: string }>(
    `select n.type || ': ' || string_agg(e.actor_id, ' ' order by e.actor_id) as line
       from belfry.notification n join belfry.notification_event e on e.notification_id = n.id and e.removed_at is null
      where n.user_id = $1 and not n.withdrawn group by n.id, n.type order by n.type`,
    [user],
  );
  return rows.map(({ line }) => line);
}

const counter = async (): Promise<string | undefined> =>
  (await subscriber.query<{ count: string }>(`select count from belfry.counter where object_id = '10'`)).rows[0]?.count;

it('what is replicated arrives, is taken back, and counts; what was copied before Belfry only counts', async () => {
  expect(await counter()).toBe('2');
  await publisher.query('insert into likes values (3, 4, 10)');
  await expect.poll(() => inboxOf('1'), soon).toEqual(['like: 4']);
  await publisher.query('insert into likes values (4, 5, 10); update likes set user_id = 6 where id = 3');
  await expect.poll(counter, soon).toBe('4');
  await publisher.query('delete from likes where id = 4');
  await expect.poll(() => inboxOf('1'), { timeout: 60_000, interval: 20 }).toEqual(['like: 6']);
  await expect.poll(counter, soon).toBe('3');
});

it('through a partitioned table, which the publisher sends leaf by leaf', async () => {
  await publisher.query('insert into parts values (1, 1, 7, 8)');
  await expect.poll(() => inboxOf('8'), soon).toEqual(['part: 7']);
});

it('a truncate empties the count', async () => {
  await publisher.query('truncate likes');
  await expect.poll(async () => (await counter()) ?? '0', soon).toBe('0');
  await expect.poll(() => inboxOf('1'), soon).toEqual([]);
});

it('statement triggers do not fire: it is for that that capture: row is there; and health knows an origin trigger for switched off', async () => {
  await publisher.query('insert into follows values (1, 11, 12)');
  // Replicated in order, so that what comes after it shows that it has passed.
  await publisher.query('insert into likes values (9, 4, 10)');
  await expect.poll(() => inboxOf('1'), soon).toEqual(['like: 4']);
  const { rows } = await subscriber.query(`select 1 from belfry.outbox where source = 'follow'`);
  expect(rows).toEqual([]);
  await subscriber.query('alter table likes enable trigger belfry_post_like_insert_row');
  const health = await verifyCapture(subscriber, config);
  expect(health.filter(({ state }) => state !== 'ok')).toMatchObject([{ source: 'post_like', state: 'disabled' }]);
  await installCapture(subscriber, config);
});
