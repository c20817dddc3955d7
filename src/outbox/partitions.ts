/**
 * Days of the outbox: made a week ahead, dropped once they are old and read.
 *
 * What must hold:
 * - No writer waits longer than 200 ms for a lock that is taken here: the lock_timeout is 75 ms, and a drop takes two locks. It is retried a few
 *   times; what can't be locked even then is left for the next run.
 * - What needs the owner's rights is done by functions that run with them (migrations/0010_operate.sql, 0018_heads_and_days.sql).
 * - A partition is made with LIKE and ATTACH (SHARE UPDATE EXCLUSIVE on the parent); PARTITION OF would take ACCESS EXCLUSIVE.
 *   Without its own identity: since Postgres 17 a table that has one can't be attached.
 * - A partition is dropped only when every row in it was read (by the relay's cursor and by replays under way) and nobody can add one:
 *   checked under the lock that the drop needs anyway.
 * - Attaching a day scans the default partition while nobody can write. Where that is large, a CHECK constraint that excludes the day is put
 *   on it first and validated while everybody writes: it saves the scan. While the constraint stands nothing of that day can be written, and
 *   the process that made it may die. So it is used only for days that begin in three days or later (nearer ones stay in the default
 *   partition), every run first drops constraints that were left, and doctor names them.
 * - A day that has rows in the default partition can't be attached beside them. A few rows are moved in the same transaction, with their
 *   xid, so that the cursor still reads each once; many stay where they are, and are deleted there once they are old.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { sqlState } from '../errors.js';
import { inTransaction } from '../postgres/transaction.js';
import { unreadSql } from './cursor.js';

export interface PartitionsReport {
  /** Names of the partitions that were made now. */
  readonly made: readonly string[];
  /** Days (YYYY-MM-DD, UTC) that stay in the default partition: too many rows in it, of the day or at all, not to make writers wait. */
  readonly left: readonly string[];
  /** Partitions or days that could not be locked in time; the next run tries again. */
  readonly busy: readonly string[];
}

export interface PruneReport {
  readonly dropped: readonly string[];
  /** Old rows deleted from the default partition. */
  readonly deleted: number;
  /** Old, but not dropped: not read yet, or still to be replayed. */
  readonly unread: readonly string[];
  /** Old and read, but a lock could not be had in time. */
  readonly busy: readonly string[];
}

const lockTimeoutMs = 75;
const attempts = 5;
const retryMs = 200;
/** Rows deleted from the default partition in one statement, and statements per run. */
const deleteRows = 5_000;
const deleteRounds = 100;
const dayMs = 86_400_000;
/** A day is not attached this shortly before it begins: it might have begun by then. */
const leadMs = 60_000;
const defaultDaysAhead = 7;
/** A day is not excluded from the default partition this shortly before it begins: a weekend may pass before anybody starts a relay again. */
const excludedLeadMs = 3 * dayMs;

/**
 * Makes the partitions of the days ahead, and today's where nobody writes events yet (`today`): a write that is on its way to the
 * default partition when its day is attached fails with 23514, so a day that has begun without a partition stays in the default.
 * The client must be in no transaction, and may execute belfry.make_partition. Takes at most about two seconds when locks
 * can't be had, but where the default partition holds much, as long as it takes to look through it. Once `signal` is aborted nothing long is
 * begun; what had begun may be cancelled, and is thrown then.
 */
