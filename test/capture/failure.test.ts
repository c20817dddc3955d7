/** Capture is never the reason that a backend's write fails or waits (onError: available), and says what was lost. */
import type pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { sqlState } from '../../src/errors.js';
import type { TestDatabase } from '../support/postgres.js';
import { captureConfig, captureDatabase, install, source, takeLost, takeOps, takeOutbox } from './support.js';

/** CONTRACT: no write waits longer for Belfry. */
const BOUND_MS = 300;

const tables = `
  create table public.events (id bigint, user_id bigint, note text, kind text default 'x');
  create table public.others (id bigint, user_id bigint);
  create table public.exact (id bigint, user_id bigint);
`;
const config = captureConfig(
  source('event', 'public.events', 'include: [note], when: "length(kind) > 0"') +
    source('other', 'public.others') +
    source('exact', 'public.exact', 'onError: strict'),
);

let db: TestDatabase;

beforeEach(async () => {
  db = await captureDatabase(tables, config);
  return () => db.drop();
});

/** Runs it; returns how long it took. Throws what it throws. */
async function timed(client: pg.ClientBase | pg.Pool, sql: string): Promise<number> {
  const start = performance.now();
  await client.query(sql);
  return performance.now() - start;
}

const insert = 'insert into public.events (id, user_id, note) values (1, 7, null)';

describe('columns that change under the trigger', () => {
  // Each session has used the trigger before, so that its plans are kept.
  for (const [what, change, expected] of [
    ['dropped', 'alter table public.events drop column note', null],
    ['renamed', 'alter table public.events rename column note to remark', null],
    ['retyped', 'alter table public.events alter column note type int using 5', 5],
    [
      'dropped and made again',
      'alter table public.events drop column note; alter table public.events add note date default $$2026-01-02$$',
      '2026-01-02',
    ],
  ] as const) {
    it(`a ${what} column: the write succeeds, the rest is captured`, async () => {
      const session = await db.client();
      for (let i = 0; i < 8; i += 1) await session.query(insert);
      await session.query('update public.events set user_id = 8; delete from public.events');
      await takeOutbox(db.pool);
      await db.pool.query(change);
      const value = what === 'retyped' ? ', note) values (1, 7, 5)' : ') values (1, 7)';
      await session.query(`insert into public.events (id, user_id${value}`);
      await session.query('update public.events set user_id = 8');
      await session.query('delete from public.events');
      expect(await takeOutbox(db.pool)).toEqual([
        { source: 'event', op: 'created', new: { id: 1, user_id: 7, note: expected }, old: null },
        {
          source: 'event',
          op: 'changed',
          new: { id: 1, user_id: 8, note: expected },
          old: { id: 1, user_id: 7, note: expected },
        },
        { source: 'event', op: 'removed', new: null, old: { id: 1, user_id: 8, note: expected } },
      ]);
      expect(await takeLost(db.pool)).toEqual([]);
    });
  }

  it('a dropped column past the guarded captures, and in mode strict', async () => {
    const session = await db.client();
    await session.query('insert into public.exact values (1, 1)');
    await db.pool.query('alter table public.events drop column note; alter table public.exact drop column user_id');
    await session.query('begin');
    for (let i = 0; i < 40; i += 1) await session.query('insert into public.others values (1, 1)');
    await session.query('insert into public.events (id, user_id) values (1, 7)');
    await session.query('insert into public.exact values (1)');
    await session.query('commit');
    const rows = await takeOutbox(db.pool);
    expect(rows.slice(-2).map((row) => row.new)).toEqual([
      { id: 1, user_id: 7, note: null },
      { id: 1, user_id: null },
    ]);
  });

  it('a dropped column that `when` names counts as null', async () => {
    const session = await db.client();
    await session.query(insert);
    await db.pool.query('alter table public.events drop column kind');
    await session.query(insert);
    expect(await takeOps(db.pool)).toEqual(['created']);
    expect(await takeLost(db.pool)).toEqual([]);
  });
});

