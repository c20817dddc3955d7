/**
 * Retention, rotation and replays together, under load: nothing is lost, nothing comes twice, and no writer waits for it.
 *
 * The outbox's clock is made to run fast (the default of `at`), so that days begin and grow old within seconds: they are made ahead and dropped
 * by the code that does so in production, beside writers, a relay in a process of its own, and one replay after another of all that is
 * still there. Takes BELFRY_TEST_SECONDS, ten minutes by default; prints what it measured.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { sqlState } from '../../src/errors.js';
import { dropOldPartitions } from '../../src/outbox/partitions.js';
import type { TestDatabase } from '../support/postgres.js';
import { prepareLoad } from './load.js';
import type { Load } from './load.js';

const seconds = Number(process.env['BELFRY_TEST_SECONDS'] ?? '600');
const writers = 8;
/** A day of the outbox. */
const daySeconds = 5;
const speed = 86_400 / daySeconds;
const keptDays = 2;
const mostMs = 200;
const sampleMs = 20;
const people = { owners: 20, likers: 50 } as const;
const posts = 1_000;

interface Write {
  readonly pid: number;
  readonly startMs: number;
  readonly ms: number;
}

/** A writer that was seen waiting for a lock. */
interface Wait {
  readonly pid: number;
  readonly atMs: number;
  readonly ms: number;
}

let load: Load;
let database: TestDatabase;
/** When the outbox's clock began, and what it showed then. */
let clock: { readonly began: number; readonly showed: number };

beforeAll(async () => {
  load = await prepareLoad(
    { owners: people.owners, likers: people.likers * writers, posts },
    { outbox: '3650d', inbox: '3650d', channels: '2s' },
  );
  ({ database } = load);
  // It ends before the days that the relay makes by itself.
  clock = { began: Date.now(), showed: Date.now() - (seconds / daySeconds + 15) * 86_400_000 };
  await load.client.query(
    `alter table belfry.outbox alter column at set default
       '${new Date(clock.showed).toISOString()}'::timestamptz + (clock_timestamp() - '${new Date(clock.began).toISOString()}'::timestamptz) * ${speed}`,
  );
  await load.start();
}, 120_000);

afterAll(() => load.stop());

const outboxNow = (): number => clock.showed + (Date.now() - clock.began) * speed;

it(`for ${seconds} s`, { timeout: (seconds + 300) * 1_000 }, async () => {
  const over = new AbortController();
  const timer = setTimeout(() => over.abort(), seconds * 1_000);
  const { signal } = over;
  const writes: Write[] = [];
  const waits: Wait[] = [];
  const rotation = { made: 0, dropped: 0, busy: 0, unread: 0 };
  const replays = { done: 0, processed: 0, delivered: 0, withdrawn: 0, failed: 0 };
  const work = [
    ...Array.from({ length: writers }, (_, i) => write(i, signal, writes)),
    rotate(signal, rotation),
    replay(signal, replays),
    watch(signal, waits),
  ];
  try {
    await Promise.all(work);
  } finally {
    // One that failed ends all of them.
    over.abort();
    clearTimeout(timer);
    await Promise.allSettled(work);
  }
  const { pool } = database;
  await expect
    .poll(async () => (await pool.query<{ events: string }>('select events from belfry.lag')).rows[0]?.events, {
      timeout: 120_000,
      interval: 200,
    })
    .toBe('0');

  const slow = writes.filter(({ ms }) => ms > mostMs);
  // By the sampler's clock, which may be late by a sample.
  const locked = slow.filter(({ pid, startMs, ms }) =>
    waits.some(
      (wait) => wait.pid === pid && wait.atMs > startMs && wait.atMs < startMs + ms + sampleMs && wait.ms > mostMs / 2,
    ),
  );
  const longest = (list: readonly { readonly ms: number }[]) =>
    Math.round(list.reduce((most, { ms }) => Math.max(most, ms), 0));
  const sorted = writes.map(({ ms }) => ms).sort((a, b) => a - b);
  process.stdout.write(
    `${JSON.stringify({
      seconds,
      writes: writes.length,
      p50: Math.round((sorted[sorted.length >> 1] ?? 0) * 10) / 10,
      p99: Math.round(sorted[Math.floor(sorted.length * 0.99)] ?? 0),
      longestWrite: longest(writes),
      slow: slow.length,
      slowForALock: locked.length,
      lockWaitsSeen: waits.length,
      longestLockWait: longest(waits),
      rotation,
      replays,
    })}\n`,
  );
  expect({
    lost: await count('belfry.lost'),
    repaired: await count('belfry.repair'),
    dead: await count('belfry.dead_event'),
  }).toEqual({
    lost: 0,
    repaired: 0,
    dead: 0,
  });
  expect(await wrong()).toEqual({ likes: 0, comments: 0, taken_back: 0, twice: 0, counters: 0, channels: 0 });
  expect(replays).toMatchObject({ delivered: 0, withdrawn: 0, failed: 0 });
  expect(replays.done).toBeGreaterThan(1);
  expect(replays.processed).toBeGreaterThan(writes.length);
  const days = seconds / daySeconds;
  expect(rotation.made).toBeGreaterThanOrEqual(Math.floor(days));
  expect(rotation.dropped).toBeGreaterThanOrEqual(Math.floor(days / 2) - keptDays);
  expect(locked).toEqual([]);
  expect(longest(waits)).toBeLessThan(mostMs);
});

