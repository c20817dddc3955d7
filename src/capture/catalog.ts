/**
 * What the database says about the tables of the config, and about what is installed on them already.
 *
 * Reads pg_catalog only, takes no lock on any table, and needs no right on them.
 */

import type pg from 'pg';
import { APP_ROLE, CAPTURE_ROLE } from './names.js';
import type { TableName } from '../postgres/sql.js';

export interface Column {
  readonly name: string;
  /** As in DDL; types outside pg_catalog with their schema. */
  readonly type: string;
  /** The type is one of pg_catalog's. */
  readonly builtIn: boolean;
  /** Computed when it is read: triggers see null. */
  readonly virtual: boolean;
}

export interface Relation extends TableName {
  /** pg_class.relkind: r table, p partitioned, f foreign, v view, m materialized view. */
  readonly kind: string;
  readonly owner: string;
  /** The current user owns it, or is a member of the role that does. */
  readonly owned: boolean;
  readonly columns: readonly Column[];
}

export interface CatalogTable extends Relation {
  /** Partitions and inheriting tables at every level, parents first. */
  readonly descendants: readonly Relation[];
}

export interface InstalledTrigger {
  readonly table: TableName;
  readonly name: string;
  readonly functionName: string;
  /** pg_trigger.tgtype. */
  readonly type: number;
  /** pg_trigger.tgenabled: O, D, R or A. */
  readonly enabled: string;
  readonly oldTable: string | null;
  readonly newTable: string | null;
  readonly argumentCount: number;
}

export interface InstalledFunction {
  readonly name: string;
  readonly source: string;
  readonly owner: string;
  /** The owner is belfry_capture, or, where nobody could make that role, one of those who own the schema and no superuser. */
  readonly ownerFits: boolean;
  readonly securityDefiner: boolean;
  /** `name=value`, sorted. */
  readonly settings: readonly string[];
  /** Whether the role `public` may execute it. */
  readonly open: boolean;
}

/** A row of belfry.capture_trigger: what was installed, and which types the columns had then. */
export interface TriggerRecord {
  readonly source: string;
  readonly operation: string;
  readonly schema: string;
  readonly table: string;
  readonly trigger: string;
  readonly capture: string;
  readonly columns: Readonly<Record<string, string>>;
}

export interface Roles {
  readonly user: string;
  readonly superuser: boolean;
  readonly mayCreate: boolean;
  readonly captureExists: boolean;
  readonly appExists: boolean;
  /** The user can act as belfry_capture now: is a member that inherits and may set role. */
  readonly captureUsable: boolean;
  /** The user may grant belfry_capture to itself. */
  readonly captureGrantable: boolean;
}

export interface Catalog {
  readonly version: number;
  readonly database: string;
  readonly maxPreparedTransactions: number;
  /** In the order asked for; null where there is no such table. */
  readonly tables: ReadonlyMap<string, CatalogTable | null>;
  readonly triggers: readonly InstalledTrigger[];
  /** Functions belfry.capture_… */
  readonly functions: readonly InstalledFunction[];
  /** Source text of belfry.ring(); null where it does not exist. */
  readonly ring: string | null;
  readonly records: readonly TriggerRecord[];
  readonly roles: Roles;
  /** Statements that give the roles what they lack, without which nothing works. */
  readonly missingGrants: readonly string[];
}

export const tableKey = (table: TableName): string => JSON.stringify([table.schema, table.name]);

/** Reads everything at once; `tables` may name one twice. */
export async function readCatalog(client: pg.ClientBase, tables: readonly TableName[]): Promise<Catalog> {
  const wanted = [...new Map(tables.map((table) => [tableKey(table), table])).values()];
  const server = await readServer(client);
  const hasSchema = server.ring_exists || server.records_exist;
  return {
    version: server.version,
    database: server.database,
    maxPreparedTransactions: server.max_prepared_transactions,
    tables: await readTables(client, wanted),
    triggers: await readTriggers(client),
    functions: hasSchema ? await readFunctions(client) : [],
    ring: server.ring_exists ? server.ring : null,
    records: server.records_exist ? await readRecords(client) : [],
    roles: await readRoles(client, server.version),
    missingGrants: await readMissingGrants(client),
  };
}

