/**
 * What clients that come back are told: what changed since their position, or that it can't be told.
 *
 * What must hold: everything that a session is told at the start is read in one snapshot, or in an order in which what falls between comes
 * twice rather than never; it costs a few statements for all who come at once, however many of them have missed something.
 */

import type pg from 'pg';
import { BelfryError } from '../errors.js';
import { countsJoin } from './reader.js';
import type { Readable } from './readable.js';
import type { InboxReader } from './reader.js';
import { maxReplay } from './types.js';
import type { RecoverRequest, Recovery } from './types.js';

interface StandRow {
  readonly epoch: string;
  readonly seq: string;
  readonly pruned: string;
  /** Announcements: up to here the person has seen them, and the newest of all. */
  readonly through: string;
  readonly announced: string;
  readonly unseen: number;
  readonly unread: number;
}

/** Null for whom `catchUp` must be asked: those whose stream has moved since their position. One statement, and one for announcements. */
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
    // For those who have missed nothing the end of the stream is asked, which gives nothing.
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

/** Where each stands, without what they missed. */
async function standing(
  reader: InboxReader,
  db: pg.ClientBase | pg.Pool,
  readable: Readable,
  requests: readonly RecoverRequest[],
): Promise<Recovery[]> {
  const { rows } = await db.query<StandRow>({
    name: 'belfry_recover_each',
    text: `select e.value as epoch, coalesce(h.seq, 0)::text as seq, coalesce(p.seq, 0)::text as pruned,
                  coalesce(s.through, 0)::text as through, (select coalesce(max(a.id), 0) from belfry.announcement a)::text as announced,
                  counted.unseen, counted.unread
             from unnest($1::text[]) with ordinality u(user_id, n)
            cross join belfry.epoch e
             left join belfry.head h on h.user_id = u.user_id
             left join belfry.pruned p on p.user_id = u.user_id
             left join belfry.announcement_seen s on s.user_id = u.user_id
            ${countsJoin('u.user_id', readable)}
            order by u.n`,
    values: [requests.map(({ userId }) => userId)],
  });
  const leastSeen = rows.reduce((least, { through }) => Math.min(least, Number(through)), Infinity);
  // After the heads: one that is announced in between comes twice rather than never, and the gateway drops the second. One
  // that was not in the table yet is still to be published, and the gateway tells it to those who join.
  const none = leastSeen >= Number(rows[0]?.announced ?? 0);
  const announced = none ? [] : await reader.announcementsAfter(db, leastSeen);
  return requests.map(({ since, epoch }, i) => {
    const row = rows[i];
    if (row === undefined) throw new BelfryError('not_migrated', 'belfry.epoch has no row: run belfry migrate.');
    const seq = Number(row.seq);
    return {
      seq,
      epoch: row.epoch,
      // What came after `since` must still be kept.
      recovered:
        since === null || (epoch === row.epoch && since <= seq && (since === seq || since >= Number(row.pruned))),
      frames: [],
      announcements: announced.filter(({ id }) => id > Number(row.through)).map(({ frame }) => frame),
      unseen: row.unseen,
      unread: row.unread,
    };
  });
}
