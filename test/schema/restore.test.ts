/** A dropped outbox comes back exactly as the migrations make it. */
import { expect, it, onTestFinished } from 'vitest';
import { assertMigrated, restoreOutbox, restoreOutboxSql } from '../../src/schema/migrate.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';

/** Everything that the catalogue says of outbox and lag but for numbers that differ from database to database. */
async function shape(database: TestDatabase): Promise<unknown> {
  const { rows } = await database.pool.query(`
    select c.relname, c.relkind, c.relpersistence, c.reloptions, c.relacl::text, obj_description(c.oid) as comment,
           pg_get_partkeydef(c.oid) as partitioned_by, pg_get_expr(c.relpartbound, c.oid) as bound,
           case when c.relkind = 'v' then pg_get_viewdef(c.oid) end as definition,
           (select jsonb_agg(jsonb_build_array(a.attname, a.atttypid::regtype, a.attnotnull, a.attidentity, a.attstorage,
                                               pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)) order by a.attnum)
              from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
             where a.attrelid = c.oid and a.attnum > 0) as columns,
           (select jsonb_agg(pg_get_indexdef(i.indexrelid) order by i.indexrelid::regclass::text) from pg_index i where i.indrelid = c.oid) as indexes,
           (select jsonb_agg(jsonb_build_array(k.conname, pg_get_constraintdef(k.oid)) order by k.conname) from pg_constraint k where k.conrelid = c.oid) as constraints,
           (select jsonb_build_array(s.seqincrement, s.seqcache, s.seqcycle) from pg_sequence s where s.seqrelid = c.oid) as sequence
      from pg_class c
     where c.relnamespace = 'belfry'::regnamespace and (c.relname = 'lag' or c.relname like 'outbox%') and c.relkind <> 'i'
     order by c.relname`);
  return rows;
}

it.each(['drop table belfry.outbox cascade', 'drop view belfry.lag'])('%s, then restored', async (damage) => {
  const database = await createTestDatabase();
  onTestFinished(() => database.drop());
  const client = await database.client();
  const before = await shape(database);
  expect(await restoreOutbox(client, ['a'])).toBe(false);
  expect(await restoreOutboxSql(client, ['a'])).toBe('');
  await client.query(damage);
  await expect(assertMigrated(client)).rejects.toThrow('belfry migrate');
  expect(await restoreOutboxSql(client, ["a's", 'b'])).toContain("array['a''s', 'b']");
  expect(await restoreOutbox(client, ['a', 'b'])).toBe(true);
  expect(await shape(database)).toEqual(before);
  await assertMigrated(client);
  const { rows } = await client.query(
    'select source, sqlstate, since is not null as since from belfry.lost order by 1',
  );
  const lost = ['a', 'b'].map((source) => ({ source, sqlstate: '42P01', since: true }));
  expect(rows).toEqual(damage.includes('outbox') ? lost : []);
});
