/**
 * Makes events anew that no trigger wrote down, from what the table still tells: rows that came to be while a source lost its events,
 * by a column of their own, and of which neither outbox nor inboxes know.
 *
 * - They are written to the outbox as a trigger would have, and take the way of all events: privacy is judged, `belfry explain`
 *   knows them, and a second time finds nothing. It must run before counters are counted anew, so that the count has seen them.
 * - Without a time nobody can tell a row that was missed from one that was there before Belfry, and nothing is invented.
 * - Writers are not held up: the table is only read.
 * - Rows written under `belfry.capture = 'off'` within that time can't be told from lost ones.
 */

import type pg from 'pg';
import { object } from '../../capture/rows.js';
import { mappedColumns } from '../../config.js';
import type { Source, TimeColumn } from '../../config.js';
import { parseTableName, quoteIdent, quoteLiteral, quoteTable } from '../../postgres/sql.js';
import type { ColumnTypes } from '../../schema/columns.js';

/** When events were lost, as Postgres prints it: a Date has no microseconds. */
export interface LossWindow {
  readonly from: string;
  readonly to: string;
}

/** Events written in one statement. */
const roundSize = 50_000;

/** Applications that set the time themselves have another clock than the database, and set it before they write. */
const slackS = 5;

/** An event of the same key that is older than the row by more than this is of a row before it, which is gone. */
const skewMs = 1_000;

/** Returns the number of events; null where the source has no time, and so nothing can be told. The client must be in no transaction. */
export async function recreateMissed(
  facts: pg.ClientBase,
  source: Source,
  types: ColumnTypes,
  window: LossWindow,
): Promise<number | null> {
  const time = await timeOf(facts, source, types);
  if (time === null || mappedColumns(source).some((column) => types(source.table, column) === null)) return null;
  const sql = missedSql(source, time, types);
  for (let total = 0; ;) {
    const { rowCount } = await facts.query(sql, [window.from, window.to]);
    total += rowCount ?? 0;
    if ((rowCount ?? 0) < roundSize) return total;
  }
}

/** By the time that the config names; else by a column that is named or filled as such columns are. As SQL of timestamptz over `t`. */
async function timeOf(facts: pg.ClientBase, { table, time }: Source, types: ColumnTypes): Promise<string | null> {
  if (time === null) {
    const guess = await timeColumn(facts, table);
    return guess === null ? null : `t.${quoteIdent(guess)}::timestamptz`;
  }
  const type = types(table, time.column);
  return type === null ? null : timeSql(`t.${quoteIdent(time.column)}`, type, time);
}

/**
 * Known is a row by its own event of creation or by a change that gave it what it is known by: another change does not tell that somebody was
 * notified. An event that lacks what the row has was written while a column was gone (incomplete.ts), and nobody was told of it. What was
 * created before Belfry looked (installed_at) is nobody's loss, however near it is.
 */
function missedSql(source: Source, time: string, types: ColumnTypes): string {
  const name = quoteLiteral(source.name);
  const textsOf = (columns: readonly string[], side: string): string =>
    `array[${columns.map((column) => `${side} ->> ${quoteLiteral(column)}`).join(', ')}]::text[]`;
  const keyOf = (side: string): string => textsOf(source.key, side);
  const telling = tellingColumns(source);
  const lacks = telling.map(
    (column, i) => `k.telling[${String(i + 1)}] is null and m.new ->> ${quoteLiteral(column)} is not null`,
  );
  // As the relay writes it (resolve.ts).
  const keyText = `json_build_array(${source.key.map((_, i) => `m.key[${String(i + 1)}]`).join(', ')})::text`;
  const since = `(select w.since from since w)`;
  // A trigger writes times as in UTC where they are part of an id (capture/desired.ts).
  const captured = (column: string): string => {
    const value = `t.${quoteIdent(column)}`;
    if (types(source.table, column) !== 'timestamp with time zone') return value;
    return `case when isfinite(${value}) then to_jsonb((to_jsonb(${value} at time zone 'UTC') #>> '{}') || '+00:00') else to_jsonb(${value}) end`;
  };
  // In the words of the outbox a number may be written otherwise than in the table (1.50 as 1.5): compared as the outbox has it.
  return `
with since as materialized (
  select case when i.at <= $1::timestamptz then greatest(i.at, $1::timestamptz - interval '${String(slackS)} seconds')
              else $1::timestamptz - interval '${String(slackS)} seconds' end as since
    from (select min(c.installed_at) as at from belfry.capture_trigger c where c.source = ${name}) i
), missed as materialized (
  select x.at, x.new, ${keyOf('x.new')} as key
    from (select ${time} as at, ${object(mappedColumns(source).map((each) => [each, captured(each)]))} as new
            from ${quoteTable(source.table)} t
           where ${time} between ${since} and $2::timestamptz + interval '${String(slackS)} seconds'${
             source.when === null
               ? ''
               : `
             and (${source.when}
)`
           }) x
), known as materialized (
  select ${keyOf('o.new')} as key, ${textsOf(telling, 'o.new')} as telling, o.at
    from belfry.outbox o
   where o.source = ${name} and o.at >= ${since} - interval '${String(skewMs)} milliseconds'
     and (o.op = 'created' or o.op = 'changed' and ${textsOf(telling, 'o.new')} is distinct from ${textsOf(telling, 'o.old')})
)
insert into belfry.outbox (source, op, new, at)
select ${name}, 'created', m.new, least(m.at, clock_timestamp())
  from missed m
 where not exists (select from known k where k.key = m.key and k.at >= m.at - interval '${String(skewMs)} milliseconds' and not (${lacks.join(' or ')}))
   and not exists (select from belfry.notification_event e
                    where e.source = ${name} and e.key = ${keyText} and e.removed_at is null)
 order by m.at
 limit ${String(roundSize)}`;
}

