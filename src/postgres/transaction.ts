/** Several statements of one connection as one transaction. */

import type pg from 'pg';

/** Commits what the work did and gives what it gave; where anything throws, also `begin` (SQL, may set what holds in it), nothing was done. */
export async function inTransaction<T>(client: pg.ClientBase, work: () => Promise<T>, begin = 'begin'): Promise<T> {
  try {
    await client.query(begin);
    const result = await work();
    await client.query('commit');
    return result;
  } catch (error) {
    // A broken connection can't roll back, and need not.
    await client.query('rollback').catch(() => undefined);
    throw error;
  }
}
