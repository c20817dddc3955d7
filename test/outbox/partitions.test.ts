/** Days of the outbox: made ahead, dropped behind the cursor, and nobody waits for either. */
import type pg from 'pg';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { dropOldPartitions, ensurePartitions, excludedDays } from '../../src/outbox/partitions.js';
import { createTestDatabase, type TestDatabase } from '../support/postgres.js';
import { Collector, insertEvent } from './rig.js';

let database: TestDatabase;
let client: pg.Client;
let writer: pg.Client;
const dayMs = 86_400_000;

beforeEach(async () => {
  database = await createTestDatabase();
  client = await database.client();
  writer = await database.client();
});
afterEach(() => database.drop());

const day = (offset: number): string => new Date(Date.now() + offset * dayMs).toISOString().slice(0, 10);
const nameOf = (offset: number): string => `outbox_${day(offset).replaceAll('-', '')}`;

async function countIn(table: string): Promise<number> {
  return Number((await client.query<{ n: string }>(`select count(*) as n from belfry.${table}`)).rows[0]?.n);
}

/** A partition of a past day with rows in it. */
async function pastDay(offset: number, rows: number): Promise<string> {
  const name = nameOf(offset);
  await client.query(`
    create table belfry.${name} (like belfry.outbox including all excluding identity);
    alter table belfry.outbox attach partition belfry.${name} for values from ('${day(offset)} 00:00+00') to ('${day(offset + 1)} 00:00+00')`);
  await client.query(
    `insert into belfry.outbox (at, source, op, new)
     select '${day(offset)} 12:00+00', 'test', 'created', jsonb_build_object('n', i) from generate_series(1, $1) i`,
    [rows],
  );
  return name;
}

const readEverything = () => client.query('update belfry.relay set seen = pg_current_snapshot()');

test('today and a week are made, once; rows go where they belong and get their ids from one sequence', async () => {
  const first = await ensurePartitions(client, { today: true });
  expect(first).toEqual({ made: [0, 1, 2, 3, 4, 5, 6, 7].map(nameOf), left: [], busy: [] });
  expect(await ensurePartitions(client, { today: true })).toEqual({ made: [], left: [], busy: [] });
  const a = await insertEvent(writer, 1);
  const b = await insertEvent(writer, 2);
  expect(BigInt(b)).toBe(BigInt(a) + 1n);
  expect(await countIn(nameOf(0))).toBe(2);
  expect(await countIn('outbox_default')).toBe(0);
  const { rows } = await client.query<{ n: string }>(
    `select count(*) as n from pg_index i join pg_inherits h on h.inhrelid = i.indrelid
      where h.inhparent = 'belfry.outbox'::regclass and i.indisvalid`,
  );
  // Two indexes on each of eight days and the default.
  expect(Number(rows[0]?.n)).toBe(18);
});

test('a day whose first rows are in the default partition: they are moved, and the cursor reads each once', async () => {
  const collector = await Collector.open(database.url);
  await insertEvent(writer, 'read before');
  await collector.drain();
  await writer.query('begin');
  await insertEvent(writer, 'open');
  await writer.query('rollback');
  await insertEvent(client, 'unread');
  const report = await ensurePartitions(client, { daysAhead: 0, today: true });
  expect(report).toEqual({ made: [nameOf(0)], left: [], busy: [] });
  expect(await countIn('outbox_default')).toBe(0);
  await collector.drain();
  expect(collector.numbers).toEqual(['read before', 'unread']);
  await collector.client.end();
});

test('too many of them: the day stays in the default partition, the others are made, and the report says so', async () => {
  await client.query(`insert into belfry.outbox (source, op) select 'test', 'created' from generate_series(1, 2001)`);
  const report = await ensurePartitions(client, { daysAhead: 2, today: true });
  expect(report).toEqual({ made: [nameOf(1), nameOf(2)], left: [day(0)], busy: [] });
  expect(await countIn('outbox_default')).toBe(2_001);
  await insertEvent(writer, 'still written');
});

