/**
 * Writes what the rules decided for a batch: notifications, streams, counters, log and cursor in one transaction, which
 * is one call of `belfry.store_batch` (migrations/0020_window_end.sql), so that a relay that freezes holds no lock.
 */

import type pg from 'pg';
import { compareText, composites } from '../postgres/arrays.js';
import type { Row } from '../postgres/arrays.js';
import { BelfryError, sqlState } from '../errors.js';
import type { Draft, InboxState, ShareAdded, ShareRemoved } from '../rules/group.js';
import type { SuppressRule } from '../rules/event.js';

/** Where the cursor stands once the batch is stored; null leaves it where it is. */
export interface CursorStep {
  readonly seen: string;
  readonly target: string | null;
  readonly afterId: string;
  readonly maxId: string;
}

export interface LoggedEvent {
  readonly channel: string;
  readonly event: string;
  readonly actorId: string | null;
  readonly data: Readonly<Record<string, unknown>>;
  readonly dataWithoutActor: Readonly<Record<string, unknown>> | null;
  /** The counter whose value the data holds, as gateways are told; it is not stored. */
  readonly counter: string | null;
}

export interface Verdict {
  readonly rule: SuppressRule;
  readonly eventId: string;
  readonly userId: string;
}

export interface DeadEvent {
  readonly eventId: string;
  readonly source: string;
  readonly op: string;
  /** JSON texts of the outbox row. */
  readonly new: string | null;
  readonly old: string | null;
  readonly at: Date;
  readonly sqlstate: string | null;
  readonly error: string;
}

export interface Announcement {
  readonly eventId: string;
  readonly at: Date;
  readonly message: string;
  /** JSON text. */
  readonly data: string;
}

export interface Batch {
  readonly cursor: CursorStep | null;
  readonly drafts: readonly Draft[];
  readonly added: readonly ShareAdded[];
  readonly removed: readonly ShareRemoved[];
  /** Each counter once. */
  readonly counters: readonly { readonly source: string; readonly objectId: string; readonly delta: number }[];
  readonly logged: readonly LoggedEvent[];
  /** `untilMs` null: resolved. */
  readonly held: readonly {
    readonly source: string;
    readonly key: string;
    readonly eventId: string;
    readonly untilMs: number | null;
  }[];
  readonly verdicts: readonly Verdict[];
  readonly announcements: readonly Announcement[];
  readonly dead: readonly DeadEvent[];
  /** Windows that ended up to this time, in ISO 8601 with microseconds, are done with; null: none was looked at. */
  readonly windowsEnded: string | null;
}

export const emptyBatch: Batch = {
  cursor: null,
  drafts: [],
  added: [],
  removed: [],
  counters: [],
  logged: [],
  held: [],
  verdicts: [],
  announcements: [],
  dead: [],
  windowsEnded: null,
};

/** A notification as it was pushed. */
export interface PushedNotification {
  readonly draft: Draft;
  readonly id: string;
  readonly seq: number;
  readonly state: InboxState;
  readonly alert: boolean;
  readonly actors: readonly string[];
  readonly lastAtMs: number;
}

export interface StoredBatch {
  /** The value of each of the batch's counters now, in their order. */
  readonly counts: readonly number[];
  /** In ascending order of `seq` per person. */
  readonly pushed: readonly PushedNotification[];
  readonly logged: readonly (LoggedEvent & { readonly offset: number })[];
  readonly announced: readonly (Announcement & { readonly id: string })[];
}

interface StoredRow {
  readonly heads: readonly number[] | null;
  readonly offsets: readonly number[] | null;
  readonly ids: readonly number[] | null;
  readonly counts: readonly number[] | null;
  readonly changed: readonly (readonly [string, number, InboxState, boolean])[] | null;
  readonly resampled: readonly (readonly [string, readonly string[], string])[] | null;
  readonly announced: readonly (readonly [string, string])[] | null;
}

/** A notification changed between reading and writing (it was archived): load the facts and decide again. */
export class StaleFacts extends Error {
  override readonly name = 'StaleFacts';
}

/**
 * One statement, one transaction. Throws BelfryError `lease_lost` when another term has begun, StaleFacts when the batch
 * must be decided anew, otherwise what Postgres says; in all cases nothing was written.
 */
