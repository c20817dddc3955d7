/**
 * Looks again at rows whose owner was not known: it may have been set in another table, of which no event tells. An update of the row
 * itself resolves it at once (plan.ts).
 */

import type pg from 'pg';
import type { Leading } from '../leading.js';
import type { PageEvent } from '../plan/resolved.js';

/** Rows looked at in one go, the newest first. */
const heldLimit = 1_000;

export interface HeldOptions {
  readonly facts: pg.Client;
  readonly leading: Leading;
}

/** Cheap when nothing is held. Must run between batches. */
export async function resolveHeld({ facts, leading }: HeldOptions): Promise<void> {
  const { rows } = await facts.query<{ event_id: string }>(
    'select h.event_id::text as event_id from belfry.held h where h.until > clock_timestamp() order by h.event_id desc limit $1',
    [heldLimit],
  );
  let ids = rows.map(({ event_id }) => event_id).reverse();
  // By now they may lead to more people than a transaction should tell: then as many go together as a page would have.
  for (let most = ids.length; ids.length > 0;) {
    const asked = ids.slice(0, most);
    const events = await leading.resolve(
      `select id, xid, at, source, op, new, null::jsonb as old from belfry.outbox where id in (${asked.join(', ')}) and op in ('created', 'changed')`,
    );
    const last = events.at(-1)?.event.id;
    ids = last === undefined ? ids.slice(most) : ids.filter((id) => BigInt(id) > BigInt(last));
    most = Math.max(1, events.length);
    const found = events.flatMap(known);
    if (found.length > 0) await leading.inject(found);
  }
}

/**
 * Whose owner is known now: as if an update had set it, so that it is told once, and held no longer. Counted and told in its channels it was
 * when it came.
 */
function known(item: PageEvent): PageEvent[] {
  const after = item.kind === 'source' ? item.event.after : null;
  if (item.kind !== 'source' || after === null) return [];
  if (after.recipients.length === 0 && after.wide !== true) return [];
  const told = { ...after, channels: [] };
  const before = { ...told, route: null, recipients: [] };
  return [{ kind: 'source', event: { ...item.event, op: 'changed', counts: false, before, after: told } }];
}
