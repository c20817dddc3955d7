/**
 * Loads what the aggregation needs of the inbox, for a whole batch in one statement: open groups, events that already
 * stand behind them, counters, held rows. Everything is found by key; nothing grows with the size of a group.
 */

import type pg from 'pg';
import { compareText, textArray } from '../../postgres/arrays.js';
import type { GroupFact, GroupFacts, InboxState, ShareFact } from '../../rules/group.js';
import { groupId, memberKey } from '../../rules/group.js';

export interface GroupQuestions {
  /** Groups that events may join, each with the actor of the event. */
  readonly wanted: readonly {
    readonly userId: string;
    readonly type: string;
    readonly groupKey: string;
    readonly actorId: string | null;
  }[];
  /** Rows of sources whose events may be stored already, or are taken back. */
  readonly rows: readonly { readonly source: string; readonly key: string }[];
  /** The same for these recipients alone: a wide event has too many others. */
  readonly shares?: readonly { readonly source: string; readonly key: string; readonly userId: string }[];
  /** Those of the rows that may be held: of every change and removal, but of no creation. */
  readonly mayBeHeld: readonly { readonly source: string; readonly key: string }[];
  /** Everything that came from an actor to a recipient. */
  readonly between: readonly { readonly userId: string; readonly actorId: string }[];
  readonly counters: readonly { readonly source: string; readonly objectId: string }[];
  /** For a batch that can be halved: where more stored events than this would be taken back, nothing is loaded. */
  readonly mostShares?: number;
}

export interface LoadedGroups extends GroupFacts {
  /** `counterKey(source, object)` to its value; missing means 0. */
  readonly counters: ReadonlyMap<string, number>;
  /** `counterKey(source, key)` of created rows that had no recipient and have not expired. */
  readonly held: ReadonlySet<string>;
  /** Live events from `between`. */
  readonly fromBlocked: readonly ShareFact[];
}

export function counterKey(source: string, objectId: string): string {
  return `${source}\0${objectId}`;
}

type GroupRow = readonly [
  id: string,
  seq: number,
  userId: string,
  type: string,
  groupKey: string,
  open: boolean,
  objectKind: string | null,
  objectId: string | null,
  subjectKind: string | null,
  subjectId: string | null,
  actors: readonly string[],
  actorCount: number,
  eventCount: number,
  state: InboxState,
  withdrawn: boolean,
  shown: boolean,
  message: string | null,
  data: string | null,
  firstAtMs: number,
  lastAtMs: number,
  pushedAtMs: number,
  dueAtMs: number | null,
];
type ShareRow = readonly [string, string, string, string, string, string | null, number | null, boolean];

interface FactsRow {
  readonly now_ms: number;
  readonly groups: readonly GroupRow[] | null;
  /** Those of events that may be taken back. */
  readonly other_groups: readonly GroupRow[] | null;
  readonly shares: readonly ShareRow[] | null;
  readonly members: readonly (readonly [string, string, number])[] | null;
  readonly counters: readonly (readonly [string, string, number])[] | null;
  readonly held: readonly (readonly [string, string])[] | null;
}

/** `date_part` and not `extract`, which reckons in numeric. */
const ms = (column: string): string => `round(date_part('epoch', ${column}) * 1000)`;

const groupColumns = `json_build_array(n.id::text, n.seq, n.user_id, n.type, n.group_key, n.open, n.object_kind, n.object_id, n.subject_kind,
      n.subject_id, n.actors, n.actor_count, n.event_count, n.state, n.withdrawn, n.shown, n.message, n.data::text,
      ${ms('n.first_at')}, ${ms('n.last_at')}, ${ms('n.pushed_at')}, ${ms('n.due_at')})`;

/** More would be taken back than a transaction should hold: the batch must be halved (segments.ts). */
export class BatchTooLarge extends Error {
  constructor() {
    super('too much is to be taken back at once');
  }
}

/**
 * The statement for these questions, with only the parts that have any: setting up the others would cost a small batch
 * more than its answers.
 *
 * A group that several events of the batch may join is asked for with each of their actors, and described once. The actors
 * are looked up one by one, since a group may be larger than memory.
 */
