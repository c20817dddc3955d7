/**
 * Beginning elsewhere than where the last relay left off: what is unread from before is skipped for good.
 *
 * What must hold: nobody leads meanwhile, and whoever led is fenced; nothing written at the given time or later is skipped. Backwards is
 * no way: what was read would count twice. `belfry replay` is for that. What is skipped moves no counter, so they are counted anew, or
 * nothing is skipped.
 */

import type pg from 'pg';
import { BelfryError } from '../errors.js';
import { inTransaction } from '../postgres/transaction.js';
import { readPast } from './restore.js';

export interface Skip {
  /** Unread events that would be (or were) skipped. */
  readonly skipped: number;
  /** Unread events that stay. */
  readonly kept: number;
  /** Of the oldest that is skipped. */
  readonly oldest: Date | null;
}

const unread = `not pg_visible_in_snapshot(o.xid, r.seen)
  and not (r.target is not null and o.id <= r.after_id and pg_visible_in_snapshot(o.xid, r.target))`;

/** What `skipTo` would skip; `from` null: now. Throws `unavailable` after a restore: what is unread is told by numbers of the other cluster. */
export async function planSkip(client: pg.ClientBase, from: Date | null): Promise<Skip> {
  if ((await readPast(client)) === 'restored')
    throw new BelfryError(
      'unavailable',
      'The database was restored since a relay led: run belfry start without --from once, which brings its numbers in order. Pause it before (belfry pause) if nothing may be delivered until then.',
    );
  const { rows } = await client.query<{ skipped: number; kept: number; oldest: Date | null }>(
    `select count(*) filter (where o.id < coalesce(f.id, 9223372036854775807))::float8 as skipped,
            count(*) filter (where o.id >= f.id)::float8 as kept,
            min(o.at) filter (where o.id < coalesce(f.id, 9223372036854775807)) as oldest
       from belfry.relay r
       join belfry.outbox o on o.xid >= pg_snapshot_xmin(r.seen) and ${unread}
      cross join (${firstKept}) f`,
    [from],
  );
  return rows[0] ?? { skipped: 0, kept: 0, oldest: null };
}

/** Lowest id of what is to be kept; null when that is nothing. Ids and times go nearly together: a little more may be kept, never less. */
const firstKept = `select min(o.id) as id from belfry.relay r join belfry.outbox o on o.xid >= pg_snapshot_xmin(r.seen) and ${unread}
  where o.at >= $1::timestamptz`;

/**
 * Moves the cursor and counts anew, in one transaction. Throws `unavailable` while a relay leads, and where the last one stopped amid a
 * delta that can't be cut there, and what `recount` throws; then nothing is skipped.
 */
export async function skipTo(client: pg.ClientBase, from: Date | null, recount: () => Promise<void>): Promise<void> {
  const work = async (): Promise<void> => {
    await moveTo(client, from);
    // After it: what comes in between is unread, and in the count.
    await recount();
  };
  await inTransaction(client, work, 'begin isolation level read committed');
}

async function moveTo(client: pg.ClientBase, from: Date | null): Promise<void> {
  const { rows } = await client.query<{ amid: boolean }>(
    `select exists (select from belfry.relay r join belfry.outbox o on ${unread}
                     where r.target is not null and o.id <= r.after_id and o.at >= $1::timestamptz) as amid`,
    [from],
  );
  if (rows[0]?.amid === true)
    throw new BelfryError(
      'unavailable',
      'The last relay stopped within a backlog that can not be cut there: use --from now, then belfry replay --since.',
    );
  // The snapshot is the statement's own, and this transaction writes no event.
  const moved = await client.query(
    `update belfry.relay r
        set term     = r.term + 1,
            seen     = case when f.id is null then pg_current_snapshot() else r.seen end,
            target   = case when f.id is null then null else pg_current_snapshot() end,
            after_id = case when f.id is null then 0 else greatest(f.id - 1, case when r.target is null then 0 else r.after_id end) end,
            max_id   = greatest(r.max_id, coalesce(f.id - 1, (select max(id) from belfry.outbox)))
       from (${firstKept}) f
      where r.name = 'main' and r.lease_until <= clock_timestamp()`,
    [from],
  );
  if (moved.rowCount !== 1)
    throw new BelfryError('unavailable', 'A relay leads: stop it first (belfry status says which).');
}