export async function ensurePartitions(
  client: pg.ClientBase,
  options: { readonly daysAhead?: number; readonly today: boolean; readonly signal?: AbortSignal },
): Promise<PartitionsReport> {
  const made: string[] = [];
  const left: string[] = [];
  const busy: string[] = [];
  const { rows } = await client.query<{ now: number }>(`select date_part('epoch', clock_timestamp()) * 1000 as now`);
  const now = rows[0]?.now ?? NaN;
  const today = now - (now % dayMs);
  const existing = new Set((await outboxDays(client)).map((partition) => partition.name));
  const missing: string[] = [];
  for (let i = 0; i <= (options.daysAhead ?? defaultDaysAhead); i += 1) {
    const begins = today + i * dayMs;
    const day = new Date(begins).toISOString().slice(0, 10);
    if (!existing.has(partitionName(day)) && (options.today || begins >= now + leadMs)) missing.push(day);
  }
  const far = missing.filter((day) => Date.parse(day) >= now + excludedLeadMs);
  const admitted = await retried(client, () => admitDays(client));
  try {
    const ready = admitted === 'busy' ? admitted : await excludeDays(client, far, options.signal);
    for (const day of missing) {
      // All days need the same locks: after one that could not be had, the others are not waited for.
      const outcome =
        ready === 'busy' || busy.length > 0 ? 'busy' : await retried(client, () => makePartition(client, day));
      if (outcome === 'made') made.push(partitionName(day));
      else if (outcome === 'left') left.push(day);
      else if (outcome === 'busy') busy.push(day);
    }
  } finally {
    await retried(client, () => admitDays(client));
  }
  return { made, left, busy };
}

/**
 * What `ensurePartitions` would make now, as a script for psql; empty when nothing is missing. The days are counted from when it runs. Before
 * there are writers it waits for nobody; where a lock is not granted, it can be run again.
 */
export async function partitionsSql(
  client: pg.ClientBase,
  options: { readonly daysAhead?: number } = {},
): Promise<string> {
  const daysAhead = options.daysAhead ?? defaultDaysAhead;
  const { rows } = await client.query<{ known: boolean; today: string }>(
    `select to_regclass('belfry.outbox') is not null as known, to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD') as today`,
  );
  const { known = false, today = '' } = rows[0] ?? {};
  const existing = new Set(known ? (await outboxDays(client)).map((partition) => partition.name) : []);
  const parts: string[] = [];
  for (let i = 0; i <= daysAhead; i += 1) {
    const name = partitionName(new Date(Date.parse(`${today}T00:00:00Z`) + i * dayMs).toISOString().slice(0, 10));
    if (existing.has(name)) continue;
    const day = `(clock_timestamp() at time zone 'UTC')::date + ${String(i)}`;
    parts.push(
      `begin;\nset local lock_timeout = '${lockTimeoutMs}ms';\nselect belfry.make_partition(${day});\ncommit;\n`,
    );
  }
  return parts.join('\n');
}

/** Where the default partition holds much: sees to it that these days can be attached beside it, as far as nothing of them is in it. */
async function excludeDays(
  client: pg.ClientBase,
  days: readonly string[],
  signal?: AbortSignal,
): Promise<'ready' | 'busy'> {
  const { rows: filled } = await client.query('select where belfry.default_is_filled()');
  if (filled.length === 0 || days.length === 0) return 'ready';
  signal?.throwIfAborted();
  const { rows } = await client.query<{ day: string }>(
    `select day from unnest($1::text[]) day
      where day <> all (array(select distinct to_char(at at time zone 'UTC', 'YYYY-MM-DD') from belfry.outbox_default
                               where at >= $1[1]::timestamp at time zone 'UTC'))`,
    [days],
  );
  if (rows.length === 0) return 'ready';
  const excluded = await retried(client, () =>
    client.query('select belfry.exclude_days($1)', [rows.map(({ day }) => day)]),
  );
  if (excluded === 'busy') return 'busy';
  const verified = await retried(client, () => {
    signal?.throwIfAborted();
    return client.query('select belfry.verify_excluded_days()');
  });
  return verified === 'busy' ? 'busy' : 'ready';
}

async function admitDays(client: pg.ClientBase): Promise<void> {
  await client.query('select belfry.admit_days()');
}

async function makePartition(client: pg.ClientBase, day: string): Promise<'made' | 'left' | 'there'> {
  const { rows } = await client.query<{ outcome: 'made' | 'left' | 'there' }>(
    'select belfry.make_partition($1) as outcome',
    [day],
  );
  return rows[0]?.outcome ?? 'there';
}