describe('the outbox can not be written', () => {
  it('dropped: the write succeeds at once and the loss is recorded, once per source and transaction', async () => {
    await db.pool.query('drop table belfry.outbox cascade');
    const session = await db.client();
    expect(await timed(session, insert)).toBeLessThan(BOUND_MS);
    expect(await takeLost(db.pool)).toEqual(['event 42P01']);
    await session.query(
      `begin; ${insert}; ${insert}; insert into public.others values (1, 1); update public.events set user_id = 9; commit`,
    );
    expect(await takeLost(db.pool)).toEqual(['event 42P01', 'other 42P01']);
    const written = await db.pool.query('select from public.events');
    expect(written.rowCount).toBe(3);
  });

  it('dropped with belfry.lost: the write succeeds, nothing is said', async () => {
    await db.pool.query('drop table belfry.outbox cascade; drop table belfry.lost');
    expect(
      await timed(db.pool, `begin; ${insert}; ${insert}; insert into public.others values (1, 1); commit`),
    ).toBeLessThan(BOUND_MS);
    expect((await db.pool.query('select from public.events')).rowCount).toBe(2);
  });

  it('dropped in mode strict: the write fails', async () => {
    await db.pool.query('drop table belfry.outbox cascade');
    await expect(db.pool.query('insert into public.exact values (1, 1)')).rejects.toThrow('belfry.outbox');
  });

  it('locked by somebody: every write of a transaction returns within the bound, the first one says why', async () => {
    const holder = await db.client();
    await holder.query('begin; lock table belfry.outbox in access exclusive mode');
    const session = await db.client();
    await session.query('begin');
    const times: number[] = [];
    for (const sql of [insert, insert, 'insert into public.others values (1, 1)'])
      times.push(await timed(session, sql));
    await session.query('commit');
    await holder.query('rollback');
    expect(Math.max(...times)).toBeLessThan(BOUND_MS);
    expect(times[1]).toBeLessThan(100);
    expect(await takeLost(db.pool)).toEqual(['event 55P03', 'other 55P03']);
    // The next transaction is captured again.
    await session.query(insert);
    expect(await takeOps(db.pool)).toEqual(['created']);
  });

  it('locked, with the backend having a longer lock_timeout of its own', async () => {
    const holder = await db.client();
    await holder.query('begin; lock table belfry.outbox in access exclusive mode');
    const session = await db.client();
    await session.query(`set lock_timeout = '20s'`);
    expect(await timed(session, insert)).toBeLessThan(BOUND_MS);
    const { rows } = await session.query<{ lock_timeout: string }>('show lock_timeout');
    expect(rows[0]?.lock_timeout).toBe('20s');
    await holder.query('rollback');
  });

  it('locked together with belfry.lost: within the bound, nothing is said', async () => {
    const holder = await db.client();
    await holder.query('begin; lock table belfry.outbox, belfry.lost in access exclusive mode');
    const session = await db.client();
    await session.query('begin');
    const times: number[] = [];
    for (const sql of [insert, insert, 'insert into public.others values (1, 1)'])
      times.push(await timed(session, sql));
    await session.query('commit');
    await holder.query('rollback');
    expect(Math.max(...times)).toBeLessThan(BOUND_MS);
    expect(await takeLost(db.pool)).toEqual([]);
    expect((await db.pool.query('select from public.events')).rowCount).toBe(2);
  });

  it('a partition of the outbox locked', async () => {
    const holder = await db.client();
    await holder.query('begin; lock table belfry.outbox_default in access exclusive mode');
    expect(await timed(db.pool, insert)).toBeLessThan(BOUND_MS);
    await holder.query('rollback');
    expect(await takeLost(db.pool)).toEqual(['event 55P03']);
  });

  it('a failure in a savepoint that is rolled back is forgotten with it', async () => {
    const session = await db.client();
    const holder = await db.client();
    await session.query('begin; savepoint s');
    await holder.query('begin; lock table belfry.outbox in access exclusive mode');
    await session.query(insert);
    await holder.query('rollback');
    await session.query('rollback to s');
    await session.query(insert);
    await session.query('commit');
    expect([await takeOps(db.pool), await takeLost(db.pool)]).toEqual([['created'], []]);
  });
});

