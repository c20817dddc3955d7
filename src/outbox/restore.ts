/**
 * What became of the database since the last leader: nothing, a promotion, or a restore into another cluster.
 *
 * What must hold:
 * - Promotion (another timeline): the cursor stays right, since it moved with the rows it speaks of. What clients heard
 *   after the point of failover may be undone, so the epoch changes and they fetch anew.
 * - Restore (another system identifier, or a transaction counter that went backwards): the xids in the outbox are of another
 *   cluster and mean nothing here. Unread is then `id > max_id`, or not visible in S by the old numbers. Those rows get the
 *   xid of this transaction, all others one that is long past; S becomes a snapshot taken before; the epoch changes.
 * - This is the only place where the relay writes the outbox, and it takes its snapshot before it has an xid: rows written
 *   in the transaction that takes S' count as seen and would never be read.
 */
import type pg from 'pg';
import { BelfryError } from '../errors.js';
import { parseSnapshot, type Cursor } from './cursor.js';
import { fence, type Leadership } from './lease.js';
import { assertSuitable, serverInfo } from '../postgres.js';

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
  await client.query('begin isolation level read committed');
  try {
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
    await client.query('commit');
    return { past, cursor, epoch: row.epoch };
  } catch (error) {
    await client.query('rollback').catch(() => undefined);
    throw error;
  }
}

async function currentIdentity(client: pg.ClientBase): Promise<Identity> {
  const info = await serverInfo(client);
  assertSuitable(info);
  const { rows } = await client.query<{ next: string }>('select pg_snapshot_xmax(pg_current_snapshot())::text as next');
  return { systemIdentifier: info.systemIdentifier, timeline: info.timeline ?? '', nextXid: rows[0]?.next ?? '0' };
}

/** Oldest xid there is: visible in every snapshot. */
const longPast = `'3'::xid8`;

async function rewriteXids(client: pg.ClientBase, cursor: Cursor): Promise<Cursor> {
  // A statement of its own, before anything here has assigned an xid: the rewritten rows lie past this snapshot.
  const { rows } = await client.query<{ now: string }>('select pg_current_snapshot()::text as now');
  const now = rows[0]?.now;
  if (now === undefined) throw new BelfryError('internal', 'Postgres answered without its snapshot.');
  // Within a delta that was being read: rows up to after_id are read as far as they were visible in its target.
  await client.query(
    `update belfry.outbox
        set xid = case when unread then pg_current_xact_id() else ${longPast} end
       from (select id as row_id, at as row_at,
                    id > $1::bigint or (not pg_visible_in_snapshot(xid, $2::pg_snapshot)
                      and not ($3::pg_snapshot is not null and id <= $4::bigint and pg_visible_in_snapshot(xid, $3::pg_snapshot)))
                      as unread
               from belfry.outbox) o
      where id = row_id and at = row_at
        and (unread or xid >= pg_snapshot_xmin($5::pg_snapshot))`,
    [cursor.maxId, cursor.seen, cursor.target, cursor.afterId, now],
  );
  return { seen: now, target: null, afterId: '0', maxId: cursor.maxId };
}
