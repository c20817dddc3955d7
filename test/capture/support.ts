/** Databases with a config's triggers on them, and what these wrote. */
import type pg from 'pg';
import { installCapture } from '../../src/capture/install.js';
import { parseConfig, type Config } from '../../src/config.js';
import { createTestDatabase, type TestDatabase } from '../support/postgres.js';
import { testSecret } from '../support/social.js';

export interface OutboxRow {
  readonly source: string;
  readonly op: string;
  readonly new: Record<string, unknown> | null;
  readonly old: Record<string, unknown> | null;
}

/** A config with these sources; `rest` are further top-level keys, both as YAML. */
export function captureConfig(sources: string, rest = '', database = '{ url: postgres://unused }'): Config {
  const text = `
version: 1
database: ${database}
auth: { secret: ${testSecret} }
${rest}
sources:
${sources}`;
  return parseConfig(text, {}, { path: 'test.yaml' });
}

/** A source on a table with the columns id, user_id and whatever `more` names. */
export function source(name: string, table: string, more = ''): string {
  return `  - { name: ${name}, type: like, table: '${table}', key: [id], actor: user_id${more === '' ? '' : `, ${more}`} }\n`;
}

export async function captureDatabase(tables: string, config: Config): Promise<TestDatabase> {
  const database = await createTestDatabase({ prepare: tables });
  await install(database, config);
  return database;
}

export async function install(
  database: TestDatabase,
  config: Config,
): Promise<{ readonly changed: readonly string[]; readonly warnings: readonly string[] }> {
  const client = await database.client();
  try {
    return await installCapture(client, config);
  } finally {
    await client.end();
  }
}

/** Everything in the outbox, oldest first; then it is empty. */
export async function takeOutbox(db: pg.Pool | pg.ClientBase): Promise<OutboxRow[]> {
  const { rows } = await db.query<OutboxRow>(
    'with gone as (delete from belfry.outbox returning *) select source, op, new, old from gone order by id',
  );
  return rows;
}

/** `op`s only. */
export async function takeOps(db: pg.Pool | pg.ClientBase): Promise<string[]> {
  return (await takeOutbox(db)).map((row) => row.op);
}

/** Entries of belfry.lost as `source sqlstate`; then it is empty. */
export async function takeLost(db: pg.Pool | pg.ClientBase): Promise<string[]> {
  const { rows } = await db.query<{ source: string; sqlstate: string }>(
    'with gone as (delete from belfry.lost returning *) select source, sqlstate from gone order by id',
  );
  return rows.map((row) => `${row.source} ${row.sqlstate}`);
}
