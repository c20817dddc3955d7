/**
 * Types of the application's columns, and values that travel as text.
 *
 * Ids are text everywhere outside the database. Inside, a text is cast to the type of the column that it meets, never
 * the column to text, so that indexes serve; and a text that does not fit finds nothing instead of failing.
 */

import type pg from 'pg';
import type { Config, PathHop } from '../config.js';
import { messageOf, sqlState } from '../errors.js';
import { parseTableName, quoteIdent, quoteLiteral, quoteTable } from '../postgres/sql.js';

/** What the catalogue says of the tables that the config names. */
export interface ColumnTypes {
  /** The type of a column to cast to (`typeName`); null when there is no such table or column. */
  (table: string, column: string): string | null;
  /** Whether no two rows of the table can agree in all of these columns. */
  isUnique(table: string, columns: readonly string[]): boolean;
  /** Where people are looked up, with the type of their id; null where nothing of the kind is configured or there. */
  readonly people: { readonly table: string; readonly id: string; readonly type: string } | null;
  /** Another one means that a table has changed. */
  readonly fingerprint: string;
}

/**
 * SQL for the name of a type, given its oid, to cast to: of a domain what it is made of, since its checks would fail where nothing is
 * to be found; `bpchar` for char(n), since `character` alone cuts to one.
 */
function typeName(oid: string): string {
  return `(with recursive belfry_made (oid) as (select ${oid}::oid union all select y.typbasetype from belfry_made m join pg_catalog.pg_type y on y.oid = m.oid where y.typtype = 'd')
     select format_type(m.oid, -1) from belfry_made m join pg_catalog.pg_type y on y.oid = m.oid where y.typtype <> 'd')`;
}

/** The types of the parameters of the prepared statement $1, to cast to. */
export const parameterTypesSql = `select array(select ${typeName('t.oid')} from unnest(parameter_types) with ordinality t(oid, n) order by t.n) as types
    from pg_catalog.pg_prepared_statements where name = $1`;

/** The parameter ($1 is 1) of whose type nothing in a statement tells, by what Postgres said of that; null for another error. */
export function openParameter(error: unknown): number | null {
  if (sqlState(error) !== '42P18') return null;
  const number = Number(/\$(\d+)/.exec(messageOf(error))?.[1]);
  return number > 0 ? number : null;
}

/** Reads types and unique keys of every table that the config names. One statement. */
export async function loadColumnTypes(client: pg.ClientBase | pg.Pool, config: Config): Promise<ColumnTypes> {
  const tables = [...new Set(tablesOf(config))];
  const names = tables.map(parseTableName);
  // What is unique only among some rows, or by an expression, is not unique.
  const { rows } = await client.query<{ schema: string; name: string; types: [string, string][]; keys: string[][] }>(
    `select n.nspname as schema, c.relname as name,
            (select json_agg(json_build_array(a.attname, ${typeName('a.atttypid')}) order by a.attnum)
               from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as types,
            coalesce((select json_agg(k.columns order by i.indexrelid)
               from pg_index i
              cross join lateral (
                     select json_agg(a.attname) as columns, bool_and(a.attname is not null) as plain
                       from unnest(i.indkey[0 : i.indnkeyatts - 1]) x(attnum)
                       left join pg_attribute a on a.attrelid = i.indrelid and a.attnum = x.attnum) k
              where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indpred is null and k.plain), '[]') as keys
       from unnest($1::text[], $2::text[]) t(schema, name)
       join pg_namespace n on n.nspname = t.schema
       join pg_class c on c.relnamespace = n.oid and c.relname = t.name
      order by n.nspname, c.relname`,
    [names.map(({ schema }) => schema), names.map(({ name }) => name)],
  );
  const found = new Map(
    rows.map(({ schema, name, types, keys }) => [
      JSON.stringify([schema, name]),
      { types: new Map(types ?? []), keys },
    ]),
  );
  const tableOf = (table: string): { types: Map<string, string>; keys: string[][] } | undefined => {
    const { schema, name } = parseTableName(table);
    return found.get(JSON.stringify([schema, name]));
  };
  const typeOf = (table: string, column: string): string | null => tableOf(table)?.types.get(column) ?? null;
  const { people } = config;
  const personType = people === null ? null : typeOf(people.table, people.id);
  return Object.assign(typeOf, {
    people: people === null || personType === null ? null : { table: people.table, id: people.id, type: personType },
    isUnique: (table: string, columns: readonly string[]): boolean =>
      tableOf(table)?.keys.some((key) => key.every((column) => columns.includes(column))) ?? false,
    fingerprint: JSON.stringify(rows),
  });
}

