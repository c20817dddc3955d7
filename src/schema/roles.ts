/**
 * Rights for roles that nobody logs in as, to be granted to those who do:
 * - belfry_relay: what relay and gateway need, and no more: Belfry's tables, and to read those that the config names.
 * - belfry_reader: to look at everything of Belfry, for dashboards; no rows of inboxes and no contents of events.
 *
 * They are a convenience: as the owner of the schema everything works without them. A migration that adds a table, or a config that names
 * another one, needs `belfry roles` again.
 */

import type pg from 'pg';
import type { Config } from '../config.js';
import { BelfryError, messageOf, sqlState } from '../errors.js';
import { parseTableName, quoteIdent, quoteTable } from '../postgres/sql.js';
import { inTransaction } from '../postgres/transaction.js';
import { tablesOf } from './columns.js';

export const RELAY_ROLE = 'belfry_relay';
export const READER_ROLE = 'belfry_reader';

/** What only the owner changes. */
const readOnly = ['schema_migration', 'capture_trigger'];

/** Nothing personal: state, progress, counts. */
const readable = [
  'relay',
  'epoch',
  'source_state',
  'lost',
  'repair',
  'capture_trigger',
  'schema_migration',
  'replay_job',
  'discarded_event',
  'batch_trace',
];
const readableViews = ['lag', 'trigger_health', 'replays'];
/** Of these only what is no content. */
const readableColumns: Readonly<Record<string, readonly string[]>> = {
  outbox: ['id', 'xid', 'at', 'source', 'op'],
  dead_event: ['event_id', 'source', 'op', 'event_at', 'failed_at', 'attempts', 'sqlstate'],
  head: ['seq'],
  notification: ['id', 'type', 'state', 'withdrawn', 'first_at', 'last_at', 'pushed_at', 'due_at'],
  verdict: ['id', 'at', 'rule'],
  revocation: ['id', 'at'],
  push_trace: ['at', 'since', 'gateway', 'sockets', 'left_out'],
};

/** Functions that a relay may call though nobody else may. */
const relayFunctions = [
  'ring()',
  'make_partition(date)',
  'drop_partition(text, interval)',
  'exclude_days(date[])',
  'verify_excluded_days()',
  'admit_days()',
  'replay(text, text, text, text, text, timestamptz, timestamptz, integer, integer, boolean)',
  'stop_replay(bigint)',
  'resume_replay(bigint)',
  // Of the SQL API: what the HTTP API and extensions call.
  'notify(text, text, text, jsonb, text, text)',
];

/** Statements that make the roles and give them their rights; may be run again and again. */
export async function roleStatements(client: pg.ClientBase, config: Config): Promise<string[]> {
  const { rows } = await client.query<{ name: string; exists: boolean }>(
    `select w.name, r.oid is not null as exists from unnest($1::text[]) w(name) left join pg_roles r on r.rolname = w.name`,
    [[RELAY_ROLE, READER_ROLE]],
  );
  const tables = [...new Set(tablesOf(config))];
  const schemas = [...new Set(tables.map((table) => parseTableName(table).schema))];
  const list = (names: readonly string[]): string => names.map((name) => `belfry.${name}`).join(', ');
  return [
    ...rows.filter(({ exists }) => !exists).map(({ name }) => `create role ${name} nologin`),
    `grant usage on schema belfry to ${RELAY_ROLE}, ${READER_ROLE}`,
    `grant select, insert, update, delete on all tables in schema belfry to ${RELAY_ROLE}`,
    `revoke insert, update, delete on ${list(readOnly)} from ${RELAY_ROLE}`,
    `grant usage on all sequences in schema belfry to ${RELAY_ROLE}`,
    ...relayFunctions.map((name) => `grant execute on function belfry.${name} to ${RELAY_ROLE}`),
    `grant usage on schema ${schemas.map(quoteIdent).join(', ')} to ${RELAY_ROLE}`,
    `grant select on ${tables.map(quoteTable).join(', ')} to ${RELAY_ROLE}`,
    `grant select on ${list([...readable, ...readableViews])} to ${READER_ROLE}`,
    ...Object.entries(readableColumns).map(
      ([table, columns]) => `grant select (${columns.map(quoteIdent).join(', ')}) on belfry.${table} to ${READER_ROLE}`,
    ),
  ];
}

