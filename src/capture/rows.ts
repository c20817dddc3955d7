/**
 * The statements of the trigger functions that read the rows of a transition table and write the outbox.
 *
 * What must hold in them:
 * - Mapped columns are named directly, so that large columns beside them are never read; yet a column that was dropped or
 *   renamed gives null and no error. Both at once through the scopes of SQL: the transition table is read in a lateral subquery,
 *   and a column that it does not have is found one level further out, in `belfry_gone`, where every column is null. Postgres
 *   resolves the names anew after each change of the table.
 * - No variable of plpgsql stands in them: it could be taken for a column, and would cost five custom plans.
 * - Rows that did not change in a mapped column are told by their binary image first, which needs no operator of the type
 *   (json has none), and then by value, so that 1.0 and 1.00 are equal.
 * - OLD and NEW are paired by their position. The join is a full join because the plan is kept, whatever number of rows it was
 *   made for, and a full join can't become a nested loop (200,000 rows would take hours).
 */

import { quoteIdent, quoteLiteral } from '../postgres/sql.js';
import type { CaptureMode, Operation } from './names.js';

/** Key in `new` (in `old` of a delete) that tells the relay to count only (`set local belfry.capture = 'counters'`). */
export const COUNTERS_KEY = 'belfry:counters';

export interface RowsInput {
  readonly source: string;
  readonly operation: Operation;
  readonly mode: CaptureMode;
  /** Mapped columns. */
  readonly columns: readonly string[];
  /** SQL over the row, or null: always. */
  readonly when: string | null;
  /** Columns that `when` may name, with a type each that needs no schema. */
  readonly whenColumns: ReadonlyMap<string, string>;
}

/** Stands for `when` until the text is complete: indenting it would change literals that go over several lines. */
const CONDITION = '\u0000when\u0000';

export function withCondition(text: string, when: string | null): string {
  return text.replaceAll(CONDITION, () => when ?? 'true');
}

const COUNTERS = "pg_catalog.current_setting('belfry.capture', true)";

/** What can fail because of the data is tried in a subtransaction that writes nothing, which costs nobody else anything. */
export function conditionCheck(input: RowsInput): string {
  if (input.when === null) return '';
  const tables = [rowsOf(input, 'new'), rowsOf(input, 'old')].filter((_, i) => usesRows(input.operation)[i] === true);
  if (tables.length === 0) return '';
  const checks = tables.map(
    (table) => `
  perform pg_catalog.count(*)
  from ${goneColumns(input)}
  cross join lateral (select from ${table} where ${condition()}) as belfry_row;`,
  );
  return `begin${checks.join('')}\nexception when others then\n  belfry_error := sqlstate;\nend;`;
}

const usesRows = (operation: Operation): readonly [newRows: boolean, oldRows: boolean] => [
  operation === 'insert' || operation === 'update',
  operation === 'delete' || operation === 'update',
];

/**
 * Writes the events of one firing. `marks`: looks at every row whether the transaction wants counters only; without, it is for
 * transactions of which that is known.
 */
export function insertStatement(input: RowsInput, marks: boolean): string {
  const flagged = marks ? marked : (value: string): string => value;
  const source = quoteLiteral(input.source);
  switch (input.operation) {
    case 'insert':
      return `
insert into belfry.outbox (source, op, new)
select ${source}, 'created', ${flagged('belfry_row.new')}
from ${goneColumns(input)}
cross join lateral (
  select ${object(input.columns.map((name) => [name, quoteIdent(name)]))} as new
  from ${rowsOf(input, 'new')}${where(input)}
) as belfry_row;`;
    case 'delete':
      return `
insert into belfry.outbox (source, op, new, old)
select ${source}, 'removed', null, ${flagged('belfry_row.old')}
from ${goneColumns(input)}
cross join lateral (
  select ${object(input.columns.map((name) => [name, quoteIdent(name)]))} as old
  from ${rowsOf(input, 'old')}${where(input)}
) as belfry_row;`;
    case 'update':
      return updateStatement(input, flagged);
    case 'truncate':
      return `
insert into belfry.outbox (source, op, new)
values (${source}, 'truncated', ${flagged('null')});`;
  }
}

