/**
 * Installs and upgrades schema `belfry` from migrations/*.sql: numbered, forward only.
 *
 * What must hold:
 * - Each file runs in a transaction of its own together with its row in belfry.schema_migration: all of it or nothing.
 * - One starter at a time: a session advisory lock, which ends with the session, also when that is killed.
 * - A file that was applied never changes; its checksum is compared every time.
 */
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { ClientBase, DatabaseError } from 'pg';
import { BelfryError, messageOf, sqlState } from '../errors.js';
import { quoteLiteral } from '../postgres/sql.js';
import { inTransaction } from '../postgres/transaction.js';

export interface Migration {
  /** The number that its file name begins with. */
  readonly version: number;
  /** File name without `.sql`, e.g. 0001_outbox. */
  readonly name: string;
  readonly sql: string;
  /** SHA-256 of the text, line ends taken as \n. */
  readonly checksum: string;
}

export interface MigrateOptions {
  readonly log?: { info(details: object, message: string): void };
  /** Where the files are; by default those of this package. */
  readonly folder?: string;
  /** How long a migration is tried while a lock is not to be had; a minute. */
  readonly lockBoundMs?: number;
}

/** The doorbell's key is 108187749872249 ('belfry' in ASCII); this is the next one. */
const lockKey = '108187749872250';

/** How long to wait for another starter. */
const starterTimeoutMs = 60_000;

/** A migration that waits for a lock makes writers wait behind it: it gives up early, lets them pass, and tries again for a minute. */
const lockTimeoutMs = 200;
const lockPauseMs = { least: 100, most: 600 } as const;
const lockBoundMs = 60_000;

const packageMigrations = fileURLToPath(new URL('../../migrations', import.meta.url));

const bookkeepingSql = `
create schema if not exists belfry;
create table if not exists belfry.schema_migration (
  version    integer     primary key,
  name       text        not null,
  checksum   text        not null,
  applied_at timestamptz not null default clock_timestamp()
);
comment on table  belfry.schema_migration            is 'Which migrations were applied; written by belfry migrate.';
comment on column belfry.schema_migration.version    is 'Number of the file.';
comment on column belfry.schema_migration.name       is 'Name of the file.';
comment on column belfry.schema_migration.checksum   is 'SHA-256 of the file as it was applied.';
comment on column belfry.schema_migration.applied_at is 'When.';
`;

/**
 * Applies what is missing and returns the names of what was applied now. The client must be in no transaction.
 * Throws `migration_failed`, `database_denied` (rights) and `lock_busy` (retry).
 */
export async function migrate(client: ClientBase, options: MigrateOptions = {}): Promise<string[]> {
  const migrations = await readMigrations(options.folder);
  return withMigrationLock(client, async () => {
    const pending = pendingOf(migrations, await appliedMigrations(client));
    if (pending.length === 0) return [];
    await withRetries(options, 'schema_migration', () => apply(client, 'schema_migration', bookkeepingSql));
    for (const migration of pending) {
      const { name, sql } = migration;
      await withRetries(options, name, () => apply(client, name, sql, bookkeepingInsert(migration)));
      options.log?.info({ migration: migration.name }, 'migration applied');
    }
    return pending.map((migration) => migration.name);
  });
}

/** What `migrate` would run now, as a script for psql (run it with -v ON_ERROR_STOP=1); empty when nothing is missing. */
export async function migrationSql(client: ClientBase, options: MigrateOptions = {}): Promise<string> {
  const pending = pendingOf(await readMigrations(options.folder), await appliedMigrations(client));
  if (pending.length === 0) return '';
  const parts = [
    bookkeepingSql,
    ...pending.map((migration) => `${migration.sql.trim()}\n\n${bookkeepingInsert(migration)}\n`),
  ];
  const scripts = parts.map(
    (sql) => `begin;\nset local lock_timeout = '${lockTimeoutMs}ms';\n\n${sql.trim()}\n\ncommit;\n`,
  );
  return [`select pg_advisory_lock(${lockKey});\n`, ...scripts, `select pg_advisory_unlock(${lockKey});\n`].join('\n');
}

