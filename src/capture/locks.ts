/**
 * Work on a table that others write to.
 *
 * A waiting CREATE TRIGGER makes every later writer wait behind it. So it waits for 200 ms at most, then lets all of them pass and
 * tries again after a random pause: a minute long, saying what it waits for.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { BelfryError, sqlState } from '../errors.js';
import type { TableName } from '../postgres/sql.js';
import { inTransaction } from '../postgres/transaction.js';
import { qualified } from './names.js';
import { TABLE_LOCK_TIMEOUT } from './plan.js';

export interface CaptureLog {
  info(details: object, message: string): void;
  warn(details: object, message: string): void;
}

export interface LockOptions {
  readonly log?: Pick<CaptureLog, 'info'>;
  /** How long a table is tried for; a minute. */
  readonly boundMs?: number;
  /** Readers are in the way too: DROP TRIGGER, unlike CREATE TRIGGER. */
  readonly exclusive?: boolean;
}

/** How long a table is tried for. */
const BOUND_MS = 60_000;
const PAUSE_MIN_MS = 100;
const PAUSE_MAX_MS = 600;
/** How often it says what it waits for. */
const TELL_EVERY_MS = 5_000;

const BUSY = new Set(['55P03', '40P01']);

/**
 * Runs the statements in one transaction, again and again while the table is locked. Throws `lock_busy` (retry) after a minute, and
 * whatever else Postgres says. The client must be in no transaction.
 */
export async function runWithTableLock(
  client: pg.ClientBase,
  table: TableName,
  statements: readonly string[],
  options: LockOptions = {},
): Promise<void> {
  const bound = options.boundMs ?? BOUND_MS;
  const start = performance.now();
  let told = -Infinity;
  for (;;) {
    const busy = await tryOnce(client, statements);
    if (busy === null) return;
    const waited = performance.now() - start;
    const holders = await holdersOf(client, table, options.exclusive === true);
    if (waited >= bound) {
      throw new BelfryError(
        'lock_busy',
        `${qualified(table)} stayed locked for ${Math.round(waited / 1000)} s (${holders}): end these transactions, or run it when there is less traffic.`,
        { retry: true, cause: busy },
      );
    }
    if (waited - told >= TELL_EVERY_MS) {
      options.log?.info(
        { table: qualified(table), waitedMs: Math.round(waited), holders },
        'waiting for a lock on the table',
      );
      told = waited;
    }
    await sleep(PAUSE_MIN_MS + Math.random() * (PAUSE_MAX_MS - PAUSE_MIN_MS));
  }
}

/** Runs the statements in one transaction. */
export async function runInTransaction(client: pg.ClientBase, statements: readonly string[]): Promise<void> {
  await inTransaction(client, async () => {
    for (const sql of statements) await client.query(sql);
  });
}

async function tryOnce(client: pg.ClientBase, statements: readonly string[]): Promise<unknown> {
  try {
    await runInTransaction(client, [`set local lock_timeout = '${TABLE_LOCK_TIMEOUT}'`, ...statements]);
    return null;
  } catch (error) {
    if (BUSY.has(sqlState(error) ?? '')) return error;
    throw error;
  }
}

async function holdersOf(client: pg.ClientBase, table: TableName, exclusive: boolean): Promise<string> {
  const { rows } = await client.query<{ holder: string }>(
    `select format('pid %s%s, %s, in a transaction for %s s', a.pid,
                   case when a.application_name <> '' then ' ' || a.application_name end,
                   a.state, round(extract(epoch from clock_timestamp() - a.xact_start))) as holder
       from pg_catalog.pg_locks l
       join pg_catalog.pg_stat_activity a on a.pid = l.pid
      where l.relation = to_regclass($1) and l.granted and a.pid <> pg_backend_pid()
        and ($2 or l.mode not in ('AccessShareLock', 'RowShareLock'))
      group by a.pid, a.application_name, a.state, a.xact_start
      order by a.xact_start limit 3`,
    [qualified(table), exclusive],
  );
  return rows.length === 0 ? 'its holder is gone already' : `held by ${rows.map((row) => row.holder).join('; ')}`;
}
