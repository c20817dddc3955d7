/**
 * The one statement that reads a page of the outbox and resolves it: ids out of JSON, recipients over their hops, names
 * of channels. Generated from the config once; the page itself is spliced in (outbox/cursor.ts).
 *
 * - A value is cast to the type of the column that it is compared with, never the column to text: indexes stay usable.
 *   Where the types differ the cast is guarded, so that a value that does not fit gives no row instead of an error.
 * - Only `after` sides are joined: what is removed is retracted by what was stored, since its parents may be gone.
 * - Every row of the page comes back at least once, also of sources that the config no longer names.
 */

import { replaceParameters } from '../../config.js';
import type { PathHop, Recipient, Source } from '../../config.js';
import { quoteIdent, quoteLiteral, quoteTable } from '../../postgres/sql.js';
import { cast, isInteger, isText, personId, sameKey } from '../../schema/columns.js';
import type { ColumnTypes } from '../../schema/columns.js';
import { blocksSource, mutesSource } from './plan.js';
import { wideRecipients } from './resolved.js';

/**
 * Builds the statement around a page for these sources (the config's and the internal ones): `pageSelect` gives (id, xid, at, source, op, new, old).
 * `recipients` false: recipients are not looked for, where they do not matter or looking for them failed.
 */
export function resolveSql(
  sources: readonly Source[],
  types: ColumnTypes,
  { recipients }: { readonly recipients: boolean } = { recipients: true },
): (pageSelect: string) => string {
  const branches = sources.map((source) => sourceBranch(source, types, recipients));
  const names = ["''", ...sources.map((source) => quoteLiteral(source.name))];
  branches.push(otherBranch(names, types));
  const body = branches.join('\nunion all\n');
  return (pageSelect) => `with page as materialized (${pageSelect}),
meta as materialized (select min(id) as first_id, max(id)::text as page_last, count(*)::text as page_count, pg_current_snapshot()::text as page_target from page)
select r.id::text, r.xid::text, date_part('epoch', r.at) * 1000 as at_ms, r.source, r.op, r.counts, r.counters_only,
       r.before,
       r.a_key, r.a_actor, r.a_object, r.a_subject, r.a_route, r.a_channels, r.a_include,
       r.recipient, r.stands, r.raw, m.page_last, m.page_count, m.page_target
from (
${body}
) r left join meta m on m.first_id = r.id
order by r.id`;
}

/**
 * Whether the statement reads the application's tables by unique keys alone. Then it may run in a session that joins by index only; with
 * SQL of the config, or a table without an index, that could be the worst plan.
 */
export function resolvesByKey(sources: readonly Source[], types: ColumnTypes): boolean {
  const byKey = (hops: readonly PathHop[]): boolean => hops.every(({ table, match }) => types.isUnique(table, [match]));
  return sources.every(({ table, key, actor, recipient }) => {
    if (!types.isUnique(table, key)) return false;
    if (actor?.kind === 'path' && !byKey(actor.hops)) return false;
    return recipient === null || recipient.kind === 'column' || (recipient.kind !== 'query' && byKey(recipient.hops));
  });
}

function sourceBranch(source: Source, types: ColumnTypes, recipients: boolean): string {
  const name = quoteLiteral(source.name);
  const joins: string[] = [];
  const actor = actorSql(source, types, joins);
  // One more than a narrow event may have tells that it is wide.
  const recipient = recipients
    ? recipientSql(source, types, joins, `limit ${String(wideRecipients + 1)}`)
    : 'null::text';
  const counts =
    source.counter === null ? 'false' : 'seed.seed is null or not pg_visible_in_snapshot(p.xid, seed.seed)';
  if (source.counter !== null) joins.push(`left join belfry.source_state seed on seed.source = ${name}`);
  return `select p.id, p.xid, p.at, p.source, p.op, ${counts} as counts,
       coalesce(p.new, p.old) ? 'belfry:counters' as counters_only,
       case when p.old is not null then json_build_array(${sideSql(source, types, 'p.old', actorBefore(source, types, actor)).join(', ')})::text end as before,
       ${sideSql(source, types, 'p.new', actor)
         .map((column, i) => `${column} as a_${sideColumns[i] ?? ''}`)
         .join(', ')},
       ${recipient} as recipient, ${standsSql(source, types)} as stands, null::text as raw
from ${pageOf(source, types)} p ${joins.join('\n     ')}
where p.source = ${name} and p.op in ('created', 'removed', 'changed')`;
}