/** Likes, takes some of them back, comments; some transactions stay open for a while, and some roll back. Each pair likes once. */
async function write(index: number, signal: AbortSignal, writes: Write[]): Promise<void> {
  const client = await database.client();
  await client.query(`set application_name = 'together writer'`);
  const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid');
  const pid = rows[0]?.pid ?? 0;
  const timed = async (sql: string, values?: readonly string[]): Promise<void> => {
    const startMs = performance.now();
    await client.query(sql, values === undefined ? undefined : [...values]);
    writes.push({ pid, startMs, ms: performance.now() - startMs });
  };
  const insertLike = 'insert into likes (user_id, post_id) values ($1, $2)';
  const insertComment = 'insert into comments (user_id, post_id, content) values ($1, $2, $3)';
  let liked = 0;
  const pair = (n: number): [string, string] => [
    load.likers[index * people.likers + (n % people.likers)] ?? '',
    load.postIds[Math.floor(n / people.likers) % posts] ?? '',
  ];
  for (let i = 0; !signal.aborted; i++) {
    const [user, post] = pair(liked);
    if (i % 30 === 7) {
      await client.query('begin');
      await timed(insertLike, [user, post]);
      await client.query('rollback');
    } else if (i % 30 === 19) {
      liked += 1;
      await client.query('begin');
      await timed(insertLike, [user, post]);
      await sleep(50 + Math.random() * 350);
      await timed(insertComment, [user, post, 'late']);
      await timed('commit');
    } else if (i % 4 === 1) await timed(insertComment, [user, post, 'a comment']);
    else if (i % 4 === 3 && liked > 10)
      // One of the last ten, or one that is gone already: then nothing happens.
      await timed(
        'delete from likes where user_id = $1 and post_id = $2',
        pair(liked - 1 - Math.floor(Math.random() * 10)),
      );
    else {
      liked += 1;
      await timed(insertLike, [user, post]);
    }
    await sleep(Math.random() * 20);
  }
}

/** Makes tomorrow and drops what is old, by the outbox's clock. */
async function rotate(
  signal: AbortSignal,
  rotation: { made: number; dropped: number; busy: number; unread: number },
): Promise<void> {
  const client = await database.client();
  while (!signal.aborted) {
    for (const ahead of [1, 2]) {
      const day = new Date(outboxNow() + ahead * 86_400_000).toISOString().slice(0, 10);
      const outcome = await makeDay(client, day);
      if (outcome === 'made' || outcome === 'busy') rotation[outcome] += 1;
    }
    const { dropped, busy, unread } = await dropOldPartitions(client, {
      retentionMs: Date.now() - outboxNow() + keptDays * 86_400_000,
    });
    rotation.dropped += dropped.length;
    rotation.busy += busy.length;
    rotation.unread += unread.length;
    await sleep(500);
  }
}

