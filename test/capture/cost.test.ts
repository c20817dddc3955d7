/** What capture costs a transaction: one ring, a few subtransactions, and no time that grows faster than its rows. */
import type pg from 'pg';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DOORBELL_KEY } from '../../src/capture/body.js';
import { effectiveWakeup } from '../../src/capture/bell.js';
import type { TestDatabase } from '../support/postgres.js';
import { captureConfig, captureDatabase, install, source, takeOps, takeOutbox } from './support.js';

const tables = `
  create table public.events (id bigint, user_id bigint, note text);
  create table public.exact (id bigint, user_id bigint);
`;
const sources = source('event', 'public.events') + source('exact', 'public.exact', 'onError: strict');
const config = captureConfig(sources);
const insert = 'insert into public.events values (1, 7)';

let db: TestDatabase;
beforeEach(async () => {
  db = await captureDatabase(tables, config);
});
afterEach(() => db.drop());

/** Counts notifications on channel belfry until a marker, which is sent last, has arrived. */
async function ringsDuring(work: () => Promise<unknown>): Promise<number> {
  const listener = await db.client();
  let rings = 0;
  const done = new Promise<void>((resolve) => {
    listener.on('notification', ({ channel }) => {
      if (channel === 'belfry') rings += 1;
      else resolve();
    });
  });
  await listener.query('listen belfry; listen belfry_marker');
  await work();
  await db.pool.query('notify belfry_marker');
  await done;
  await listener.end();
  return rings;
}

/** As a relay that sleeps: holds the doorbell's lock. */
async function asleep<T>(work: () => Promise<T>): Promise<T> {
  const relay = await db.client();
  await relay.query('begin');
  const { rows } = await relay.query<{ locked: boolean }>(
    `select pg_try_advisory_xact_lock(${DOORBELL_KEY}) as locked`,
  );
  expect(rows[0]?.locked).toBe(true);
  try {
    return await work();
  } finally {
    await relay.query('rollback');
  }
}

async function calls(session: pg.ClientBase): Promise<number> {
  const { rows } = await session.query<{ calls: string }>(
    `select coalesce(sum(calls), 0) as calls from pg_stat_xact_user_functions where funcname = 'ring'`,
  );
  return Number(rows[0]?.calls);
}

describe('rings', () => {
  it('a relay that is awake is not rung for', async () => {
    expect(
      await ringsDuring(() =>
        db.pool.query(`${insert}; update public.events set user_id = 8; insert into public.exact values (1, 1)`),
      ),
    ).toBe(0);
  });

  it('a sleeping relay is rung for once a transaction, by the first capture only', async () => {
    const session = await db.client();
    await session.query(`set track_functions = 'all'`);
    await asleep(async () => {
      const rings = await ringsDuring(async () => {
        await session.query('begin');
        for (let i = 0; i < 50; i += 1) await session.query(insert);
        await session.query('insert into public.exact values (1, 1)');
        expect(await calls(session)).toBe(1);
        await session.query('commit');
        await session.query('insert into public.exact values (2, 2)');
      });
      expect(rings).toBe(2);
    });
  });

  it('a write that is no event rings nobody', async () => {
    await db.pool.query(insert);
    await asleep(async () => {
      expect(
        await ringsDuring(() =>
          db.pool.query(`update public.events set note = 'x'; delete from public.events where id = 99`),
        ),
      ).toBe(0);
    });
  });

  it('a ring that a savepoint took back is rung again', async () => {
    await asleep(async () => {
      const session = await db.client();
      const rings = await ringsDuring(() =>
        session.query(`begin; savepoint s; ${insert}; rollback to s; ${insert}; commit`),
      );
      expect(rings).toBe(1);
    });
    expect(await takeOps(db.pool)).toEqual(['created']);
  });

  it('a lock that a savepoint took back is taken again', async () => {
    const session = await db.client();
    await session.query(`begin; savepoint s; ${insert}; rollback to s; ${insert}`);
    const { rows } = await db.pool.query(
      `select 1 from pg_locks where locktype = 'advisory' and mode = 'ShareLock' and database = (select oid from pg_database where datname = current_database())`,
    );
    expect(rows).toHaveLength(1);
    await session.query('commit');
  });

  it('wakeup: poll never rings, neither do the SQL functions; changing it back rings', async () => {
    const poll = captureConfig(sources, '', '{ url: postgres://unused, wakeup: poll }');
    const { changed } = await install(db, poll);
    expect(changed.filter((line) => line.includes('trigger '))).toEqual([]);
    const writes = `${insert}; select belfry.announce('x')`;
    expect(await asleep(() => ringsDuring(() => db.pool.query(writes)))).toBe(0);
    await install(db, config);
    expect(await asleep(() => ringsDuring(() => db.pool.query(writes)))).toBe(1);
  });

  it('prepared transactions choose poll', () => {
    expect([effectiveWakeup('notify', 0), effectiveWakeup('poll', 0), effectiveWakeup('notify', 5)]).toEqual([
      'notify',
      'poll',
      'poll',
    ]);
  });
});

