/**
 * What may still be shown of notifications that are about to be pushed: an update in place shows people who were asked
 * about when they came, and whoever was blocked, muted or suspended since must not come along.
 *
 * What must hold: it is the very condition of list and resume (inbox/readable.ts), so that nothing is pushed which the
 * list would not show.
 */

import type pg from 'pg';
import type { Readable } from '../../inbox/readable.js';

/** By id: the actors that its recipient may see, or null where it may not be shown at all. */
export type MayRead = ReadonlyMap<string, ReadonlySet<string> | null>;

/** One statement, none without ids. */
export async function loadMayRead(
  client: pg.ClientBase,
  { shunned, condition, actors }: Readable,
  ids: readonly string[],
): Promise<MayRead> {
  if (ids.length === 0) return new Map();
  const { rows } = await client.query<{ id: string; shown: boolean; actors: string[] }>({
    name: 'belfry_may_read',
    text: `select belfry_n.id::text, ${condition} as shown, ${actors} as actors
             from belfry.notification belfry_n
            cross join lateral ${shunned('belfry_n.user_id')} belfry_h
            where belfry_n.id = any($1::bigint[])`,
    values: [ids],
  });
  return new Map(rows.map(({ id, shown, actors: seen }) => [id, shown ? new Set(seen) : null]));
}
