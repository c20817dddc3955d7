/** The lease: one leader a term, whatever freezes, races or dies. */
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { fence, Lease } from '../../src/outbox/lease.js';
import { connect, createPool } from '../../src/postgres/connect.js';
import { startScript } from '../support/program.js';
import { createTestDatabase, withUser, type TestDatabase } from '../support/postgres.js';
import { eventually, testLog, type Log } from './rig.js';

let database: TestDatabase;
const pools: pg.Pool[] = [];

beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(() => database.drop());
beforeEach(() =>
  database.pool.query(
    `update belfry.relay set lease_until = '-infinity', leader = null, backends = '[]', paused = false, max_id = 0`,
  ),
);
afterEach(async () => {
  await Promise.all(pools.splice(0).map((pool) => pool.end()));
});

function newLease(
  leader: string,
  {
    url = database.url,
    ...options
  }: {
    readonly url?: string;
    readonly ttlMs?: number;
    readonly backends?: () => readonly number[];
    readonly now?: () => number;
    readonly log?: Log;
  } = {},
): Lease {
  const pool = createPool(url, { applicationName: 'belfry lease', max: 1, session: Lease.session });
  pools.push(pool);
  return new Lease({ pool, leader, backends: () => [], log: testLog(), ...options });
}

async function pidOf(client: pg.Client): Promise<number> {
  return (await client.query<{ pid: number }>('select pg_backend_pid() as pid')).rows[0]?.pid ?? 0;
}

async function alive(pid: number): Promise<boolean> {
  return ((await database.pool.query('select from pg_stat_activity where pid = $1', [pid])).rowCount ?? 0) > 0;
}

describe('who leads', () => {
  test('the first one; the second not until the first resigns, which it then does at once', async () => {
    const a = newLease('a');
    const b = newLease('b');
    const first = await a.acquire();
    expect(first).toMatchObject({ paused: false, cursor: { target: null, afterId: '0' } });
    expect(a.term).toBe(first?.term);
    expect(await b.acquire()).toBeNull();
    expect(b.trusted()).toBe(false);
    await a.resign();
    expect(a.term).toBeNull();
    const second = await b.acquire();
    expect(BigInt(second?.term ?? 0)).toBe(BigInt(first?.term ?? 0) + 1n);
    await a.resign();
    expect(await b.renew()).toEqual({ paused: false, asked: false });
  });

  test('of twelve that try at the same moment exactly one, ten times over', async () => {
    const leases = Array.from({ length: 12 }, (_, i) => newLease(`racer ${i}`));
    await Promise.all(leases.map((lease) => lease.acquire()));
    for (let round = 0; round < 10; round += 1) {
      await database.pool.query(`update belfry.relay set lease_until = '-infinity'`);
      const won = (await Promise.all(leases.map((lease) => lease.acquire()))).filter(
        (leadership) => leadership !== null,
      );
      expect(won).toHaveLength(1);
    }
  });

  test('at once when none of the sessions of the leader is there any more, and not while one is', async () => {
    const [left, right] = [await database.client(), await database.client()];
    const pids = [await pidOf(left), await pidOf(right)];
    const a = newLease('a', { backends: () => pids });
    const b = newLease('b');
    const first = await a.acquire();
    await left.end();
    await eventually(async () => !(await alive(pids[0] ?? 0)), 'the first session is gone');
    expect(await b.acquire()).toBeNull();
    await right.end();
    await eventually(async () => !(await alive(pids[1] ?? 0)), 'the second session is gone');
    const second = await b.acquire();
    expect(BigInt(second?.term ?? 0)).toBe(BigInt(first?.term ?? 0) + 1n);
    expect(await a.renew()).toBeNull();
  });

  test('after the ttl, by the clock of the database', async () => {
    const a = newLease('a', { ttlMs: 1_500 });
    const b = newLease('b');
    await a.acquire();
    expect(await b.acquire()).toBeNull();
    await eventually(async () => (await b.acquire()) !== null, 'takeover after the ttl', 5_000);
    expect(await a.renew()).toBeNull();
    expect(a.term).toBeNull();
    expect(await b.renew()).not.toBeNull();
  });

  test('a campaign ends with leadership, or with null when it is called off', async () => {
    const a = newLease('a');
    const b = newLease('b');
    await a.acquire();
    const won = b.campaign(new AbortController().signal);
    await a.resign();
    expect(await won).not.toBeNull();
    const stop = new AbortController();
    const never = newLease('c').campaign(stop.signal);
    stop.abort();
    expect(await never).toBeNull();
  });

  test('keep tells of a pause, and that the lease is lost', async () => {
    // A clock that is slow enough to be renewed at once: the margin leaves nothing of this ttl.
    const a = newLease('a', { ttlMs: 1_000 });
    await a.acquire();
    await database.pool.query('update belfry.relay set paused = true');
    const paused: boolean[] = [];
    const taken: Promise<unknown>[] = [];
    const kept = a.keep(new AbortController().signal, (now) => {
      paused.push(now);
      taken.push(database.pool.query('update belfry.relay set term = term + 1'));
    });
    expect(await kept).toBe('lost');
    expect(paused[0]).toBe(true);
    // Lest one of them takes the lease of the next test.
    await Promise.all(taken);
  });
});