export async function storeBatch(
  client: pg.ClientBase,
  term: string,
  batch: Batch,
  sampleOf: (type: string) => number,
): Promise<StoredBatch> {
  const heads = positions(
    batch.drafts.filter(({ push }) => push).map((draft) => ({ item: draft, stream: draft.userId })),
  );
  const offsets = positions(batch.logged.map((event) => ({ item: event, stream: event.channel })));
  // In the order of the indexes that they go into: neighbours are found in the page that is at hand.
  const fresh = batch.drafts.filter(({ id }) => id === null).sort((a, b) => compareText(a.userId, b.userId));
  const changed = batch.drafts.filter(({ id }) => id !== null).sort((a, b) => Number(a.id) - Number(b.id));
  const freshIndex = new Map(fresh.map((draft, i) => [draft, i + 1]));
  const { cursor } = batch;
  try {
    const result = await client.query<{ stored: StoredRow }>({
      name: 'belfry_store_batch',
      text: `select belfry.store_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20) as stored`,
      values: [
        term,
        cursor?.seen ?? null,
        cursor?.target ?? null,
        cursor?.afterId ?? null,
        cursor?.maxId ?? null,
        composites(heads.steps, ({ key, count }) => [key, count]),
        composites(offsets.steps, ({ key, count }) => [key, count]),
        composites(changed, (draft) => changedRow(draft, heads.of(draft))),
        composites(
          changed.filter(({ resample }) => resample),
          ({ id, type }) => [id, sampleOf(type)],
        ),
        composites(fresh, (draft) => newRow(draft, heads.of(draft))),
        composites(batch.removed, ({ source, key, userId }) => [source, key, userId]),
        composites(
          batch.added.filter(({ stored }) => !stored).sort((a, b) => compareText(a.key, b.key)),
          (share) => addedRow(share, freshIndex),
        ),
        composites(
          batch.added.filter(({ stored }) => stored),
          (share) => addedRow(share, freshIndex),
        ),
        composites(batch.counters, ({ source, objectId, delta }) => [source, objectId, delta]),
        composites(batch.logged, (event) => loggedRow(event, offsets.of(event))),
        composites(batch.held, ({ source, key, eventId, untilMs }) => [source, key, eventId, untilMs]),
        composites(verdictsByRule(batch.verdicts), ({ rule, eventIds, userIds }) => [rule, eventIds, userIds]),
        composites(batch.announcements, ({ eventId, at, message, data }) => [eventId, at.getTime(), message, data]),
        composites(batch.dead, (dead) => [
          dead.eventId,
          dead.source,
          dead.op,
          dead.new,
          dead.old,
          dead.at.getTime(),
          dead.sqlstate,
          dead.error,
        ]),
        batch.windowsEnded,
      ],
    });
    const row = result.rows[0]?.stored;
    if (row === undefined) throw new BelfryError('internal', 'belfry.store_batch gave nothing back.');
    return assemble(batch, row, fresh, changed, heads, offsets);
  } catch (error) {
    const state = sqlState(error);
    if (state === 'BF001')
      throw new BelfryError('lease_lost', 'Another relay leads now.', { retry: true, cause: error });
    if (state === 'BF002') throw new StaleFacts('A notification changed while the batch was decided.');
    throw error;
  }
}

/** Somebody's sessions end that began before this event was committed. */
export interface Revoked {
  readonly eventId: string;
  readonly userId: string;
}

/** What gateways look up when a message tells of it, or none came. To be called in the transaction of the batch. */
export async function storeRevocations(
  client: pg.ClientBase,
  { revoked, revokedSessions }: { readonly revoked: readonly Revoked[]; readonly revokedSessions: readonly string[] },
): Promise<void> {
  await client.query(
    `with called as (
       delete from belfry.revoke_call where event_id = any($1::bigint[]) returning event_id, at)
     insert into belfry.revocation (user_id, session, revoked_at)
     select r.user_id, null, c.at from unnest($1::bigint[], $2::text[]) r(event_id, user_id) left join called c using (event_id)
     union all
     select null, s, null from unnest($3::text[]) s`,
    [revoked.map(({ eventId }) => eventId), revoked.map(({ userId }) => userId), revokedSessions],
  );
}

interface Position {
  /** Index of the stream among the steps, from 1 as SQL counts. */
  readonly head: number;
  /** How far below the new head. */
  readonly back: number;
}

interface Positions<T> {
  readonly steps: readonly { readonly key: string; readonly count: number }[];
  of(item: T): Position | null;
}

/** Streams in order of key, how many positions each takes, and where each item stands. Byte order, as good as any fixed one. */
function positions<T extends object>(items: readonly { readonly item: T; readonly stream: string }[]): Positions<T> {
  const byStream = new Map<string, T[]>();
  for (const { item, stream } of items) {
    const list = byStream.get(stream);
    if (list === undefined) byStream.set(stream, [item]);
    else list.push(item);
  }
  const streams = [...byStream.keys()].sort();
  const places = new Map<T, Position>();
  streams.forEach((stream, i) => {
    const list = byStream.get(stream) ?? [];
    list.forEach((item, j) => places.set(item, { head: i + 1, back: list.length - 1 - j }));
  });
  return {
    steps: streams.map((stream) => ({ key: stream, count: byStream.get(stream)?.length ?? 0 })),
    of: (item) => places.get(item) ?? null,
  };
}

