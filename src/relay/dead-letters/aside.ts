/** What leaves the usual way of a page: an event that can't be processed, and a TRUNCATE. Each is one transaction that also moves the cursor. */

import type pg from 'pg';
import { messageOf, sqlState } from '../../errors.js';
import { emptyBatch, storeBatch } from '../../inbox/store.js';
import type { Cursor } from '../../outbox/cursor.js';
import { inTransaction } from '../../postgres/transaction.js';

/** Stores an event as a dead letter behind those `before` it; the name of its source, undefined where the outbox no longer holds it. Throws what storeBatch throws. */
export async function storeDead(
  { facts, writer }: { readonly facts: pg.ClientBase; readonly writer: pg.ClientBase },
  term: string,
  eventId: string,
  error: unknown,
  cursor: Cursor | null,
  before: readonly string[] = [],
): Promise<string | undefined> {
  const result = await facts.query<{
    source: string;
    op: string;
    new: string | null;
    old: string | null;
    at: Date;
    xid: string;
  }>('select source, op, new::text, old::text, at, xid::text from belfry.outbox where id = $1', [eventId]);
  const row = result.rows[0];
  const dead =
    row === undefined ? [] : [{ ...row, eventId, sqlstate: sqlState(error) ?? null, error: messageOf(error) }];
  await inTransaction(writer, async () => {
    await storeBatch(writer, term, { ...emptyBatch, cursor, dead }, () => 1);
    if (row !== undefined)
      await writer.query('update belfry.dead_event set xid = $2, waits_for = $3 where event_id = $1', [
        eventId,
        row.xid,
        before,
      ]);
  });
  return row?.source;
}

/** An event of the outbox that becomes a dead letter together with others. */
export interface Aside {
  readonly id: string;
  readonly attempts: number;
  readonly error: string;
  /** Dead letters that must go first. */
  readonly waitsFor: readonly string[];
}

/** Sets events of the outbox aside, to be run in the transaction that moves the cursor past them. */
export async function setAside(client: pg.ClientBase, events: readonly Aside[]): Promise<void> {
  await client.query(
    `insert into belfry.dead_event (event_id, xid, source, op, new, old, event_at, attempts, error, waits_for)
     select o.id, o.xid, o.source, o.op, o.new, o.old, o.at, w.attempts, w.error, w.ids::bigint[]
       from unnest($1::bigint[], $2::int[], $3::text[], $4::text[]) w(id, attempts, error, ids)
       join belfry.outbox o on o.id = w.id
     on conflict (event_id) do nothing`,
    [
      events.map(({ id }) => id),
      events.map(({ attempts }) => attempts),
      events.map(({ error }) => error),
      events.map(({ waitsFor }) => `{${waitsFor.join(',')}}`),
    ],
  );
}

/**
 * Withdraws all that came from a table, ends its wide events, discards its dead letters and what is held, of which nothing is there any
 * more, and begins a new epoch: everybody fetches anew. `discarded`: dead letters.
 */
export async function storeTruncate(
  writer: pg.ClientBase,
  term: string,
  { id, source }: { readonly id: string; readonly source: string },
  cursor: Cursor,
): Promise<{ readonly epoch: string; readonly discarded: number }> {
  return await inTransaction(writer, async () => {
    const { rows } = await writer.query<{ epoch: string }>('select belfry.withdraw_source($1, $2, $3) as epoch', [
      term,
      source,
      id,
    ]);
    await writer.query(
      `update belfry.fanout_job set done_at = clock_timestamp(), error = 'truncated' where source = $1 and done_at is null`,
      [source],
    );
    await writer.query('delete from belfry.held where source = $1', [source]);
    const discarded = await writer.query(
      `with gone as (delete from belfry.dead_event where source = $1 returning *)
       insert into belfry.discarded_event (event_id, source, op, event_at, attempts, sqlstate, error, reason)
       select event_id, source, op, event_at, attempts, sqlstate, error, 'the table was truncated' from gone`,
      [source],
    );
    await storeBatch(writer, term, { ...emptyBatch, cursor }, () => 1);
    return { epoch: rows[0]?.epoch ?? '', discarded: discarded.rowCount ?? 0 };
  });
}
