/** Databases for tests: each test file clones one and drops it. Real Postgres, see global.ts. */
import { randomBytes } from 'node:crypto';
import type pg from 'pg';
import { inject } from 'vitest';
import { connect, createPool } from '../../src/postgres/connect.js';
import { quoteIdent } from '../../src/postgres/sql.js';

export interface TestDatabase {
  readonly name: string;
  /** As superuser. */
  readonly url: string;
  /** At most 20 connections; ended by `drop`. */
  readonly pool: pg.Pool;
  /** A connection of its own; ended by `drop` unless the test ended it. */
  client(): Promise<pg.Client>;
  /** Ends pool and clients, throws everybody else out, drops the database. */
  drop(): Promise<void>;
}

export interface TestDatabaseOptions {
  /** `belfry` (default): migrations applied; `empty`: nothing in it. */
  readonly template?: 'belfry' | 'empty';
  /** SQL to run in it, e.g. `socialSql`, or a function. */
  readonly prepare?: string | ((pool: pg.Pool) => Promise<unknown>);
}

export async function createTestDatabase(options: TestDatabaseOptions = {}): Promise<TestDatabase> {
  const serverUrl = inject('postgresUrl');
  const template = options.template === 'empty' ? inject('emptyTemplate') : inject('belfryTemplate');
  const name = `belfry_test_${randomBytes(6).toString('hex')}`;
  await onServer(serverUrl, `create database ${quoteIdent(name)} template ${quoteIdent(template)}`);
  const url = withDatabase(serverUrl, name);
  const pool = createPool(url, { applicationName: 'belfry-test', max: 20 });
  const clients: pg.Client[] = [];
  const database: TestDatabase = {
    name,
    url,
    pool,
    async client() {
      const client = await connect(url, { applicationName: 'belfry-test' });
      clients.push(client);
      return client;
    },
    async drop() {
      await pool.end();
      // A client whose connection was cut by the test can't say goodbye.
      await Promise.all(clients.map((client) => client.end().catch(() => undefined)));
      await onServer(serverUrl, `drop database ${quoteIdent(name)} with (force)`);
    },
  };
  try {
    if (typeof options.prepare === 'string') await pool.query(options.prepare);
    else await options.prepare?.(pool);
  } catch (error) {
    await database.drop();
    throw error;
  }
  return database;
}

/** How many locks of this kind somebody waits for in this database: others on the server belong to tests that run beside this one. */
export async function locksAwaited(client: pg.Pool | pg.ClientBase, kind: 'advisory' | 'relation'): Promise<number> {
  const { rowCount } = await client.query(
    `select from pg_locks
      where not granted and locktype = $1 and database = (select oid from pg_database where datname = current_database())`,
    [kind],
  );
  return rowCount ?? 0;
}

/** The same server and user, another database. */
export function withDatabase(url: string, database: string): string {
  const changed = new URL(url);
  changed.pathname = `/${encodeURIComponent(database)}`;
  return changed.href;
}

/** The same database as another role; the role must be able to log in with this password. */
export function withUser(url: string, user: string, password: string): string {
  const changed = new URL(url);
  changed.username = encodeURIComponent(user);
  changed.password = encodeURIComponent(password);
  return changed.href;
}

/** False where pg_hba.conf lets everybody in (`trust`): a wrong password is none there. */
export async function asksForPasswords(url: string): Promise<boolean> {
  return await connect(withUser(url, new URL(url).username, 'not-the-password'), {
    applicationName: 'belfry-test',
  }).then(
    async (client) => {
      await client.end();
      return false;
    },
    () => true,
  );
}

/** The same database through another port of this machine, e.g. a proxy's. */
export function withPort(url: string, port: number): string {
  const changed = new URL(url);
  changed.hostname = '127.0.0.1';
  changed.port = String(port);
  return changed.href;
}

async function onServer(url: string, sql: string): Promise<void> {
  const client = await connect(url, { applicationName: 'belfry-test' });
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}
