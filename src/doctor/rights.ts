/** What the current user may not do, though belfry needs it. Needs no right itself. */

import type pg from 'pg';
import { APP_ROLE, CAPTURE_ROLE } from '../capture/names.js';
import { capturedTables } from '../capture/install.js';
import type { Config } from '../config.js';
import { parseTableName } from '../postgres/sql.js';
import { tablesOf } from '../schema/columns.js';
import { RELAY_ROLE } from '../schema/roles.js';
import { hiddenRows, showRows } from '../schema/row-security.js';
import { fail, ok, several } from './check.js';
import type { Check } from './check.js';

export interface RightsRow {
  readonly user: string;
  /** Schema belfry is there, or could be made. */
  readonly may_create: boolean;
  readonly owns_schema: boolean;
  /** A member of belfry_relay. */
  readonly relay: boolean;
  readonly roles: boolean;
  readonly unreadable: string[] | null;
  readonly foreign: string[] | null;
}

/** Tables that do not exist are told elsewhere. */
export async function checkRights(client: pg.ClientBase, config: Config): Promise<Check[]> {
  const read = [...new Set(tablesOf(config))].map(parseTableName);
  const captured = capturedTables(config);
  const { rows } = await client.query<RightsRow>(
    `select current_user::text as "user",
            to_regnamespace('belfry') is not null or has_database_privilege(current_database(), 'create') as may_create,
            coalesce((select pg_has_role(n.nspowner, 'member') from pg_namespace n where n.nspname = 'belfry'), true) as owns_schema,
            exists (select from pg_roles r where r.rolname = '${RELAY_ROLE}' and pg_has_role(r.oid, 'member')) as relay,
            (select rolsuper or rolcreaterole from pg_roles where rolname = current_user)
              or 2 = (select count(*) from pg_roles where rolname in ('${CAPTURE_ROLE}', '${APP_ROLE}')) as roles,
            (select array_agg(format('%I.%I', n.nspname, c.relname))
               from unnest($1::text[], $2::text[]) t(schema, name)
               join pg_namespace n on n.nspname = t.schema
               join pg_class     c on c.relnamespace = n.oid and c.relname = t.name
              where not (has_schema_privilege(n.oid, 'usage') and has_any_column_privilege(c.oid, 'select'))) as unreadable,
            (select array_agg(distinct format('%I.%I (owner %s)', n.nspname, c.relname, pg_get_userbyid(c.relowner)))
               from unnest($3::text[], $4::text[]) t(schema, name)
               join pg_namespace n on n.nspname = t.schema
               join pg_class     c on c.relnamespace = n.oid and c.relname = t.name
              where not pg_has_role(c.relowner, 'member')) as foreign`,
    [...columnsOf(read), ...columnsOf(captured)],
  );
  const row = rows[0];
  if (row === undefined) return [];
  const hidden = await hiddenRows(client, config);
  const rights = judgeRights(row);
  if (hidden.length === 0) return [rights];
  const said = `row-level security hides rows of ${hidden.map(({ table }) => table).join(', ')} from user ${row.user}: nobody there is blocked, and nobody hears`;
  return [...(rights.level === 'ok' ? [] : [rights]), fail('rights', said, showRows(hidden))];
}

/** Everything that is missing, in one check. Pure. */
export function judgeRights(row: RightsRow): Check {
  const { user } = row;
  const unreadable = (row.unreadable ?? []).map((table) => `${user} may not read ${table}`);
  if (row.relay && !row.owns_schema) {
    // It runs Belfry; somebody else migrates.
    if (unreadable.length === 0)
      return ok('rights', `user ${user} (of ${RELAY_ROLE}) may do what a relay needs; migrate as the owner`);
    return fail(
      'rights',
      several(unreadable, 10),
      `Run belfry roles again as the owner: the config names more tables.`,
    );
  }
  const missing = [
    ...(row.may_create ? [] : [`${user} may not create a schema in this database`]),
    ...(row.owns_schema ? [] : [`${user} is not a member of the role that owns schema belfry`]),
    ...unreadable,
    ...(row.foreign ?? []).map((table) => `${user} may not create triggers on ${table}`),
    ...(row.roles ? [] : [`${user} may not create the roles ${CAPTURE_ROLE} and ${APP_ROLE}, which are not there`]),
  ];
  if (missing.length === 0) return ok('rights', `user ${user} may do what belfry needs`);
  return fail(
    'rights',
    several(missing, 10),
    'Use the owner of the tables (or a member of that role) with CREATE on the database; docs/capture.md says what a DBA grants otherwise.',
  );
}

function columnsOf(tables: readonly { readonly schema: string; readonly name: string }[]): [string[], string[]] {
  return [tables.map(({ schema }) => schema), tables.map(({ name }) => name)];
}