describe('what is not caught', () => {
  it("statement_timeout passes through: it is the backend's own", async () => {
    const holder = await db.client();
    await holder.query('begin; lock table belfry.outbox in access exclusive mode');
    const session = await db.client();
    await session.query(`set statement_timeout = '50ms'`);
    const error: unknown = await session.query(insert).catch((caught: unknown) => caught);
    expect(sqlState(error)).toBe('57014');
    await holder.query('rollback');
    expect(await takeLost(db.pool)).toEqual([]);
  });
});

describe('a condition that fails on the data', () => {
  const failing = captureConfig(
    source('event', 'public.events', 'when: "note::int > 0"') + source('other', 'public.others'),
  );
  beforeEach(async () => {
    await install(db, failing);
  });

  it('guarded and past the guarded captures: the write succeeds, the loss is recorded', async () => {
    const bad = `insert into public.events values (1, 1, 'no number')`;
    await db.pool.query(bad);
    expect(await takeLost(db.pool)).toEqual(['event 22P02']);
    const session = await db.client();
    await session.query('begin');
    for (let i = 0; i < 40; i += 1) await session.query('insert into public.others values (1, 1)');
    await session.query(bad);
    await session.query(bad);
    await session.query('insert into public.others values (1, 1)');
    await session.query('commit');
    expect(await takeLost(db.pool)).toEqual(['event 22P02', 'other 22P02']);
    expect(await takeOps(db.pool)).toHaveLength(40);
  });
});

describe('rights', () => {
  const role = `belfry_test_backend_${process.pid}`;

  beforeAll(async () => {
    await onServer(`drop role if exists ${role}; create role ${role} nologin`);
  });
  afterAll(() => onServer(`drop role ${role}`));

  async function onServer(sql: string): Promise<void> {
    const other = await captureDatabase('select 1', captureConfig(' []'));
    await other.pool.query(sql);
    await other.drop();
  }

  it('a backend without any right on schema belfry writes unhindered', async () => {
    await db.pool.query(`grant all on public.events to ${role}`);
    const session = await db.client();
    await session.query(`set role ${role}`);
    await session.query(
      `${insert}; update public.events set user_id = 8; delete from public.events; truncate public.events`,
    );
    await expect(session.query('select from belfry.outbox')).rejects.toThrow('permission denied');
    expect(await takeOps(db.pool)).toEqual(['created', 'changed', 'removed', 'truncated']);
    expect(await takeLost(db.pool)).toEqual([]);
    await db.pool.query(`revoke all on public.events from ${role}`);
  });

  it('the functions belong to belfry_capture, which may insert into outbox and lost and no more', async () => {
    const { rows } = await db.pool.query<{ owner: string; definer: boolean; open: boolean }>(
      `select distinct pg_get_userbyid(proowner) as owner, prosecdef as definer,
              has_function_privilege('${role}', oid, 'execute') as open
         from pg_proc where pronamespace = 'belfry'::regnamespace and proname like 'capture%'`,
    );
    expect(rows).toEqual([{ owner: 'belfry_capture', definer: true, open: false }]);
    const session = await db.client();
    await session.query('set role belfry_capture');
    for (const sql of [
      'select from belfry.outbox',
      'delete from belfry.outbox',
      'select from public.events',
      'create table belfry.x ()',
      'select from belfry.relay',
    ]) {
      await expect(session.query(sql), sql).rejects.toThrow('permission denied');
    }
  });

  it('objects that a backend puts in its way are not used', async () => {
    await db.pool.query(
      `grant all on public.events to ${role}; create schema trap; grant all on schema trap to ${role}, public`,
    );
    const session = await db.client();
    await session.query(`set role ${role}; set search_path = trap, pg_temp, pg_catalog, public`);
    await session.query(`
      create function trap.length(text) returns int language sql as 'select -1';
      create function trap.current_setting(text, boolean) returns text language sql as $$select 'off'$$;
      create temp table belfry_new (id int);
      create temp table outbox (id int)`);
    await session.query(insert);
    expect((await takeOutbox(db.pool)).map((row) => row.new)).toEqual([{ id: 1, user_id: 7, note: null }]);
    await session.query('reset role; drop schema trap cascade');
    await db.pool.query(`revoke all on public.events from ${role}`);
  });
});