/** Statements that take the rights back in this database. */
export function revokeStatements(config: Config): string[] {
  const tables = [...new Set(tablesOf(config))];
  const schemas = [...new Set(tables.map((table) => parseTableName(table).schema))];
  const roles = `${RELAY_ROLE}, ${READER_ROLE}`;
  return [
    `revoke all on all tables in schema belfry from ${roles}`,
    `revoke all on all sequences in schema belfry from ${roles}`,
    `revoke all on all functions in schema belfry from ${roles}`,
    ...Object.entries(readableColumns).map(
      ([table, columns]) =>
        `revoke select (${columns.map(quoteIdent).join(', ')}) on belfry.${table} from ${READER_ROLE}`,
    ),
    `revoke all on schema belfry from ${roles}`,
    `revoke select on ${tables.map(quoteTable).join(', ')} from ${RELAY_ROLE}`,
    `revoke usage on schema ${schemas.map(quoteIdent).join(', ')} from ${RELAY_ROLE}`,
  ];
}

/** Statements that remove the roles, once they have no rights anywhere. */
export const dropStatements: readonly string[] = [RELAY_ROLE, READER_ROLE].map((role) => `drop role if exists ${role}`);

/**
 * Takes the rights back in this database, and removes the roles; returns why one stays. Throws `database_denied`, before anything is taken from
 * whoever runs as such a role.
 */
export async function dropRoles(client: pg.ClientBase, config: Config): Promise<string[]> {
  await assertMayDrop(client);
  await runRoleStatements(client, revokeStatements(config));
  const stay: string[] = [];
  for (const statement of dropStatements) {
    try {
      await runRoleStatements(client, [statement]);
    } catch (error) {
      // Roles are the cluster's, their rights the databases'.
      if (sqlState(error) !== '2BP01') throw error;
      stay.push(`${messageOf(error)}: another database of this server uses it, or it owns something`);
    }
  }
  return stay;
}

/** To drop a role takes CREATEROLE and, from Postgres 16 on, its ADMIN OPTION, which who made it has. */
async function assertMayDrop(client: pg.ClientBase): Promise<void> {
  const { rows } = await client.query<{ role: string }>(
    `select r.rolname as role
       from pg_roles r
       join pg_roles me on me.rolname = current_user
      where r.rolname = any($1) and not me.rolsuper
        and not (me.rolcreaterole
                 and (current_setting('server_version_num')::int < 160000 or pg_has_role(r.oid, 'member with admin option')))`,
    [[RELAY_ROLE, READER_ROLE]],
  );
  if (rows.length === 0) return;
  throw new BelfryError(
    'database_denied',
    `This user may not drop ${rows.map(({ role }) => role).join(' and ')}: run belfry roles --drop as who made them or as a superuser, ` +
      `or have a DBA run what belfry roles --drop --dry-run prints. Nothing was changed.`,
  );
}

/** All of them or none. Throws `database_denied`. */
export async function runRoleStatements(client: pg.ClientBase, statements: readonly string[]): Promise<void> {
  try {
    await inTransaction(client, async () => {
      for (const statement of statements) await client.query(statement);
    });
  } catch (error) {
    if (sqlState(error) !== '42501') throw error;
    throw new BelfryError(
      'database_denied',
      `${messageOf(error)}: run belfry roles as the owner of the tables, with CREATEROLE; or have a DBA run "create role ${RELAY_ROLE} nologin; create role ${READER_ROLE} nologin;" before.`,
      { cause: error },
    );
  }
}