/**
 * A list may be long, and what stands beside the recipients is asked for each of them: so it is unpacked once, and its routes, which are
 * compared and no more, are made once and short.
 */
function pageOf({ name, table, recipient }: Source, types: ColumnTypes): string {
  if (recipient?.kind !== 'list' && recipient?.kind !== 'mentions') return 'page';
  const type = types(table, recipient.column);
  // Only the names in the text matter for who hears of it.
  const route = (row: string): string =>
    `case when ${row} is not null then md5(array(${valuesSql(recipient, row, type)})::text) end`;
  return `(select p.id, p.xid, p.at, p.source, p.op, p.new || '{}' as new, p.old || '{}' as old, ${route('p.new')} as new_route, ${route('p.old')} as old_route
             from page p where p.source = ${quoteLiteral(name)} offset 0)`;
}

/** Where the key is not unique in the table, a removed row may have left another one with the same key. */
function standsSql(source: Source, types: ColumnTypes): string {
  const known = source.key.every((column) => types(source.table, column) !== null);
  if (!known || types.isUnique(source.table, source.key)) return 'false';
  const key = sameKey(source, types, 't', (column) => text('p.old', column));
  const keyOf = (row: string): string => `array[${source.key.map((column) => text(row, column)).join(', ')}]`;
  return `p.old is not null and (p.op = 'removed' or ${keyOf('p.old')} is distinct from ${keyOf('p.new')})
         and exists (select from ${quoteTable(source.table)} t where ${key} ${source.when === null ? '' : `and (${source.when}\n)`})`;
}

/** Events of the SQL API. Its columns have the names that a source's have, since without sources it is the first branch of the union. */
function otherBranch(names: readonly string[], types: ColumnTypes): string {
  const nulls = sideColumns
    .map((column) => `null::${column === 'channels' ? 'text[]' : 'text'} as a_${column}`)
    .join(', ');
  const people = ['user_id', 'actor_id'].map(
    (column) => `${quoteLiteral(column)}, ${personId(text('p.new', column), null, types)}`,
  );
  return `select p.id, p.xid, p.at, p.source, p.op, false as counts, false as counters_only, null::text as before, ${nulls},
       null::text as recipient, false as stands,
       (case when p.new ? 'data' then p.new || jsonb_build_object('data', (p.new -> 'data')::text) else coalesce(p.new, '{}') end
         || jsonb_strip_nulls(jsonb_build_object(${people.join(', ')})))::text as raw
from page p where p.op not in ('created', 'removed', 'changed') or p.source not in (${names.join(', ')})`;
}

/** What is known of a row, in the order of `side`. */
const sideColumns = ['key', 'actor', 'object', 'subject', 'route', 'channels', 'include'] as const;

function sideSql(source: Source, types: ColumnTypes, row: string, actor: string): string[] {
  const id = (column: string): string => idText(source, types, row, column);
  // A block or mute is about a person.
  const between = source.name === blocksSource || source.name === mutesSource;
  const channels = source.channels.map((template) =>
    template.parts.map((part) => (typeof part === 'string' ? quoteLiteral(part) : `(${id(part.column)})`)).join(' || '),
  );
  return [
    `case when ${row} is not null then json_build_array(${source.key.map((column) => text(row, column)).join(', ')})::text end`,
    actor,
    source.object === null
      ? 'null::text'
      : between
        ? personText(source, types, row, source.object.id)
        : id(source.object.id),
    source.subject === null ? 'null::text' : id(source.subject.id),
    routeSql(source, types, row),
    channels.length === 0
      ? 'null::text[]'
      : `case when ${row} is not null then array[${channels.join(', ')}]::text[] end`,
    includeSql(source, types, row),
  ];
}

function text(row: string, column: string): string {
  return `${row} ->> ${quoteLiteral(column)}`;
}

/** An id in a column. JSON keeps the blanks that pad a char(n), which do not belong to its text. */
function idText({ table }: Source, types: ColumnTypes, row: string, column: string): string {
  const value = text(row, column);
  return types(table, column) === 'bpchar' ? `rtrim(${value})` : value;
}

function personText(source: Source, types: ColumnTypes, row: string, column: string): string {
  return personId(idText(source, types, row, column), types(source.table, column), types);
}

function columnActor(source: Source, types: ColumnTypes, row: string): string {
  return source.actor?.kind === 'column' ? personText(source, types, row, source.actor.column) : 'null::text';
}

