/**
 * Does the database have what the config names? Tables and columns on the way to people, and SQL that Postgres accepts.
 *
 * Reads the catalogue and prepares statements; runs none of them, and locks nothing. The tables that are captured, with their own
 * columns, are capture's (capture/problems.ts), and so is whether a condition runs in a trigger (capture/conditions.ts).
 */

import type pg from 'pg';
import { replaceParameters, sqlParameters } from '../config.js';
import type { Access, Config, PathHop, Source } from '../config.js';
import { messageOf, sqlState } from '../errors.js';
import { parseTableName, quoteIdent, quoteLiteral, quoteTable } from '../postgres/sql.js';
import { holdingRows, loadColumnTypes, neverEqual, tablesOf } from './columns.js';
import type { ColumnTypes } from './columns.js';

/** A line per problem, each beginning with its place in the config; empty when all is there. */
export async function mappingProblems(client: pg.ClientBase, config: Config): Promise<string[]> {
  const types = await loadColumnTypes(client, config);
  const hasTable = await existingTables(client, config);
  const problems: string[] = [];
  for (const { path, table, columns, isCaptured = false } of lookUps(config)) {
    const { schema, name } = parseTableName(table);
    const missing = Object.entries(columns).filter(([, column]) => column !== null && types(table, column) === null);
    if (hasTable(table))
      for (const [place, column] of missing)
        problems.push(`${path}.${place}: table ${schema}.${name} has no column ${column ?? ''}`);
    else if (!isCaptured) problems.push(`${path}.table: there is no table ${schema}.${name}`);
  }
  for (const { path, one, other } of comparisons(config)) {
    const [of, to] = [types(one.table, one.column), types(other.table, other.column)];
    if (neverEqual(of, to))
      problems.push(`${path}: ${nameOf(one)} is ${of ?? ''} and ${nameOf(other)} ${to ?? ''}: they are never equal`);
  }
  for (const { path, sql, needs } of statements(config, types)) {
    // What is missing is told, here or by capture; SQL that is made of it would only repeat it.
    if (needs !== undefined && !hasTable(needs.table)) continue;
    if (needs?.column !== undefined && types(needs.table, needs.column) === null) continue;
    const problem = await prepareProblem(client, sql);
    if (problem !== null) problems.push(`${path}: ${problem}`);
  }
  return problems;
}

/** A table where something is looked up, with the columns for it by the key that names them. */
interface LookUp {
  readonly path: string;
  readonly table: string;
  readonly columns: Readonly<Record<string, string | null>>;
  /** That the table is missing is told by capture. */
  readonly isCaptured?: true;
}

function lookUps({ people, sources }: Config): LookUp[] {
  const found: LookUp[] = [];
  if (people !== null) {
    const { table, id, name, enabled, locale } = people;
    found.push({ path: 'people', table, columns: { id, name, enabled, locale } });
  }
  sources.forEach((source, i) => {
    const path = sourcePath(source, i);
    for (const [where, hops] of hopsOf(source)) {
      hops.forEach(({ table, match, take }, j) =>
        found.push({ path: `${path}.${where}.path[${String(j)}]`, table, columns: { match, take } }),
      );
    }
    if (source.time !== null)
      found.push({ path, table: source.table, columns: { time: source.time.column }, isCaptured: true });
  });
  return found;
}

interface Column {
  readonly table: string;
  readonly column: string;
}

const nameOf = ({ table, column }: Column): string => {
  const { schema, name } = parseTableName(table);
  return `${schema}.${name}.${column}`;
};

/** Columns whose values are compared, with the place in the config that says so. */
function comparisons({
  people,
  blocks,
  mutes,
  threadMutes,
  sources,
}: Config): { path: string; one: Column; other: Column }[] {
  const found: { path: string; one: Column; other: Column }[] = [];
  const person = (path: string, table: string, column: string): void => {
    if (people !== null)
      found.push({ path, one: { table, column }, other: { table: people.table, column: people.id } });
  };
  for (const [section, pair] of Object.entries({ blocks, mutes })) {
    if (pair === null) continue;
    person(`${section}.from`, pair.table, pair.from);
    person(`${section}.to`, pair.table, pair.to);
  }
  if (threadMutes !== null) person('threadMutes.user', threadMutes.table, threadMutes.user);
  sources.forEach((source, i) => {
    const path = sourcePath(source, i);
    for (const where of ['actor', 'recipient'] as const) {
      const who = source[where];
      if (who?.kind === 'column') person(`${path}.${where}`, source.table, who.column);
    }
    for (const [where, hops] of hopsOf(source)) {
      hops.forEach(({ table, from, match, take }, j) => {
        const at = `${path}.${where}.path[${String(j)}]`;
        const before = j === 0 ? source.table : (hops[j - 1]?.table ?? '');
        // What stands in a list or a text has no type of its own.
        if (j > 0 || source[where]?.kind === 'path')
          found.push({ path: `${at}.match`, one: { table: before, column: from }, other: { table, column: match } });
        if (j === hops.length - 1) person(`${at}.take`, table, take);
      });
    }
  });
  return found;
}

export function sourcePath(source: Source, index: number): string {
  return `sources[${String(index)}] (${source.name})`;
}

