/**
 * The cursor: how far the outbox has been read, as a snapshot and not as a number. Pure: texts in, texts out.
 *
 * Ids are not commit order, so `id > cursor` loses rows. The cursor holds the text of a pg_snapshot S instead: everything
 * visible in S has been read. One read returns what was committed between S and its own snapshot S', ordered by id.
 *
 * Invariants (docs/delivery.md says why they hold):
 * 1. Each committed row is in exactly one delta (S, S'], whatever the order of ids, xids and commits.
 * 2. A delta that is larger than a page keeps its S' (`target`) until its last page; `afterId` says how far it has come.
 * 3. `target` is the snapshot of the very statement that read the delta's first page.
 * 4. Nobody writes the outbox in the transaction that takes S'.
 */

export interface Cursor {
  /** pg_snapshot S: all that is visible in it has been read. */
  readonly seen: string;
  /** pg_snapshot S' while a delta is read page by page; null between deltas. */
  readonly target: string | null;
  /** Within a delta: rows up to this id have been read. */
  readonly afterId: string;
  /** Highest id ever read; only used after a restore into another cluster (restore.ts). */
  readonly maxId: string;
}

/** What a read of a page said about itself. */
export interface PageFacts {
  /** Number of events. */
  readonly count: number;
  /** Most that were asked for. */
  readonly limit: number;
  /** Highest id of the page; null when it is empty. */
  readonly lastId: string | null;
  /** Snapshot of the statement that read it; null when the page is empty. */
  readonly snapshot: string | null;
}

/** A prepared statement: pg caches the plan per connection under the name. */
export interface Query {
  readonly name: string;
  readonly text: string;
  readonly values: readonly unknown[];
}

/**
 * The session that these statements are planned for. With sixteen partitions planning costs more than running, so they
 * are parameterised and planned once; a plan made while a partition was empty must be right when it is full, so no
 * sequential scans.
 */
export const outboxSession = {
  plan_cache_mode: 'force_generic_plan',
  enable_seqscan: 'off',
  max_parallel_workers_per_gather: '0',
  default_transaction_isolation: 'read committed',
} as const;

export interface Snapshot {
  readonly xmin: string;
  readonly xmax: string;
  /** In progress between xmin and xmax, ascending. */
  readonly xip: readonly string[];
}

const snapshotPattern = /^(\d+):(\d+):((?:\d+(?:,\d+)*)?)$/;

/** Reads `xmin:xmax:xip,…` as Postgres writes it. Throws RangeError: such a text is never a user's input. */
export function parseSnapshot(text: string): Snapshot {
  const [, xmin, xmax, xip] = snapshotPattern.exec(text) ?? [];
  if (xmin === undefined || xmax === undefined || xip === undefined) throw new RangeError(`not a pg_snapshot: ${text}`);
  return { xmin, xmax, xip: xip === '' ? [] : xip.split(',') };
}

/** SQL for "not visible in S", with literals: for statements that are planned each time they run. */
export function unreadSql(seen: string, column = 'xid'): string {
  const { xmax, xip } = parseSnapshot(seen);
  return `(${column} >= '${xmax}'::xid8 or ${column} = any('{${xip.join(',')}}'::xid8[]))`;
}

const columns = 'id, xid, at, source, op, new, old';
const lastXid = `'18446744073709551615'::xid8`;

/**
 * The first page of a delta, by the index on (xid, id). Its cost is that of the whole delta, paid once. `offset 0` keeps the
 * planner from walking the index on id through a million rows that were read long ago; the second bound of the range
 * lets it see that a range is meant, which a plan without values can't otherwise.
 */
const firstPage = (unread: string): string => `select ${columns}
from (select ${columns} from belfry.outbox where ${unread} offset 0) delta
order by id limit `;
const afterAll = `xid >= $1::xid8 and xid < ${lastXid}`;
const firstPageOfAny = firstPage(`(${afterAll}) or xid = any($2::xid8[])`);
/** Where nothing was in progress: one index scan of each partition, whose setting up costs less than that of two and a bitmap. */
const firstPageAfterAll = firstPage(afterAll);

/** The further pages, by the index on id. Visibility as a function call, so that no other index can be thought of. */
const nextPage = `select ${columns} from belfry.outbox
where id > $3::bigint and not pg_visible_in_snapshot(xid, $1::pg_snapshot) and pg_visible_in_snapshot(xid, $2::pg_snapshot)
order by id limit `;

/**
 * The select that gives the page after this cursor: (id, xid, at, source, op, new, old), at most `limit` rows, ascending
 * by id. Meant to stand in a `with page as materialized (…)`; the name tells one statement from another per connection.
 */
export function pageQuery(cursor: Cursor, limit: number): Query {
  if (cursor.target === null) {
    const { xmax, xip } = parseSnapshot(cursor.seen);
    if (xip.length === 0)
      return { name: `outbox_after_all_${limit}`, text: firstPageAfterAll + String(limit), values: [xmax] };
    return { name: `outbox_first_${limit}`, text: firstPageOfAny + String(limit), values: [xmax, xip] };
  }
  return {
    name: `outbox_next_${limit}`,
    text: nextPage + String(limit),
    values: [cursor.seen, cursor.target, cursor.afterId],
  };
}

/**
 * Whether anything lies past a cursor that this session can see: a few index probes, no rows. To be run once on each connection on which
 * `unreadQuery` is asked.
 *
 * Prepared by SQL, for the simple protocol: it runs inside the transaction in which the relay sleeps, and the portal of the extended protocol
 * would keep its snapshot until the next statement, and with it every dead row of the database. Planned once, see outboxSession.
 */
export const prepareUnread = `prepare belfry_unread(xid8, xid8[]) as
  select (select xid from belfry.outbox where xid >= $1 order by xid limit 1) is not null
      or exists (select from belfry.outbox where xid = any($2)) as more;
prepare belfry_unread_after_all(xid8) as
  select (select xid from belfry.outbox where xid >= $1 order by xid limit 1) is not null as more`;

/** One row, `more`: see prepareUnread. A delta that is not known to be at its end counts as unread. */
export function unreadQuery(cursor: Cursor): string {
  if (cursor.target !== null) return 'select true as more';
  const { xmax, xip } = parseSnapshot(cursor.seen);
  if (xip.length === 0) return `execute belfry_unread_after_all('${xmax}')`;
  return `execute belfry_unread('${xmax}', '{${xip.join(',')}}')`;
}

/** Where the cursor stands when the whole page has been processed. */
export function advance(cursor: Cursor, page: PageFacts): Cursor {
  if (page.count === 0 || page.lastId === null) return endOfDelta(cursor);
  const within = advanceWithin(cursor, page, page.lastId);
  return page.count >= page.limit ? within : endOfDelta(within);
}

/** Where the cursor stands when the page has been processed up to this id and no further (a bisected batch). */
export function advanceWithin(cursor: Cursor, page: PageFacts, lastId: string): Cursor {
  const target = cursor.target ?? page.snapshot;
  if (target === null) throw new RangeError('a page with rows comes with its snapshot');
  const maxId = BigInt(lastId) > BigInt(cursor.maxId) ? lastId : cursor.maxId;
  return { seen: cursor.seen, target, afterId: lastId, maxId };
}

/**
 * Where the cursor stands when nothing of its delta is left: S' becomes S. Between deltas there is nothing to end: S stays, which reads the
 * same rows as any later S.
 */
export function endOfDelta(cursor: Cursor): Cursor {
  if (cursor.target === null) return cursor;
  return { seen: cursor.target, target: null, afterId: '0', maxId: cursor.maxId };
}
