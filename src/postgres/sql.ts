/** Names and texts as they stand in SQL. */

import pg from 'pg';
import { BelfryError } from '../errors.js';

/** `name` as an SQL identifier, always quoted. */
export function quoteIdent(name: string): string {
  return pg.escapeIdentifier(name);
}

/** `text` as an SQL string literal. */
export function quoteLiteral(text: string): string {
  return pg.escapeLiteral(text);
}

export interface TableName {
  readonly schema: string;
  readonly name: string;
}

const tableNamePart = /^(?:"((?:[^"]|"")+)"|([\p{L}_][\p{L}\p{N}_$]*))/u;

/**
 * Reads `likes`, `public.likes` or `public."Likes"` as Postgres would: without quotes A to Z fold to lower case
 * (and no other letters, in a database in UTF-8); without a schema it is in `public`. Throws `config_invalid`.
 */
export function parseTableName(text: string): TableName {
  const parts: string[] = [];
  let rest = text.trim();
  for (;;) {
    const match = tableNamePart.exec(rest);
    if (match === null) break;
    parts.push(match[1]?.replaceAll('""', '"') ?? (match[2] ?? '').replace(/[A-Z]/g, (letter) => letter.toLowerCase()));
    rest = rest.slice(match[0].length);
    if (!rest.startsWith('.')) break;
    rest = rest.slice(1);
  }
  const [first, second] = parts;
  if (rest !== '' || first === undefined || parts.length > 2 || text.trim().endsWith('.')) {
    throw new BelfryError(
      'config_invalid',
      `${JSON.stringify(text)} is not a table name: write table, schema.table or schema."Table".`,
    );
  }
  return second === undefined ? { schema: 'public', name: first } : { schema: first, name: second };
}

/** A table as it stands in the config, quoted for SQL. Throws `config_invalid`. */
export function quoteTable(text: string): string {
  const { schema, name } = parseTableName(text);
  return `${quoteIdent(schema)}.${quoteIdent(name)}`;
}