/** belfry.changed_notification */
function changedRow(draft: Draft, position: Position | null): Row {
  return [
    draft.id,
    draft.userId,
    draft.seq,
    position?.head ?? null,
    position?.back ?? null,
    draft.open,
    draft.subjectId,
    draft.actors,
    draft.actorCount,
    draft.eventCount,
    draft.withdrawn,
    draft.alert,
    draft.reopen,
    draft.firstAtMs,
    draft.lastAtMs,
    draft.dueAtMs,
  ];
}

/** belfry.new_notification */
function newRow(draft: Draft, position: Position | null): Row {
  return [
    draft.userId,
    position?.head ?? null,
    position?.back ?? null,
    draft.type,
    draft.groupKey,
    draft.objectKind,
    draft.objectId,
    draft.subjectKind,
    draft.subjectId,
    draft.actors,
    draft.actorCount,
    draft.eventCount,
    draft.withdrawn,
    draft.alert,
    draft.message,
    draft.data,
    draft.firstAtMs,
    draft.lastAtMs,
  ];
}

/** belfry.added_event */
function addedRow(share: ShareAdded, freshIndex: ReadonlyMap<Draft, number>): Row {
  const { draft } = share;
  return [
    share.source,
    share.key,
    share.userId,
    draft.id,
    draft.id === null ? (freshIndex.get(draft) ?? null) : null,
    share.eventId,
    share.actorId,
    share.atMs,
  ];
}

/** belfry.logged_event */
function loggedRow(event: LoggedEvent, position: Position | null): Row {
  return [
    event.channel,
    position?.head ?? null,
    position?.back ?? null,
    event.event,
    event.actorId,
    JSON.stringify(event.data),
    event.dataWithoutActor === null ? null : JSON.stringify(event.dataWithoutActor),
  ];
}

/** One row per rule: the n-th event was kept from the n-th person. */
function verdictsByRule(verdicts: readonly Verdict[]): { rule: string; eventIds: string[]; userIds: string[] }[] {
  const byRule = new Map<SuppressRule, { rule: SuppressRule; eventIds: string[]; userIds: string[] }>();
  for (const { rule, eventId, userId } of verdicts) {
    const row = byRule.get(rule) ?? { rule, eventIds: [], userIds: [] };
    row.eventIds.push(eventId);
    row.userIds.push(userId);
    byRule.set(rule, row);
  }
  return [...byRule.values()];
}

function assemble(
  batch: Batch,
  row: StoredRow,
  fresh: readonly Draft[],
  changed: readonly Draft[],
  heads: Positions<Draft>,
  offsets: Positions<LoggedEvent>,
): StoredBatch {
  const seqOf = (values: readonly number[] | null, position: Position): number =>
    (values?.[position.head - 1] ?? 0) - position.back;
  const pushed: PushedNotification[] = [];
  fresh.forEach((draft, i) => {
    const position = heads.of(draft);
    if (position === null) return;
    const { actors, lastAtMs, alert } = draft;
    pushed.push({
      draft,
      id: String(row.ids?.[i]),
      seq: seqOf(row.heads, position),
      state: 'unseen',
      alert,
      actors,
      lastAtMs,
    });
  });
  const results = new Map((row.changed ?? []).map((result) => [result[0], result]));
  const samples = new Map((row.resampled ?? []).map((result) => [result[0], result]));
  for (const draft of changed) {
    if (draft.id === null || !draft.push) continue;
    const result = results.get(draft.id);
    if (result === undefined) continue;
    const sample = samples.get(draft.id);
    const actors = sample?.[1] ?? draft.actors;
    const lastAtMs = sample === undefined ? draft.lastAtMs : Date.parse(sample[2]);
    pushed.push({ draft, id: draft.id, seq: result[1], state: result[2], alert: result[3], actors, lastAtMs });
  }
  const announced = new Map((row.announced ?? []).map(([id, eventId]) => [eventId, id]));
  return {
    counts: row.counts ?? [],
    pushed: pushed.sort((a, b) => a.seq - b.seq),
    logged: batch.logged.map((event) => {
      const position = offsets.of(event);
      return { ...event, offset: position === null ? 0 : seqOf(row.offsets, position) };
    }),
    announced: batch.announcements.flatMap((announcement) => {
      const id = announced.get(announcement.eventId);
      return id === undefined ? [] : [{ ...announcement, id }];
    }),
  };
}
