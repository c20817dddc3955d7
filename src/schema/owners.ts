/**
 * Who owns an object, as far as the mapping tells: a source whose recipient is found by a path from its object's id says
 * where objects of that kind live and whose they are.
 *
 * Only where each hop finds one row at most (a unique index): a path over members of a conversation finds people, but no
 * owner.
 */

import type pg from 'pg';
import type { Config, PathHop, Recipient, Source } from '../config.js';
import { parseTableName, quoteIdent, quoteTable } from '../postgres/sql.js';
import { cast, isInteger } from './columns.js';
import type { ColumnTypes } from './columns.js';

type Hops = Extract<Recipient, { kind: 'path' }>['hops'];

export interface Owners {
  /** Kinds whose owners can be told. */
  readonly kinds: readonly string[];
  /**
   * `from` and `where` of a query over the object with this id (an expression of text) of a kind, and the expression of its
   * owner in it: no row means that there is no such object.
   */
  of(kind: string, objectId: string): { readonly from: string; readonly where: string; readonly owner: string };
  /** Whether the recipient of this source is the owner of its object anyway. */
  isRecipient(source: Source): boolean;
}

/** One statement, about the indexes of the tables that paths go over. */
export async function loadOwners(client: pg.ClientBase | pg.Pool, config: Config, types: ColumnTypes): Promise<Owners> {
  const candidates = config.sources.flatMap((source) => {
    const { object, recipient } = source;
    return object !== null && recipient?.kind === 'path' && recipient.hops[0].from === object.id
      ? [{ source, kind: object.kind, hops: recipient.hops }]
      : [];
  });
  const unique = await uniqueColumns(
    client,
    candidates.flatMap(({ hops }) => hops),
  );
  const paths = new Map<string, Hops>();
  const recipients = new Set<Source>();
  for (const { source, kind, hops } of candidates) {
    if (!hops.every((hop) => unique.has(hopKey(hop)))) continue;
    const known = paths.get(kind) ?? hops;
    paths.set(kind, known);
    if (JSON.stringify(known) === JSON.stringify(hops)) recipients.add(source);
  }
  return {
    kinds: [...paths.keys()],
    isRecipient: (source) => recipients.has(source),
    of(kind, objectId) {
      const hops = paths.get(kind) ?? [];
      const tables = hops.map((hop, i) => {
        const table = `${quoteTable(hop.table)} belfry_o${String(i)}`;
        const before = hops[i - 1];
        if (before === undefined) return table;
        const [from, to] = [types(before.table, before.take), types(hop.table, hop.match)];
        const value = `belfry_o${String(i - 1)}.${quoteIdent(before.take)}`;
        const wanted =
          from === to || (isInteger(from) && isInteger(to)) ? value : cast(`${value}::text`, to ?? 'text', from);
        return `join ${table} on belfry_o${String(i)}.${quoteIdent(hop.match)} = ${wanted}`;
      });
      const [first] = hops;
      const last = hops.at(-1);
      if (first === undefined || last === undefined)
        return { from: '(select) belfry_o0', where: 'false', owner: 'null' };
      return {
        from: tables.join(' '),
        where: `belfry_o0.${quoteIdent(first.match)} = ${cast(objectId, types(first.table, first.match) ?? 'text', null)}`,
        owner: `belfry_o${String(hops.length - 1)}.${quoteIdent(last.take)}`,
      };
    },
  };
}

const hopKey = ({ table, match }: PathHop): string => {
  const { schema, name } = parseTableName(table);
  return JSON.stringify([schema, name, match]);
};

/** Of these hops, those that find one row at most. */
async function uniqueColumns(client: pg.ClientBase | pg.Pool, hops: readonly PathHop[]): Promise<Set<string>> {
  if (hops.length === 0) return new Set();
  const names = hops.map(({ table }) => parseTableName(table));
  const { rows } = await client.query<{ schema: string; table: string; column: string }>(
    `select distinct w.schema, w.name as table, w.col as column
       from unnest($1::text[], $2::text[], $3::text[]) w(schema, name, col)
       join pg_namespace n on n.nspname = w.schema
       join pg_class c on c.relnamespace = n.oid and c.relname = w.name
       join pg_index i on i.indrelid = c.oid and i.indisunique and i.indpred is null and i.indnkeyatts = 1
       join pg_attribute a on a.attrelid = c.oid and a.attnum = i.indkey[0] and a.attname = w.col`,
    [names.map(({ schema }) => schema), names.map(({ name }) => name), hops.map(({ match }) => match)],
  );
  return new Set(rows.map(({ schema, table, column }) => JSON.stringify([schema, table, column])));
}
