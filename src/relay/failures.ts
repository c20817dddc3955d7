/**
 * What an error in the middle of a batch means: whether the events are to blame, or the world around them.
 *
 * An event is only set aside for an error that it will cause every time. Everything that may pass (a connection, a lock,
 * a full disk, a lost lease) is waited out, since a dead letter for a dead server would lose order for nothing. So is a schema
 * that does not fit the config (a column was renamed): no event is to blame for that, and all would be set aside.
 */

import { BelfryError, sqlState } from '../errors.js';

export type Blame = 'event' | 'connection' | 'contention' | 'schema' | 'lease';

/** Classes of SQLSTATE (PG docs, appendix A) that are not about the data. */
const passing: Readonly<Record<string, Blame>> = {
  '08': 'connection', // connection exception
  '0A': 'schema', // feature not supported: a cached plan must not change its result type
  '25': 'connection', // invalid transaction state: read-only after a failover
  '26': 'connection', // invalid SQL statement name: one that could not be prepared before
  '53': 'connection', // insufficient resources
  '42': 'schema', // no such table or column, no right to it, types that do not go together
  '57': 'connection', // operator intervention
  '58': 'connection', // system error
  '3F': 'schema', // a schema that is gone
  '40': 'contention', // transaction rollback: serialization, deadlock
  '55': 'contention', // object not in prerequisite state: lock not available
  F0: 'connection', // config file error
  XX: 'connection', // internal error
};

/** Whether no event, and no row, is to blame for an error. */
export const isPassing = (error: unknown): boolean => blame(error) !== 'event';

/** What to do about an error: only `event` may become a dead letter. */
export function blame(error: unknown): Blame {
  if (error instanceof BelfryError) {
    if (error.code === 'lease_lost') return 'lease';
    if (error.code === 'database_unreachable') return 'connection';
    // Of a source that the config lacks (unmapped.ts): all others are as they should be.
    if (error.code === 'config_invalid') return 'event';
  }
  const state = sqlState(error);
  if (state !== undefined) return passing[state.slice(0, 2)] ?? 'event';
  // Errors of sockets have codes such as ECONNRESET; pg's own have none but say so.
  const code: unknown = typeof error === 'object' && error !== null && 'code' in error ? error.code : undefined;
  if (typeof code === 'string') return 'connection';
  const ofConnection = /connection|client (was|has)|not queryable|timeout|prepared statements must be unique/i;
  if (error instanceof Error && ofConnection.test(error.message)) return 'connection';
  return 'event';
}
