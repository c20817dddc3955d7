/**
 * Events that were written while their table lacked a column that the config names: it had been renamed or dropped, and was captured as
 * null (capture/rows.ts). Told as they are, they would be nobody's: neither blocks nor "not oneself" could be asked, and a key with a null
 * in it finds nothing again.
 *
 * What must hold: such an event notifies nobody, and is recorded in belfry.lost in the transaction that moves the cursor past it. Once the
 * table fits the config again the rows are captured anew (lost.ts, recreate.ts). A null that the column may hold is a value like any other.
 */

import type pg from 'pg';
import { noColumn } from '../../capture/deaf.js';
import { mappedColumns } from '../../config.js';
import type { Source } from '../../config.js';
import { BelfryError } from '../../errors.js';
import { quoteTable } from '../../postgres/sql.js';
import type { Side, SourceEvent } from '../../rules/event.js';
import type { ColumnTypes } from '../../schema/columns.js';
import type { PageEvent } from '../plan/resolved.js';

/** How much earlier than its first event a transaction may have begun, which is what its rows tell as their time. */
const transactionMs = 60_000;

export interface Incomplete {
  readonly source: string;
  /** Columns that are not there, or were not when the row was written. */
  readonly columns: readonly string[];
  /** When the first of these events was written. */
  readonly since: Date;
}

export interface Checked {
  /** The events given, those without a column as such that count and notify nobody. The same array where all are whole. */
  readonly events: readonly PageEvent[];
  /** One entry per source with such events. */
  readonly incomplete: readonly Incomplete[];
}

/** A column whose value an event lacks. */
interface Lacking {
  readonly event: SourceEvent;
  readonly table: string;
  readonly column: string;
  /** The value itself is null; else that it leads nowhere may have another reason. */
  readonly isNull: boolean;
}

/** Asks the database only where a value is null. */
export async function incompleteIn(
  client: pg.ClientBase,
  events: readonly PageEvent[],
  sources: ReadonlyMap<string, Source>,
): Promise<Checked> {
  const lacking: Lacking[] = [];
  for (const item of events) {
    const source = item.kind === 'source' ? sources.get(item.event.source) : undefined;
    if (item.kind === 'source' && source !== undefined) lacking.push(...lackingIn(item.event, source));
  }
  if (lacking.length === 0) return { events, incomplete: [] };
  const explained = await mayBeNull(client, lacking);
  const gone = lacking.filter((one) => !explained(one));
  if (gone.length === 0) return { events, incomplete: [] };
  const untold = new Set(gone.map(({ event }) => event).filter(({ op }) => op !== 'removed'));
  const bySource = new Map<string, Lacking[]>();
  for (const one of gone) {
    const found = bySource.get(one.event.source) ?? [];
    bySource.set(one.event.source, found);
    found.push(one);
  }
  return {
    events: events.map((item) =>
      item.kind === 'source' && untold.has(item.event)
        ? { kind: 'source', event: { ...item.event, countersOnly: true } }
        : item,
    ),
    incomplete: [...bySource].map(([source, found]) => ({
      source,
      columns: [...new Set(found.map(({ column }) => column))],
      since: new Date(found.reduce((first, { event }) => Math.min(first, event.at.getTime()), Infinity)),
    })),
  };
}

/** Of what is taken back only what it is found by, and counted by, matters. */
function lackingIn(event: SourceEvent, source: Source): Lacking[] {
  const { actor, object, subject, recipient, table } = source;
  const found: Lacking[] = [];
  const lacks = (column: string, isNull = true, of = table): void => {
    found.push({ event, table: of, column, isNull });
  };
  const side: Side | null = event.op === 'removed' ? event.before : event.after;
  if (side === null) return [];
  // Every event of every page comes by here.
  const key = side.key.includes('null') ? (JSON.parse(side.key) as (string | null)[]) : [];
  key.forEach((value, i) => {
    const column = source.key[i];
    if (value === null && column !== undefined) lacks(column);
  });
  if (object !== null && side.objectId === null) lacks(object.id);
  if (event.op === 'removed') return found;
  if (subject !== null && side.subjectId === null) lacks(subject.id);
  if (side.actorId === null && actor?.kind === 'column') lacks(actor.column);
  if (side.actorId === null && actor?.kind === 'path') {
    lacks(actor.hops[0].from, false);
    for (const { table: of, match, take } of actor.hops) {
      lacks(match, false, of);
      lacks(take, false, of);
    }
  }
  if (side.route === null && recipient?.kind === 'column') lacks(recipient.column);
  if (side.route === null && recipient?.kind === 'path') lacks(recipient.hops[0].from);
  return found;
}

/** Tells of a column whether it is there, and may hold the null that an event has in it. */
async function mayBeNull(client: pg.ClientBase, asked: readonly Lacking[]): Promise<(one: Lacking) => boolean> {
  const id = ({ table, column }: Lacking): string => JSON.stringify([table, column]);
  const columns = [...new Map(asked.map((one) => [id(one), one])).values()];
  const { rows } = await client.query<{ is_there: boolean; is_required: boolean }>(
    `select a.attname is not null as is_there, coalesce(a.attnotnull, false) as is_required
       from unnest($1::text[], $2::text[]) with ordinality w(relation, name, n)
       left join pg_catalog.pg_attribute a
              on a.attrelid = pg_catalog.to_regclass(w.relation) and a.attname = w.name and a.attnum > 0 and not a.attisdropped
      order by w.n`,
    [columns.map(({ table }) => quoteTable(table)), columns.map(({ column }) => column)],
  );
  const facts = new Map(columns.map((one, i) => [id(one), rows[i]]));
  return (one) => {
    const fact = facts.get(id(one));
    return fact?.is_there === true && !(one.isNull && fact.is_required);
  };
}

/** Throws `config_invalid` where rows of these sources can't be read as the config says. */
export function assertColumns(sources: readonly Source[], types: ColumnTypes): void {
  for (const source of sources) {
    const missing = mappedColumns(source).find((column) => types(source.table, column) === null);
    if (missing === undefined) continue;
    throw new BelfryError(
      'config_invalid',
      `Table ${source.table} has no column ${missing}, which source ${source.name} names: correct the config or the table, run belfry migrate, then try again.`,
    );
  }
}

/**
 * Records the loss, one row a source however long it lasts. To be run in the transaction that moves the cursor past these events.
 */
export async function recordIncomplete(client: pg.ClientBase, incomplete: readonly Incomplete[]): Promise<void> {
  await client.query(
    `with found as (select * from unnest($1::text[], $2::timestamptz[]) f(source, since)),
          before as (delete from belfry.lost l using found f where l.source = f.source and l.sqlstate = $3 returning l.source, l.since)
     insert into belfry.lost (source, sqlstate, since)
     select f.source, $3, least(f.since, min(b.since)) from found f left join before b on b.source = f.source group by f.source, f.since`,
    [
      incomplete.map(({ source }) => source),
      incomplete.map(({ since }) => new Date(since.getTime() - transactionMs)),
      noColumn,
    ],
  );
}
