/**
 * What of the config the database does not have: the tables that are captured with their columns, and what schema/mapping.ts looks at.
 *
 * All of it is told at once, each with its place in the config. Whether a condition runs in a trigger is known to conditions.ts.
 */

import type pg from 'pg';
import type { Config } from '../config.js';
import { BelfryError } from '../errors.js';
import { mappingProblems } from '../schema/mapping.js';
import { tableKey, type Catalog } from './catalog.js';
import { capturedSources, type CapturedSource } from './desired.js';

/** A line per problem; empty when all is there. The catalog is that of the captured tables. Changes and locks nothing. */
export async function configProblems(client: pg.ClientBase, config: Config, catalog: Catalog): Promise<string[]> {
  return [...captureProblems(config, catalog), ...(await mappingProblems(client, config))];
}

/** A line per problem: tables and columns that do not exist, or can't be captured. */
export function captureProblems(config: Config, catalog: Catalog): string[] {
  return [...new Set(capturedSources(config).flatMap((source) => problemsOf(source, catalog)))];
}

/** Throws BelfryError `config_invalid` with these problems, where there are any. */
export function assertNone(problems: readonly string[], config: Config): void {
  if (problems.length > 0)
    throw new BelfryError('config_invalid', [`${config.path}:`, ...problems.map((line) => `  ${line}`)].join('\n'));
}

function problemsOf({ path, table, places }: CapturedSource, catalog: Catalog): string[] {
  const found = catalog.tables.get(tableKey(table)) ?? null;
  const name = `${table.schema}.${table.name}`;
  if (found === null) return [`${path}.table: there is no table ${name} in database ${catalog.database}`];
  if (found.kind !== 'r' && found.kind !== 'p')
    return [`${path}.table: ${name} is not a table; views and foreign tables can't be captured`];
  const columns = new Map(found.columns.map((column) => [column.name, column]));
  return places.flatMap(({ place, column }) => {
    const known = columns.get(column);
    const at = `${path}.${place}`;
    if (known === undefined) return [`${at}: table ${name} has no column ${column}`];
    if (/[\r\n]/.test(column))
      return [`${at}: column ${JSON.stringify(column)} has a line break in its name, which can't be captured`];
    if (known.virtual)
      return [`${at}: column ${column} of ${name} is computed when it is read (virtual), which triggers can't see`];
    return [];
  });
}
