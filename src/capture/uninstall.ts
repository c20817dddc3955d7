/**
 * Takes Belfry out of a database: the triggers, a table at a time; then the schema; then the roles, where nothing else needs them.
 *
 * With `keepData` the schema stays, so that a later `belfry migrate` goes on where it was; without triggers nothing new comes in.
 */

import type pg from 'pg';
import { BelfryError, messageOf, sqlState } from '../errors.js';
import { quoteIdent, type TableName } from '../postgres/sql.js';
import { withMigrationLock } from '../schema/migrate.js';
import { readCatalog, type Catalog } from './catalog.js';
import { runInTransaction, runWithTableLock, type CaptureLog } from './locks.js';
import { APP_ROLE, CAPTURE_ROLE, qualified } from './names.js';
import { borrowRole } from './plan.js';

export interface UninstallOptions {
  /** Keep outbox, inboxes and all else in schema belfry. */
  readonly keepData: boolean;
  readonly log?: CaptureLog;
  /** How long a locked table is tried for; a minute. */
  readonly lockBoundMs?: number;
}

export interface UninstallResult {
  readonly removed: readonly string[];
  /** What was left, and why. */
  readonly warnings: readonly string[];
}

/** The client must be in no transaction. Throws `lock_busy` (retry) and `database_denied`; what was removed until then stays removed. */
export async function uninstall(client: pg.ClientBase, options: UninstallOptions): Promise<UninstallResult> {
  return withMigrationLock(client, async () => {
    const catalog = await readCatalog(client, []);
    const removed: string[] = [];
    const warnings: string[] = [];
    try {
      await dropTriggers(client, catalog, options, removed);
      if (catalog.functions.length > 0) await dropFunctions(client, catalog, removed);
      if (!options.keepData) {
        await dropSchema(client, options, removed);
        await dropRoles(client, catalog, removed, warnings);
      }
    } catch (error) {
      throw explain(error);
    }
    return { removed, warnings };
  });
}

async function dropSchema(client: pg.ClientBase, options: UninstallOptions, removed: string[]): Promise<void> {
  const { rowCount } = await client.query(`select from pg_catalog.pg_namespace where nspname = 'belfry'`);
  if (rowCount === 0) return;
  // Gateways and relays that still run hold locks here only for moments; a backend that calls the SQL API may hold one for long.
  await lockedOut(client, { schema: 'belfry', name: 'outbox' }, ['drop schema if exists belfry cascade'], options);
  removed.push('schema belfry');
}

async function dropTriggers(
  client: pg.ClientBase,
  catalog: Catalog,
  options: UninstallOptions,
  removed: string[],
): Promise<void> {
  const tables = new Map<string, (typeof catalog.triggers)[number][]>();
  for (const trigger of catalog.triggers) {
    const key = qualified(trigger.table);
    tables.set(key, [...(tables.get(key) ?? []), trigger]);
  }
  for (const [name, triggers] of tables) {
    const [first] = triggers;
    if (first === undefined) continue;
    const statements = triggers.map((trigger) => `drop trigger if exists ${quoteIdent(trigger.name)} on ${name}`);
    await lockedOut(client, first.table, statements, options);
    removed.push(...triggers.map((trigger) => `trigger ${trigger.name} on ${name}`));
  }
  // In one transaction: what is not captured has no count either, and is counted when it comes back.
  if (catalog.records.length > 0)
    await client.query('delete from belfry.capture_trigger; delete from belfry.source_state');
}

function lockedOut(
  client: pg.ClientBase,
  table: TableName,
  statements: readonly string[],
  options: UninstallOptions,
): Promise<void> {
  return runWithTableLock(client, table, statements, {
    exclusive: true,
    ...(options.log === undefined ? {} : { log: options.log }),
    ...(options.lockBoundMs === undefined ? {} : { boundMs: options.lockBoundMs }),
  });
}

async function dropFunctions(client: pg.ClientBase, catalog: Catalog, removed: string[]): Promise<void> {
  const borrowed = catalog.functions.some((row) => row.owner === CAPTURE_ROLE) ? borrowRole(catalog) : null;
  await runInTransaction(client, [
    ...(borrowed?.before ?? []),
    ...catalog.functions.map((row) => `drop function if exists belfry.${quoteIdent(row.name)}()`),
    ...(borrowed?.after ?? []),
  ]);
  removed.push(...catalog.functions.map((row) => `function belfry.${row.name}`));
}

/** Roles belong to the whole cluster: another database may use them, and then Postgres refuses. */
async function dropRoles(
  client: pg.ClientBase,
  catalog: Catalog,
  removed: string[],
  warnings: string[],
): Promise<void> {
  const existing = [
    ...(catalog.roles.captureExists ? [CAPTURE_ROLE] : []),
    ...(catalog.roles.appExists ? [APP_ROLE] : []),
  ];
  for (const role of existing) {
    const { rows } = await client.query<{ member: string }>(
      `select m.rolname as member from pg_catalog.pg_auth_members a
         join pg_catalog.pg_roles m on m.oid = a.member
         join pg_catalog.pg_roles r on r.oid = a.roleid
        where r.rolname = $1 and m.rolname <> current_user limit 3`,
      [role],
    );
    if (rows.length > 0) {
      warnings.push(`Role ${role} stays: it has members (${rows.map((row) => row.member).join(', ')}).`);
      continue;
    }
    try {
      await client.query(`drop role if exists ${role}`);
      removed.push(`role ${role}`);
    } catch (error) {
      const why =
        sqlState(error) === '2BP01' ? 'another database uses it, or it was granted something else' : messageOf(error);
      warnings.push(`Role ${role} stays: ${why}.`);
    }
  }
}

function explain(error: unknown): unknown {
  if (sqlState(error) === '42501') {
    return new BelfryError(
      'database_denied',
      `${messageOf(error)}. Run belfry uninstall as the user that ran belfry migrate.`,
      { cause: error },
    );
  }
  return error;
}
