/**
 * The `visible` of a source as a part of larger statements: its parameters replaced by expressions of text, which are cast
 * to the types that Postgres takes them for. A text that does not fit gives no row, so nothing is seen.
 */

import type pg from 'pg';
import { replaceParameters, sqlParameters } from '../config.js';
import { cast, openParameter, parameterTypesSql } from './columns.js';

/** The query for these two expressions; it returns a row if the person may see the object. */
export type Visible = (user: string, objectId: string) => string;

const statement = 'belfry_parameter_types';

/** Asks the database for the types of `:user` and `:object_id`. Throws what Postgres says of bad SQL. */
export async function bindVisible(client: pg.ClientBase, sql: string): Promise<Visible> {
  const names = sqlParameters(sql);
  await prepare(client, sql, names, new Set());
  const result = await client.query<{ types: string[] }>(parameterTypesSql, [statement]);
  await client.query(`deallocate ${statement}`);
  const typeOf = (name: string): string => result.rows[0]?.types[names.indexOf(name)] ?? 'text';
  return (user, objectId) =>
    replaceParameters(sql, (name) => cast(name === 'user' ? user : objectId, typeOf(name), null));
}

/** `open`: parameters of whose type nothing tells. They are text, as they come. */
async function prepare(
  client: pg.ClientBase,
  sql: string,
  names: readonly string[],
  open: ReadonlySet<string>,
): Promise<void> {
  const text = replaceParameters(sql, (name) => {
    const parameter = `$${String(names.indexOf(name) + 1)}`;
    return open.has(name) ? `${parameter}::text` : parameter;
  });
  try {
    await client.query(`prepare ${statement} as ${text}`);
  } catch (error) {
    const name = names[(openParameter(error) ?? 0) - 1];
    if (name === undefined || open.has(name)) throw error;
    await prepare(client, sql, names, new Set([...open, name]));
  }
}
