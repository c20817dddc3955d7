/**
 * Installs the triggers of a config.
 *
 * - Everything that can be wrong is found before anything is changed: tables, columns, conditions, ownership, roles.
 * - It can be stopped at any point and run again; what is as it should be is not touched.
 * - It needs the owner of the tables and no superuser. Without CREATEROLE it says which roles a DBA must make.
 */

import type pg from 'pg';
import type { Config } from '../config.js';
import { BelfryError, messageOf, sqlState } from '../errors.js';
import { quoteIdent } from '../postgres/sql.js';
import { withMigrationLock } from '../schema/migrate.js';
import { readCatalog, tableKey, type Catalog } from './catalog.js';
import { conditionProblems } from './conditions.js';
import { capturedTables } from './desired.js';
import { runInTransaction, runWithTableLock, type CaptureLog } from './locks.js';
import { CAPTURE_ROLE, qualified } from './names.js';
import { missingRoles, planCapture } from './plan.js';
import { assertNone, captureProblems } from './problems.js';

export { capturedTables } from './desired.js';
export { captureSql } from './plan.js';
export type { CaptureLog } from './locks.js';

export interface InstallOptions {
  readonly log?: CaptureLog;
  /** How long a locked table is tried for; a minute. */
  readonly lockBoundMs?: number;
}

export interface InstallResult {
  /** What was changed, in order; empty when everything was there. */
  readonly changed: readonly string[];
  /** What works, but not as it should. */
  readonly warnings: readonly string[];
}

/**
 * Brings roles, functions and triggers to what the config says; the client must be in no transaction, and the migrations applied. Throws
 * `not_migrated`, `config_invalid` (every problem of the mapping), `database_denied` (rights, roles), `lock_busy` (retry).
 */
export async function installCapture(
  client: pg.ClientBase,
  config: Config,
  options: InstallOptions = {},
): Promise<InstallResult> {
  return withMigrationLock(client, async () => {
    const before = await readCatalog(client, capturedTables(config));
    if (before.ring === null)
      throw new BelfryError('not_migrated', 'There is no schema belfry in this database: run `belfry migrate`.');
    await assertInstallable(client, config, before, captureProblems(config, before));
    assertRoles(before);
    const changed: string[] = [];
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await converge(client, config, options, changed);
      } catch (error) {
        // Roles belong to the cluster: another database's uninstall has dropped one just now.
        if (sqlState(error) !== '42704' || attempt === ROLE_ATTEMPTS) throw denied(error);
      }
    }
  });
}

const ROLE_ATTEMPTS = 3;

/** One way from what is there to what should be; `changed` grows as it goes. */
async function converge(
  client: pg.ClientBase,
  config: Config,
  options: InstallOptions,
  changed: string[],
): Promise<InstallResult> {
  const tables = capturedTables(config);
  changed.push(...(await createRoles(client, await readCatalog(client, tables))));
  const { steps, warnings } = planCapture(await readCatalog(client, tables), config);
  for (const step of steps) {
    if (step.table === null) await runStep(client, step.statements);
    else await runWithTableLock(client, step.table, step.statements, boundsOf(options));
    for (const change of step.changes) options.log?.info({ change }, 'capture changed');
    changed.push(...step.changes);
  }
  return { changed, warnings };
}

function boundsOf(options: InstallOptions): { log?: CaptureLog; boundMs?: number } {
  return {
    ...(options.log === undefined ? {} : { log: options.log }),
    ...(options.lockBoundMs === undefined ? {} : { boundMs: options.lockBoundMs }),
  };
}

/** Roles and rights belong to the cluster or to all: another database's migration may change the same rows just now. */
async function runStep(client: pg.ClientBase, statements: readonly string[]): Promise<void> {
  const attempts = 5;
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await runInTransaction(client, statements);
    } catch (error) {
      const concurrent = sqlState(error) === 'XX000' && /concurrently/.test(messageOf(error));
      if (!concurrent || attempt === attempts) throw error;
    }
  }
}

function denied(error: unknown): unknown {
  if (sqlState(error) !== '42501') return error;
  return new BelfryError(
    'database_denied',
    `${messageOf(error)}. Run belfry migrate as the owner of the tables and of schema belfry, with CREATE on the database.`,
    {
      cause: error,
    },
  );
}

/**
 * Before anything is changed: throws `config_invalid` with the problems that were found and, with them, the conditions that do not run, else
 * `database_denied` (not the owner).
 */
export async function assertInstallable(
  client: pg.ClientBase,
  config: Config,
  catalog: Catalog,
  found: readonly string[],
): Promise<void> {
  if (found.length === 0) assertOwned(config, catalog);
  let conditions: readonly string[] = [];
  try {
    conditions = await conditionProblems(client, config, found);
  } catch (error) {
    // Where they can't be tried, what was found is told without them.
    if (found.length === 0) throw denied(error);
  }
  assertNone([...found, ...conditions], config);
}

/** Throws `database_denied` when the tables belong to somebody else: triggers need their owner. */
function assertOwned(config: Config, catalog: Catalog): void {
  const foreign = new Map<string, string>();
  for (const table of capturedTables(config)) {
    const found = catalog.tables.get(tableKey(table)) ?? null;
    if (found === null) continue;
    for (const relation of [found, ...found.descendants])
      if (!relation.owned) foreign.set(qualified(relation), relation.owner);
  }
  if (foreign.size === 0) return;
  const list = [...foreign].map(([table, owner]) => `${table} (owner ${owner})`).join(', ');
  throw new BelfryError(
    'database_denied',
    `User ${catalog.roles.user} may not create triggers on ${list}: run belfry migrate as the owner of the tables, or as a member of that role.`,
  );
}

/** Throws `database_denied` with the SQL for a DBA where roles are missing that the user may not create. */
export function assertRoles(catalog: Catalog): void {
  const { user, mayCreate } = catalog.roles;
  const missing = missingRoles(catalog);
  if (missing.length === 0 || mayCreate) return;
  const statements = [...missing, `grant ${CAPTURE_ROLE} to ${quoteIdent(user)}`];
  throw new BelfryError(
    'database_denied',
    `User ${user} may not create roles. Have a DBA run: ${statements.map((sql) => `${sql};`).join(' ')} Then run belfry migrate again.`,
  );
}

/** Makes the two roles where they are missing. */
async function createRoles(client: pg.ClientBase, catalog: Catalog): Promise<string[]> {
  assertRoles(catalog);
  const missing = missingRoles(catalog);
  for (const statement of missing) {
    try {
      await client.query(statement);
    } catch (error) {
      // Another database's migration was faster.
      if (sqlState(error) !== '42710' && sqlState(error) !== '23505') throw denied(error);
    }
  }
  return missing;
}