/** As ensurePartitions does, which knows the real clock only. */
async function makeDay(client: pg.Client, day: string): Promise<string> {
  await client.query(`begin; set local lock_timeout = '75ms'`);
  try {
    const { rows } = await client.query<{ outcome: string }>('select belfry.make_partition($1) as outcome', [day]);
    await client.query('commit');
    return rows[0]?.outcome ?? '';
  } catch (error) {
    await client.query('rollback');
    if (!['55P03', '40P01', '23514'].includes(sqlState(error) ?? '')) throw error;
    return 'busy';
  }
}

/** One after the other, of everything that is there. */
async function replay(
  signal: AbortSignal,
  sum: { done: number; processed: number; delivered: number; withdrawn: number; failed: number },
): Promise<void> {
  const client = await database.client();
  while (!signal.aborted) {
    const { rows } = await client.query<{ id: string }>('select belfry.replay()::text as id');
    const id = rows[0]?.id ?? '';
    const job = async () =>
      (
        await client.query<{ state: string; error: string | null } & Record<keyof typeof sum, number>>(
          `select state, error, processed::int, delivered::int, withdrawn::int, failed::int from belfry.replay_job where id = $1`,
          [id],
        )
      ).rows[0];
    let now = await job();
    while (now !== undefined && ['waiting', 'running'].includes(now.state)) {
      await sleep(100);
      now = await job();
    }
    expect(now).toMatchObject({ state: 'done', error: null });
    sum.done += 1;
    sum.processed += now?.processed ?? 0;
    sum.delivered += now?.delivered ?? 0;
    sum.withdrawn += now?.withdrawn ?? 0;
    sum.failed += now?.failed ?? 0;
    await sleep(500);
  }
}

/** Looks which writers wait for a lock, and for how long already. */
async function watch(signal: AbortSignal, waits: Wait[]): Promise<void> {
  const client = await database.client();
  while (!signal.aborted) {
    const { rows } = await client.query<{ pid: number; ms: number }>(
      `select l.pid, extract(epoch from clock_timestamp() - l.waitstart)::float8 * 1000 as ms
         from pg_locks l join pg_stat_activity a using (pid)
        where not l.granted and l.waitstart is not null and a.application_name = 'together writer'`,
    );
    const atMs = performance.now();
    for (const { pid, ms } of rows) waits.push({ pid, atMs, ms });
    await sleep(sampleMs);
  }
}

async function count(table: string): Promise<number> {
  return (await database.pool.query<{ n: number }>(`select count(*)::int as n from ${table}`)).rows[0]?.n ?? NaN;
}

/** How much in the inboxes, counters and channels is not as the tables say. */
async function wrong(): Promise<Record<string, number> | undefined> {
  const has = (source: string, key: string) =>
    `(select count(*) from belfry.notification_event e where e.source = '${source}' and e.key = ${key} and e.removed_at is null)`;
  const like = `json_build_array(l.user_id::text, l.post_id::text)::text`;
  const { rows } = await database.pool.query<Record<string, number>>(`
    select (select count(*)::int from likes l where ${has('post_like', like)} <> 1) as likes,
           (select count(*)::int from comments c where ${has('post_comment', 'json_build_array(c.id::text)::text')} <> 1) as comments,
           (select count(*)::int from belfry.notification_event e where e.source = 'post_like' and e.removed_at is null
              and not exists (select from likes l where ${like} = e.key)) as taken_back,
           (select count(*)::int from (select from belfry.notification_event group by source, key, user_id having count(*) > 1) t) as twice,
           (select count(*)::int from posts p
             where (select count(*) from likes l where l.post_id = p.id)
                <> coalesce((select c.count from belfry.counter c where c.source = 'post_like' and c.object_id = p.id::text), 0)
                or (select count(*) from comments l where l.post_id = p.id)
                <> coalesce((select c.count from belfry.counter c where c.source = 'post_comment' and c.object_id = p.id::text), 0)) as counters,
           (select count(*)::int from posts p
             where (select count(*) from comments l where l.post_id = p.id)
                <> coalesce((select h."offset" from belfry.channel_head h where h.channel = 'post:' || p.id), 0)) as channels`);
  return rows[0];
}
