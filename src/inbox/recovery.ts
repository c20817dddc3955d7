/**
 * What clients that come back are told: what changed since their position, or that it can't be told.
 *
 * What must hold: everything that a session is told at the start is read in one snapshot, or in an order in which what happens in between
 * is told twice rather than never; all who come at once cost a few statements, however many of them missed something.
 */

import type pg from 'pg';
import { BelfryError } from '../errors.js';
import { countsJoin } from './reader.js';
import type { Readable } from './readable.js';
import type { InboxReader } from './reader.js';
import { maxReplay } from './types.js';
import type { RecoverRequest, Recovery } from './types.js';

interface StandingRow {
  readonly epoch: string;
  /** The newest announcement of all. */
  readonly announced: number;
  readonly people: readonly Stand[];
}

/** Positions stay below 2^53 (CONTRACT: they are numbers in frames). */
type Stand = readonly [seq: number, pruned: number, seenThrough: number, unseen: number, unread: number];

/** Null for those whose stream has moved since their position, for whom `catchUp` must be called. One statement, and one for announcements. */
export async function recoverEach(
  reader: InboxReader,
  requests: readonly RecoverRequest[],
): Promise<(Recovery | null)[]> {
  const recoveries = await standing(reader, reader.pool, await reader.rules(), requests);
  return recoveries.map((recovery, i) => (missedSome(requests[i] as RecoverRequest, recovery) ? null : recovery));
}

/** With what changed since their positions, present forms. Throws BelfryError `not_migrated`, and what Postgres says. */
export async function catchUp(reader: InboxReader, requests: readonly RecoverRequest[]): Promise<Recovery[]> {
  const readable = await reader.rules();
  return await reader.inSnapshot(async (client) => {
    const recoveries = await standing(reader, client, readable, requests);
    // For those who missed nothing, the end of the stream is asked for, which gives nothing.
    const positions = requests.map((request, i) => {
      const recovery = recoveries[i] as Recovery;
      return { userId: request.userId, after: missedSome(request, recovery) ? (request.since ?? 0) : recovery.seq };
    });
    const missed = await reader.changes(client, readable, positions, maxReplay + 1);
    return recoveries.map((recovery, i) => {
      const frames = missed[i] ?? [];
      return frames.length <= maxReplay ? { ...recovery, frames } : { ...recovery, recovered: false };
    });
  });
}

/** Whether the stream holds something after the position that it can be asked for. */
function missedSome({ since }: RecoverRequest, { recovered, seq }: Recovery): boolean {
  return recovered && since !== null && since < seq;
}

/** Where each stream stands, without what was missed. */
async function standing(
  reader: InboxReader,
  db: pg.ClientBase | pg.Pool,
  readable: Readable,
  requests: readonly RecoverRequest[],
): Promise<Recovery[]> {
  // This costs most in a storm: pg reads one JSON text several times faster than the rows it stands for.
  const { rows } = await db.query<StandingRow>({
    name: 'belfry_recover_each',
    text: `select e.value as epoch, (select coalesce(max(a.id), 0)::float8 from belfry.announcement a) as announced, (
             select json_agg(json_build_array(coalesce(h.seq, 0), coalesce(p.seq, 0), coalesce(s.through, 0), counted.unseen, counted.unread) order by u.n)
               from unnest($1::text[]) with ordinality u(user_id, n)
               left join belfry.head h on h.user_id = u.user_id
               left join belfry.pruned p on p.user_id = u.user_id
               left join belfry.announcement_seen s on s.user_id = u.user_id
              ${countsJoin('u.user_id', readable)}) as people
             from belfry.epoch e`,
    values: [requests.map(({ userId }) => userId)],
  });
  const [row] = rows;
  if (row === undefined) throw new BelfryError('not_migrated', 'belfry.epoch has no row: run belfry migrate.');
  const leastSeen = row.people.reduce((least, [, , seenThrough]) => Math.min(least, seenThrough), Infinity);
  // After the heads: one that is announced in between comes twice rather than never, and the gateway drops the second. One
  // that was not in the table yet is still to be published, and the gateway tells it to those who join.
  const none = leastSeen >= row.announced;
  const announced = none ? [] : await reader.announcementsAfter(db, leastSeen);
  return requests.map(({ since, epoch }, i) => {
    const stand = row.people[i];
    if (stand === undefined) throw new BelfryError('internal', 'Not everybody who asked was answered.');
    const [seq, pruned, seenThrough, unseen, unread] = stand;
    // What came after `since` must still be kept.
    const kept = since !== null && epoch === row.epoch && (since === seq || (since < seq && since >= pruned));
    return {
      seq,
      epoch: row.epoch,
      recovered: since === null || kept,
      frames: [],
      announcements: none ? nothing : announced.filter(({ id }) => id > seenThrough).map(({ frame }) => frame),
      unseen,
      unread,
    };
  });
}

const nothing: readonly string[] = [];