/** A path is resolved for the `after` side alone; an actor whose path starts from the same value has not changed. */
function actorBefore(source: Source, types: ColumnTypes, actorAfter: string): string {
  if (source.actor?.kind !== 'path') return columnActor(source, types, 'p.old');
  const { from } = source.actor.hops[0];
  return `case when ${text('p.old', from)} = ${text('p.new', from)} then ${actorAfter} end`;
}

function actorSql(source: Source, types: ColumnTypes, joins: string[]): string {
  if (source.actor?.kind !== 'path') return columnActor(source, types, 'p.new');
  const { hops } = source.actor;
  const start = { value: idText(source, types, 'p.new', hops[0].from), type: types(source.table, hops[0].from) };
  return hopsSql(start, hops, 'actor', types, joins);
}

/** `limit`: a clause that bounds the recipients of one event where there may be many. */
function recipientSql(source: Source, types: ColumnTypes, joins: string[], limit: string): string {
  const { recipient } = source;
  switch (recipient?.kind) {
    case undefined:
      return 'null::text';
    case 'column':
      return personText(source, types, 'p.new', recipient.column);
    case 'path': {
      const { hops } = recipient;
      const { from } = hops[0];
      const start = { value: idText(source, types, 'p.new', from), type: types(source.table, from) };
      if (hops.every(({ table, match }) => types.isUnique(table, [match])))
        return hopsSql(start, hops, 'recipient', types, joins);
      const found: string[] = [];
      const value = hopsSql(start, hops, 'recipient', types, found);
      joins.push(
        `left join lateral (select ${value} as user_id from (select) one ${found.join(' ')} ${limit}) recipient on true`,
      );
      return 'recipient.user_id';
    }
    case 'query':
      joins.push(
        `left join lateral (select ${personId('q::text', null, types)} as user_id from ${querySql(source, recipient.sql, types)} ${limit}) recipient on p.new is not null`,
      );
      return 'recipient.user_id';
    case 'list':
    case 'mentions': {
      const listed = types(source.table, recipient.column);
      const found = [`left join lateral (${valuesSql(recipient, 'p.new', listed)}) recipient_0 on true`];
      const value =
        recipient.kind === 'list' && recipient.hops.length === 0
          ? personId('recipient_0.value', listed?.endsWith('[]') === true ? listed.slice(0, -2) : null, types)
          : hopsSql({ value: 'recipient_0.value', type: null }, recipient.hops, 'recipient', types, found, {
              anyCase: recipient.kind === 'mentions',
            });
      joins.push(
        `left join lateral (select ${value} as user_id from (select) one ${found.join(' ')} ${limit}) recipient on true`,
      );
      return 'recipient.user_id';
    }
  }
}

type Plural = Extract<Recipient, { kind: 'list' | 'mentions' }>;

/** Beyond so many values of a list, or names in a text, nobody is looked for. */
const maxListed = 10_000;
const maxMentions = 100;

/** A name begins where no word, address or path goes on, and has dots and dashes only inside. */
const mentionPattern = String.raw`(?<![[:alnum:]_@/.-])@([[:alnum:]_]+(?:[.-][[:alnum:]_]+)*)`;

/** The distinct values as a column `value` of text. */
function valuesSql(recipient: Plural, row: string, type: string | null): string {
  if (recipient.kind === 'mentions') {
    return `select distinct m.m[1] as value from regexp_matches(${text(row, recipient.column)}, ${quoteLiteral(mentionPattern)}, 'g') m(m) limit ${String(maxMentions)}`;
  }
  const value = type === 'bpchar[]' ? `rtrim(v.v #>> '{}')` : `v.v #>> '{}'`;
  return `select distinct ${value} as value from jsonb_path_query(${row} -> ${quoteLiteral(recipient.column)}, ${quoteLiteral(recipient.at)}) v(v)
    where jsonb_typeof(v.v) in ('string', 'number') limit ${String(maxListed)}`;
}

/** The people of a query, as `q`. Its own aliases may be any; only Belfry's begin with belfry_. */
function querySql(source: Source, sql: string, types: ColumnTypes): string {
  const bound = replaceParameters(sql, (column) =>
    parameter('belfry_row.new', column, types(source.table, column) ?? 'text'),
  );
  return `(select p.new) belfry_row(new) cross join lateral (${bound}\n) q(q)`;
}

