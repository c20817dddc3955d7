/** From config and catalog to what should be installed: functions, and triggers on every table and on each of its partitions. */

import { columnPlaces, mappedColumns, type ColumnPlace, type Config } from '../config.js';
import { parseTableName, type TableName } from '../postgres/sql.js';
import { effectiveWakeup, type Wakeup } from './bell.js';
import { CAPTURE_LOCK_TIMEOUT, functionBody } from './body.js';
import { tableKey, type Catalog, type CatalogTable, type Column, type Relation } from './catalog.js';
import {
  BLOCKS_SOURCE,
  functionName,
  MUTES_SOURCE,
  OPERATIONS,
  THREAD_MUTES_SOURCE,
  triggerName,
  type CaptureMode,
  type Operation,
} from './names.js';

/** A source as capture sees it. */
export interface CapturedSource {
  readonly name: string;
  /** Where it stands in the config, for messages. */
  readonly path: string;
  readonly table: TableName;
  readonly columns: readonly string[];
  /** Where the config names them; one may come twice. */
  readonly places: readonly ColumnPlace[];
  readonly when: string | null;
  readonly capture: CaptureMode;
  readonly onError: 'available' | 'strict';
}

export interface DesiredFunction {
  readonly name: string;
  readonly body: string;
  /** `name=value`, sorted, as pg_proc.proconfig keeps them. */
  readonly settings: readonly string[];
  readonly comment: string;
}

export interface DesiredTrigger {
  readonly table: TableName;
  readonly name: string;
  readonly functionName: string;
  readonly source: string;
  readonly operation: Operation;
  readonly mode: CaptureMode;
  readonly oldTable: string | null;
  readonly newTable: string | null;
  /** On a partition: a truncate empties a part of the source only. */
  readonly partition: boolean;
  /** Columns that the function reads, with their types now. */
  readonly columns: Readonly<Record<string, string>>;
}

export interface Desired {
  readonly wakeup: Wakeup;
  readonly functions: readonly DesiredFunction[];
  readonly triggers: readonly DesiredTrigger[];
  readonly warnings: readonly string[];
}

/** The sources of the config and, where they are configured, the tables of blocks and mutes. */
export function capturedSources(config: Config): CapturedSource[] {
  const sources: CapturedSource[] = config.sources.map((source, i) => ({
    name: source.name,
    path: `sources[${i}] (${source.name})`,
    table: parseTableName(source.table),
    columns: mappedColumns(source),
    places: columnPlaces(source),
    when: source.when,
    capture: source.capture,
    onError: source.onError,
  }));
  const add = <Rows extends { readonly table: string; readonly when: string | null }>(
    name: string,
    path: string,
    rows: Rows | null,
    keys: readonly (keyof Rows & string)[],
  ): void => {
    if (rows === null) return;
    const places = keys.flatMap((place) => {
      const column = rows[place];
      return typeof column === 'string' ? [{ place, column }] : [];
    });
    sources.push({
      name,
      path,
      table: parseTableName(rows.table),
      columns: [...new Set(places.map(({ column }) => column))],
      places,
      when: rows.when,
      capture: 'statement',
      onError: 'available',
    });
  };
  add(BLOCKS_SOURCE, 'blocks', config.blocks, ['from', 'to', 'until']);
  add(MUTES_SOURCE, 'mutes', config.mutes, ['from', 'to', 'until']);
  add(THREAD_MUTES_SOURCE, 'threadMutes', config.threadMutes, ['user', 'id', 'until']);
  return sources;
}

/** The kind of a muted thread may stand in the row: a mute of another kind is another one. */
function withKind(source: CapturedSource, { threadMutes }: Config, table: CatalogTable): CapturedSource {
  if (source.name !== THREAD_MUTES_SOURCE || threadMutes === null) return source;
  const { kind } = threadMutes;
  const isColumn = table.columns.some(({ name }) => name === kind) && !source.columns.includes(kind);
  return isColumn ? { ...source, columns: [...source.columns, kind] } : source;
}

/** The tables that the config captures from. */
export function capturedTables(config: Config): TableName[] {
  return capturedSources(config).map((source) => source.table);
}

