/**
 * Events of sources that are captured, but that the config of this relay does not name: `belfry migrate` ran with a newer one, and the
 * relay was not restarted yet.
 *
 * What must hold: they are set aside as dead letters in the transaction that moves the cursor past them, and so tried again by themselves,
 * by then perhaps by a relay that knows them. What comes from a source that migrate has removed reaches nobody, and is passed over.
 */

import type pg from 'pg';
import { BelfryError } from '../errors.js';
import type { PageEvent } from './resolved.js';

/** Operations of events that triggers write; the others are of the SQL API. */
const ofTriggers: ReadonlySet<string> = new Set(['created', 'changed', 'removed']);

export interface Unmapped {
  readonly source: string;
  /** Outbox ids. */
  readonly ids: readonly string[];
}

/** Those of these events, by source. Asks the database only where there is one of a source that `sources` lacks. */
export async function unmappedIn(
  client: pg.ClientBase,
  events: readonly PageEvent[],
  sources: ReadonlySet<string>,
): Promise<Unmapped[]> {
  const found = new Map<string, string[]>();
  for (const { kind, event } of events) {
    if (kind !== 'other' || !ofTriggers.has(event.op) || sources.has(event.source)) continue;
    const ids = found.get(event.source) ?? [];
    found.set(event.source, ids);
    ids.push(event.id);
  }
  if (found.size === 0) return [];
  const { rows } = await client.query<{ source: string }>(
    'select distinct source from belfry.capture_trigger where source = any($1)',
    [[...found.keys()]],
  );
  return rows.map(({ source }) => ({ source, ids: found.get(source) ?? [] }));
}

/** Sets them aside, to be run in the transaction that moves the cursor past them. */
export async function setUnmappedAside(client: pg.ClientBase, unmapped: readonly Unmapped[]): Promise<void> {
  for (const { source, ids } of unmapped) {
    await client.query(
      `insert into belfry.dead_event (event_id, xid, source, op, new, old, event_at, error)
       select o.id, o.xid, o.source, o.op, o.new, o.old, o.at, $2
         from unnest($1::bigint[]) w(id)
         join belfry.outbox o on o.id = w.id
       on conflict (event_id) do nothing`,
      [ids, isUnmapped(source).message],
    );
  }
}

/** Throws `config_invalid` where one of these events is of a source that this relay does not know. */
export function assertMapped(events: readonly PageEvent[]): void {
  for (const { kind, event } of events)
    if (kind === 'other' && ofTriggers.has(event.op)) throw isUnmapped(event.source);
}

function isUnmapped(source: string): BelfryError {
  return new BelfryError(
    'config_invalid',
    `The config of this relay has no source ${source}: restart it with the config that belfry migrate ran with, or discard this.`,
  );
}
