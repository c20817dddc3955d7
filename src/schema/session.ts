/**
 * Is there a pooler between here and the database, and does it keep a session together?
 *
 * In transaction mode it does not: a setting, a prepared statement or an advisory lock stays in a server connection that belongs to
 * somebody else a moment later. So nothing is prepared behind a pooler, and nothing set; work that needs a session (migrate, uninstall)
 * goes to database.listenUrl, and refuses where that is such a pooler too.
 */

import type pg from 'pg';
import { BelfryError } from '../errors.js';
import { connect } from '../postgres/connect.js';

/** A pool with one connection would make the second client wait for ever. */
const answerMs = 3_000;

const pooled = new WeakSet<pg.ClientBase>();

/** To be called on a new connection: behind a pooler its queries lose their names, so that none is prepared. Returns whether there is one. */
export async function adaptToPooler(client: pg.ClientBase): Promise<boolean> {
  if (!(await isPooled(client))) return false;
  pooled.add(client);
  const query = client.query.bind(client) as (...args: unknown[]) => unknown;
  const unnamed = (first: unknown, ...rest: unknown[]): unknown => query(withoutName(first), ...rest);
  client.query = unnamed as typeof client.query;
  return true;
}

/** As adaptToPooler found it. */
export function isAdapted(client: pg.ClientBase): boolean {
  return pooled.has(client);
}

function withoutName(query: unknown): unknown {
  if (typeof query !== 'object' || query === null || !('name' in query) || !('text' in query)) return query;
  return { ...query, name: undefined };
}

/** Told by the pid that a pooler invents for its client. */
export async function isPooled(client: pg.ClientBase): Promise<boolean> {
  return (await backendPid(client)) !== (client as unknown as { readonly processID: number | null }).processID;
}

/** Throws `database_unsuitable` behind a pooler in transaction mode. The client must be in no transaction. */
export async function assertOwnSession(client: pg.Client, url: string): Promise<void> {
  if (!(await isPooled(client))) return;
  const mine = await backendPid(client);
  // In a transaction of its own, which gets the server connection that was given back last: ours, if it was given back at all.
  const other = await connect(url, { applicationName: 'belfry probe', queryTimeoutMs: answerMs });
  try {
    await other.query('begin');
    if ((await backendPid(other)) !== mine) return;
  } catch {
    // One connection for all, and somebody in it.
  } finally {
    other.end().catch(() => undefined);
  }
  throw new BelfryError(
    'database_unsuitable',
    'A pooler in transaction mode answers here, which keeps no session together: set database.listenUrl to a direct connection.',
  );
}

async function backendPid(client: pg.ClientBase): Promise<number | undefined> {
  return (await client.query<{ pid: number }>('select pg_backend_pid() as pid')).rows[0]?.pid;
}
