/** Partitioned tables: every row is caught once, whichever table the statement names. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { verifyCapture } from '../../src/capture/verify.js';
import { createTestDatabase, type TestDatabase } from '../support/postgres.js';
import { captureConfig, captureDatabase, install, source, takeLost, takeOps, takeOutbox } from './support.js';

// The second leaf has its columns in another order, and one more level below it.
const tables = `
  create table public.parted (id bigint, user_id bigint, note text) partition by range (id);
  create table public.leaf_a partition of public.parted for values from (0) to (100);
  create table public.middle (note text, user_id bigint, id bigint) partition by list (user_id);
  alter table public.parted attach partition public.middle for values from (100) to (200);
  create table public.leaf_b partition of public.middle default;
`;

for (const capture of ['statement', 'row'] as const) {
  describe(`capture: ${capture}`, () => {
    const config = captureConfig(source('parted', 'public.parted', `capture: ${capture}`));
    let db: TestDatabase;

    beforeAll(async () => {
      db = await captureDatabase(tables, config);
    });
    afterAll(() => db.drop());
    beforeEach(async () => {
      await db.pool.query('truncate public.parted');
      await takeOutbox(db.pool);
      await takeLost(db.pool);
    });

    const ids = async (): Promise<unknown[]> =>
      (await takeOutbox(db.pool)).map((row) => [row.op, row.new?.['id'] ?? row.old?.['id']]);

    it('writes through the parent, a middle partition and a leaf are each told once', async () => {
      await db.pool.query(`insert into public.parted values (1, 1), (101, 1)`);
      await db.pool.query(`insert into public.leaf_a values (2, 1)`);
      await db.pool.query(`insert into public.middle (id, user_id) values (102, 1)`);
      await db.pool.query(`insert into public.leaf_b (id, user_id) values (103, 1)`);
      expect(await ids()).toEqual([1, 101, 2, 102, 103].map((id) => ['created', id]));
      for (const table of ['parted', 'leaf_a', 'middle', 'leaf_b']) {
        await db.pool.query(`update public.${table} set user_id = user_id + 1`);
      }
      expect(await takeOps(db.pool)).toEqual(Array(5 + 2 + 3 + 3).fill('changed'));
      await db.pool.query('delete from public.leaf_b where id = 103');
      await db.pool.query('delete from public.middle where id = 102');
      await db.pool.query('delete from public.parted');
      expect((await ids()).sort()).toEqual([1, 101, 102, 103, 2].map((id) => ['removed', id]));
    });

    it('an update that moves rows between partitions', async () => {
      await db.pool.query('insert into public.parted select n, n from generate_series(1, 5) n');
      await takeOutbox(db.pool);
      await db.pool.query('update public.parted set id = id + 100');
      const rows = await takeOutbox(db.pool);
      if (capture === 'statement') {
        expect(rows.map((row) => row.op)).toEqual(Array(5).fill('changed'));
        for (const row of rows) expect(Number(row.new?.['id']) - Number(row.old?.['id'])).toBe(100);
      } else {
        // Row triggers see a delete in one leaf and an insert in the other; the relay pairs them by key and transaction.
        expect(rows.map((row) => row.op).sort()).toEqual([...Array(5).fill('created'), ...Array(5).fill('removed')]);
      }
    });

    it('a truncate of the parent is one event; of a partition it is a loss that has to be repaired', async () => {
      await db.pool.query('insert into public.parted values (1, 1), (101, 1)');
      await takeOutbox(db.pool);
      await db.pool.query('truncate public.parted');
      expect(await takeOps(db.pool)).toEqual(['truncated']);
      expect(await takeLost(db.pool)).toEqual([]);
      await db.pool.query('truncate public.leaf_a');
      expect(await takeOps(db.pool)).toEqual([]);
      expect(await takeLost(db.pool)).toEqual(['parted 0A000']);
    });

    it('a new partition is caught through its parent at once; by itself it is missing until the next migrate', async () => {
      await db.pool.query('create table public.leaf_c partition of public.parted for values from (300) to (400)');
      await db.pool.query('insert into public.parted values (300, 1)');
      expect(await takeOps(db.pool)).toEqual(['created']);
      const client = await db.client();
      const health = await verifyCapture(client, config);
      const missing = health.filter((entry) => entry.state !== 'ok');
      expect(missing.every((entry) => entry.table === '"public"."leaf_c"' && entry.state === 'missing')).toBe(true);
      expect(missing).toHaveLength(capture === 'statement' ? 4 : 1);
      // What may have been written straight into it meanwhile is for the relay to look for; an empty one has missed nothing.
      await db.pool.query('create table public.leaf_d partition of public.parted for values from (400) to (500)');
      await install(db, config);
      expect(await takeLost(db.pool)).toEqual(['parted 42704']);
      await db.pool.query('insert into public.leaf_c values (301, 1)');
      expect(await takeOps(db.pool)).toEqual(['created']);
      expect((await verifyCapture(client, config)).every((entry) => entry.state === 'ok')).toBe(true);
      await db.pool.query('drop table public.leaf_c, public.leaf_d');
    });
  });
}

describe('other kinds of tables', () => {
  it('inheriting tables are caught with their parent', async () => {
    const db = await captureDatabase(
      'create table public.base (id bigint, user_id bigint); create table public.heir (more text) inherits (public.base);',
      captureConfig(source('base', 'public.base')),
    );
    try {
      await db.pool.query(`insert into public.heir values (1, 1, 'x'); insert into public.base values (2, 1)`);
      await db.pool.query('update public.base set user_id = 2; delete from public.base');
      expect(await takeOps(db.pool)).toEqual(['created', 'created', 'changed', 'changed', 'removed', 'removed']);
    } finally {
      await db.drop();
    }
  });

  it('a table with a foreign partition is captured row by row, with a warning, and writes to both work', async () => {
    const tablesWithForeign = `
      create extension if not exists file_fdw;
      create server files foreign data wrapper file_fdw;
      create table public.parted (id bigint, user_id bigint) partition by range (id);
      create table public.leaf partition of public.parted for values from (0) to (100);
      create foreign table public.away partition of public.parted for values from (100) to (200)
        server files options (filename '/nowhere');`;
    const db = await createTestDatabase();
    try {
      const available = await db.pool.query(`select from pg_available_extensions where name = 'file_fdw'`);
      if (available.rowCount === 0) return;
      await db.pool.query(tablesWithForeign);
      const { warnings } = await install(db, captureConfig(source('parted', 'public.parted')));
      expect(warnings.join()).toContain('row by row');
      await db.pool.query('insert into public.parted values (1, 1)');
      expect(await takeOps(db.pool)).toEqual(['created']);
    } finally {
      await db.drop();
    }
  });
});