// Again if the machine was too busy to be measured.
test('a writer in an open transaction makes it give up, not the writers wait', { retry: 2 }, async () => {
  await writer.query('begin');
  await insertEvent(writer, 'open, in the default partition');
  const other = await database.client();
  const waits: number[] = [];
  let over = false;
  const writing = (async () => {
    for (let i = 0; !over; i += 1) {
      const start = performance.now();
      await insertEvent(other, i);
      waits.push(performance.now() - start);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  })();
  const report = await ensurePartitions(client, { daysAhead: 1, today: true });
  over = true;
  await writing;
  // Attaching beside a default partition locks that for a moment: with the writer in it, no day can be made now.
  expect(report.busy).toEqual([day(0), day(1)]);
  expect(Math.max(...waits)).toBeLessThan(200);
  await writer.query('commit');
  expect((await ensurePartitions(client, { daysAhead: 1, today: true })).busy).toEqual([]);
});

test('beside writers a day that has begun is left to the default partition, and no write fails', async () => {
  const writers = await Promise.all([1, 2, 3].map(() => database.client()));
  let over = false;
  const writing = writers.map(async (one) => {
    for (let i = 0; !over; i += 1) await insertEvent(one, i);
  });
  const ensured = await ensurePartitions(client, { today: false });
  over = true;
  await Promise.all(writing);
  // In the last minute of a day also the next one counts as begun.
  expect([...ensured.made, ...ensured.busy.map((busy) => `outbox_${busy.replaceAll('-', '')}`)]).toEqual(
    expect.arrayContaining([2, 3, 4, 5, 6, 7].map(nameOf)),
  );
  expect(ensured.made).not.toContain(nameOf(0));
  expect(await countIn('outbox_default')).toBeGreaterThan(0);
});

/** More than can be looked through while writers wait. */
async function fillDefault(): Promise<void> {
  await client.query(
    `insert into belfry.outbox (source, op, new)
     select 'test', 'created', jsonb_build_object('n', i, 'x', repeat('x', 1900)) from generate_series(1, 6000) i`,
  );
}

const excluded = async (): Promise<number | null> =>
  (
    await client.query(
      `select from pg_constraint where conrelid = 'belfry.outbox_default'::regclass and conname ~ '^without'`,
    )
  ).rowCount;

test('beside a default partition that holds much, days are made without a look through it while nobody can write', async () => {
  await fillDefault();
  // How much of it every command reads, and whether that locks everybody out.
  await client.query(`
    create table public.ddl (id int generated always as identity, event text, read bigint, alone boolean);
    create function note() returns event_trigger language plpgsql as $$ begin
      insert into public.ddl (event, read, alone) select tg_event, pg_stat_get_xact_tuples_returned('belfry.outbox_default'::regclass),
        exists (select from pg_locks where pid = pg_backend_pid() and relation = 'belfry.outbox_default'::regclass and mode = 'AccessExclusiveLock');
    end $$;
    create event trigger note_start on ddl_command_start when tag in ('ALTER TABLE') execute function note();
    create event trigger note_end on ddl_command_end when tag in ('ALTER TABLE') execute function note()`);
  const report = await ensurePartitions(client, { today: false });
  const { rows } = await client.query(
    `select alone, max(read)::int as read
       from (select event, alone, read - lag(read) over (order by id) as read from public.ddl) command
      where event = 'ddl_command_end' group by alone order by alone`,
  );
  expect(rows).toEqual([
    { alone: false, read: 6_000 },
    { alone: true, read: 0 },
  ]);
  expect(report).toEqual({ made: [4, 5, 6, 7].map(nameOf), left: [1, 2, 3].map(day), busy: [] });
  expect(await excluded()).toBe(0);
  // The next days are no closer to being made, and what is there is not looked through again.
  expect(await ensurePartitions(client, { today: false })).toEqual({ made: [], left: [1, 2, 3].map(day), busy: [] });
});

test('a day of which something is in a default partition that holds much is left, and the others are made', async () => {
  await fillDefault();
  await client.query(`insert into belfry.outbox (at, source, op) values ('${day(5)} 12:00+00', 'test', 'created')`);
  expect(await ensurePartitions(client, { today: false })).toEqual({
    made: [4, 6, 7].map(nameOf),
    left: [1, 2, 3, 5].map(day),
    busy: [],
  });
  expect(await countIn('outbox_default')).toBe(6_001);
});

test('who dies while a day is excluded leaves every write of the next three days as it was', async () => {
  await fillDefault();
  await client.query(`
    create function public.hold() returns event_trigger language plpgsql
      as $$ begin if current_query() ~ 'verify_excluded_days' then perform pg_sleep(3600); end if; end $$;
    create event trigger hold on ddl_command_start when tag in ('ALTER TABLE') execute function public.hold()`);
  const maker = await database.client();
  const making = ensurePartitions(maker, { today: false }).catch(() => 'died');
  const sleeping = `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'`;
  await expect.poll(async () => (await client.query(sleeping)).rowCount, { timeout: 20_000 }).toBe(1);
  expect(await making).toBe('died');
  expect(await excludedDays(client)).toEqual([4, 5, 6, 7].map(day));
  for (const hours of [0, 24, 48, 72])
    await client.query(
      `insert into belfry.outbox (at, source, op) values (clock_timestamp() + ${hours} * interval '1 hour', 'test', 'created')`,
    );
});

test('days that somebody excluded and then died can be written again, and are made', async () => {
  await client.query('select belfry.exclude_days($1)', [[day(2), day(3)]]);
  const late = `insert into belfry.outbox (at, source, op) values ('${day(2)} 12:00+00', 'test', 'created')`;
  await expect(client.query(late)).rejects.toMatchObject({ code: '23514' });
  expect((await ensurePartitions(client, { daysAhead: 2, today: false })).made).toContain(nameOf(2));
  expect(await excluded()).toBe(0);
  await client.query(late);
});

test('who can not lock the default partition makes nothing, and excludes nothing for longer than it tries', async () => {
  await fillDefault();
  await writer.query('begin');
  await insertEvent(writer, 'open');
  expect((await ensurePartitions(client, { today: false })).busy).toEqual([1, 2, 3, 4, 5, 6, 7].map(day));
  expect(await excluded()).toBe(0);
  await writer.query('commit');
});

test('two makers at the same time: each day once', async () => {
  const other = await database.client();
  const reports = await Promise.all([
    ensurePartitions(client, { today: true }),
    ensurePartitions(other, { today: true }),
  ]);
  expect(reports.flatMap((report) => report.busy)).toEqual([]);
  expect(reports.flatMap((report) => report.made).toSorted()).toEqual([0, 1, 2, 3, 4, 5, 6, 7].map(nameOf));
});

test('old days are dropped, young ones and unread ones are not', async () => {
  const old = await pastDay(-9, 100);
  const young = await pastDay(-3, 100);
  await readEverything();
  const unread = await pastDay(-8, 100);
  expect(await dropOldPartitions(client, { retentionMs: 5 * dayMs })).toEqual({
    dropped: [old],
    unread: [unread],
    busy: [],
    deleted: 0,
  });
  await readEverything();
  expect((await dropOldPartitions(client, { retentionMs: 5 * dayMs })).dropped).toEqual([unread]);
  expect(await countIn('outbox')).toBe(100);
  expect(await countIn(young)).toBe(100);
});

test('whether a day is old is told by its end: its rows are not looked through', async () => {
  const name = await pastDay(-9, 5_000);
  await readEverything();
  await client.query('begin');
  const { rows: relations } = await client.query<{ oid: string }>(
    `select c.oid from pg_class c where c.oid = $1::regclass or c.oid in (select indexrelid from pg_index where indrelid = $1::regclass)`,
    [`belfry.${name}`],
  );
  const { rows } = await client.query<{ outcome: string }>(
    `select belfry.drop_partition($1, interval '5 days') as outcome`,
    [name],
  );
  expect(rows).toEqual([{ outcome: 'dropped' }]);
  const { rows: read } = await client.query<{ rows: string }>(
    `select sum(pg_stat_get_xact_tuples_returned(oid) + pg_stat_get_xact_tuples_fetched(oid)) as rows from unnest($1::oid[]) oid`,
    [relations.map(({ oid }) => oid)],
  );
  expect(Number(read[0]?.rows)).toBeLessThan(10);
  await client.query('commit');
});

test('a day that a replay under way has not come past is kept', async () => {
  const name = await pastDay(-9, 10);
  await readEverything();
  const { rows } = await client.query<{ id: string }>(
    `insert into belfry.replay_job (mode, state) values ('deliver', 'running') returning id::text`,
  );
  expect(await dropOldPartitions(client, { retentionMs: 5 * dayMs })).toMatchObject({ dropped: [], unread: [name] });
  await client.query(`update belfry.replay_job set after_id = (select max(id) from belfry.outbox) where id = $1`, [
    rows[0]?.id,
  ]);
  expect((await dropOldPartitions(client, { retentionMs: 5 * dayMs })).dropped).toEqual([name]);
});

test('a transaction that still writes into an old day keeps it', async () => {
  const name = await pastDay(-9, 1);
  await readEverything();
  await writer.query('begin');
  await writer.query(`insert into belfry.outbox (at, source, op) values ('${day(-9)} 13:00+00', 'test', 'created')`);
  expect(await dropOldPartitions(client, { retentionMs: 5 * dayMs })).toMatchObject({ dropped: [], busy: [name] });
  await writer.query('commit');
  expect(await dropOldPartitions(client, { retentionMs: 5 * dayMs })).toMatchObject({ dropped: [], unread: [name] });
  await readEverything();
  expect((await dropOldPartitions(client, { retentionMs: 5 * dayMs })).dropped).toEqual([name]);
});

test('nobody who writes waits longer than 200 ms for a drop, not even beside a long reader', { retry: 2 }, async () => {
  await ensurePartitions(client, { today: true });
  const name = await pastDay(-9, 20_000);
  await readEverything();
  const reader = await database.client();
  await reader.query('begin isolation level repeatable read');
  await reader.query('select count(*) from belfry.outbox');
  const waits: number[] = [];
  let over = false;
  const writing = (async () => {
    for (let i = 0; !over; i += 1) {
      const start = performance.now();
      await insertEvent(writer, i);
      waits.push(performance.now() - start);
    }
  })();
  expect(await dropOldPartitions(client, { retentionMs: 5 * dayMs })).toMatchObject({ dropped: [], busy: [name] });
  await reader.query('commit');
  expect((await dropOldPartitions(client, { retentionMs: 5 * dayMs })).dropped).toEqual([name]);
  over = true;
  await writing;
  expect(Math.max(...waits)).toBeLessThan(200);
});

test('old rows of the default partition are deleted as far as they were read', async () => {
  await client.query(
    `insert into belfry.outbox (at, source, op) select clock_timestamp() - interval '9 days', 'test', 'created' from generate_series(1, 12000)`,
  );
  await insertEvent(client, 'young');
  await readEverything();
  await client.query(
    `insert into belfry.outbox (at, source, op) values (clock_timestamp() - interval '9 days', 'test', 'created')`,
  );
  expect((await dropOldPartitions(client, { retentionMs: 5 * dayMs })).deleted).toBe(12_000);
  expect(await countIn('outbox_default')).toBe(2);
});

test('old rows of the default partition stay while a replay has still to read them', async () => {
  await client.query(
    `insert into belfry.outbox (at, source, op) select '${day(-9)} 12:00+00', 'test', 'created' from generate_series(1, 3)`,
  );
  await readEverything();
  await client.query(
    `insert into belfry.replay_job (mode, filter, after_id) select 'deliver', '{}', min(id) from belfry.outbox_default`,
  );
  expect((await dropOldPartitions(client, { retentionMs: 5 * dayMs })).deleted).toBe(1);
  await client.query(`update belfry.replay_job set state = 'done'`);
  expect((await dropOldPartitions(client, { retentionMs: 5 * dayMs })).deleted).toBe(2);
});