/** All recipients (`user_id`) of a row given as $1, its mapped columns as JSON; null for a source without. */
export function recipientsSql(source: Source, types: ColumnTypes): string | null {
  const { recipient } = source;
  const page = '(select $1::jsonb as new) p';
  if (recipient === null) return null;
  if (recipient.kind === 'query')
    return `select ${personId('q::text', null, types)} as user_id from ${page} cross join lateral ${querySql(source, recipient.sql, types)}`;
  const joins: string[] = [];
  const value = recipientSql(source, types, joins, '');
  return `select ${value} as user_id from ${page} ${joins.join(' ')}`;
}

function routeSql(source: Source, types: ColumnTypes, row: string): string {
  const { recipient } = source;
  switch (recipient?.kind) {
    case undefined:
      return 'null::text';
    case 'column':
      return personText(source, types, row, recipient.column);
    case 'path':
      return text(row, recipient.hops[0].from);
    case 'query':
      return `json_build_array(${recipient.parameters.map((column) => text(row, column)).join(', ')})::text`;
    case 'list':
    case 'mentions':
      return `${row}_route`;
  }
}

/** A column of the row as a parameter of a query, as the type that the column has in the table. */
function parameter(row: string, column: string, type: string): string {
  if (!type.endsWith('[]')) return cast(text(row, column), type, null);
  const value = `${row} -> ${quoteLiteral(column)}`;
  return `case when jsonb_typeof(${value}) = 'array' then array(select jsonb_array_elements_text(${value}))::${type} end`;
}

/** Joins hop by hop and gives the person in the last `take`. `anyCase`: a name is also found in lower case. */
function hopsSql(
  start: { readonly value: string; readonly type: string | null },
  hops: readonly PathHop[],
  role: string,
  types: ColumnTypes,
  joins: string[],
  options: { readonly anyCase?: boolean } = {},
): string {
  // A column that is gone leads nowhere: the event is held, and the drift check says why.
  if (hops.some((hop) => types(hop.table, hop.match) === null || types(hop.table, hop.take) === null))
    return 'null::text';
  let { value, type } = start;
  hops.forEach((hop, i) => {
    const alias = `${role}_${String(i + 1)}`;
    const matchType = types(hop.table, hop.match) ?? 'text';
    const match = `${alias}.${quoteIdent(hop.match)}`;
    const wanted = i === 0 ? cast(value, matchType, type) : guarded(value, type, matchType);
    const on =
      i === 0 && options.anyCase === true && isText(matchType)
        ? `${match} = any (array[${wanted}, lower(${wanted})])`
        : `${match} = ${wanted}`;
    joins.push(`left join ${quoteTable(hop.table)} ${alias} on ${on}`);
    value = `${alias}.${quoteIdent(hop.take)}`;
    type = types(hop.table, hop.take);
  });
  return personId(`${value}::text`, type, types);
}

/** A column of a joined table against another column: as it is where the types agree. */
function guarded(value: string, from: string | null, to: string): string {
  return from === to || (isInteger(from) && isInteger(to)) ? value : cast(`${value}::text`, to, from);
}

function includeSql(source: Source, types: ColumnTypes, row: string): string {
  if (source.include.length === 0) return 'null::text';
  const ids = idColumns(source);
  const fields = source.include.map((column) => {
    const value = `${row} -> ${quoteLiteral(column)}`;
    // Ids are text everywhere outside the database, as are integers beyond 2^53.
    const wire = ids.has(column)
      ? `to_jsonb(${idText(source, types, row, column)})`
      : `case when jsonb_typeof(${value}) = 'number' and abs((${text(row, column)})::numeric) > 9007199254740991 then to_jsonb(${text(row, column)}) else ${value} end`;
    return `${quoteLiteral(column)}, ${wire}`;
  });
  return `case when ${row} is not null then jsonb_build_object(${fields.join(', ')})::text end`;
}

/** Columns of a source that hold ids by the mapping. */
function idColumns(source: Source): Set<string> {
  const ids = new Set(source.key);
  if (source.actor?.kind === 'column') ids.add(source.actor.column);
  if (source.actor?.kind === 'path') ids.add(source.actor.hops[0].from);
  if (source.object !== null) ids.add(source.object.id);
  if (source.subject !== null) ids.add(source.subject.id);
  if (source.recipient?.kind === 'column') ids.add(source.recipient.column);
  if (source.recipient?.kind === 'path') ids.add(source.recipient.hops[0].from);
  return ids;
}
