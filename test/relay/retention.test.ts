/** Days and retention are beside the reading: events pass while they wait. */

import type pg from 'pg';
import pino from 'pino';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { parseConfig } from '../../src/config.js';
import { outboxDays } from '../../src/outbox/partitions.js';
import { Retention } from '../../src/relay/upkeep/retention.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { addUsers, socialConfig, socialSql } from '../support/social.js';
import { withRelay } from './with-relay.js';

const patience = { timeout: 20_000 };
let database: TestDatabase;
let client: pg.Client;

beforeAll(async () => {
  database = await createTestDatabase({ prepare: socialSql });
  client = await database.client();
});
afterAll(() => database.drop());

it('a relay that stops while a full default partition is looked through breaks that off, and leaves no day that can not be written', async () => {
  await client.query(
    `insert into belfry.outbox (source, op, new)
     select 'test', 'created', jsonb_build_object('x', repeat('x', 1900)) from generate_series(1, 6000)`,
  );
  await client.query(`
    update belfry.relay set seen = pg_current_snapshot();
    create function public.hold() returns event_trigger language plpgsql
      as $$ begin if current_query() ~ 'verify_excluded_days' then perform pg_sleep(3600); end if; end $$;
    create event trigger hold on ddl_command_start when tag in ('ALTER TABLE') execute function public.hold()`);
  const count = async (sql: string) => (await client.query(sql)).rowCount;
  const excluded = `select from pg_constraint where conrelid = 'belfry.outbox_default'::regclass and conname ~ '^without'`;
  await withRelay(database.url, async () => {
    const looking = `select from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'`;
    await expect.poll(() => count(looking), patience).toBe(1);
    expect(await count(excluded)).toBe(4);
  });
  expect(await count(excluded)).toBe(0);
  await client.query('drop event trigger hold; truncate belfry.outbox_default');
});

it('a week of days is made when a term begins', async () => {
  const days = async () => (await outboxDays(client)).filter(({ until }) => until !== null).length;
  // In the last minute of a day the next one counts as begun.
  await withRelay(database.url, () => expect.poll(days, patience).toBeGreaterThanOrEqual(6));
});

it('a day that is unread, and so not dropped, is told once', async () => {
  await client.query(`
    create table belfry.outbox_20200101 (like belfry.outbox including all excluding identity);
    alter table belfry.outbox attach partition belfry.outbox_20200101 for values from ('2020-01-01 00:00+00') to ('2020-01-02 00:00+00');
    update belfry.relay set seen = pg_current_snapshot()`);
  await client.query(`insert into belfry.outbox (at, source, op) values ('2020-01-01 12:00+00', 'test', 'created')`);
  const told: unknown[] = [];
  const retention = new Retention({
    config: parseConfig(socialConfig(database.url), {}, { path: 'test.yaml' }),
    url: database.url,
    log: pino({ level: 'warn' }, { write: (line: string) => void told.push(JSON.parse(line)) }),
  });
  retention.start();
  await expect.poll(() => told, patience).toHaveLength(1);
  await retention.stop();
  expect(told).toMatchObject([
    { msg: 'old days of the outbox were not dropped', unread: ['outbox_20200101'], busy: [] },
  ]);
  await client.query('drop table belfry.outbox_20200101');
});

it('events are read while old ones wait to be deleted', async () => {
  await client.query(
    `insert into belfry.outbox (at, source, op) values (clock_timestamp() - interval '30 days', 'test', 'created')`,
  );
  await client.query('update belfry.relay set seen = pg_current_snapshot()');
  await client.query('begin; select from belfry.outbox_default for update');
  const [ada = ''] = await addUsers(database.pool, 'Ada');
  await withRelay(database.url, async () => {
    await database.pool.query(`select belfry.notify($1, 'system', 'hello')`, [ada]);
    const heard = () => database.pool.query('select from belfry.notification where user_id = $1', [ada]);
    await expect
      .poll(async () => (await heard()).rowCount, patience)
      .toBe(1)
      .finally(() => client.query('rollback'));
  });
});
