/**
 * Sources whose writes were not captured for a while: a trigger that was dropped or switched off, a partition that has none yet or was
 * detached or dropped with all its rows, a mapped column that was dropped or renamed and has been captured as null since.
 *
 * What must hold:
 * - A loss is recorded in belfry.lost once, by whoever ends it (`belfry migrate`, or the relay's repair), in the transaction that ends
 *   it: the relay repairs it afterwards and never before, and a crash forgets none.
 * - What was never captured has lost nothing: a table that is new in the config, or that uninstall had released.
 */

import { quoteLiteral, type TableName } from '../postgres/sql.js';
import { tableKey, type Catalog, type InstalledTrigger, type Relation, type TriggerRecord } from './catalog.js';
import type { Desired } from './desired.js';
import { qualified } from './names.js';

export interface Deafness {
  readonly source: string;
  readonly table: TableName;
  /** `partition`: one that had no trigger yet, and matters for what was written straight into it. `left`: one that is none any more. */
  readonly kind: 'trigger' | 'column' | 'partition' | 'left';
  /**
   * Records it: before the records of the triggers are renewed, from which it takes since when. Of a `partition`, after its triggers are
   * made: if it is empty then, all that was written went through its parent.
   */
  readonly statement: string;
}

/** SQLSTATEs of belfry.lost for what no statement failed of: undefined_object, undefined_column. */
const noTrigger = '42704';
export const noColumn = '42703';

/** One entry per source and table or partition. */
export function deafSources(catalog: Catalog, desired: Desired): Deafness[] {
  const relations = new Map<string, Relation>();
  for (const table of catalog.tables.values())
    for (const relation of table === null ? [] : [table, ...table.descendants])
      relations.set(tableKey(relation), relation);
  // Of any table: a partition that is new has no record of its own.
  const migrated = new Set(catalog.records.map((record) => record.source));
  const found = new Map<string, Deafness>();
  for (const wanted of desired.triggers) {
    const { source, table, partition } = wanted;
    const id = JSON.stringify([source, tableKey(table)]);
    // By the operation: another capture mode has other names.
    const record = catalog.records.find(
      (row) => row.source === source && row.operation === wanted.operation && sameTable(row, table),
    );
    if (record === undefined) {
      const fresh = partition && migrated.has(source) && triggerOn(catalog, wanted.name, table) === undefined;
      if (fresh) found.set(id, { source, table, kind: 'partition', statement: lossStatement(source, [], table) });
      continue;
    }
    const columns = relations.get(tableKey(table))?.columns ?? [];
    const gone = Object.keys(record.columns).filter((name) => !columns.some((column) => column.name === name));
    if (gone.length > 0) found.set(id, { source, table, kind: 'column', statement: lossStatement(source, gone) });
    else if (!isOn(catalog, record, table) && !found.has(id))
      found.set(id, { source, table, kind: 'trigger', statement: lossStatement(source, []) });
  }
  for (const { source, table } of formerPartitions(catalog, desired))
    found.set(JSON.stringify([source, tableKey(table)]), {
      ...{ source, table, kind: 'left' },
      statement: lossStatement(source, []),
    });
  return [...found.values()];
}

export interface FormerPartition {
  readonly source: string;
  readonly table: TableName;
  readonly records: readonly TriggerRecord[];
}

/**
 * What was captured with a table of the config, and is no part of it any more. It took its rows along, of which no trigger says a word; where it
 * was detached its triggers go on capturing for the source. A source whose own table is another one now is not meant: it is counted anew anyway.
 */
export function formerPartitions(catalog: Catalog, desired: Desired): FormerPartition[] {
  const found = new Map<string, FormerPartition & { readonly records: TriggerRecord[] }>();
  for (const record of catalog.records) {
    const { source } = record;
    const own = desired.triggers.filter((wanted) => wanted.source === source);
    const root = own.find(({ partition }) => !partition)?.table;
    if (root === undefined || own.some(({ table }) => sameTable(record, table))) continue;
    if (!catalog.records.some((other) => other.source === source && sameTable(other, root))) continue;
    const table = { schema: record.schema, name: record.table };
    const id = JSON.stringify([source, tableKey(table)]);
    const former = found.get(id) ?? { source, table, records: [] };
    former.records.push(record);
    found.set(id, former);
  }
  return [...found.values()];
}

const sameTable = (row: { schema: string; table: string }, table: TableName): boolean =>
  tableKey({ schema: row.schema, name: row.table }) === tableKey(table);

function triggerOn(catalog: Catalog, name: string, table: TableName): InstalledTrigger | undefined {
  return catalog.triggers.find((row) => row.name === name && tableKey(row.table) === tableKey(table));
}

function isOn(catalog: Catalog, record: TriggerRecord, table: TableName): boolean {
  const trigger = triggerOn(catalog, record.trigger, table);
  return trigger !== undefined && (trigger.enabled === 'A' || (trigger.enabled === 'O' && record.capture !== 'row'));
}

/** It began after a relay last found all in order, else after the triggers were made; in any case after an event that has these columns. */
function lossStatement(source: string, gone: readonly string[], ifAny: TableName | null = null): string {
  const name = quoteLiteral(source);
  const whole = gone.map((column) => ` and o.new ->> ${quoteLiteral(column)} is not null`).join('');
  const known = [
    `coalesce((select c.ok_at from belfry.capture_check c where c.source = ${name}),\n` +
      `           (select min(t.installed_at) from belfry.capture_trigger t where t.source = ${name}))`,
    ...(gone.length === 0
      ? []
      : [
          `(select o.at from belfry.outbox o where o.source = ${name} and o.op in ('created', 'changed')${whole} order by o.id desc limit 1)`,
        ]),
  ];
  return (
    `insert into belfry.lost (source, sqlstate, since)\nselect ${name}, '${gone.length > 0 ? noColumn : noTrigger}',\n` +
    `  greatest(${known.join(',\n           ')})` +
    (ifAny === null ? '' : `\n where exists (select from ${qualified(ifAny)})`)
  );
}
