/** A database as `init` sees it: names and structure, never a row. */

import type { TableName } from '../postgres/sql.js';

export interface Column {
  readonly name: string;
  /** As format_type prints it, without a modifier. */
  readonly type: string;
  /** pg_type.typcategory of the type or, of a domain, of what it is made of: B boolean, D date or time, E enum, N number, S text; I for uuid. */
  readonly category: string;
  readonly integer: boolean;
  readonly array: boolean;
  readonly required: boolean;
  /** Computed when it is read, so that triggers see null; or of a name that no config can hold (a line break, braces). */
  readonly virtual: boolean;
  readonly default: string | null;
  readonly comment: string | null;
  /** Of an enum. */
  readonly labels: readonly string[] | null;
}

export interface ForeignKey {
  readonly columns: readonly string[];
  readonly schema: string;
  readonly table: string;
  readonly references: readonly string[];
}

export interface Table extends TableName {
  /** What the planner believes. */
  readonly rows: number;
  readonly comment: string | null;
  /** The current user may put triggers on it. */
  readonly owned: boolean;
  readonly columns: readonly Column[];
  readonly primaryKey: readonly string[] | null;
  /** Unique over all rows, the primary key first. */
  readonly uniques: readonly (readonly string[])[];
  readonly foreignKeys: readonly ForeignKey[];
  /** Row-level security does not let everybody see every row. */
  readonly restricted: boolean;
  /** Definitions of check constraints. */
  readonly checks: readonly string[];
}

export interface Database {
  readonly tables: readonly Table[];
  readonly byKey: ReadonlyMap<string, Table>;
}

export function columnOf(table: Table, name: string): Column | null {
  return table.columns.find((column) => column.name === name) ?? null;
}

/** Whether no two rows of the table can have the same values in these columns. */
export function isUnique(table: Table, columns: readonly string[]): boolean {
  return table.uniques.some((unique) => unique.every((column) => columns.includes(column)));
}

/** Whether values of one column can be those of another. */
export function areAlike(a: Column, b: Column): boolean {
  return a.category === b.category && !a.array && !b.array && (a.category !== 'N' || a.integer === b.integer);
}

const PLAIN = /^[a-z_][a-z0-9_$]*$/;

/** Reserved in Postgres (pg_get_keywords, R and T) and likely as the name of a table or column. */
const RESERVED = new Set(
  (
    'all analyse analyze and any array as asc authorization both case cast check collate column constraint create current_user default desc ' +
    'distinct do else end except false fetch for foreign from grant group having in initially into lateral leading left like limit natural not ' +
    'null offset on only or order placing primary references returning right select session_user similar some symmetric table then to trailing ' +
    'true union unique user using variadic when where window with'
  ).split(' '),
);

/** An identifier for SQL, quoted only where it must be: the file is read by people. */
export function sqlName(name: string): string {
  return PLAIN.test(name) && !RESERVED.has(name) ? name : `"${name.replaceAll('"', '""')}"`;
}

/** A table as the config and SQL name it. */
export function tableText(table: TableName): string {
  return `${sqlName(table.schema)}.${sqlName(table.name)}`;
}

/** Whether a column can stand as `:name` in a query of the config, which knows plain words only. */
export function isParameter(name: string): boolean {
  return /^[A-Za-z_]\w*$/.test(name);
}

export function quoted(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

/**
 * The values that a column can have, by its enum or by a check that lists them (as `in (…)`, which Postgres keeps as `= ANY (ARRAY[…])`);
 * null where nothing says.
 */
export function valuesOf(table: Table, column: Column): readonly string[] | null {
  if (column.labels !== null) return column.labels;
  const name = `"?${column.name.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')}"?`;
  const list = new RegExp(`^CHECK \\(+${name}\\)?(?:::[a-z ]+)?\\)? = ANY \\(+ARRAY\\[(.*)\\]`, 'i');
  for (const check of table.checks) {
    const items = list.exec(check)?.[1];
    const range = new RegExp(
      `^CHECK \\(+${name}\\)? >= '?(-?\\d)'?(?:::[a-z]+)?\\)+ AND \\(+${name}\\)? <= '?(\\d)'?`,
      'i',
    ).exec(check);
    if (range !== null) {
      const [from, to] = [Number(range[1]), Number(range[2])];
      return Array.from({ length: Math.max(to - from + 1, 0) }, (_, i) => String(from + i));
    }
    const either = [...check.matchAll(new RegExp(`\\(${name} = '?([^')(]+)'?`, 'gi'))].map(([, value = '']) =>
      value.replace(/'.*$/, '').trim(),
    );
    if (either.length > 1 && / OR /.test(check) && !/ AND /.test(check)) return either;
    if (items === undefined) continue;
    const values = [...items.matchAll(/'((?:[^']|'')*)'|(?:^|[\s(,])(-?\d+)(?=[\s),:]|$)/g)];
    if (values.length > 0) return values.map(([, text, number]) => text?.replaceAll("''", "'") ?? number ?? '');
  }
  return null;
}

/** The text that a column has where an insert says nothing: `'pending'::text` gives pending. Null for expressions. */
export function defaultText(column: Column): string | null {
  if (column.default === null) return null;
  const match = /^\(?'((?:[^']|'')*)'(?:::.+)?$|^\(?(-?\d+)\)?$|^(true|false)$/.exec(column.default);
  return match === null ? null : (match[1]?.replaceAll("''", "'") ?? match[2] ?? match[3] ?? null);
}

/** What a comment on a column says that numbers or letters mean: "0 = pending, 1: accepted" gives {pending: 0, accepted: 1}. */
export function meaningsOf(column: Column): ReadonlyMap<string, string> {
  const meanings = new Map<string, string>();
  for (const [, value, word] of (column.comment ?? '').matchAll(/(-?\d+)\s*(?:=>|[=:-])\s*([A-Za-z][\w-]*)/g))
    if (value !== undefined && word !== undefined) meanings.set(word.toLowerCase(), value);
  for (const [, word, value] of (column.comment ?? '').matchAll(/([A-Za-z][\w-]*)\s*(?:=>|[=:])\s*(-?\d+)/g))
    if (meanings.size === 0 || !meanings.has(word ?? ''))
      if (value !== undefined && word !== undefined) meanings.set(word.toLowerCase(), value);
  return meanings;
}