interface ServerRow {
  version: number;
  database: string;
  max_prepared_transactions: number;
  ring: string | null;
  ring_exists: boolean;
  records_exist: boolean;
}

async function readServer(client: pg.ClientBase): Promise<ServerRow> {
  const { rows } = await client.query<ServerRow>(`
    select current_setting('server_version_num')::int          as version,
           current_database()                                  as database,
           current_setting('max_prepared_transactions')::int   as max_prepared_transactions,
           (select p.prosrc from pg_catalog.pg_proc p
             where p.oid = to_regprocedure('belfry.ring()'))   as ring,
           to_regprocedure('belfry.ring()') is not null        as ring_exists,
           to_regclass('belfry.capture_trigger') is not null   as records_exist`);
  return first(rows);
}

interface RelationRow {
  root_schema: string;
  root_name: string;
  schema: string;
  name: string;
  depth: number;
  kind: string;
  owner: string;
  owned: boolean;
  columns: Column[];
}

async function readTables(
  client: pg.ClientBase,
  wanted: readonly TableName[],
): Promise<Map<string, CatalogTable | null>> {
  const { rows } = await client.query<RelationRow>(
    `with recursive tree (root_schema, root_name, oid, depth) as (
       select w.schema, w.name, c.oid, 0
         from unnest($1::text[], $2::text[]) as w (schema, name)
         join pg_catalog.pg_namespace n on n.nspname = w.schema
         join pg_catalog.pg_class     c on c.relnamespace = n.oid and c.relname = w.name and c.relkind in ('r', 'p', 'f', 'v', 'm')
       union all
       select t.root_schema, t.root_name, i.inhrelid, t.depth + 1
         from tree t
         join pg_catalog.pg_inherits i on i.inhparent = t.oid and not i.inhdetachpending
     ), found as (
       select root_schema, root_name, oid, min(depth) as depth from tree group by 1, 2, 3
     )
     select f.root_schema, f.root_name, n.nspname as schema, c.relname as name, f.depth, c.relkind as kind,
            pg_catalog.pg_get_userbyid(c.relowner)                          as owner,
            pg_catalog.pg_has_role(current_user, c.relowner, 'MEMBER')      as owned,
            coalesce((
              select json_agg(json_build_object(
                       'name', a.attname,
                       'builtIn', coalesce(e.typnamespace, y.typnamespace) = 'pg_catalog'::regnamespace,
                       'virtual', a.attgenerated = 'v',
                       'type', case when coalesce(e.typnamespace, y.typnamespace) = 'pg_catalog'::regnamespace
                                    then pg_catalog.format_type(a.atttypid, a.atttypmod)
                                    when e.oid is not null
                                    then format('%I.%I[]', e.typnamespace::regnamespace::name, e.typname)
                                    else format('%I.%I', y.typnamespace::regnamespace::name, y.typname) end
                     ) order by a.attnum)
                from pg_catalog.pg_attribute a
                join pg_catalog.pg_type      y on y.oid = a.atttypid
                left join pg_catalog.pg_type e on e.oid = y.typelem and y.typcategory = 'A'
               where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped), '[]') as columns
       from found f
       join pg_catalog.pg_class     c on c.oid = f.oid
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      order by f.depth, n.nspname, c.relname`,
    [wanted.map((table) => table.schema), wanted.map((table) => table.name)],
  );
  const result = new Map<string, CatalogTable | null>(wanted.map((table) => [tableKey(table), null]));
  const descendants = new Map<string, Relation[]>();
  for (const row of rows) {
    const key = tableKey({ schema: row.root_schema, name: row.root_name });
    const { schema, name, kind, owner, owned, columns } = row;
    if (row.depth > 0) {
      descendants.get(key)?.push({ schema, name, kind, owner, owned, columns });
      continue;
    }
    const below: Relation[] = [];
    descendants.set(key, below);
    result.set(key, { schema, name, kind, owner, owned, columns, descendants: below });
  }
  return result;
}

