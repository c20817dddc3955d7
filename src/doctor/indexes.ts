/** Look-ups that the relay and the gateway make by a column that no index begins with, and the index that each wants. */

import type pg from 'pg';
import type { Config } from '../config.js';
import { parseTableName, quoteIdent, quoteTable } from '../postgres/sql.js';
import { loadColumnTypes, personColumn } from '../schema/columns.js';
import type { ColumnTypes } from '../schema/columns.js';
import { hopsOf, sourcePath } from '../schema/mapping.js';

export interface MissingIndex {
  /** The table and column, and what asks for it. */
  readonly what: string;
  /** `create index concurrently …` without a semicolon. */
  readonly sql: string;
}

interface LookUp {
  readonly why: string;
  readonly table: string;
  /** An index that begins with one of these serves. */
  readonly columns: readonly string[];
  /** What the index would be made on: columns, and expressions over such as are not compared as they are (personColumn). */
  readonly wanted: readonly string[];
}

/** Small tables too: they grow. Views and tables that are not there are left out. */
export async function missingIndexes(client: pg.ClientBase, config: Config): Promise<MissingIndex[]> {
  const asked = lookUps(config, await loadColumnTypes(client, config));
  const names = asked.map(({ table }) => parseTableName(table));
  const { rows } = await client.query<{ nr: number; columns: string[]; expressions: string[] }>(
    `select t.nr::int - 1 as nr,
            array(select distinct a.attname::text
                    from pg_index i
                    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
                   where i.indrelid = c.oid and i.indisvalid and i.indpred is null) as columns,
            -- Columns that are in the expressions of an index that begins with one.
            array(select distinct a.attname::text
                    from pg_index i
                    join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = i.indexrelid
                                    and d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid
                    join pg_attribute a on a.attrelid = c.oid and a.attnum = d.refobjsubid and a.attnum > 0
                   where i.indrelid = c.oid and i.indisvalid and i.indpred is null and i.indkey[0] = 0) as expressions
       from unnest($1::text[], $2::text[]) with ordinality t(schema, name, nr)
       join pg_namespace n on n.nspname = t.schema
       join pg_class     c on c.relnamespace = n.oid and c.relname = t.name and c.relkind in ('r', 'p', 'm')`,
    [names.map(({ schema }) => schema), names.map(({ name }) => name)],
  );
  const missing = new Map<string, MissingIndex>();
  for (const { nr, columns, expressions } of rows) {
    const lookUp = asked[nr];
    const serves = (column: string): boolean =>
      (lookUp?.wanted.includes(quoteIdent(column)) === true ? columns : expressions).includes(column);
    if (lookUp === undefined || lookUp.columns.some(serves)) continue;
    const sql = `create index concurrently on ${quoteTable(lookUp.table)} (${lookUp.wanted.join(', ')})`;
    missing.set(sql, { what: `${lookUp.table} by ${lookUp.columns.join(' or ')} (${lookUp.why})`, sql });
  }
  return [...missing.values()];
}

function lookUps(config: Config, types: ColumnTypes): LookUp[] {
  const found: LookUp[] = [];
  const { people, blocks, mutes, threadMutes } = config;
  const by = (why: string, table: string, ...columns: string[]): void => {
    found.push({ why, table, columns, wanted: columns.map(quoteIdent) });
  };
  const person = (table: string, column: string): string => personColumn(table, column, types, '').sql;
  const byPeople = (why: string, table: string, columns: readonly string[], ...wanted: string[]): void => {
    found.push({ why, table, columns, wanted });
  };
  if (people !== null) by('people', people.table, people.id);
  if (blocks !== null) {
    // Whoever connects asks for both ends of their blocks.
    const { table, from, to } = blocks;
    byPeople('blocks', table, [from], person(table, from), person(table, to));
    if (blocks.direction === 'both') byPeople('blocks', table, [to], person(table, to));
  }
  if (mutes !== null) {
    const { table, from, to } = mutes;
    byPeople('mutes', table, [from, to], person(table, from), person(table, to));
  }
  if (threadMutes !== null) {
    const { table, user, id } = threadMutes;
    byPeople('threadMutes', table, [user, id], person(table, user), quoteIdent(id));
  }
  config.sources.forEach((source, i) => {
    for (const [, hops] of hopsOf(source)) for (const hop of hops) by(sourcePath(source, i), hop.table, hop.match);
    if (source.key.length > 0) by(`${sourcePath(source, i)}.key, for repairs`, source.table, ...source.key);
  });
  return found;
}