/** Throws `not_migrated` unless everything that this program needs was applied. A newer schema is accepted. */
export async function assertMigrated(client: ClientBase, options: MigrateOptions = {}): Promise<void> {
  const migrations = await readMigrations(options.folder);
  const applied = new Set((await appliedMigrations(client)).map((row) => row.version));
  const missing = migrations.filter((migration) => !applied.has(migration.version));
  if (missing.length === 0) {
    if (options.folder !== undefined || (await hasOutbox(client))) return;
    throw new BelfryError('not_migrated', 'Table belfry.outbox or view belfry.lag is gone: run `belfry migrate`.');
  }
  const what =
    applied.size === 0 ? 'There is no schema belfry in this database' : 'Schema belfry is older than this program';
  throw new BelfryError('not_migrated', `${what}: run \`belfry migrate\`.`);
}

/**
 * Makes belfry.outbox anew where somebody dropped it, and records that these sources lost what was unread, for the relay to
 * repair. Returns whether it was gone. The client must be in no transaction.
 */
export async function restoreOutbox(client: ClientBase, sources: readonly string[]): Promise<boolean> {
  return withMigrationLock(client, async () => {
    const { rows } = await client.query<{ restored: boolean }>('select belfry.restore_outbox($1) as restored', [
      sources,
    ]);
    if (rows[0]?.restored !== true) return false;
    await client.query('select belfry.describe_columns()');
    return true;
  });
}

/** What `restoreOutbox` would run now; empty when nothing is missing. */
export async function restoreOutboxSql(client: ClientBase, sources: readonly string[]): Promise<string> {
  const applied = await appliedMigrations(client);
  if (applied.length === 0 || (await hasOutbox(client))) return '';
  return `select belfry.restore_outbox(array[${sources.map(quoteLiteral).join(', ')}]::text[]);\nselect belfry.describe_columns();\n`;
}

async function hasOutbox(client: ClientBase): Promise<boolean> {
  const { rows } = await client.query<{ known: boolean }>(
    `select to_regclass('belfry.outbox') is not null and to_regclass('belfry.lag') is not null as known`,
  );
  return rows[0]?.known === true;
}

/** Runs `work` while no other starter migrates. May be nested. Throws `lock_busy` (retry) after a minute. */
export async function withMigrationLock<T>(client: ClientBase, work: () => Promise<T>): Promise<T> {
  await client.query(`set lock_timeout = '${starterTimeoutMs}ms'`);
  try {
    await client.query(`select pg_advisory_lock(${lockKey})`);
  } catch (error) {
    if (sqlState(error) !== '55P03') throw error;
    throw new BelfryError(
      'lock_busy',
      'Another `belfry migrate` has been running for a minute: try again when it is done.',
      {
        retry: true,
        cause: error,
      },
    );
  } finally {
    await client.query('reset lock_timeout');
  }
  try {
    return await work();
  } finally {
    await client.query(`select pg_advisory_unlock(${lockKey})`);
  }
}

async function readMigrations(folder = packageMigrations): Promise<Migration[]> {
  const files = (await readdir(folder)).filter((file) => file.endsWith('.sql')).sort();
  const migrations: Migration[] = [];
  for (const file of files) {
    const version = Number(/^(\d+)_/.exec(file)?.[1]);
    if (migrations.some((other) => other.version === version) || !Number.isInteger(version)) {
      throw new BelfryError(
        'migration_failed',
        `${path.join(folder, file)}: its name must begin with a number of its own and "_".`,
      );
    }
    const sql = (await readFile(path.join(folder, file), 'utf8')).replaceAll('\r\n', '\n');
    migrations.push({
      version,
      name: file.slice(0, -4),
      sql,
      checksum: createHash('sha256').update(sql).digest('hex'),
    });
  }
  return migrations;
}