/** The hops of a source by the key that they stand under. */
export function hopsOf({ actor, recipient }: Source): ['actor' | 'recipient', readonly PathHop[]][] {
  return [
    ...(actor?.kind === 'path' ? [['actor', actor.hops] as ['actor', readonly PathHop[]]] : []),
    ...(recipient !== null && 'hops' in recipient
      ? [['recipient', recipient.hops] as ['recipient', readonly PathHop[]]]
      : []),
  ];
}

async function existingTables(client: pg.ClientBase, config: Config): Promise<(table: string) => boolean> {
  const names = [...tablesOf(config)].map(parseTableName);
  const { rows } = await client.query<{ schema: string; name: string }>(
    `select distinct t.schema, t.name
       from unnest($1::text[], $2::text[]) t(schema, name)
       join pg_catalog.pg_namespace n on n.nspname = t.schema
       join pg_catalog.pg_class     c on c.relnamespace = n.oid and c.relname = t.name`,
    [names.map(({ schema }) => schema), names.map(({ name }) => name)],
  );
  const found = new Set(rows.map(({ schema, name }) => JSON.stringify([schema, name])));
  return (table) => {
    const { schema, name } = parseTableName(table);
    return found.has(JSON.stringify([schema, name]));
  };
}

interface Statement {
  readonly path: string;
  readonly sql: string;
  /** What it is made of besides the SQL of the config. */
  readonly needs?: { readonly table: string; readonly column?: string };
}

function statements(config: Config, types: ColumnTypes): Statement[] {
  const found: Statement[] = [];
  const { people } = config;
  if (people !== null) {
    const { table, enabled, active } = people;
    const where = (condition: string): string => `select from ${quoteTable(table)} where (${condition}\n)`;
    if (enabled !== null)
      found.push({ path: 'people.enabled', sql: where(quoteIdent(enabled)), needs: { table, column: enabled } });
    if (active !== null) found.push({ path: 'people.active', sql: where(active), needs: { table } });
  }
  const holding = (path: string, rows: Parameters<typeof holdingRows>[0]): void => {
    const { table, until } = rows;
    const needs = until === null ? { table } : { table, column: until };
    found.push({ path, sql: `select from ${holdingRows(rows)} t`, needs });
  };
  for (const section of ['blocks', 'mutes', 'threadMutes'] as const) {
    const rows = config[section];
    if (rows === null) continue;
    const { table, until, when } = rows;
    if (until !== null) holding(`${section}.until`, { table, until, when: null });
    if (when !== null) holding(`${section}.when`, { table, until: null, when });
  }
  config.sources.forEach((source, i) => {
    const path = sourcePath(source, i);
    const { recipient, visible, time, table, when } = source;
    if (when !== null) holding(`${path}.when`, { table, until: null, when });
    if (visible !== null) found.push({ path: `${path}.visible`, sql: numbered(visible) });
    if (recipient?.kind === 'query') {
      // A column that is missing is told by capture; a null without a type goes with everything.
      const sql = replaceParameters(recipient.sql, (column) => {
        const type = types(table, column);
        return type === null ? 'null' : `null::${type}`;
      });
      found.push({ path: `${path}.recipient.query`, sql: `select q::text from (${sql}\n) q(q)` });
    }
    if (recipient?.kind === 'list')
      found.push({ path: `${path}.recipient.at`, sql: `select ${quoteLiteral(recipient.at)}::jsonpath` });
    if (time !== null)
      found.push({
        path: `${path}.time.zone`,
        sql: `select timestamp '2000-01-01' at time zone ${quoteLiteral(time.zone)}`,
      });
  });
  const add = (path: string, access: Access): void => {
    if (typeof access === 'object') found.push({ path, sql: numbered(access.sql) });
  };
  for (const [kind, rule] of Object.entries(config.channels)) {
    add(`channels.${kind}.read`, rule.read);
    add(`channels.${kind}.publish`, rule.publish);
  }
  add('presence.read', config.presence.read);
  return found;
}

function numbered(sql: string): string {
  const names = sqlParameters(sql);
  return replaceParameters(sql, (name) => `$${String(names.indexOf(name) + 1)}`);
}

/** SQLSTATEs of what passes: a connection, a deadlock, full memory, a lock that was not had in time, a server that shuts down. */
const notOfSql = /^(?:08|40|53|55P03|57|58)/;

/** What Postgres says of a statement, or null. That the type of a parameter is open is no problem: it is then text. */
async function prepareProblem(client: pg.ClientBase, sql: string): Promise<string | null> {
  const name = 'belfry_mapping_check';
  // Constants are evaluated while it is planned, so a zone or a path that is none shows too.
  await client.query('begin');
  try {
    await client.query(`prepare ${name} as ${sql}`);
    if (sqlParameters(sql).length === 0 && !/\$\d/.test(sql)) await client.query(`explain execute ${name}`);
    return null;
  } catch (error) {
    const state = sqlState(error);
    if (state === undefined || notOfSql.test(state)) throw error;
    return state === '42P18' ? null : messageOf(error);
  } finally {
    await client.query('rollback');
    await client.query(`deallocate ${name}`).catch(() => undefined);
  }
}