describe('trust', () => {
  test('lasts from the start of the attempt for the ttl less a second, by a monotonic clock', async () => {
    let now = 1_000;
    const a = newLease('a', { now: () => now });
    expect(a.trusted()).toBe(false);
    await a.acquire();
    now = 7_999;
    expect(a.trusted()).toBe(true);
    now = 8_000;
    expect(a.trusted()).toBe(false);
    await a.renew();
    expect(a.trusted()).toBe(true);
    await a.resign();
    expect(a.trusted()).toBe(false);
  });
});

describe('a leader of a role whose sessions this one can neither look into nor end', () => {
  const role = `lease_${String(process.pid)}_${String(Date.now())}`;
  let url: string;
  let session: pg.Client;
  let pid: number;

  beforeAll(async () => {
    await database.pool.query(
      `create role ${role} login password 'x';
       grant usage on schema belfry to ${role};
       grant select, update on belfry.relay to ${role};
       grant select on belfry.replay_job to ${role}`,
    );
    url = withUser(database.url, role, 'x');
    session = await database.client();
    pid = await pidOf(session);
  });
  afterAll(async () => {
    await session.end();
    await database.pool.query(`drop owned by ${role}; drop role ${role}`);
  });

  test('leads until its lease ends by time', async () => {
    const a = newLease('a', { ttlMs: 1_500, backends: () => [pid] });
    const b = newLease('b', { url });
    await a.acquire();
    expect(await b.acquire()).toBeNull();
    await eventually(async () => (await b.acquire()) !== null, 'takeover after the ttl', 5_000);
  });

  test('is followed, and that its sessions live on is said', async () => {
    await database.pool.query(`grant pg_read_all_stats to ${role}`);
    const log = testLog();
    const a = newLease('a', { ttlMs: 1, backends: () => [pid] });
    const b = newLease('b', { url, log });
    await a.acquire();
    await eventually(async () => (await b.acquire()) !== null, 'takeover after the ttl', 5_000);
    expect(b.trusted()).toBe(true);
    expect(log.lines.find((line) => line.startsWith('may not end these sessions'))).toContain(`[${String(pid)}]`);
    expect(await alive(pid)).toBe(true);
    expect(await a.renew()).toBeNull();
  });
});

