/**
 * What became of the database since the last leader: nothing, a promotion, or a restore into another cluster.
 *
 * What must hold:
 * - Promotion (another timeline): the cursor stays right, since it moved with the rows it speaks of. What clients heard
 *   after the point of failover may be undone, so the epoch changes and they fetch anew.
 * - Restore (another system identifier, or a transaction counter that went backwards): the xids in the outbox are of another
 *   cluster and mean nothing here. Unread is then `id > max_id`, or not visible in S by the old numbers. Those rows get the
 *   xid of this transaction, all others one that is long past; S becomes a snapshot taken before; the epoch changes. Counters have
 *   seen what is visible in that snapshot; a row that they had seen unread gets an xid that only the cursor takes for unread.
 * - This is the only place where the relay writes the outbox, and it takes its snapshot before it has an xid: rows written
 *   in the transaction that takes S' count as seen and would never be read.
 */
import type pg from 'pg';
import { BelfryError } from '../errors.js';
import { parseSnapshot, type Cursor } from './cursor.js';
import { fence, type Leadership } from './lease.js';
import { assertSuitable, serverInfo } from '../postgres/server.js';
import { inTransaction } from '../postgres/transaction.js';

/** What tells one life of a database from another. */
export interface Identity {
  readonly systemIdentifier: string;
  readonly timeline: string;
  /** pg_snapshot_xmax(pg_current_snapshot()): where the transaction counter stands. */
  readonly nextXid: string;
}

export type Past = 'first' | 'same' | 'promoted' | 'restored';

/** Pure. `first`: no leader has stored its identity yet. */
export function judgePast(
  stored: Pick<Leadership, 'systemIdentifier' | 'timeline'> & { readonly cursor: Pick<Cursor, 'seen' | 'target'> },
  now: Identity,
): Past {
  const known = BigInt(parseSnapshot(stored.cursor.target ?? stored.cursor.seen).xmax);
  if (BigInt(now.nextXid) < known) return 'restored';
  if (stored.systemIdentifier === null) return 'first';
  if (stored.systemIdentifier !== now.systemIdentifier) return 'restored';
  return stored.timeline === now.timeline ? 'same' : 'promoted';
}

/**
 * To be called by a new leader before it reads. Returns cursor and epoch to go on with.
 * Throws `lease_lost` when another relay leads; then nothing was changed.
 */
export async function settlePast(
  client: pg.ClientBase,
  leadership: Leadership,
): Promise<{ readonly past: Past; readonly cursor: Cursor; readonly epoch: string }> {
  const now = await currentIdentity(client);
  const past = judgePast(leadership, now);
  if (past === 'same') return { past, cursor: leadership.cursor, epoch: leadership.epoch };
  const work = async (): Promise<{ past: Past; cursor: Cursor; epoch: string }> => {
    const cursor = past === 'restored' ? await rewriteXids(client, leadership.cursor) : leadership.cursor;
    const { rows } = await client.query<{ epoch: string }>(
      `update belfry.relay
          set system_identifier = $1, timeline = $2, seen = $3, target = $4, after_id = $5,
              epoch = case when $6 then replace(gen_random_uuid()::text, '-', '') else epoch end
        where ${fence(leadership.term)} returning epoch`,
      [now.systemIdentifier, now.timeline, cursor.seen, cursor.target, cursor.afterId, past !== 'first'],
    );
    const row = rows[0];
    if (row === undefined) throw new BelfryError('lease_lost', 'Another relay leads now.', { retry: true });
    return { past, cursor, epoch: row.epoch };
  };
  return await inTransaction(client, work, 'begin isolation level read committed');
}

/** What became of the database since the last leader. */
export async function readPast(client: pg.ClientBase): Promise<Past> {
  const { rows } = await client.query<{
    identifier: string | null;
    timeline: string | null;
    seen: string;
    target: string | null;
  }>(
    `select system_identifier::text as identifier, timeline, seen::text, target::text from belfry.relay where name = 'main'`,
  );
  const [row] = rows;
  if (row === undefined) return 'first';
  const { identifier: systemIdentifier, timeline, seen, target } = row;
  return judgePast({ systemIdentifier, timeline, cursor: { seen, target } }, await currentIdentity(client));
}

