/**
 * The Postgres that benches run against: the embedded one in a temporary folder, or `BELFRY_BENCH_DATABASE_URL` (a
 * superuser's URL of a server that nobody needs: databases called belfry_bench_… are dropped and made anew in it).
 *
 * fsync and synchronous_commit stay on, shared_buffers is 1 GB, and checkpoints come only when a bench asks for them.
 */

import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { startEmbeddedPostgres } from '../../src/embedded/postgres.js';

const SETTINGS: Readonly<Record<string, string>> = {
  shared_buffers: '1GB',
  max_wal_size: '16GB',
  checkpoint_timeout: '1h',
  max_connections: '300',
  fsync: 'on',
  synchronous_commit: 'on',
};

export interface Server {
  /** URL of one of its databases. */
  url(database: string): string;
  /** Drops the database if there is one and makes it anew; returns its URL. */
  create(database: string): Promise<string>;
  drop(database: string): Promise<void>;
  checkpoint(): Promise<void>;
  readonly version: string;
  stop(): Promise<void>;
}

export async function startServer(): Promise<Server> {
  const given = process.env['BELFRY_BENCH_DATABASE_URL'];
  return given === undefined ? await startOwn() : await adopt(given, async () => undefined);
}

/** One connection for one job; closed whatever happens. */
export async function withClient<T>(url: string, job: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return await job(client);
  } finally {
    await client.end();
  }
}

/** Runs statements one after the other. */
export async function execute(url: string, ...statements: readonly string[]): Promise<void> {
  await withClient(url, async (client) => {
    for (const statement of statements) await client.query(statement);
  });
}

/** The first row of a query. */
export async function queryOne(url: string, sql: string, values: unknown[] = []): Promise<Record<string, unknown>> {
  return await withClient(url, async (client) => {
    const result = await client.query<Record<string, unknown>>(sql, values);
    const row = result.rows[0];
    if (row === undefined) throw new Error(`no row: ${sql}`);
    return row;
  });
}

async function startOwn(): Promise<Server> {
  const dataDir = await mkdtemp(join(tmpdir(), 'belfry-bench-'));
  await chmod(dataDir, 0o755); // as root the server runs as another user
  const log = { info: () => undefined, warn: (message: string): void => console.error(message) };
  const postgres = await startEmbeddedPostgres({ dataDir, log, settings: SETTINGS });
  return await adopt(postgres.url, async () => {
    await postgres.stop();
    await rm(dataDir, { recursive: true, force: true });
    await rm(postgres.dataDir, { recursive: true, force: true });
  });
}

async function adopt(url: string, stop: () => Promise<void>): Promise<Server> {
  const urlOf = (database: string): string => {
    const copy = new URL(url);
    copy.pathname = `/${database}`;
    return copy.toString();
  };
  const drop = (database: string): Promise<void> => execute(url, `drop database if exists ${database} with (force)`);
  return {
    url: urlOf,
    async create(database) {
      await drop(database);
      await execute(url, `create database ${database}`);
      return urlOf(database);
    },
    drop,
    checkpoint: () => execute(url, 'checkpoint'),
    version: String((await queryOne(url, `select current_setting('server_version') as version`))['version']),
    stop,
  };
}