/** What should be installed. Tables that do not exist are left out; `types` of columns that are gone are taken from the records. */
export function desiredCapture(config: Config, catalog: Catalog): Desired {
  const wakeup = effectiveWakeup(config.database.wakeup, catalog.maxPreparedTransactions);
  const functions: DesiredFunction[] = [];
  const triggers: DesiredTrigger[] = [];
  const warnings: string[] = [];
  for (const configured of capturedSources(config)) {
    const table = catalog.tables.get(tableKey(configured.table)) ?? null;
    if (table === null) continue;
    const source = withKind(configured, config, table);
    const mode = modeOf(source, table, warnings);
    const whenColumns = whenColumnsOf(source, table, catalog);
    const columns = columnTypes(source, table, whenColumns);
    for (const operation of OPERATIONS) {
      functions.push({
        name: functionName(source.name, operation, mode),
        body: functionBody({
          ...source,
          source: source.name,
          operation,
          mode,
          whenColumns,
          rings: wakeup === 'notify',
        }),
        settings: settingsOf(source, table),
        comment: `Belfry: captures ${operation} on ${table.schema}.${table.name} for source ${source.name}. Made by belfry migrate; changes by hand are overwritten.`,
      });
      for (const relation of relationsFor(table, operation, mode)) {
        triggers.push({
          table: { schema: relation.schema, name: relation.name },
          name: triggerName(source.name, operation, mode),
          functionName: functionName(source.name, operation, mode),
          source: source.name,
          operation,
          mode,
          oldTable: mode === 'statement' && (operation === 'update' || operation === 'delete') ? 'belfry_old' : null,
          newTable: mode === 'statement' && (operation === 'update' || operation === 'insert') ? 'belfry_new' : null,
          partition: relation !== table,
          columns,
        });
      }
    }
  }
  return { wakeup, functions, triggers, warnings };
}

/** A strict capture waits as long as the session itself would: it prefers no write to a lost event, but not to a short wait. */
function settingsOf(source: CapturedSource, table: CatalogTable): string[] {
  const path = 'search_path=pg_catalog, pg_temp';
  const settings = source.onError === 'strict' ? [path] : [`lock_timeout=${CAPTURE_LOCK_TIMEOUT}`, path];
  return [...writtenBy(source, table), ...settings].sort();
}

/** A key or id must have one text, whatever the session that writes is set to; each setting costs a little, so only where it matters. */
function writtenBy({ places }: CapturedSource, { columns }: CatalogTable): string[] {
  const ids = new Set(places.filter(({ place }) => !place.startsWith('include')).map(({ column }) => column));
  const has = (types: RegExp): boolean =>
    columns.some(({ name, type, builtIn }) => ids.has(name) && (types.test(type) || !builtIn));
  return [...(has(/with time zone|^tstz/) ? ['TimeZone=UTC'] : []), ...(has(/^bytea/) ? ['bytea_output=hex'] : [])];
}

/** A write that reaches a foreign partition fails where the parent collects transition tables: then row by row. */
function modeOf(source: CapturedSource, table: CatalogTable, warnings: string[]): CaptureMode {
  const foreign = table.descendants.find((relation) => relation.kind === 'f');
  if (source.capture === 'row' || foreign === undefined) return source.capture;
  warnings.push(
    `${source.path}: captured row by row, because partition ${foreign.schema}.${foreign.name} is a foreign table.`,
  );
  return 'row';
}

/**
 * Statement triggers fire for the table that a statement names, so every partition needs its own; row triggers of a partitioned
 * table are cloned by Postgres, those of a parent of inheriting tables are not. Truncate triggers are never cloned.
 */
function relationsFor(table: CatalogTable, operation: Operation, mode: CaptureMode): Relation[] {
  const cloned = mode === 'row' && table.kind === 'p' && operation !== 'truncate';
  const below = table.descendants.filter((relation) => relation.kind === 'r' || relation.kind === 'p');
  return cloned ? [table] : [table, ...below];
}

/** Columns that occur in `when`, with types that can be named without a right on any schema. */
function whenColumnsOf(source: CapturedSource, table: CatalogTable, catalog: Catalog): Map<string, string> {
  const result = new Map<string, string>();
  const { when } = source;
  if (when === null) return result;
  const known = new Map(table.columns.map((column) => [column.name, column]));
  const recorded = recordOf(source, catalog);
  for (const name of [...new Set([...known.keys(), ...Object.keys(recorded)])].sort()) {
    if (!mentions(when, name)) continue;
    const column = known.get(name);
    result.set(name, column === undefined ? safeType(recorded[name] ?? 'text') : column.builtIn ? column.type : 'text');
  }
  return result;
}

/** Whether the name stands in the SQL as a word; once too often does no harm. */
function mentions(sql: string, name: string): boolean {
  const word = name.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
  return new RegExp(`(?<![\\p{L}\\p{N}_$])${word}(?![\\p{L}\\p{N}_$])`, 'iu').test(sql);
}

/** Types outside pg_catalog are recorded with their schema. */
const safeType = (type: string): string => (type.includes('.') ? 'text' : type);

function recordOf(source: CapturedSource, catalog: Catalog): Readonly<Record<string, string>> {
  const record = catalog.records.find(
    (row) => row.source === source.name && row.schema === source.table.schema && row.table === source.table.name,
  );
  return record?.columns ?? {};
}

function columnTypes(
  source: CapturedSource,
  table: CatalogTable,
  whenColumns: ReadonlyMap<string, string>,
): Record<string, string> {
  const known = new Map<string, Column>(table.columns.map((column) => [column.name, column]));
  const names = [...new Set([...source.columns, ...whenColumns.keys()])].sort();
  return Object.fromEntries(names.flatMap((name) => (known.has(name) ? [[name, known.get(name)?.type ?? '']] : [])));
}