async function currentIdentity(client: pg.ClientBase): Promise<Identity> {
  const info = await serverInfo(client);
  assertSuitable(info);
  const { rows } = await client.query<{ next: string }>('select pg_snapshot_xmax(pg_current_snapshot())::text as next');
  return { systemIdentifier: info.systemIdentifier, timeline: info.timeline ?? '', nextXid: rows[0]?.next ?? '0' };
}

/** Oldest xids there are, visible in every snapshot. The second stands for events that are unread and in a count of their table. */
const longPast = `'3'::xid8`;
const countedPast = '4';

/** Whether the count of its source has seen an event, by the old numbers; what was written here since has others, and came after that count. */
const counted = (at: string, xid: string): string =>
  `coalesce(${at} <= s.at and pg_visible_in_snapshot(${xid}, s.seed), false)`;

/** Everything that holds xids or snapshots, but for what was measured (belfry.batch_trace), which is kept for a day. */
async function rewriteXids(client: pg.ClientBase, cursor: Cursor): Promise<Cursor> {
  // A statement of its own, before anything here has assigned an xid: the rewritten rows lie past this snapshot.
  const { rows } = await client.query<{ now: string }>('select pg_current_snapshot()::text as now');
  const now = rows[0]?.now;
  if (now === undefined) throw new BelfryError('internal', 'Postgres answered without its snapshot.');
  await client.query(
    `update belfry.dead_event d
        set xid = case when x.counted then ${longPast} else pg_current_xact_id() end
       from (select e.event_id, ${counted('e.event_at', 'coalesce(e.xid, o.xid)')} as counted
               from belfry.dead_event e
               left join belfry.outbox o on o.id = e.event_id
               left join belfry.source_state s on s.source = e.source
              where coalesce(e.xid, o.xid) is not null) x
      where d.event_id = x.event_id`,
  );
  const seen = (await rewriteOutbox(client, cursor, now)) ? withCounted(now) : now;
  // What is rewritten as unread lies past it, and what is new.
  await client.query('update belfry.source_state set seed = $1', [now]);
  await client.query(
    `update belfry.replay_job set seen = $1, target = null, target_id = 0 where seen is not null and state <> 'done'`,
    [seen],
  );
  await client.query(`update belfry.lost set xid = ${longPast}`);
  return { seen, target: null, afterId: '0', maxId: cursor.maxId };
}

/** Returns whether anything is unread and counted. */
async function rewriteOutbox(client: pg.ClientBase, cursor: Cursor, now: string): Promise<boolean> {
  // Within a delta that was being read: rows up to after_id are read as far as they were visible in its target.
  const { rows } = await client.query<{ counted: boolean }>(
    `with rewritten as (
       update belfry.outbox
          set xid = case when not unread then ${longPast} when counted then '${countedPast}'::xid8 else pg_current_xact_id() end
         from (select o.id as row_id, o.at as row_at, ${counted('o.at', 'o.xid')} as counted,
                      o.id > $1::bigint or (not pg_visible_in_snapshot(o.xid, $2::pg_snapshot)
                        and not ($3::pg_snapshot is not null and o.id <= $4::bigint and pg_visible_in_snapshot(o.xid, $3::pg_snapshot)))
                        as unread
                 from belfry.outbox o left join belfry.source_state s on s.source = o.source) o
        where id = row_id and at = row_at
          -- Also what a restore before this one took for counted: it would be unread again.
          and (unread or xid >= pg_snapshot_xmin($5::pg_snapshot) or xid = '${countedPast}'::xid8)
       returning unread and counted as counted
     )
     select coalesce(bool_or(counted), false) as counted from rewritten`,
    [cursor.maxId, cursor.seen, cursor.target, cursor.afterId, now],
  );
  return rows[0]?.counted ?? false;
}

/** The snapshot with `countedPast` in progress. */
function withCounted(snapshot: string): string {
  const { xmax, xip } = parseSnapshot(snapshot);
  return `${countedPast}:${xmax}:${[countedPast, ...xip].join(',')}`;
}