describe('bounds', () => {
  it('a transaction of 200 captured statements has at most 8 subtransactions, and loses none', async () => {
    const session = await db.client();
    await session.query('begin');
    for (let i = 0; i < 200; i += 1) await session.query(insert);
    const { rows } = await session.query<{ version: number; pid: number }>(
      `select current_setting('server_version_num')::int as version, pg_backend_pid() as pid`,
    );
    if ((rows[0]?.version ?? 0) >= 160_000) {
      const stats = await db.pool.query<{ count: number; overflowed: boolean }>(
        `select s.subxact_count as count, s.subxact_overflowed as overflowed
           from pg_stat_get_backend_idset() b, pg_stat_get_backend_subxact(b) s where pg_stat_get_backend_pid(b) = $1`,
        [rows[0]?.pid],
      );
      expect(stats.rows).toEqual([{ count: 8, overflowed: false }]);
    }
    await session.query('commit');
    expect(await takeOps(db.pool)).toHaveLength(200);
  });

  it('what was counted ends with the transaction', async () => {
    const session = await db.client();
    await session.query(`begin; ${insert}; ${insert}; commit`);
    const { rows } = await session.query<{ captures: string }>(
      `select current_setting('belfry.captures', true) as captures`,
    );
    expect(rows[0]?.captures).toBe('');
  });

  it('a transaction that an earlier version counted on to 32 loses none', async () => {
    const session = await db.client();
    await session.query(`begin; set local belfry.captures = '${'.'.repeat(20)}'; ${insert}; ${insert}; commit`);
    expect(await takeOps(db.pool)).toHaveLength(2);
  });

  it('a setting that somebody filled with nonsense breaks nothing', async () => {
    const session = await db.client();
    for (const nonsense of ['x', '99999', 'lost', 'a'.repeat(7), 'a'.repeat(200)]) {
      await session.query(
        `begin; set local belfry.captures = '${nonsense}'; ${insert}; insert into public.exact values (1, 1); commit`,
      );
    }
    expect((await takeOutbox(db.pool)).filter((row) => row.source === 'exact')).toHaveLength(5);
  });

  it('200,000 rows in one statement, with plans made for one row', { timeout: 120_000 }, async () => {
    const session = await db.client();
    await session.query(`set statement_timeout = '30s'`);
    // Each in a transaction of its own, since the first capture of one has a path, and so a plan, of its own.
    for (const sql of [insert, 'update public.events set user_id = 8', 'delete from public.events'])
      await session.query(sql);
    await takeOutbox(db.pool);
    const rows = 200_000;
    const count = async (): Promise<number> => {
      const result = await db.pool.query<{ n: number }>(
        'with gone as (delete from belfry.outbox returning 1) select count(*)::int as n from gone',
      );
      return result.rows[0]?.n ?? 0;
    };
    await session.query(`insert into public.events select n, n, 'x' from generate_series(1, ${rows}) n`);
    expect(await count()).toBe(rows);
    await session.query('update public.events set user_id = user_id + 1');
    expect(await count()).toBe(rows);
    await session.query(`update public.events set note = 'y'`);
    expect(await count()).toBe(0);
    await session.query('delete from public.events');
    expect(await count()).toBe(rows);
  });

  it('large columns that are not mapped are not read', async () => {
    await db.pool.query(`alter table public.events alter note set storage external;
      insert into public.events select n, n, repeat(md5(n::text), 2000) from generate_series(1, 20) n`);
    await db.pool.query('vacuum public.events');
    const session = await db.client();
    const toastReads = async (): Promise<number> => {
      await session.query('select pg_stat_force_next_flush()').catch(() => undefined);
      const { rows } = await session.query<{ reads: string }>(
        `select coalesce(toast_blks_hit, 0) + coalesce(toast_blks_read, 0) as reads from pg_statio_user_tables where relname = 'events'`,
      );
      return Number(rows[0]?.reads);
    };
    const { rows } = await session.query<{ v: number }>(`select current_setting('server_version_num')::int as v`);
    // Before 15 statistics arrive through a collector, whenever they do.
    if ((rows[0]?.v ?? 0) < 150_000) return;
    const before = await toastReads();
    await session.query('update public.events set user_id = user_id + 1');
    expect(await toastReads()).toBe(before);
    expect((await takeOps(db.pool)).filter((op) => op === 'changed')).toHaveLength(20);
    await session.query('select sum(length(note)) from public.events');
    expect(await toastReads()).toBeGreaterThan(before);
  });
});