/** Drops days that ended longer ago than the retention, as far as they were read. The client must be in no transaction. */
export async function dropOldPartitions(
  client: pg.ClientBase,
  options: { readonly retentionMs: number },
): Promise<PruneReport> {
  const dropped: string[] = [];
  const unread: string[] = [];
  const busy: string[] = [];
  for (const partition of await outboxDays(client)) {
    if (partition.until === null || Date.parse(partition.until) > Date.now() - options.retentionMs) continue;
    const { name } = partition;
    const outcome =
      busy.length > 0 ? 'busy' : await retried(client, () => dropPartition(client, name, options.retentionMs));
    if (outcome === 'dropped') dropped.push(partition.name);
    else if (outcome === 'unread') unread.push(partition.name);
    else if (outcome === 'busy') busy.push(partition.name);
  }
  return { dropped, unread, busy, deleted: await pruneDefault(client, options.retentionMs) };
}

async function dropPartition(
  client: pg.ClientBase,
  name: string,
  retentionMs: number,
): Promise<'dropped' | 'unread' | 'young'> {
  const { rows } = await client.query<{ outcome: 'dropped' | 'unread' | 'young' }>(
    `select belfry.drop_partition($1, $2::float8 * interval '1 millisecond') as outcome`,
    [name, retentionMs],
  );
  return rows[0]?.outcome ?? 'young';
}

async function storedUnreadSql(client: pg.ClientBase): Promise<string> {
  const { rows } = await client.query<{ seen: string }>(`select seen::text from belfry.relay where name = 'main'`);
  return unreadSql(rows[0]?.seen ?? '1:1:');
}

async function pruneDefault(client: pg.ClientBase, retentionMs: number): Promise<number> {
  let deleted = 0;
  for (let round = 0; round < deleteRounds; round += 1) {
    const { rowCount } = await client.query(
      `delete from belfry.outbox_default where ctid = any (array(
         select ctid from belfry.outbox_default
          where at < clock_timestamp() - $1 * interval '1 millisecond' and not ${await storedUnreadSql(client)}
            and not exists (select from belfry.replay_job j
                             where j.mode <> 'retry' and j.state in ('waiting', 'running') and j.after_id < outbox_default.id)
          limit ${deleteRows}))`,
      [retentionMs],
    );
    deleted += rowCount ?? 0;
    if ((rowCount ?? 0) < deleteRows) break;
  }
  return deleted;
}

export interface OutboxPartition {
  readonly name: string;
  /** Upper bound; null for the default partition. */
  readonly until: string | null;
}

/** Every partition of the outbox, oldest first. */
export async function outboxDays(client: pg.ClientBase): Promise<OutboxPartition[]> {
  const { rows } = await client.query<OutboxPartition>(`
    select c.relname as name,
           to_char((regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \\(''([^'']+)''\\)'))[1]::timestamptz at time zone 'UTC',
                   'YYYY-MM-DD"T"HH24:MI:SS"Z"') as until
      from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = 'belfry.outbox'::regclass
     order by until nulls last`);
  return rows;
}

/** Days (YYYY-MM-DD) that can not be written now: somebody is making them, or died while making them. */
export async function excludedDays(client: pg.ClientBase): Promise<string[]> {
  const { rows } = await client.query<{ day: string }>(
    `select to_char(to_date(right(conname, 8), 'YYYYMMDD'), 'YYYY-MM-DD') as day
       from pg_constraint where conrelid = to_regclass('belfry.outbox_default') and conname ~ '^without_[0-9]{8}$'
      order by day`,
  );
  return rows.map(({ day }) => day);
}

/** Runs the work in a transaction with the lock timeout; tries again when a lock was not to be had. */
async function retried<T>(client: pg.ClientBase, work: () => Promise<T>): Promise<T | 'busy'> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await inTransaction(client, work, `begin; set local lock_timeout = '${lockTimeoutMs}ms'`);
    } catch (error) {
      // 55P03: not in time; 40P01: deadlock; 23514: a row of that day came between the look and the lock.
      if (!['55P03', '40P01', '23514'].includes(sqlState(error) ?? '')) throw error;
      if (attempt === attempts) return 'busy';
      await sleep(retryMs * (0.5 + Math.random()));
    }
  }
}

function partitionName(day: string): string {
  return `outbox_${day.replaceAll('-', '')}`;
}