/** Every table that the config names; one may come twice. */
export function* tablesOf(config: Config): Generator<string> {
  for (const part of [config.people, config.blocks, config.mutes, config.threadMutes])
    if (part !== null) yield part.table;
  for (const source of config.sources) {
    yield source.table;
    const hops: PathHop[] = [];
    if (source.actor?.kind === 'path') hops.push(...source.actor.hops);
    if (source.recipient !== null && 'hops' in source.recipient) hops.push(...source.recipient.hops);
    for (const hop of hops) yield hop.table;
  }
}

/** A text cast to a column's type; null instead of an error where the text may not fit. */
export function cast(value: string, to: string, from: string | null): string {
  const plain = `(${value})::${to}`;
  if (from === to || isText(to)) return plain;
  if (isInteger(to)) {
    const wide = `(${value})::bigint`;
    if (isInteger(from)) return wide;
    const range = `(${value})::numeric between -9223372036854775808 and 9223372036854775807`;
    // Nearly every id is a few digits, which is seen without a regular expression in a third of the time: this runs for each row of an inbox.
    const digits = `octet_length((${value})::text) between 1 and 18 and ltrim((${value})::text, '0123456789') = ''`;
    return `case when ${digits} then ${wide} when (${value}) ~ '^-?[0-9]{1,19}$' then case when ${range} then ${wide} end end`;
  }
  if (to === 'numeric') return `case when (${value}) ~ '^-?[0-9]{1,100}([.][0-9]{1,100})?$' then ${plain} end`;
  if (to === 'uuid') {
    return `case when (${value}) ~* '^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$' then ${plain} end`;
  }
  // Only the catalogue tells an enum from other types. Neither look at it depends on a row, so each is taken once.
  const labels = `select e.enumlabel from pg_catalog.pg_enum e where e.enumtypid = ${quoteLiteral(to)}::regtype`;
  return `case when not exists (${labels}) or (${value}) in (${labels}) then ${plain} end`;
}

/**
 * A person's id (an expression of text from a column of type `from`) as their row writes it: an upper-case uuid and `'ADA'` of a citext
 * find the row, but inboxes and sessions go by its text. As it is given where there is no such person; where nothing keeps ids apart, any of
 * those that are equal.
 */
export function personId(value: string, from: string | null, { people }: ColumnTypes): string {
  if (people === null) return value;
  const { table, id, type } = people;
  if (writtenAlike(type) || (type === 'uuid' && from === type)) return value;
  const own = cast(value, type, from);
  if (type === 'uuid') return `coalesce((${own})::text, ${value})`;
  return `coalesce((select belfry_p.${quoteIdent(id)}::text from ${quoteTable(table)} belfry_p where belfry_p.${quoteIdent(id)} = ${own} limit 1), ${value})`;
}

/** The id of a person as their row writes it; as it is given where there is no such person. One statement, if that. */
export async function personOf(client: pg.ClientBase, id: string, types: ColumnTypes): Promise<string> {
  const sql = personId('$1::text', null, types);
  if (sql === '$1::text') return id;
  return (await client.query<{ id: string }>(`select ${sql} as id`, [id])).rows[0]?.id ?? id;
}

