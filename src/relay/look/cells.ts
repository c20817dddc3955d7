/** `new` and `old` of an event as people see them: the mapped columns, ids and numbers beyond 2^53 as text. */

import { COUNTERS_KEY } from '../../capture/rows.js';
import { mappedColumns } from '../../config.js';
import type { Config } from '../../config.js';
import { parseJson } from '../../postgres/json.js';
import { quoteLiteral } from '../../postgres/sql.js';
import type { ColumnTypes } from '../../schema/columns.js';
import { pairsOf } from './filter.js';

export type Cells = Readonly<Record<string, unknown>> | null;

/** What `cellsSql` selects, read. */
export function withCells<Row>(
  row: Row & { readonly new: string | null; readonly old: string | null },
): Row & { new: Cells; old: Cells } {
  const cells = (text: string | null): Cells => (text === null ? null : (parseJson(text) as Cells));
  return { ...row, new: cells(row.new), old: cells(row.old) };
}

/** What tells which columns hold ids, and how these are written. */
export interface Known {
  readonly config: Config;
  readonly types: ColumnTypes;
}

/**
 * Selects the columns `new` and `old` (JSON texts) of `row`, which also has `source`. Without a config nobody knows which columns hold ids.
 */
export function cellsSql(known: Known | null, row: string): string {
  const columns = known === null ? [] : idColumnsOf(known.config);
  const bySource = (which: (table: string, column: string) => boolean): string => {
    const entries = columns.map(({ name, table, columns: ids }) => [name, ids.filter((id) => which(table, id))]);
    return `${quoteLiteral(JSON.stringify(Object.fromEntries(entries)))}::jsonb -> ${row}.source`;
  };
  const ids = bySource(() => true);
  // JSON keeps the blanks that fill a char(n) up, which do not belong to its text: everywhere else the id is told without them.
  const padded = bySource((table, column) => known?.types(table, column) === 'bpchar');
  const side = (name: string): string => `(
      select jsonb_object_agg(key, case when jsonb_typeof(value) = 'number' and ${ids} ? key then to_jsonb(value #>> '{}')
                                        when jsonb_typeof(value) = 'string' and ${padded} ? key then to_jsonb(rtrim(value #>> '{}'))
                                        else value end)
        from jsonb_each(${row}.${name}) where key <> ${quoteLiteral(COUNTERS_KEY)})::text as ${name}`;
  return `${side('new')}, ${side('old')}`;
}

interface IdColumns {
  /** Of the source. */
  readonly name: string;
  readonly table: string;
  readonly columns: readonly string[];
}

/** Columns by source that hold ids; what is only included is plain JSON. */
function idColumnsOf(config: Config): IdColumns[] {
  const mapped = config.sources.map((source) => ({
    name: source.name,
    table: source.table,
    columns: mappedColumns({ ...source, include: [] }),
  }));
  return [...mapped, ...pairsOf(config)];
}
