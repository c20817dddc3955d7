/** Migrations: all or nothing, once, in order, and said clearly when not. */
import { copyFile, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { connect } from '../../src/postgres/connect.js';
import { assertMigrated, migrate, migrationSql, withMigrationLock } from '../../src/schema/migrate.js';
import { createTestDatabase, locksAwaited, type TestDatabase, withUser } from '../support/postgres.js';

let db: TestDatabase;
let client: pg.Client;
let folder: string;

beforeEach(async () => {
  db = await createTestDatabase({ template: 'empty' });
  client = await db.client();
  folder = await mkdtemp(path.join(tmpdir(), 'belfry-migrations-'));
  await write('0001_first.sql', 'create table belfry.first (n int);');
});

afterEach(async () => {
  await db.drop();
  await rm(folder, { recursive: true });
});

function write(name: string, sql: string): Promise<void> {
  return writeFile(path.join(folder, name), sql);
}

async function tables(): Promise<string[]> {
  const { rows } = await db.pool.query<{ name: string }>(
    `select c.relname as name from pg_class c where c.relnamespace = to_regnamespace('belfry') and c.relkind in ('r', 'p') order by 1`,
  );
  return rows.map((row) => row.name);
}

describe('the migrations of this package', () => {
  test('are applied once, in order, and are enough', async () => {
    await expect(assertMigrated(client)).rejects.toMatchObject({ code: 'not_migrated' });
    const files = (await readdir('migrations')).filter((file) => file.endsWith('.sql')).sort();
    expect(await migrate(client)).toEqual(files.map((file) => file.slice(0, -4)));
    expect(await tables()).toContain('outbox');
    await assertMigrated(client);
    expect(await migrate(client)).toEqual([]);
    expect(await migrationSql(client)).toBe('');
  });

  test('as SQL do the same', async () => {
    await client.query(await migrationSql(client));
    await assertMigrated(client);
    expect(await migrate(client)).toEqual([]);
    const locks = await client.query(`select 1 from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()`);
    expect(locks.rows).toEqual([]);
  });

  test('give every table and column a comment', async () => {
    await migrate(client);
    const { rows } = await client.query(`
      select c.relname, a.attname
      from pg_class c
      join pg_attribute a on a.attrelid = c.oid and a.attnum >= 0 and not a.attisdropped
      where c.relnamespace = 'belfry'::regnamespace and c.relkind in ('r', 'p', 'v')
        and col_description(c.oid, a.attnum) is null
      union all
      select c.relname, null from pg_class c
      where c.relnamespace = 'belfry'::regnamespace and c.relkind in ('r', 'p', 'v') and obj_description(c.oid) is null`);
    expect(rows).toEqual([]);
  });

  test('0020 keeps when windows end, and a relay of an older version can go on', async () => {
    for (const file of (await readdir('migrations')).filter((name) => name < '0020'))
      await copyFile(path.join('migrations', file), path.join(folder, file));
    await rm(path.join(folder, '0001_first.sql'));
    await migrate(client, { folder });
    await client.query(`
      insert into belfry.notification (user_id, seq, type, group_key, open, first_at, last_at, due_at)
      values ('1', 1, 'like', 'post:1', true, now(), now(), '2020-01-01Z'), ('1', 2, 'like', 'post:2', true, now(), now(), null)`);
    await migrate(client);
    const { rows } = await client.query(
      'select w.due_at, n.group_key from belfry.window_end w join belfry.notification n on n.id = w.notification_id',
    );
    expect(rows).toEqual([{ due_at: new Date('2020-01-01Z'), group_key: 'post:1' }]);
    // With as many arguments as it had.
    const nineteen = ['0', ...Array.from({ length: 18 }, () => 'null')].join(', ');
    expect((await client.query(`select belfry.store_batch(${nineteen})`)).rows).toHaveLength(1);
  });

  test('0015 forgets counts of what is not captured, and keeps the others as they are', async () => {
    for (const file of (await readdir('migrations')).filter((name) => name < '0015'))
      await copyFile(path.join('migrations', file), path.join(folder, file));
    await rm(path.join(folder, '0001_first.sql'));
    await migrate(client, { folder });
    await client.query(`
      insert into belfry.source_state (source, seed) values ('uninstalled', pg_current_snapshot()), ('captured', pg_current_snapshot());
      insert into belfry.capture_trigger (table_schema, table_name, trigger_name, source, operation, capture, columns)
      values ('public', 't', 'belfry_captured_insert', 'captured', 'insert', 'statement', '{}')`);
    await migrate(client);
    const { rows } = await client.query('select source, mapping, due from belfry.source_state');
    expect(rows).toEqual([{ source: 'captured', mapping: null, due: false }]);
  });

  test('need no superuser, only CREATE on the database', async () => {
    const role = `${db.name}_owner`;
    await client.query(`create role ${role} login password 'pw'`);
    const poor = await connect(withUser(db.url, role, 'pw'), { applicationName: 'test' });
    try {
      await expect(migrate(poor)).rejects.toMatchObject({ code: 'database_denied' });
      await expect(migrate(poor)).rejects.toThrow(/CREATE on the database/);
      await client.query(`grant create on database ${db.name} to ${role}`);
      await migrate(poor);
      await assertMigrated(poor);
    } finally {
      await poor.end();
      await client.query(`drop owned by ${role} cascade`);
      await client.query(`drop role ${role}`);
    }
  });
});

describe('starters', () => {
  test('at the same moment apply each file once', async () => {
    await write('0002_slow.sql', 'select pg_sleep(0.3); create table belfry.second (n int);');
    const clients = await Promise.all([1, 2, 3, 4].map(() => db.client()));
    const results = await Promise.all(clients.map((one) => migrate(one, { folder })));
    expect(results.map((names) => names.length).sort()).toEqual([0, 0, 0, 2]);
  });

  test('wait while another holds the lock, which may be nested', async () => {
    const other = await db.client();
    let released = false;
    const held = withMigrationLock(client, async () => {
      const [waiting] = [migrate(other, { folder }).then(() => released)];
      await waitForAdvisoryWaiter();
      expect(await migrate(client, { folder })).toEqual(['0001_first']);
      released = true;
      return { waiting };
    });
    expect(await (await held).waiting).toBe(true);
  });

  async function waitForAdvisoryWaiter(): Promise<void> {
    for (;;) {
      if ((await locksAwaited(db.pool, 'advisory')) > 0) return;
    }
  }
});

describe('a migration', () => {
  test('that fails leaves nothing of itself and keeps what came before', async () => {
    await write('0002_bad.sql', 'create table belfry.half (n int);\n\nselect 1 / 0;\n');
    await write('0003_never.sql', 'create table belfry.never (n int);');
    await expect(migrate(client, { folder })).rejects.toMatchObject({ code: 'migration_failed' });
    expect(await tables()).toEqual(['first', 'schema_migration']);
    await write('0002_bad.sql', 'create table belfry.half (n int);');
    expect(await migrate(client, { folder })).toEqual(['0002_bad', '0003_never']);
  });

  test('that can not be noted down leaves nothing of itself either', async () => {
    await write(
      '0002_hides.sql',
      'create table belfry.half (n int); alter table belfry.schema_migration rename to hidden;',
    );
    await expect(migrate(client, { folder })).rejects.toMatchObject({ code: 'migration_failed' });
    expect(await tables()).toEqual(['first', 'schema_migration']);
  });

  test('with an error is told with its file and line', async () => {
    await write('0002_bad.sql', 'select 1;\nselect 2;\nselect nothing from nowhere;\n');
    await expect(migrate(client, { folder })).rejects.toThrow(
      /^0002_bad\.sql in line 3: relation "nowhere" does not exist/,
    );
  });

  test('that was altered after it was applied is refused, before anything new runs', async () => {
    await migrate(client, { folder });
    await write('0001_first.sql', 'create table belfry.first (n bigint);');
    await write('0002_second.sql', 'create table belfry.second (n int);');
    await expect(migrate(client, { folder })).rejects.toThrow(/0001_first\.sql is not what was applied/);
    await expect(migrationSql(client, { folder })).rejects.toMatchObject({ code: 'migration_failed' });
    expect(await tables()).toEqual(['first', 'schema_migration']);
  });

  test('with other line ends is the same one', async () => {
    await write('0001_first.sql', 'create table belfry.first (\n n int\n);');
    await migrate(client, { folder });
    await write('0001_first.sql', 'create table belfry.first (\r\n n int\r\n);');
    expect(await migrate(client, { folder })).toEqual([]);
  });

  test('that this program does not know: refused by migrate, accepted by a running program', async () => {
    await write('0002_newer.sql', 'create table belfry.newer (n int);');
    await migrate(client, { folder });
    await rm(path.join(folder, '0002_newer.sql'));
    await expect(migrate(client, { folder })).rejects.toThrow(/0002_newer, which this Belfry does not know/);
    await assertMigrated(client, { folder });
  });

  test('that comes too late or has a number twice is refused', async () => {
    await write('0003_third.sql', 'select 1;');
    await migrate(client, { folder });
    await write('0002_late.sql', 'select 1;');
    await expect(migrate(client, { folder })).rejects.toThrow(/0002_late comes before/);
    await write('0003_twice.sql', 'select 1;');
    await expect(migrate(client, { folder })).rejects.toThrow(/must begin with a number of its own/);
  });

  test('that waits for a lock gives up, to be tried again', async () => {
    await migrate(client, { folder });
    await write('0002_locked.sql', "set local lock_timeout = '100ms'; alter table belfry.first add m int;");
    const holder = await db.client();
    await holder.query('begin; lock table belfry.first in access share mode');
    await expect(migrate(client, { folder, lockBoundMs: 500 })).rejects.toMatchObject({
      code: 'lock_busy',
      retry: true,
    });
    await holder.query('commit');
    expect(await migrate(client, { folder })).toEqual(['0002_locked']);
  });
});
