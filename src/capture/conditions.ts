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
import { quoteIdent } from '../sql.js';
import { withMigrationLock } from '../schema/migrate.js';
import { readCatalog, type Catalog } from './catalog.js';
import { assertNone, capturedSources } from './desired.js';
import { CAPTURE_ROLE, qualified } from './names.js';
import { borrowRole } from './plan.js';

/** Throws `config_invalid` with every condition that does not run, and what Postgres says where it can't be tried. In no transaction. */
export async function assertConditions(client: pg.ClientBase, config: Config): Promise<void> {
  if (capturedSources(config).every(({ when }) => when === null)) return;
  await withMigrationLock(client, async () => {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return assertNone(await conditionProblems(client, config), config);
      } catch (error) {
        // Roles belong to the cluster: another database's migration has made one just now, or its uninstall dropped one.
        if (!['42710', '23505', '42704'].includes(sqlState(error) ?? '') || attempt === ATTEMPTS) throw error;
      }
    }
  });
}

const ATTEMPTS = 3;
const VIEW = 'belfry.condition_on_trial';

async function conditionProblems(client: pg.ClientBase, config: Config): Promise<string[]> {
  const catalog = await readCatalog(client, []);
  const problems: string[] = [];
  await client.query('begin');
  try {
    const { rowCount } = await client.query(`select from pg_catalog.pg_namespace where nspname = 'belfry'`);
    if (rowCount === 0) await client.query('create schema belfry');
    const acting = actingStatements(catalog);
    for (const { path, table, when } of capturedSources(config)) {
      if (when === null) continue;
      await client.query('savepoint belfry_condition');
      await client.query(`create view ${VIEW} as select * from ${qualified(table)}`);
      for (const sql of acting) await client.query(sql);
      await client.query('set local search_path = pg_catalog, pg_temp');
      try {
        await client.query(`select from (select * from ${VIEW} limit 0) as belfry_new where (\n${when}\n)`);
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