async function readTriggers(client: pg.ClientBase): Promise<InstalledTrigger[]> {
  const { rows } = await client.query<{
    schema: string;
    table: string;
    name: string;
    function_name: string;
    type: number;
    enabled: string;
    old_table: string | null;
    new_table: string | null;
    arguments: number;
  }>(`
    select cn.nspname as schema, c.relname as table, t.tgname as name, p.proname as function_name, t.tgtype::int as type,
           t.tgenabled as enabled, t.tgoldtable as old_table, t.tgnewtable as new_table, t.tgnargs::int as arguments
      from pg_catalog.pg_trigger   t
      join pg_catalog.pg_proc      p  on p.oid = t.tgfoid and starts_with(p.proname, 'capture_')
      join pg_catalog.pg_namespace pn on pn.oid = p.pronamespace and pn.nspname = 'belfry'
      join pg_catalog.pg_class     c  on c.oid = t.tgrelid
      join pg_catalog.pg_namespace cn on cn.oid = c.relnamespace
     where starts_with(t.tgname, 'belfry_') and not t.tgisinternal and t.tgparentid = 0
     order by 1, 2, 3`);
  return rows.map((row) => ({
    table: { schema: row.schema, name: row.table },
    name: row.name,
    functionName: row.function_name,
    type: row.type,
    enabled: row.enabled,
    oldTable: row.old_table,
    newTable: row.new_table,
    argumentCount: row.arguments,
  }));
}

async function readFunctions(client: pg.ClientBase): Promise<InstalledFunction[]> {
  const { rows } = await client.query<{
    name: string;
    source: string;
    owner: string;
    owner_fits: boolean;
    security_definer: boolean;
    settings: string[] | null;
    open: boolean;
  }>(`
    select p.proname as name, p.prosrc as source, o.rolname as owner,
           o.rolname = '${CAPTURE_ROLE}'
             or (not o.rolsuper and pg_has_role(o.oid, (select nspowner from pg_catalog.pg_namespace where nspname = 'belfry'), 'member')) as owner_fits,
           p.prosecdef as security_definer, p.proconfig as settings,
           exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where a.grantee = 0) as open
      from pg_catalog.pg_proc p
      join pg_catalog.pg_roles o on o.oid = p.proowner
     where p.pronamespace = 'belfry'::regnamespace and starts_with(p.proname, 'capture_') and p.pronargs = 0
     order by 1`);
  return rows.map((row) => ({
    name: row.name,
    source: row.source,
    owner: row.owner,
    ownerFits: row.owner_fits,
    securityDefiner: row.security_definer,
    settings: [...(row.settings ?? [])].sort(),
    open: row.open,
  }));
}

async function readRecords(client: pg.ClientBase): Promise<TriggerRecord[]> {
  const { rows } = await client.query<TriggerRecord>(`
    select source, operation, table_schema as schema, table_name as table, trigger_name as trigger, capture, columns
      from belfry.capture_trigger
     order by table_schema, table_name, trigger_name`);
  return rows;
}

