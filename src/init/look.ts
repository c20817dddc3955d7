/**
 * What a database says about itself: tables, columns, keys, enums, checks, comments, and how many rows it believes to have.
 *
 * Reads pg_catalog only: no row of any table, no lock on any, no right on any is needed. Left out are the system's schemas, Belfry's,
 * what belongs to an extension, and partitions, which their parent stands for.
 */

import type pg from 'pg';
import { tableKey } from '../capture/catalog.js';
import type { Column, Database, ForeignKey, Table } from './database.js';

/** No capture takes a line break in a name, and no channel template a brace. */
const UNNAMEABLE = /[\r\n{}]/;

interface Row {
  schema: string;
  name: string;
  rows: number;
  comment: string | null;
  owned: boolean;
  restricted: boolean;
  columns: Column[];
  keys: { columns: string[]; primary: boolean }[];
  foreign_keys: ForeignKey[];
  checks: string[];
}

/** In the order of schema and name. One statement, so that all of it is from one moment. */
export async function lookAt(client: pg.ClientBase): Promise<Database> {
  const { rows } = await client.query<Row>(`
    select n.nspname as schema, c.relname as name, greatest(c.reltuples, 0)::float8 as rows,
           obj_description(c.oid, 'pg_class')                         as comment,
           pg_has_role(current_user, c.relowner, 'MEMBER')            as owned,
           c.relrowsecurity and (
             not exists (select from pg_catalog.pg_policy p
                          where p.polrelid = c.oid and p.polpermissive and p.polcmd in ('r', '*') and pg_get_expr(p.polqual, c.oid) = 'true')
             or exists (select from pg_catalog.pg_policy p where p.polrelid = c.oid and not p.polpermissive and p.polcmd in ('r', '*'))
           )                                                          as restricted,
           coalesce((
             select json_agg(json_build_object(
                      'name', a.attname,
                      'type', format_type(a.atttypid, null),
                      'category', case when b.typname = 'uuid' then 'I' else b.typcategory end,
                      'integer', b.typname in ('int2', 'int4', 'int8'),
                      'array', b.typcategory = 'A',
                      'required', a.attnotnull or y.typnotnull,
                      'virtual', a.attgenerated = 'v',
                      'default', pg_get_expr(d.adbin, d.adrelid),
                      'comment', col_description(c.oid, a.attnum),
                      'labels', (select json_agg(e.enumlabel order by e.enumsortorder) from pg_catalog.pg_enum e where e.enumtypid = b.oid)
                    ) order by a.attnum)
               from pg_catalog.pg_attribute a
               join pg_catalog.pg_type y on y.oid = a.atttypid
               join pg_catalog.pg_type b on b.oid = case when y.typtype = 'd' then y.typbasetype else y.oid end
               left join pg_catalog.pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
              where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped), '[]') as columns,
           coalesce((
             select json_agg(json_build_object('primary', i.indisprimary, 'columns', (
                      select json_agg(a.attname order by k.ord)
                        from unnest(i.indkey::int2[]) with ordinality k (attnum, ord)
                        join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
                       where k.ord <= i.indnkeyatts)) order by i.indisprimary desc, i.indexrelid)
               from pg_catalog.pg_index i
              where i.indrelid = c.oid and i.indisunique and i.indpred is null and i.indexprs is null), '[]') as keys,
           coalesce((
             select json_agg(json_build_object(
                      'columns', (select json_agg(a.attname order by k.ord) from unnest(f.conkey) with ordinality k (attnum, ord)
                                    join pg_catalog.pg_attribute a on a.attrelid = f.conrelid and a.attnum = k.attnum),
                      'schema', fn.nspname, 'table', fc.relname,
                      'references', (select json_agg(a.attname order by k.ord) from unnest(f.confkey) with ordinality k (attnum, ord)
                                       join pg_catalog.pg_attribute a on a.attrelid = f.confrelid and a.attnum = k.attnum)
                    ) order by f.conname)
               from pg_catalog.pg_constraint f
               join pg_catalog.pg_class      fc on fc.oid = f.confrelid
               join pg_catalog.pg_namespace  fn on fn.oid = fc.relnamespace
              where f.conrelid = c.oid and f.contype = 'f' and f.conparentid = 0), '[]') as foreign_keys,
           coalesce((
             select json_agg(pg_get_constraintdef(k.oid) order by k.conname)
               from pg_catalog.pg_constraint k where k.conrelid = c.oid and k.contype = 'c'), '[]') as checks
      from pg_catalog.pg_class     c
      join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p') and not c.relispartition
       and n.nspname not in ('information_schema', 'belfry') and n.nspname !~ '^pg_'
       and not exists (select from pg_catalog.pg_depend x
                        where x.classid = 'pg_catalog.pg_class'::regclass and x.objid = c.oid and x.deptype = 'e')
     order by n.nspname, c.relname`);
  const tables = rows.map((row): Table => {
    const keys = row.keys.filter(({ columns }) => !columns.some((name) => UNNAMEABLE.test(name)));
    return {
      schema: row.schema,
      name: row.name,
      rows: row.rows,
      comment: row.comment,
      owned: row.owned,
      restricted: row.restricted,
      columns: row.columns.map((column) => ({ ...column, virtual: column.virtual || UNNAMEABLE.test(column.name) })),
      primaryKey: keys.find((key) => key.primary)?.columns ?? null,
      uniques: keys.map((key) => key.columns),
      foreignKeys: row.foreign_keys,
      checks: row.checks,
    };
  });
  return { tables, byKey: new Map(tables.map((table) => [tableKey(table), table])) };
}