function factsQuery(questions: GroupQuestions): { name: string; text: string; values: string[] } {
  const { shares: exact = [], mayBeHeld, between, counters, mostShares } = questions;
  // In the order of the indexes, so that neighbours are found in the same page of an index.
  const wanted = [...questions.wanted].sort(
    (a, b) => compareText(a.userId, b.userId) || compareText(a.groupKey, b.groupKey),
  );
  const rows = [...questions.rows].sort((a, b) => compareText(a.key, b.key));
  const values: string[] = [];
  const column = <T>(list: readonly T[], of: (item: T) => string | null, type = 'text'): string => {
    values.push(textArray(list.map(of)));
    return `$${String(values.length)}::${type}[]`;
  };
  const row = (list: readonly { readonly source: string; readonly key: string }[]): string =>
    `${column(list, ({ source }) => source)}, ${column(list, ({ key }) => key)}`;

  const described = new Set<string>();
  const first = (group: GroupQuestions['wanted'][number]): string =>
    described.size < described.add(groupId(group)).size ? 't' : 'f';
  const group = `${column(wanted, ({ userId }) => userId)}, ${column(wanted, ({ type }) => type)}, ${column(wanted, ({ groupKey }) => groupKey)}`;
  const asked = `${column(wanted, ({ actorId }) => actorId)}, ${column(wanted, first, 'boolean')}`;

  let parts = '';
  const shares: string[] = [];
  if (rows.length > 0) {
    parts += 'r';
    shares.push(`select e.*, false as blocked from unnest(${row(rows)}) u(source, key)
    join belfry.notification_event e on e.source = u.source and e.key = u.key`);
  }
  if (exact.length > 0) {
    parts += 'e';
    shares.push(`select e.*, false as blocked
    from unnest(${row(exact)}, ${column(exact, ({ userId }) => userId)}) u(source, key, user_id)
    join belfry.notification_event e on e.source = u.source and e.key = u.key and e.user_id = u.user_id`);
  }
  if (between.length > 0) {
    parts += 'b';
    shares.push(`select e.*, true as blocked
    from unnest(${column(between, ({ userId }) => userId)}, ${column(between, ({ actorId }) => actorId)}) b(user_id, actor_id)
    join belfry.stream_position p on p.user_id = b.user_id
    join belfry.notification n on n.id = p.notification_id and not n.withdrawn
    join belfry.notification_event e on e.notification_id = n.id and e.actor_id = b.actor_id and e.removed_at is null`);
  }
  if (mostShares !== undefined) parts += `m${String(mostShares)}`;
  if (counters.length > 0) parts += 'c';
  if (mayBeHeld.length > 0) parts += 'h';
  const none = 'null::json';
  const text = `
with wanted as materialized (
  select n.id, w.actor_id, case when w.described then ${groupColumns} end as fact
    from unnest(${group}, ${asked}) w(user_id, type, group_key, actor_id, described)
    join belfry.notification n on n.user_id = w.user_id and n.type = w.type and n.group_key = w.group_key and n.open
)${
    shares.length === 0
      ? ''
      : `, shares as materialized (
  ${shares.join('\n  union all\n  ')}${mostShares === undefined ? '' : `\n  limit ${String(mostShares + 1)}`}
)`
  }, pairs as (
  select id, actor_id from wanted where actor_id is not null${
    shares.length === 0
      ? ''
      : `
  union all
  select notification_id, actor_id from shares where removed_at is null and actor_id is not null`
  }
)
select ${ms('clock_timestamp()')} as now_ms,
  (select json_agg(fact) from wanted where fact is not null) as groups,
  ${
    shares.length === 0
      ? none
      : `(select json_agg(${groupColumns})
     from (select notification_id as id from shares except select id from wanted) u join belfry.notification n on n.id = u.id)`
  } as other_groups,
  ${
    shares.length === 0
      ? none
      : `(select json_agg(json_build_array(source, key, user_id, notification_id::text, event_id::text, actor_id, ${ms('removed_at')}, blocked)) from shares)`
  } as shares,
  (select json_agg(json_build_array(p.id::text, p.actor_id, c.live))
     from pairs p cross join lateral (
       select count(*) as live from belfry.notification_event e
        where e.notification_id = p.id and e.actor_id = p.actor_id and e.removed_at is null) c
    where c.live > 0) as members,
  ${
    counters.length === 0
      ? none
      : `(select json_agg(json_build_array(c.source, c.object_id, c.count))
     from unnest(${column(counters, ({ source }) => source)}, ${column(counters, ({ objectId }) => objectId)}) w(source, object_id)
     join belfry.counter c on c.source = w.source and c.object_id = w.object_id)`
  } as counters,
  ${
    mayBeHeld.length === 0
      ? none
      : `(select json_agg(json_build_array(h.source, h.key))
     from unnest(${row(mayBeHeld)}) u(source, key)
     join belfry.held h on h.source = u.source and h.key = u.key and h.until > clock_timestamp())`
  } as held`;
  return { name: `belfry_group_facts_${parts}`, text, values };
}

