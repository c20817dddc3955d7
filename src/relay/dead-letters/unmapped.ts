/**
 * Events of sources that are captured, but that the config of this relay does not name: `belfry migrate` ran with a newer one, and the
 * relay was not restarted yet.
 *
 * What must hold: they are set aside as dead letters in the transaction that moves the cursor past them, and so tried again by themselves,
 * by then perhaps by a relay that knows them. What comes from a source that migrate has removed reaches nobody, and is passed over.
 */

import type pg from 'pg';
import { BelfryError } from '../../errors.js';
import type { Aside } from './aside.js';
import type { PageEvent } from '../plan/resolved.js';

/** Operations of events that triggers write; the others are of the SQL API. */
const ofTriggers: ReadonlySet<string> = new Set(['created', 'changed', 'removed']);

export interface Unmapped {
  readonly source: string;
  readonly aside: readonly Aside[];
}

/** Those of these events, by source. Asks the database only where there is one. */
export async function unmappedIn(client: pg.ClientBase, events: readonly PageEvent[]): Promise<Unmapped[]> {
  const found = new Map<string, string[]>();
  for (const item of events) {
    if (!isOfTrigger(item)) continue;
    const { source, id } = item.event;
    const ids = found.get(source) ?? [];
    found.set(source, ids);
    ids.push(id);
  }
  if (found.size === 0) return [];
  const { rows } = await client.query<{ source: string }>(
    'select distinct source from belfry.capture_trigger where source = any($1)',
    [[...found.keys()]],
  );
  return rows.map(({ source }) => ({
    source,
    aside: (found.get(source) ?? []).map((id) => ({
      id,
      attempts: 1,
      error: isUnmapped(source).message,
      waitsFor: [],
    })),
  }));
}

/** Throws `config_invalid` where one of these events is of a source that this relay does not know. */
export function assertMapped(events: readonly PageEvent[]): void {
  const unmapped = events.find(isOfTrigger);
  if (unmapped !== undefined) throw isUnmapped(unmapped.event.source);
}

/** Of a source that the config names an event of a trigger is of another kind. */
function isOfTrigger({ kind, event }: PageEvent): boolean {
  return kind === 'other' && ofTriggers.has(event.op);
}

function isUnmapped(source: string): BelfryError {
  return new BelfryError(
    'config_invalid',
    `The config of this relay has no source ${source}: restart it with the config that belfry migrate ran with, or discard this.`,
  );
}