/** Columns without whose values nobody can be told of a row. */
function tellingColumns({ key, actor, object, subject, recipient }: Source): string[] {
  const people = [actor, recipient].flatMap((who) =>
    who?.kind === 'column' ? [who.column] : who?.kind === 'path' ? [who.hops[0].from] : [],
  );
  return [...new Set([...key, ...people, ...[object, subject].flatMap((one) => (one === null ? [] : [one.id]))])];
}

/** Names of columns that say when a row was created, without case and underscores. */
const creationName = /^(date)?(created|inserted|added)(at|on|date|time|timestamp)?$/;

/**
 * The column that says when a row was created: one that is named so, or the only one whose default is the time of the
 * insert; null when there is none.
 */
async function timeColumn(client: pg.ClientBase, table: string): Promise<string | null> {
  const { schema, name } = parseTableName(table);
  const { rows } = await client.query<{ name: string; fills: boolean }>(
    `select a.attname as name,
            coalesce(pg_get_expr(d.adbin, d.adrelid) ~* '(now|transaction_timestamp|statement_timestamp|clock_timestamp)\\(|CURRENT_TIMESTAMP|LOCALTIMESTAMP', false) as fills
       from pg_attribute a
       join pg_class c on c.oid = a.attrelid
       join pg_namespace n on n.oid = c.relnamespace
       left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
      where n.nspname = $1 and c.relname = $2 and a.attnum > 0 and not a.attisdropped
        and a.atttypid in ('timestamptz'::regtype, 'timestamp'::regtype)
      order by a.attnum`,
    [schema, name],
  );
  const named = rows.filter((row) => creationName.test(plain(row.name)));
  if (named.length > 0) return (named.find(({ fills }) => fills) ?? named[0])?.name ?? null;
  const filled = rows.filter((row) => row.fills && !/updat|modif|chang|seen|delet|expir/.test(plain(row.name)));
  return filled.length === 1 ? (filled[0]?.name ?? null) : null;
}

function plain(name: string): string {
  return name.toLowerCase().replaceAll('_', '');
}

/** A column's value as timestamptz; null where it is no time. Numbers are seconds since 1970, or from 10^11 on milliseconds. */
function timeSql(value: string, type: string, { zone }: TimeColumn): string {
  if (type === 'timestamp with time zone') return value;
  if (type === 'timestamp without time zone' || type === 'date')
    return `(${value}::timestamp at time zone ${quoteLiteral(zone)})`;
  if (['smallint', 'integer', 'bigint', 'numeric', 'real', 'double precision'].includes(type))
    return `to_timestamp(case when abs(${value}) >= 1e11 then ${value} / 1000.0 else ${value} end)`;
  const text = `${value}::text`;
  const iso = String.raw`'^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.]\d+)?)?'`;
  return `(case when ${text} ~ (${iso} || '(Z|[+-]\\d\\d(:?\\d\\d)?)$') then ${text}::timestamptz
                when ${text} ~ (${iso} || '$') then ${text}::timestamp at time zone ${quoteLiteral(zone)} end)`;
}