describe('takeover', () => {
  test('that can not see to the sessions of the old leader is given back, and tried again', async () => {
    const pool = createPool(database.url, { applicationName: 'belfry lease', max: 1, session: Lease.session });
    pools.push(pool);
    let cut = true;
    const query = pool.query.bind(pool) as (text: string, values: unknown[]) => Promise<unknown>;
    const cutOnce = Object.assign(Object.create(pool) as pg.Pool, {
      query: (text: string, values: unknown[]) => {
        if (!cut || !text.includes('where a.pid <>')) return query(text, values);
        cut = false;
        return Promise.reject(new Error('connection cut'));
      },
    });
    const old = await database.client();
    const pid = await pidOf(old);
    const b = new Lease({ pool: cutOnce, leader: 'b', backends: () => [], log: testLog() });
    await newLease('a', { ttlMs: 1, backends: () => [pid] }).acquire();
    await eventually(async () => {
      const { rows } = await database.pool.query('select from belfry.relay where lease_until < clock_timestamp()');
      return rows.length > 0;
    }, 'the lease is over');
    await expect(b.acquire()).rejects.toThrow('connection cut');
    expect([b.term, b.trusted()]).toEqual([null, false]);
    expect(await b.acquire()).not.toBeNull();
    await old.end().catch(() => undefined);
  });

  test('ends the sessions of the old leader, and only those that are still the same', async () => {
    const old = await connect(database.url, { applicationName: 'belfry old' });
    const stranger = await connect(database.url, { applicationName: 'belfry stranger' });
    const pids = { old: await pidOf(old), stranger: await pidOf(stranger) };
    const a = newLease('a', { ttlMs: 1, backends: () => [pids.old, pids.stranger] });
    await a.acquire();
    // The stranger got the pid of a session that ended: its start is another one.
    await database.pool.query(
      `update belfry.relay set backends = (
         select jsonb_agg(case when (b ->> 'pid')::int = $1 then jsonb_set(b, '{start}', '"2020-01-01T00:00:00Z"') else b end)
           from jsonb_array_elements(backends) b), lease_until = '-infinity'`,
      [pids.stranger],
    );
    expect(await newLease('b').acquire()).not.toBeNull();
    await eventually(async () => !(await alive(pids.old)), 'old session ended');
    expect(await alive(pids.stranger)).toBe(true);
    await stranger.end();
    await old.end().catch(() => undefined);
  });

  test('a frozen leader that holds the row is ended first, and what it had written is undone', async () => {
    const frozen = await connect(database.url, { applicationName: 'belfry frozen' });
    const pid = await pidOf(frozen);
    const a = newLease('a', { backends: () => [pid] });
    const first = await a.acquire();
    await frozen.query('begin');
    await frozen.query(`update belfry.relay set max_id = 4711 where ${fence(first?.term ?? '0')}`);
    await database.pool.query('select 1');
    // The lease ends while the row is locked: nobody can write it, so the frozen one wrote that itself.
    const b = newLease('b');
    expect(await b.acquire()).toBeNull();
    await frozen.query(`update belfry.relay set lease_until = '-infinity'`);
    await frozen.query('commit; begin');
    await frozen.query('update belfry.relay set max_id = 4712');
    const started = Date.now();
    const second = await b.acquire();
    expect(second?.cursor.maxId).toBe('4711');
    expect(Date.now() - started).toBeLessThan(3_000);
    expect(await alive(pid)).toBe(false);
    expect(await a.renew()).toBeNull();
    await frozen.end().catch(() => undefined);
  });

  test('the fence lets nothing of an older term through', async () => {
    const a = newLease('a', { ttlMs: 1 });
    const first = await a.acquire();
    const write = (term: string) =>
      database.pool.query(`update belfry.relay set read_at = clock_timestamp() where ${fence(term)}`);
    expect((await write(first?.term ?? '')).rowCount).toBe(1);
    await eventually(async () => (await newLease('b').acquire()) !== null, 'takeover');
    expect((await write(first?.term ?? '')).rowCount).toBe(0);
    expect(() => fence('1 or true')).toThrow();
  });

  test('a leader that is stopped within a batch: a standby takes over, the old one wakes up and does no harm', async () => {
    const program = startScript(leaderScript, { env: { URL: database.url } });
    try {
      await program.waitFor(/in a batch/);
      process.kill(program.pid, 'SIGSTOP');
      const b = newLease('b');
      const start = Date.now();
      const leadership = await b.campaign(new AbortController().signal);
      // Its lease of 1.5 s, a campaign's second and a lock_timeout.
      expect(Date.now() - start).toBeLessThan(6_000);
      expect(leadership?.cursor.maxId).toBe('0');
      process.kill(program.pid, 'SIGCONT');
      await program.waitFor(/batch failed/);
      expect((await program.waitFor(/lease (.*)/))[1]).toBe('lost');
      expect((await program.waitFor(/fenced (.*)/))[1]).toBe('0');
      expect(await b.renew()).not.toBeNull();
      const { rows } = await database.pool.query('select max_id::text from belfry.relay');
      expect(rows).toEqual([{ max_id: '0' }]);
    } finally {
      wakeUp(program.pid);
      await program.kill();
    }
  });
});

function wakeUp(pid: number): void {
  try {
    process.kill(pid, 'SIGCONT');
  } catch (error) {
    // It has told what it had to, and is gone.
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Leads with a lease of 1.5 s, opens a transaction that holds the row, and goes on when it is woken. */
const leaderScript = `
  import { connect, createPool } from './dist-test/postgres/connect.js';
  import { fence, Lease } from './dist-test/outbox/lease.js';
  const url = process.env.URL;
  const writer = await connect(url, { applicationName: 'belfry writer' });
  const { rows: [{ pid }] } = await writer.query('select pg_backend_pid() as pid');
  const pool = createPool(url, { applicationName: 'belfry lease', max: 1, session: Lease.session });
  const log = { info: () => undefined, warn: () => undefined };
  const lease = new Lease({ pool, leader: 'frozen', backends: () => [pid], log, ttlMs: 1500 });
  const { term } = await lease.acquire();
  await writer.query('begin');
  await writer.query('update belfry.relay set max_id = 99 where ' + fence(term));
  const alive = setInterval(() => undefined, 1000);
  process.once('SIGCONT', async () => {
    try {
      await writer.query('commit');
      console.log('batch stored');
    } catch (error) {
      console.log('batch failed ' + error.message);
    }
    console.log('lease ' + ((await lease.renew()) === null ? 'lost' : 'held'));
    const again = await connect(url, { applicationName: 'belfry writer' });
    const { rowCount } = await again.query('update belfry.relay set max_id = 99 where ' + fence(term));
    console.log('fenced ' + rowCount);
    await again.end();
    await pool.end();
    clearInterval(alive);
  });
  console.log('in a batch');
`;