async function readRoles(client: pg.ClientBase, version: number): Promise<Roles> {
  const usable =
    version >= 160_000
      ? `pg_has_role(current_user, c.oid, 'USAGE') and pg_has_role(current_user, c.oid, 'SET')`
      : `pg_has_role(current_user, c.oid, 'USAGE')`;
  const grantable =
    version >= 160_000
      ? `pg_has_role(current_user, c.oid, 'MEMBER WITH ADMIN OPTION')`
      : `(me.rolcreaterole or pg_has_role(current_user, c.oid, 'MEMBER WITH ADMIN OPTION'))`;
  const { rows } = await client.query<Roles>(`
    select me.rolname                                as "user",
           me.rolsuper                               as superuser,
           me.rolsuper or me.rolcreaterole           as "mayCreate",
           c.oid is not null                         as "captureExists",
           a.oid is not null                         as "appExists",
           me.rolsuper or coalesce(${usable}, false) as "captureUsable",
           coalesce(${grantable}, false)             as "captureGrantable"
      from pg_catalog.pg_roles me
      left join pg_catalog.pg_roles c on c.rolname = '${CAPTURE_ROLE}'
      left join pg_catalog.pg_roles a on a.rolname = '${APP_ROLE}'
     where me.rolname = current_user`);
  return first(rows);
}

async function readMissingGrants(client: pg.ClientBase): Promise<string[]> {
  const { rows } = await client.query<{ statement: string }>(`
    select g.statement
      from (values
        (1, '${CAPTURE_ROLE}', 'grant usage on schema belfry to ${CAPTURE_ROLE}'),
        (2, '${CAPTURE_ROLE}', 'grant insert on belfry.outbox to ${CAPTURE_ROLE}'),
        (3, '${CAPTURE_ROLE}', 'grant insert on belfry.lost to ${CAPTURE_ROLE}'),
        (4, '${CAPTURE_ROLE}', 'grant execute on function belfry.ring() to ${CAPTURE_ROLE}'),
        (5, '${APP_ROLE}',     'grant usage on schema belfry to ${APP_ROLE}'),
        (6, '${APP_ROLE}',     'grant execute on function belfry.notify(text, text, text, jsonb, text, text) to ${APP_ROLE}'),
        (7, '${APP_ROLE}',     'grant execute on function belfry.broadcast(text, text, jsonb) to ${APP_ROLE}'),
        (8, '${APP_ROLE}',     'grant execute on function belfry.announce(text, jsonb) to ${APP_ROLE}'),
        (9, '${APP_ROLE}',     'grant execute on function belfry.revoke(text) to ${APP_ROLE}'),
        (10, '${APP_ROLE}',    'grant execute on function belfry.revoke_session(text) to ${APP_ROLE}')
      ) as g (nr, role, statement)
      left join pg_catalog.pg_roles r on r.rolname = g.role
     where r.oid is null
        or not coalesce(case g.nr
             when 1 then has_schema_privilege(r.oid, to_regnamespace('belfry')::oid, 'usage')
             when 2 then has_table_privilege(r.oid, to_regclass('belfry.outbox')::oid, 'insert')
             when 3 then has_table_privilege(r.oid, to_regclass('belfry.lost')::oid, 'insert')
             when 4 then has_function_privilege(r.oid, to_regprocedure('belfry.ring()')::oid, 'execute')
             when 5 then has_schema_privilege(r.oid, to_regnamespace('belfry')::oid, 'usage')
             when 6 then has_function_privilege(r.oid, to_regprocedure('belfry.notify(text, text, text, jsonb, text, text)')::oid, 'execute')
             when 7 then has_function_privilege(r.oid, to_regprocedure('belfry.broadcast(text, text, jsonb)')::oid, 'execute')
             when 8 then has_function_privilege(r.oid, to_regprocedure('belfry.announce(text, jsonb)')::oid, 'execute')
             when 9 then has_function_privilege(r.oid, to_regprocedure('belfry.revoke(text)')::oid, 'execute')
             when 10 then has_function_privilege(r.oid, to_regprocedure('belfry.revoke_session(text)')::oid, 'execute')
           end, false)
     order by g.nr`);
  return rows.map((row) => row.statement);
}

function first<T>(rows: readonly T[]): T {
  const row = rows[0];
  if (row === undefined) throw new Error('Postgres answered without a row.');
  return row;
}
