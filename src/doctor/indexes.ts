/** Look-ups that the relay and the gateway make by a column that no index begins with, and the index that each wants. */

import type pg from 'pg';
import type { Config } from '../config.js';
import { parseTableName, quoteIdent, quoteTable } from '../postgres.js';
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
  /** What the index would be made on. */
  readonly wanted: readonly string[];
}

/** Small tables too: they grow. Views and tables that are not there are left out. */
export async function missingIndexes(client: pg.ClientBase, config: Config): Promise<MissingIndex[]> {
  const asked = lookUps(config);
  const names = asked.map(({ table }) => parseTableName(table));
  // `first` is null for what is a table without any index.
  const { rows } = await client.query<{ nr: number; columns: string[] }>(
    `select t.nr::int - 1 as nr,
            array(select distinct a.attname::text
                    from pg_index i
                    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
                   where i.indrelid = c.oid and i.indisvalid and i.indpred is null) as columns
       from unnest($1::text[], $2::text[]) with ordinality t(schema, name, nr)
       join pg_namespace n on n.nspname = t.schema
       join pg_class     c on c.relnamespace = n.oid and c.relname = t.name and c.relkind in ('r', 'p', 'm')`,
    [names.map(({ schema }) => schema), names.map(({ name }) => name)],
  );
  const missing = new Map<string, MissingIndex>();
  for (const { nr, columns } of rows) {
    const lookUp = asked[nr];
    if (lookUp === undefined || lookUp.columns.some((column) => columns.includes(column))) continue;
    const sql = `create index concurrently on ${quoteTable(lookUp.table)} (${lookUp.wanted.map(quoteIdent).join(', ')})`;
    missing.set(sql, { what: `${lookUp.table} by ${lookUp.columns.join(' or ')} (${lookUp.why})`, sql });
  }
  return [...missing.values()];
}

function lookUps(config: Config): LookUp[] {
  const found: LookUp[] = [];
  const { people, blocks, mutes, threadMutes } = config;
  const by = (why: string, table: string, ...columns: string[]): void => {
    found.push({ why, table, columns, wanted: columns });
  };
  if (people !== null) by('people', people.table, people.id);
  if (blocks !== null) {
    // Whoever connects asks for both ends of their blocks.
    found.push({ why: 'blocks', table: blocks.table, columns: [blocks.from], wanted: [blocks.from, blocks.to] });
    if (blocks.direction === 'both') by('blocks', blocks.table, blocks.to);
  }
  if (mutes !== null) by('mutes', mutes.table, mutes.from, mutes.to);
  if (threadMutes !== null) by('threadMutes', threadMutes.table, threadMutes.user, threadMutes.id);
  config.sources.forEach((source, i) => {
    for (const [, hops] of hopsOf(source)) for (const hop of hops) by(sourcePath(source, i), hop.table, hop.match);
    if (source.key.length > 0) by(`${sourcePath(source, i)}.key, for repairs`, source.table, ...source.key);
  });
  return found;
}
