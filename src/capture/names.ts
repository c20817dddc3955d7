/**
 * How captured sources and everything that is made for them are called.
 *
 * - Every trigger begins with `belfry_`, every function is `belfry.capture_…`: nothing else is ever replaced or dropped.
 * - A name fits into the 63 bytes of Postgres, and two sources never share one: what had to be cut or changed carries a hash
 *   of the source's full name, and a source whose own name ends like such a hash gets one too.
 */

import { createHash } from 'node:crypto';
import { quoteIdent, type TableName } from '../postgres/sql.js';

/** Owns the trigger functions; may only insert into outbox and lost, and ring. */
export const CAPTURE_ROLE = 'belfry_capture';
/** May call the SQL API. */
export const APP_ROLE = 'belfry_app';

/** Sources that are not in `sources`: who does not want to hear of whom. */
export const BLOCKS_SOURCE = 'belfry.blocks';
export const MUTES_SOURCE = 'belfry.mutes';
export const THREAD_MUTES_SOURCE = 'belfry.thread_mutes';

export const OPERATIONS = ['insert', 'update', 'delete', 'truncate'] as const;
export type Operation = (typeof OPERATIONS)[number];

export type CaptureMode = 'statement' | 'row';

export function qualified(table: TableName): string {
  return `${quoteIdent(table.schema)}.${quoteIdent(table.name)}`;
}

// 'capture_' and '_truncate_row' around it, within 63 bytes.
const STEM_BYTES = 40;
const HASH_BYTES = 8;

/** The part of all names that stands for the source: lower case letters, digits and underscores, at most 40. */
export function stemOf(source: string): string {
  if (/^[a-z][a-z0-9_]*$/.test(source) && source.length <= STEM_BYTES && !/_[0-9a-f]{8}$/.test(source)) return source;
  const readable = source
    .replace(/^belfry\./, '')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '_')
    .slice(0, STEM_BYTES - HASH_BYTES - 1);
  return `${readable}_${createHash('sha256').update(source).digest('hex').slice(0, HASH_BYTES)}`;
}

// Row capture has names of its own: a change of mode makes new ones and drops the old ones, and never changes a function under
// a trigger that calls it the other way.
const suffix = (operation: Operation, mode: CaptureMode): string => `${operation}${mode === 'row' ? '_row' : ''}`;

export function triggerName(source: string, operation: Operation, mode: CaptureMode): string {
  return `belfry_${stemOf(source)}_${suffix(operation, mode)}`;
}

/** Without the schema, which is always belfry. */
export function functionName(source: string, operation: Operation, mode: CaptureMode): string {
  return `capture_${stemOf(source)}_${suffix(operation, mode)}`;
}