function updateStatement(input: RowsInput, flagged: (value: string) => string): string {
  const { columns, when } = input;
  const numbered = columns.map((name, i) => `${quoteIdent(name)} as c${i + 1}`).join(', ');
  const image = (side: string): string => `row(${columns.map((_, i) => `${side}.c${i + 1}`).join(', ')})::record`;
  const picked = (side: string): string => object(columns.map((name, i) => [name, `${side}.c${i + 1}`]));
  const rows = (side: 'new' | 'old'): string =>
    `(
    select ${input.mode === 'row' ? '' : 'pg_catalog.row_number() over () as nr, '}${
      when === null ? '' : `${condition()} is true as holds, `
    }${numbered}
    from ${rowsOf(input, side)}
  ) as ${side === 'new' ? 'n' : 'o'}`;
  const differs = `${image('o')} operator(pg_catalog.*<>) ${image('n')}`;
  const join = input.mode === 'row' ? 'cross join' : 'full join';
  return `
insert into belfry.outbox (source, op, new, old)
select ${quoteLiteral(input.source)}, belfry_row.op, ${flagged('belfry_row.new')}, belfry_row.old
from ${goneColumns(input)}
cross join lateral (
  select ${when === null ? "'changed'" : "case when n.holds and o.holds then 'changed' when n.holds then 'created' else 'removed' end"} as op,
         ${picked('n')} as new,
         ${picked('o')} as old
  from ${rows('old')}
  ${join} ${rows('new')}${input.mode === 'row' ? '' : ' on n.nr = o.nr'}
  where ${when === null ? differs : `(n.holds or o.holds) and (n.holds <> o.holds or ${differs})`}
  offset 0
) as belfry_row
where ${when === null ? '' : "belfry_row.op <> 'changed' or "}belfry_row.new is distinct from belfry_row.old;`;
}

/** Where a column is found that the table no longer has: null, as text, or as what `when` expects. */
function goneColumns(input: RowsInput): string {
  const names = new Map(input.columns.map((name) => [name, 'text']));
  for (const [name, type] of input.whenColumns) names.set(name, type);
  const nulls = [...names].map(([name, type]) => `null::${type} as ${quoteIdent(name)}`);
  return `(select ${nulls.join(', ')}) as belfry_gone`;
}

function rowsOf(input: RowsInput, side: 'new' | 'old'): string {
  return input.mode === 'row' ? `(select ${side}.*) as belfry_${side}` : `belfry_${side}`;
}

/** On lines of its own: it may end in a comment. */
function condition(): string {
  return `(\n    ${CONDITION}\n  )`;
}

function where(input: RowsInput): string {
  return input.when === null ? '' : `\n  where ${condition()}`;
}

/** `value` as it goes into the outbox: with the mark of `belfry.capture = 'counters'` where that is set. */
function marked(value: string): string {
  return `case when ${COUNTERS} = 'counters' then coalesce(${value}, '{}'::jsonb) operator(pg_catalog.||) '{"${COUNTERS_KEY}": true}'::jsonb else ${value} end`;
}

// A function takes at most 100 arguments.
const PAIRS_PER_CALL = 50;

export function object(pairs: readonly (readonly [name: string, value: string])[]): string {
  const calls: string[] = [];
  for (let i = 0; i < pairs.length; i += PAIRS_PER_CALL) {
    const part = pairs.slice(i, i + PAIRS_PER_CALL).map(([name, value]) => `${quoteLiteral(name)}, ${value}`);
    calls.push(`pg_catalog.jsonb_build_object(${part.join(', ')})`);
  }
  return calls.join(' operator(pg_catalog.||) ');
}
