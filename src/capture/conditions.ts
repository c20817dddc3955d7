/**
 * Tries every `when` as the triggers will: as the role that their functions belong to, with nothing but pg_catalog in the search path,
 * over no rows.
 *
 * That role may not read the tables, and need not: a trigger is given its rows. Here it is given a view of them, in a transaction
 * that is undone; so is the role itself, or schema belfry, where they are not there yet.
 */

import type pg from 'pg';
import type { Config } from '../config.js';
import { messageOf, sqlState } from '../errors.js';
import { quoteIdent } from '../postgres/sql.js';
import { withMigrationLock } from '../schema/migrate.js';
import { readCatalog, tableKey, type Catalog } from './catalog.js';
import { capturedSources, type CapturedSource } from './desired.js';
import { CAPTURE_ROLE, qualified } from './names.js';
import { borrowRole } from './plan.js';

/**
 * A line for every condition that does not run. Left out are those of tables that are not there, and those that `told` has a line of. Throws
 * what Postgres says where none can be tried. In no transaction.
 */
export async function conditionProblems(
  client: pg.ClientBase,
  config: Config,
  told: readonly string[],
): Promise<string[]> {
  const sources = capturedSources(config).filter(
    ({ path, when }) => when !== null && !told.some((line) => line.startsWith(`${path}.when: `)),
  );
  if (sources.length === 0) return [];
  return withMigrationLock(client, async () => {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await tried(client, sources);
      } catch (error) {
        // Roles belong to the cluster: another database's migration has made one just now, or its uninstall dropped one.
        if (!['42710', '23505', '42704'].includes(sqlState(error) ?? '') || attempt === ATTEMPTS) throw error;
      }
    }
  });
}

const ATTEMPTS = 3;
const VIEW = 'belfry.condition_on_trial';

async function tried(client: pg.ClientBase, sources: readonly CapturedSource[]): Promise<string[]> {
  const tables = sources.map(({ table }) => table);
  const catalog = await readCatalog(client, tables);
  const problems: string[] = [];
  await client.query('begin');
  try {
    const { rowCount } = await client.query(`select from pg_catalog.pg_namespace where nspname = 'belfry'`);
    if (rowCount === 0) await client.query('create schema belfry');
    const acting = actingStatements(catalog);
    for (const { path, table, when } of sources) {
      if ((catalog.tables.get(tableKey(table)) ?? null) === null) continue;
      await client.query('savepoint belfry_condition');
      await client.query(`create view ${VIEW} as select * from ${qualified(table)}`);
      for (const sql of acting) await client.query(sql);
      await client.query('set local search_path = pg_catalog, pg_temp');
      try {
        await client.query(`select from (select * from ${VIEW} limit 0) as belfry_new where (\n${when ?? ''}\n)`);
      } catch (error) {
        problems.push(`${path}.when: ${messageOf(error)}${adviceOn(error, catalog)}`);
      }
      await client.query('rollback to savepoint belfry_condition');
    }
  } finally {
    // A broken connection can't roll back, and need not.
    await client.query('rollback').catch(() => undefined);
  }
  return problems;
}

/** Makes the session act as belfry_capture; nothing where the functions will belong to the user. */
function actingStatements(catalog: Catalog): string[] {
  const borrowed = borrowRole(catalog);
  if (borrowed === null) return [];
  return [
    ...(catalog.roles.captureExists ? [] : [`create role ${CAPTURE_ROLE} nologin`]),
    ...borrowed.before,
    `grant usage on schema belfry to ${CAPTURE_ROLE}`,
    `grant select on ${VIEW} to ${CAPTURE_ROLE}`,
    `set local role ${CAPTURE_ROLE}`,
  ];
}

function adviceOn(error: unknown, catalog: Catalog): string {
  if (sqlState(error) !== '42501') return ' (functions and types outside pg_catalog need their schema)';
  if (borrowRole(catalog) === null) return '';
  const schema = /schema (\S+)$/.exec(messageOf(error))?.[1];
  const grant =
    schema === undefined ? 'grant it that right' : `grant usage on schema ${quoteIdent(schema)} to ${CAPTURE_ROLE}`;
  const made = catalog.roles.captureExists ? '' : `create role ${CAPTURE_ROLE} nologin; `;
  return `. The triggers run as ${CAPTURE_ROLE}: ${made}${grant}`;
}
