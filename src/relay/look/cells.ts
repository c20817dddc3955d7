/** `new` and `old` of an event as people see them: the mapped columns, ids and numbers beyond 2^53 as text. */

import { COUNTERS_KEY } from '../../capture/rows.js';
import { mappedColumns } from '../../config.js';
import type { Config } from '../../config.js';
import { parseJson } from '../../postgres/json.js';
import { quoteLiteral } from '../../postgres/sql.js';
import { pairsOf } from './filter.js';

export type Cells = Readonly<Record<string, unknown>> | null;

/** What `cellsSql` selects, read. */
export function withCells<Row>(
  row: Row & { readonly new: string | null; readonly old: string | null },
): Row & { new: Cells; old: Cells } {
  const cells = (text: string | null): Cells => (text === null ? null : (parseJson(text) as Cells));
  return { ...row, new: cells(row.new), old: cells(row.old) };
}

/**
 * Selects the columns `new` and `old` (JSON texts) of `row`, which also has `source`. Without a config nobody knows which columns hold ids.
 */
export function cellsSql(config: Config | null, row: string): string {
  const ids = quoteLiteral(JSON.stringify(config === null ? {} : idColumnsOf(config)));
  const side = (name: string): string => `(
      select jsonb_object_agg(key, case when jsonb_typeof(value) = 'number'
                                         and ${ids}::jsonb -> ${row}.source ? key
                                        then to_jsonb(value #>> '{}') else value end)
        from jsonb_each(${row}.${name}) where key <> ${quoteLiteral(COUNTERS_KEY)})::text as ${name}`;
  return `${side('new')}, ${side('old')}`;
}

/** Columns by source that hold ids; what is only included is plain JSON. */
function idColumnsOf(config: Config): Record<string, readonly string[]> {
  const mapped = config.sources.map((source) => [source.name, mappedColumns({ ...source, include: [] })] as const);
  return Object.fromEntries([...mapped, ...pairsOf(config).map(({ name, columns }) => [name, columns] as const)]);
}
