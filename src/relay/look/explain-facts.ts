/** What is stored of an event, for `belfry explain`: the event itself, what became of it for each person, and why. Only reads. */

import type pg from 'pg';
import type { Config, Source } from '../../config.js';
import { messageOf } from '../../errors.js';
import { quoteTable } from '../../postgres/sql.js';
import type { SuppressRule } from '../../rules/event.js';
import type { ColumnTypes } from '../../schema/columns.js';
import { blame } from '../failures.js';
import type { Step } from '../plan/steps.js';
import { resolveSql } from '../plan/resolve.js';
import { eventsOf } from '../plan/resolved.js';
import type { PageEvent, ResolvedRow } from '../plan/resolved.js';
import { keySql } from '../replay/page.js';

export interface EventRow {
  readonly source: string;
  readonly op: string;
  readonly at: Date;
  readonly read: boolean;
  readonly error: string | null;
  readonly failed_at: Date | null;
  /** Null where it is not held (any more). */
  readonly held_until: Date | null;
}

export interface ShareRow {
  readonly user_id: string;
  readonly event_id: string;
  readonly removed_at: Date | null;
  readonly notification_id: string;
  /** Another event of the same notification came before it. */
  readonly joined: boolean;
  /** It waits for the end of a window. */
  readonly waits: boolean;
  /** Null where the notification has been pruned. */
  readonly seq: string | null;
  readonly withdrawn: boolean | null;
  readonly pushed_at: Date | null;
  readonly due_at: Date | null;
}

export async function eventRow(client: pg.ClientBase, id: string): Promise<EventRow | null> {
  const { rows } = await client.query<EventRow>(
    `select coalesce(o.source, d.source) as source, coalesce(o.op, d.op) as op, coalesce(o.at, d.event_at) as at, d.error, d.failed_at,
            (select max(h.until) from belfry.held h where h.event_id = $1 and h.until > clock_timestamp()) as held_until,
            o.id is null or pg_visible_in_snapshot(o.xid, r.seen)
              or r.target is not null and o.id <= r.after_id and pg_visible_in_snapshot(o.xid, r.target) as read
       from belfry.relay r
       left join belfry.outbox o     on o.id = $1
       left join belfry.dead_event d on d.event_id = $1
      where coalesce(o.id, d.event_id) is not null`,
    [id],
  );
  return rows[0] ?? null;
}

/**
 * The event with its recipients of today. `unknown`: why they can't be asked for; then it comes without, or not at all where even what is
 * stored of its row can't be found.
 */
export async function resolved(
  client: pg.ClientBase,
  config: Config,
  types: ColumnTypes,
  id: string,
  { error }: EventRow,
): Promise<{ readonly item: PageEvent | null; readonly unknown: string | null; readonly notes: string[] }> {
  const page = `select ${BigInt(id)} as id, '3'::xid8 as xid, coalesce(o.at, d.event_at) as at, coalesce(o.source, d.source) as source,
      coalesce(o.op, d.op) as op, coalesce(o.new, d.new) as new, coalesce(o.old, d.old) as old
    from (select) one left join belfry.outbox o on o.id = ${BigInt(id)} left join belfry.dead_event d on d.event_id = ${BigInt(id)}`;
  const names = new Set(config.sources.map(({ name }) => name));
  let unknown: string | null = null;
  for (const recipients of [true, false]) {
    try {
      const { rows } = await client.query<ResolvedRow>(resolveSql(config.sources, types, { recipients })(page));
      const [item = null] = eventsOf(rows, names);
      const notes =
        item?.kind === 'other' && !item.event.source.startsWith('belfry.')
          ? [`The config has no source ${item.event.source} (any more).`]
          : [];
      return { item, unknown, notes };
    } catch (cause) {
      if (error === null && blame(cause) !== 'event') throw cause;
      unknown ??= messageOf(cause);
    }
  }
  return { item: null, unknown, notes: [] };
}

export interface Discard {
  readonly by: string;
  readonly at: Date;
  /** Why it was a dead letter. */
  readonly error: string;
  /** Why it was discarded. */
  readonly reason: string | null;
}

export async function discardOf(client: pg.ClientBase, id: string): Promise<Discard | null> {
  const { rows } = await client.query<Discard>(
    `select discarded_by as by, discarded_at as at, error, reason from belfry.discarded_event
      where event_id = $1 order by discarded_at desc limit 1`,
    [id],
  );
  return rows[0] ?? null;
}

export async function sharesOf(
  client: pg.ClientBase,
  steps: readonly Step[],
  user: string | null,
): Promise<ShareRow[]> {
  const { rows } = await client.query<ShareRow>(
    `select distinct on (e.user_id) e.user_id, e.event_id::text, e.removed_at, e.notification_id::text, n.seq::text, n.withdrawn, n.pushed_at, n.due_at,
            exists (select from belfry.notification_event x where x.notification_id = e.notification_id and x.event_id < e.event_id) as joined,
            n.due_at is not null and (e.at > n.pushed_at or not exists (
              select from belfry.notification_event x
               where x.notification_id = e.notification_id and x.removed_at is null and x.event_id > e.event_id)) as waits
       from unnest($1::text[], $2::text[], $4::text[]) w(source, key, user_id)
       join belfry.notification_event e on e.source = w.source and e.key = w.key and (w.user_id is null or e.user_id = w.user_id)
       left join belfry.notification n on n.id = e.notification_id
      where $3::text is null or e.user_id = $3
      order by e.user_id, e.removed_at nulls first`,
    [
      steps.map(({ source }) => source),
      steps.map(({ key }) => key),
      user,
      // A dedupe_key may have been given for others, by events of their own.
      steps.map((step) => (step.kind === 'deliver' && step.alone ? (step.recipients[0] ?? '') : null)),
    ],
  );
  return rows;
}

/** A verdict is never older than its event. */
export async function verdictsOf(
  client: pg.ClientBase,
  id: string,
  at: Date,
): Promise<{ readonly user_id: string; readonly rule: SuppressRule; readonly at: Date }[]> {
  const { rows } = await client.query<{ user_id: string; rule: SuppressRule; at: Date }>(
    `select u.user_id, v.rule, v.at
       from belfry.verdict v
      cross join lateral unnest(v.event_ids, v.user_ids) u(event_id, user_id)
      where v.at >= $2 and v.event_ids @> array[$1::bigint] and u.event_id = $1
      order by v.id`,
    [id, at],
  );
  return rows;
}

export async function rowIsThere(
  client: pg.ClientBase,
  source: Source,
  types: ColumnTypes,
  key: string,
): Promise<boolean> {
  const same = keySql(source, types, 't', (column) => `$1::jsonb ->> ${source.key.indexOf(column)}`);
  const { rows } = await client.query<{ there: boolean }>(
    `select exists (select from ${quoteTable(source.table)} t where ${same} ${source.when === null ? '' : `and (${source.when}\n)`}) as there`,
    [key],
  );
  return rows[0]?.there ?? false;
}

export async function announcementOf(
  client: pg.ClientBase,
  id: string,
): Promise<{ readonly id: string; readonly at: Date } | null> {
  const { rows } = await client.query<{ id: string; at: Date }>(
    'select id::text, at from belfry.announcement where event_id = $1',
    [id],
  );
  return rows[0] ?? null;
}