/** That a text from anywhere names this person, however it is spelt. */
export function isPerson(value: string, id: string, { people }: ColumnTypes): string {
  // As text: a bare literal is read as its type when the statement is parsed, and fails where it does not fit, whatever guards the cast.
  const literal = `${quoteLiteral(id.trimEnd())}::text`;
  const plain = `rtrim(${value}) = ${literal}`;
  if (people === null || writtenAlike(people.type)) return plain;
  const [one, other] = [cast(`rtrim(${value})`, people.type, null), cast(literal, people.type, null)];
  return `(${plain} or (${one}) = (${other}))`;
}

/** A column that names people, to be compared with a person's id. */
export interface PersonColumn {
  readonly sql: string;
  /** What the id is cast to. */
  readonly type: string;
}

/**
 * A column (of `row`) that names people, and what it is compared as: its own type, but that of people's ids where it is text, in which one id may be
 * spelt in many ways. Then an index on the column alone does not serve; doctor names the one that does (doctor/indexes.ts).
 */
export function personColumn(table: string, column: string, types: ColumnTypes, row: 't.' | '' = 't.'): PersonColumn {
  const own = types(table, column) ?? 'text';
  const sql = `${row}${quoteIdent(column)}`;
  const type = types.people?.type ?? own;
  if (type === own || !isText(own) || writtenAlike(type)) return { sql, type: own };
  return { sql: `(${cast(`${sql}::text`, type, null)})`, type };
}

/** A table of the config as a term of FROM: only rows for which `when` holds and `until` has not passed. */
export function holdingRows(rows: {
  readonly table: string;
  readonly until: string | null;
  readonly when: string | null;
}): string {
  const { until, when } = rows;
  const conditions = [
    ...(when === null ? [] : [`(${when}\n)`]),
    ...(until === null ? [] : [`(${quoteIdent(until)} is null or ${quoteIdent(until)} > now())`]),
  ];
  const table = quoteTable(rows.table);
  return conditions.length === 0 ? table : `(select * from ${table} where ${conditions.join(' and ')})`;
}

/** That a row of the table (as `alias`) has a natural key, given value by value as text. */
export function sameKey(
  source: { readonly table: string; readonly key: readonly string[] },
  types: ColumnTypes,
  alias: string,
  valueOf: (column: string, index: number) => string,
): string {
  const same = source.key.map((column, i) => {
    const type = types(source.table, column) ?? 'text';
    return `${alias}.${quoteIdent(column)} = ${cast(valueOf(column, i), type, null)}`;
  });
  return same.join(' and ');
}

export function isInteger(type: string | null): boolean {
  return type === 'smallint' || type === 'integer' || type === 'bigint';
}

/** Whether no value of one type can be equal to one of the other, whatever is cast: numbers and uuids. False where a type is not known. */
export function neverEqual(one: string | null, other: string | null): boolean {
  const isNumber = (type: string | null): boolean => isInteger(type) || type === 'numeric';
  return (isNumber(one) && other === 'uuid') || (one === 'uuid' && isNumber(other));
}

export function isText(type: string): boolean {
  return type === 'text' || type === 'bpchar' || type.startsWith('character varying') || isCaseless(type);
}

/** Whether equal values of a type have one text. */
function writtenAlike(type: string): boolean {
  return isInteger(type) || (isText(type) && !isCaseless(type));
}

function isCaseless(type: string): boolean {
  return /(?:^|\.)citext$/.test(type);
}

/** Whether a text can be cast to a type at all. Types that are not listed take any text. */
export function fitting(type: string | null): (id: string) => boolean {
  switch (type) {
    case 'smallint':
      return (id) => /^-?\d{1,4}$/.test(id);
    case 'integer':
      return (id) => /^-?\d{1,9}$/.test(id) || (/^-?\d{10}$/.test(id) && Math.abs(Number(id)) < 2 ** 31);
    case 'bigint':
      return (id) =>
        /^-?\d{1,18}$/.test(id) || (/^-?\d{19}$/.test(id) && BigInt(id) >= -(2n ** 63n) && BigInt(id) < 2n ** 63n);
    case 'numeric':
      return (id) => /^-?\d{1,100}(\.\d{1,100})?$/.test(id);
    case 'uuid':
      return (id) => /^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$/i.test(id);
    default:
      return () => true;
  }
}