type Applied = Pick<Migration, 'version' | 'name' | 'checksum'>;

async function appliedMigrations(client: ClientBase): Promise<Applied[]> {
  const { rows } = await client.query<{ known: boolean }>(
    `select to_regclass('belfry.schema_migration') is not null as known`,
  );
  if (rows[0]?.known !== true) return [];
  try {
    return (await client.query<Applied>('select version, name, checksum from belfry.schema_migration order by version'))
      .rows;
  } catch (error) {
    throw explain(error, 'schema_migration', '');
  }
}

function pendingOf(migrations: readonly Migration[], applied: readonly Applied[]): Migration[] {
  for (const { version, name, checksum } of applied) {
    const file = migrations.find((migration) => migration.version === version);
    if (file === undefined) {
      throw new BelfryError(
        'migration_failed',
        `This database has ${name}, which this Belfry does not know: use the newer Belfry.`,
      );
    }
    if (file.checksum !== checksum) {
      throw new BelfryError(
        'migration_failed',
        `${file.name}.sql is not what was applied to this database: restore the file; changes go into a new migration.`,
      );
    }
  }
  const last = Math.max(0, ...applied.map((row) => row.version));
  const pending = migrations.filter((migration) => !applied.some((row) => row.version === migration.version));
  const late = pending.find((migration) => migration.version < last);
  if (late !== undefined) {
    throw new BelfryError(
      'migration_failed',
      `${late.name} comes before migrations that were applied: give it the next number.`,
    );
  }
  return pending;
}

function bookkeepingInsert({ version, name, checksum }: Migration): string {
  return `insert into belfry.schema_migration (version, name, checksum) values (${version}, ${quoteLiteral(name)}, ${quoteLiteral(checksum)});`;
}

async function withRetries(options: MigrateOptions, name: string, work: () => Promise<void>): Promise<void> {
  const start = performance.now();
  for (let told = false; ;) {
    try {
      return await work();
    } catch (error) {
      const waitedMs = performance.now() - start;
      const busy = error instanceof BelfryError && error.code === 'lock_busy';
      if (!busy || waitedMs >= (options.lockBoundMs ?? lockBoundMs)) throw error;
      if (!told) options.log?.info({ migration: name }, 'waiting for a lock that the migration needs');
      told = true;
      await sleep(lockPauseMs.least + Math.random() * (lockPauseMs.most - lockPauseMs.least));
    }
  }
}

async function apply(client: ClientBase, name: string, ...statements: string[]): Promise<void> {
  const work = async (): Promise<void> => {
    for (const sql of statements) {
      try {
        await client.query(sql);
      } catch (error) {
        throw explain(error, name, sql);
      }
    }
  };
  await inTransaction(
    client,
    work,
    `begin; set local lock_timeout = '${lockTimeoutMs}ms'; set local statement_timeout = 0`,
  );
}

function explain(error: unknown, name: string, sql: string): BelfryError {
  const state = sqlState(error);
  if (state === '42501') {
    return new BelfryError(
      'database_denied',
      `${name}: ${messageOf(error)}. Run belfry migrate as the owner of the tables, with CREATE on the database.`,
      { cause: error },
    );
  }
  if (state === '55P03') {
    return new BelfryError(
      'lock_busy',
      `${name}: a lock could not be had: end the transactions that use schema belfry, or try again when there is less traffic.`,
      {
        retry: true,
        cause: error,
      },
    );
  }
  const position = Number((error as Partial<DatabaseError>).position);
  const line = position > 0 ? ` in line ${sql.slice(0, position).split('\n').length}` : '';
  return new BelfryError('migration_failed', `${name}.sql${line}: ${messageOf(error)}. Nothing of it was applied.`, {
    cause: error,
  });
}
