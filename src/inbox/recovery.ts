/**
 * What a client that comes back is told: what changed since its position, or that it can't be told.
 *
 * What must hold: everything that a session is told at the start is read in one snapshot, or in an order in which what falls between comes
 * twice rather than never.
 */

import { BelfryError } from '../errors.js';
import { countsJoin } from './reader.js';
import type { InboxReader } from './reader.js';
import { maxReplay } from './types.js';
import type { RecoverRequest, Recovery } from './types.js';

/** For one: with what changed since this position, present forms. Throws BelfryError `not_migrated`, and what Postgres says. */
export async function recover(
  reader: InboxReader,
  userId: string,
  since: number | null,
  epoch: string | null,
): Promise<Recovery> {
  const readable = await reader.rules();
  return await reader.inSnapshot(async (client) => {
    const head = await client.query<{ epoch: string; seq: string; pruned: string; unseen: number; unread: number }>(
      `select e.value as epoch, coalesce((select h.seq from belfry.head h where h.user_id = $1), 0)::text as seq,
                coalesce((select p.seq from belfry.pruned p where p.user_id = $1), 0)::text as pruned, counted.unseen, counted.unread
           from belfry.epoch e ${countsJoin('$1::text', readable)}`,
      [userId],
    );
    const row = head.rows[0];
    if (row === undefined) throw new BelfryError('not_migrated', 'belfry.epoch has no row: run belfry migrate.');
    const seq = Number(row.seq);
    const announcements = await reader.unseenAnnouncements(client, userId);
    const base = { seq, epoch: row.epoch, announcements, unseen: row.unseen, unread: row.unread };
    if (since === null) return { ...base, recovered: true, frames: [] };
    if (epoch !== row.epoch || since > seq) return { ...base, recovered: false, frames: [] };
    if (since === seq) return { ...base, recovered: true, frames: [] };
    // Something that came after `since` is no longer kept.
    if (since < Number(row.pruned)) return { ...base, recovered: false, frames: [] };
    const frames = (await reader.changes(client, readable, [userId], [since], maxReplay + 1)).get(userId) ?? [];
    return frames.length > maxReplay ? { ...base, recovered: false, frames: [] } : { ...base, recovered: true, frames };
  });
}

/** Likewise for many, of whom hardly anybody has missed something. */
export async function recoverEach(reader: InboxReader, requests: readonly RecoverRequest[]): Promise<Recovery[]> {
  const readable = await reader.rules();
  const { rows } = await reader.pool.query<{
    epoch: string;
    seq: string;
    through: string;
    unseen: number;
    unread: number;
    announced: string;
  }>({
    name: 'belfry_recover_each',
    text: `select e.value as epoch, coalesce(h.seq, 0)::text as seq, coalesce(s.through, 0)::text as through, counted.unseen, counted.unread,
                    (select coalesce(max(a.id), 0) from belfry.announcement a)::text as announced
               from unnest($1::text[]) with ordinality u(user_id, n)
              cross join belfry.epoch e
               left join belfry.head h on h.user_id = u.user_id
               left join belfry.announcement_seen s on s.user_id = u.user_id
              ${countsJoin('u.user_id', readable)}
              order by u.n`,
    values: [requests.map(({ userId }) => userId)],
  });
  const leastSeen = rows.reduce((least, { through }) => Math.min(least, Number(through)), Infinity);
  // After the heads: one that is announced in between comes twice rather than never, and the gateway drops the second. One
  // that was not in the table yet is still to be published, and the gateway tells it to those who join.
  const none = leastSeen >= Number(rows[0]?.announced ?? 0);
  const announced = none ? [] : await reader.announcementsAfter(reader.pool, leastSeen);
  // In a storm of reconnects hardly anybody has missed something: no promise for them.
  const recoveries = requests.map(({ userId, since, epoch }, i): Recovery | Promise<Recovery> => {
    const row = rows[i];
    if (row === undefined) throw new BelfryError('not_migrated', 'belfry.epoch has no row: run belfry migrate.');
    const seq = Number(row.seq);
    if (since !== null && epoch === row.epoch && since < seq) return recover(reader, userId, since, epoch);
    return {
      seq,
      epoch: row.epoch,
      recovered: since === null || (epoch === row.epoch && since === seq),
      frames: [],
      announcements: announced.filter(({ id }) => id > Number(row.through)).map(({ frame }) => frame),
      unseen: row.unseen,
      unread: row.unread,
    };
  });
  const replays = recoveries.some((recovery) => recovery instanceof Promise);
  if (!replays) return recoveries as Recovery[];
  return await Promise.all(recoveries.map((recovery) => Promise.resolve(recovery)));
}
