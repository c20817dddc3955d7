/**
 * Does the database have what the config names? Tables and columns on the way to people, and SQL that Postgres accepts.
 *
 * Reads the catalogue and prepares statements; runs none of them, and locks nothing. The tables that are captured, with their own
 * columns, are capture's (capture/desired.ts), and so is whether a condition runs in a trigger (capture/conditions.ts).
 */

import type pg from 'pg';
import { replaceParameters, sqlParameters } from '../config.js';
import type { Access, Config, PathHop, Source } from '../config.js';
import { messageOf, sqlState } from '../errors.js';
import { parseTableName, quoteIdent, quoteLiteral, quoteTable } from '../sql.js';
import { holdingRows, loadColumnTypes } from './columns.js';
import type { ColumnTypes } from './columns.js';

/** A line per problem, each beginning with its place in the config; empty when all is there. */
export async function mappingProblems(client: pg.ClientBase, config: Config): Promise<string[]> {
  const types = await loadColumnTypes(client, config);
  const known = await existingTables(client, tablesAndColumns(config));
  const problems: string[] = [];
  for (const { path, table, column } of tablesAndColumns(config)) {
    const { schema, name } = parseTableName(table);
    if (!known.has(JSON.stringify([schema, name]))) problems.push(`${path}: there is no table ${schema}.${name}`);
    else if (column !== null && types(table, column) === null)
      problems.push(`${path}: table ${schema}.${name} has no column ${column}`);
  }
  // What is missing is told above; SQL that needs it would only repeat it.
  if (problems.length > 0) return [...new Set(problems)];
  for (const { path, sql } of statements(config, types)) {
    const problem = await prepareProblem(client, sql);
    if (problem !== null) problems.push(`${path}: ${problem}`);
  }
  return problems;
}

interface Named {
  readonly path: string;
  readonly table: string;
  readonly column: string | null;
}

function tablesAndColumns(config: Config): Named[] {
  const named: Named[] = [];
  const add = (path: string, table: string, ...columns: readonly (string | null)[]): void => {
    for (const column of columns) if (column !== null) named.push({ path, table, column });
  };
  const { people, blocks, mutes, threadMutes } = config;
  if (people !== null) add('people', people.table, people.id, people.name, people.enabled, people.locale);
  if (blocks !== null) add('blocks', blocks.table, blocks.from, blocks.to, blocks.until);
  if (mutes !== null) add('mutes', mutes.table, mutes.from, mutes.to, mutes.until);
  if (threadMutes !== null) add('threadMutes', threadMutes.table, threadMutes.user, threadMutes.id, threadMutes.until);
  config.sources.forEach((source, i) => {
    const path = sourcePath(source, i);
    for (const [where, hops] of hopsOf(source)) {
      hops.forEach((hop, j) => add(`${path}.${where}.path[${String(j)}]`, hop.table, hop.match, hop.take));
    }
    if (source.time !== null) add(`${path}.time`, source.table, source.time.column);
  });
  return named;
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

async function existingTables(client: pg.ClientBase, named: readonly Named[]): Promise<Set<string>> {
  const names = named.map(({ table }) => parseTableName(table));
  const { rows } = await client.query<{ schema: string; name: string }>(
    `select distinct t.schema, t.name
       from unnest($1::text[], $2::text[]) t(schema, name)
       join pg_catalog.pg_namespace n on n.nspname = t.schema
       join pg_catalog.pg_class     c on c.relnamespace = n.oid and c.relname = t.name`,
    [names.map(({ schema }) => schema), names.map(({ name }) => name)],
  );
  return new Set(rows.map(({ schema, name }) => JSON.stringify([schema, name])));
}

function statements(config: Config, types: ColumnTypes): { readonly path: string; readonly sql: string }[] {
  const found: { path: string; sql: string }[] = [];
  const { people } = config;
  if (people !== null) {
    const where = (path: string, condition: string): void => {
      found.push({ path, sql: `select from ${quoteTable(people.table)} where (${condition}\n)` });
    };
    if (people.enabled !== null) where('people.enabled', quoteIdent(people.enabled));
    if (people.active !== null) where('people.active', people.active);
  }
  for (const section of ['blocks', 'mutes', 'threadMutes'] as const) {
    const rows = config[section];
    if (rows === null) continue;
    for (const key of ['until', 'when'] as const) {
      const one = { table: rows.table, until: null, when: null, [key]: rows[key] };
      if (rows[key] !== null) found.push({ path: `${section}.${key}`, sql: `select from ${holdingRows(one)} t` });
    }
  }
  config.sources.forEach((source, i) => {
    const path = sourcePath(source, i);
    const { recipient, visible, time, table, when } = source;
    if (when !== null)
      found.push({ path: `${path}.when`, sql: `select from ${holdingRows({ table, when, until: null })} t` });
    if (visible !== null) found.push({ path: `${path}.visible`, sql: numbered(visible) });
    if (recipient?.kind === 'query') {
      const sql = replaceParameters(recipient.sql, (column) => `null::${types(source.table, column) ?? 'text'}`);
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
    if (sqlState(error) === undefined) throw error;
    return sqlState(error) === '42P18' ? null : messageOf(error);
  } finally {
    await client.query('rollback');
    await client.query(`deallocate ${name}`).catch(() => undefined);
  }
}
