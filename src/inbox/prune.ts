/**
 * Retention of inboxes and logs: what is older than the config says is deleted, a few rows at a time.
 *
 * What must hold:
 * - No statement holds many rows or for long, so that nobody who writes waits for it.
 * - The events behind a notification go with it, in one statement. How far a person's stream was pruned is kept, so that a client whose
 *   position is older is told to fetch.
 * - An inbox is kept at least as long as the outbox: else a replay would bring back what was pruned, and a dedupe_key would notify twice.
 */

import type pg from 'pg';
import type { Config } from '../config.js';

/** Rows of one statement. */
export const pruneRows = 500;

/** Measured times are of use only to somebody who asks why it was slow just now. */
const mostTracesMs = 86_400_000;
/** A gateway that can't reach Postgres carries out revocations once it can, if that is no later than this. */
const revocationsMs = 86_400_000;

export interface PruneCounts {
  notifications: number;
  channel_events: number;
  state_changes: number;
  verdicts: number;
  announcements: number;
  held: number;
  wide_events: number;
  traces: number;
  revocations: number;
}

/** Prunes everything that is due; `between` is awaited after each statement, and stops the pruning where it gives false. */
export async function prune(
  client: pg.ClientBase,
  retention: Config['retention'],
  between: () => Promise<boolean>,
): Promise<PruneCounts> {
  const counts = {
    notifications: 0,
    channel_events: 0,
    state_changes: 0,
    verdicts: 0,
    announcements: 0,
    held: 0,
    wide_events: 0,
    traces: 0,
    revocations: 0,
  };
  const inboxMs = Math.max(retention.inboxMs, retention.outboxMs);
  const tracesMs = Math.min(mostTracesMs, retention.outboxMs);
  const logs = [
    ['channel_events', 'channel_event', 'at', retention.channelsMs],
    ['verdicts', 'verdict', 'at', retention.outboxMs],
    ['announcements', 'announcement', 'at', inboxMs],
    ['held', 'held', 'until', 0],
    ['wide_events', 'fanout_job', 'done_at', inboxMs],
    ['traces', 'batch_trace', 'at', tracesMs],
    ['traces', 'push_trace', 'at', tracesMs],
    ['revocations', 'revocation', 'at', revocationsMs],
    ['revocations', 'revoke_call', 'at', retention.outboxMs],
  ] as const;
  for (const [name, table, column, keptMs] of logs) {
    const more = async (): Promise<boolean> => {
      const { rowCount } = await client.query(
        `delete from belfry.${table} where ctid = any (array(
           select ctid from belfry.${table} where ${column} < ${ago(1)} order by ${column} limit ${pruneRows}))`,
        [keptMs],
      );
      counts[name] += rowCount ?? 0;
      return rowCount === pruneRows;
    };
    while (await more()) if (!(await between())) return counts;
    if (!(await between())) return counts;
  }
  for (;;) {
    const deleted = await pruneStateChanges(client, inboxMs);
    counts.state_changes += deleted;
    if (!(await between())) return counts;
    if (deleted < pruneRows) break;
  }
  for (let afterId: string | null = '0'; afterId !== null;) {
    const { deleted, next } = await pruneNotifications(client, inboxMs, afterId);
    counts.notifications += deleted;
    afterId = next;
    if (!(await between())) return counts;
  }
  return counts;
}

function ago(parameter: number): string {
  return `clock_timestamp() - $${parameter}::float8 * interval '1 millisecond'`;
}

const markPruned = `insert into belfry.pruned as p (user_id, seq)
  select user_id, max(seq) from gone group by user_id order by user_id
  on conflict (user_id) do update set seq = greatest(p.seq, excluded.seq)`;

async function pruneStateChanges(client: pg.ClientBase, keptMs: number): Promise<number> {
  const { rows } = await client.query<{ deleted: number }>(
    `with gone as (
       delete from belfry.state_change where ctid = any (array(
         select ctid from belfry.state_change where at < ${ago(1)} order by at limit ${pruneRows}))
       returning user_id, seq
     ), marked as (${markPruned})
     select count(*)::int as deleted from gone`,
    [keptMs],
  );
  return rows[0]?.deleted ?? 0;
}

/** In order of id, which is nearly that of age: ends with the first rows that are all young. */
async function pruneNotifications(
  client: pg.ClientBase,
  keptMs: number,
  afterId: string,
): Promise<{ readonly deleted: number; readonly next: string | null }> {
  const { rows } = await client.query<{ deleted: number; last: string | null; seen: number }>(
    `with oldest as materialized (
       select id, last_at from belfry.notification where id > $2 order by id limit ${pruneRows}
     ), gone as (
       delete from belfry.notification n using oldest o
        where n.id = o.id and o.last_at < ${ago(1)} and n.last_at = o.last_at
       returning n.id, n.user_id, n.seq
     ), shares as (
       delete from belfry.notification_event e using gone where e.notification_id = gone.id
     ), positions as (
       delete from belfry.stream_position p using gone where p.user_id = gone.user_id and p.seq = gone.seq
     ), marked as (${markPruned})
     select (select count(*)::int from gone) as deleted, (select max(id)::text from oldest) as last,
            (select count(*)::int from oldest) as seen`,
    [keptMs, afterId],
  );
  const { deleted = 0, last = null, seen = 0 } = rows[0] ?? {};
  return { deleted, next: seen < pruneRows || deleted === 0 ? null : last };
}
