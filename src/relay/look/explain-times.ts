/**
 * When an event was committed, read, stored and pushed, and how many sockets its pushes went to: from what relay and gateways measured
 * (belfry.batch_trace, belfry.push_trace), which is kept for a day.
 *
 * What must hold: what was not measured is null, never guessed. The commit is exact where Postgres keeps it (track_commit_timestamp);
 * otherwise only that it lies between writing and reading is known.
 */

import type pg from 'pg';

/** ISO 8601, by the clock of the database; null: not known. */
export interface EventTimes {
  readonly written: string;
  readonly committed: string | null;
  readonly read: string | null;
  /** Of the batch that it was in: its transaction had committed. */
  readonly stored: string | null;
  /** Everything of that batch was handed to the broker. */
  readonly pushed: string | null;
  /** More than 1: so many batches followed so fast that they were measured together, from the first read to the last push. */
  readonly batches: number | null;
}

export interface PushedTo {
  /** Live sockets that the push was handed to, on all gateways; 0: nobody had one; null: not known. */
  readonly sockets: number | null;
}

const iso = (sql: string): string => `to_char(${sql} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`;

/** Null where the outbox does not hold the event (any more). */
export async function timesOf(client: pg.ClientBase, id: string): Promise<EventTimes | null> {
  const commit = await keepsCommits(client);
  const { rows } = await client.query<EventTimes>(
    `select ${iso('o.at')} as written, ${commit ? iso('pg_xact_commit_timestamp(o.xid::text::xid)') : 'null'} as committed,
            ${iso('b.read')} as read, ${iso('b.stored')} as stored, ${iso('b.pushed')} as pushed, b.batches
       from belfry.outbox o
       left join lateral (
         select t.at - e.read_us * interval '1 us' as read, t.at - e.stored_us * interval '1 us' as stored,
                t.at - e.pushed_us * interval '1 us' as pushed, e.batches
           from belfry.batch_trace t
          cross join unnest(t.seen, t.target, t.after_id, t.batches, t.read_us, t.stored_us, t.pushed_us) with ordinality
             as e(seen, target, after_id, batches, read_us, stored_us, pushed_us, n)
          where t.at >= o.at
            and (pg_visible_in_snapshot(o.xid, e.seen) or e.target is not null and o.id <= e.after_id and pg_visible_in_snapshot(o.xid, e.target))
          order by t.id, e.n limit 1) b on b.batches > 0
      where o.id = $1`,
    [id],
  );
  return rows[0] ?? null;
}

async function keepsCommits(client: pg.ClientBase): Promise<boolean> {
  const { rows } = await client.query<{ on: boolean }>(`select current_setting('track_commit_timestamp') = 'on' as on`);
  return rows[0]?.on ?? false;
}

/** A gateway writes what it measured this long after, at most. */
const settledSeconds = 5;

/** Pushes of people, each given by its position and when the notification says that it was pushed; in their order. */
export async function pushesOf(
  client: pg.ClientBase,
  pushes: readonly { readonly userId: string; readonly seq: number; readonly at: Date }[],
): Promise<PushedTo[]> {
  if (pushes.length === 0) return [];
  const { rows } = await client.query<PushedTo>(
    `select case when t.sockets is not null then t.sockets
                 when p.at < clock_timestamp() - interval '${settledSeconds} s'
                  and (exists (select from belfry.push_trace where at <= p.at)
                       or exists (select from belfry.batch_trace where at <= p.at + interval '${settledSeconds} s'))
                  and not exists (select from belfry.push_trace m where m.left_out > 0 and m.at >= p.at and m.since <= p.at + interval '${settledSeconds} s')
                 then 0 end as sockets
       from unnest($1::text[], $2::bigint[], $3::timestamptz[]) with ordinality p(user_id, seq, at, ord)
      cross join lateral (
            select sum(e.sockets)::int as sockets
              from belfry.push_trace t
             cross join unnest(t.user_ids, t.seqs, t.sockets) e(user_id, seq, sockets)
             where t.at >= p.at - interval '${settledSeconds} s' and t.since <= p.at + interval '10 minutes'
               and t.user_ids @> array[p.user_id] and e.user_id = p.user_id and e.seq = p.seq) t
      order by p.ord`,
    [pushes.map(({ userId }) => userId), pushes.map(({ seq }) => seq), pushes.map(({ at }) => at)],
  );
  return rows;
}