// A row of window_end may be outdated: its window ended early, and perhaps another one has begun since.
const dueSql = `
with ended as materialized (
  select w.due_at, w.notification_id from belfry.window_end w where w.due_at <= clock_timestamp() order by w.due_at fetch first ($1) rows with ties
)
select ${ms('clock_timestamp()')} as now_ms,
  (select to_char(max(due_at) at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') from ended) as through,
  (select count(*)::int from ended) as ended,
  (select json_agg(${groupColumns} order by n.due_at) from belfry.notification n
    where n.id in (select notification_id from ended) and n.due_at <= clock_timestamp()) as groups`;

/** One statement. Throws BatchTooLarge. */
export async function loadGroupFacts(client: pg.ClientBase, questions: GroupQuestions): Promise<LoadedGroups> {
  const result = await client.query<FactsRow>(factsQuery(questions));
  const row = result.rows[0];
  if ((row?.shares ?? []).length > (questions.mostShares ?? Infinity)) throw new BatchTooLarge();
  const shares = (row?.shares ?? []).map((share) => ({ fact: shareOf(share), blocked: share[7] }));
  return {
    nowMs: row?.now_ms ?? Date.now(),
    groups: [...(row?.groups ?? []), ...(row?.other_groups ?? [])].map(groupOf),
    shares: shares.map(({ fact }) => fact),
    fromBlocked: shares.filter(({ blocked }) => blocked).map(({ fact }) => fact),
    members: new Map((row?.members ?? []).map(([id, actor, live]) => [memberKey(id, actor), live])),
    counters: new Map((row?.counters ?? []).map(([source, object, count]) => [counterKey(source, object), count])),
    held: new Set((row?.held ?? []).map(([source, key]) => counterKey(source, key))),
  };
}

export interface DueGroups extends GroupFacts {
  /** The time up to which windows were looked at, in ISO 8601 with microseconds; null when none has ended. */
  readonly through: string | null;
  /** Windows that were looked at. */
  readonly ended: number;
}

/** Notifications whose window is due, oldest first, of the first `limit` windows and those that end with the last of them. One statement. */
export async function loadDueGroups(client: pg.ClientBase, limit: number): Promise<DueGroups> {
  const result = await client.query<
    Pick<FactsRow, 'now_ms' | 'groups'> & { readonly through: string | null; readonly ended: number }
  >({
    name: 'belfry_due_groups',
    text: dueSql,
    values: [limit],
  });
  const row = result.rows[0];
  return {
    nowMs: row?.now_ms ?? Date.now(),
    groups: (row?.groups ?? []).map(groupOf),
    shares: [],
    members: new Map(),
    through: row?.through ?? null,
    ended: row?.ended ?? 0,
  };
}

/** All notifications of these people about these objects, of any type: what a muted thread takes away. */
export async function loadThreadGroups(
  client: pg.ClientBase,
  threads: readonly { readonly userId: string; readonly kind: string; readonly id: string }[],
): Promise<readonly GroupFact[]> {
  if (threads.length === 0) return [];
  const result = await client.query<Pick<FactsRow, 'groups'>>({
    name: 'belfry_thread_groups',
    text: `select json_agg(${groupColumns}) as groups
             from unnest($1::text[], $2::text[], $3::text[]) t(user_id, kind, id)
             join belfry.stream_position p on p.user_id = t.user_id
             join belfry.notification n on n.id = p.notification_id and n.object_kind = t.kind and n.object_id = t.id and not n.withdrawn`,
    values: [threads.map(({ userId }) => userId), threads.map(({ kind }) => kind), threads.map(({ id }) => id)],
  });
  return (result.rows[0]?.groups ?? []).map(groupOf);
}

/** When the next window is to be looked at, in milliseconds since the epoch by this process's clock, since timers run on it; null when none waits. */
export async function nextDueMs(client: pg.ClientBase): Promise<number | null> {
  const result = await client.query<{ rest_ms: number | null }>(
    `select ${ms('min(due_at) - clock_timestamp()')} as rest_ms from belfry.window_end`,
  );
  const rest = result.rows[0]?.rest_ms ?? null;
  return rest === null ? null : Date.now() + rest;
}

function groupOf(row: GroupRow): GroupFact {
  return {
    id: row[0],
    seq: row[1],
    userId: row[2],
    type: row[3],
    groupKey: row[4],
    open: row[5],
    objectKind: row[6],
    objectId: row[7],
    subjectKind: row[8],
    subjectId: row[9],
    actors: row[10],
    actorCount: row[11],
    eventCount: row[12],
    state: row[13],
    withdrawn: row[14],
    shown: row[15],
    message: row[16],
    data: row[17],
    firstAtMs: row[18],
    lastAtMs: row[19],
    pushedAtMs: row[20],
    dueAtMs: row[21],
  };
}

function shareOf(row: ShareRow): ShareFact {
  return {
    source: row[0],
    key: row[1],
    userId: row[2],
    notificationId: row[3],
    eventId: row[4],
    actorId: row[5],
    removedAtMs: row[6],
  };
}
