/**
 * Looks again at rows whose owner was not known: it may have been set in another table, of which no event tells. An update of the row
 * itself resolves it at once (plan.ts).
 */

import type pg from 'pg';
import type { Leading } from './leading.js';
import type { PageEvent } from './resolved.js';

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
  if (rows.length === 0) return;
  const ids = rows.map(({ event_id }) => event_id).join(', ');
  const events = await leading.resolve(
    `select id, xid, at, source, op, new, null::jsonb as old from belfry.outbox where id in (${ids}) and op in ('created', 'changed')`,
  );
  // Counted and told in its channels it was when it came.
  const found = events.flatMap((item): PageEvent[] => {
    const after = item.kind === 'source' ? item.event.after : null;
    if (item.kind !== 'source' || after === null) return [];
    if (after.recipients.length === 0 && after.wide !== true) return [];
    return [{ kind: 'source', event: { ...item.event, counts: false, after: { ...after, channels: [] } } }];
  });
  if (found.length > 0) await leading.inject(found);
}
