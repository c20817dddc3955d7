/** Each look-up of the relay and the gateway wants its index, and is content with one that begins with its column. */
import { expect, it, onTestFinished } from 'vitest';
import { missingIndexes } from '../../src/doctor/indexes.js';
import { loadColumnTypes, personColumn } from '../../src/schema/columns.js';
import { captureConfig } from '../capture/support.js';
import { createTestDatabase } from '../support/postgres.js';

const config = captureConfig(
  `  - { name: a, type: like, table: public.likes, key: [u, p], actor: u, object: { kind: post, id: p },
      recipient: { path: [{ from: p, table: public.posts, match: id, take: owner }] } }`,
  `people: { table: public.people, id: id }
blocks: { table: public.blocks, from: a, to: b }
mutes: { table: public.mutes, from: a, to: b }
threadMutes: { table: public.threads, user: u, kind: post, id: t }`,
);

it('no index at all, one by one, and one that holds only some rows', async () => {
  const database = await createTestDatabase({
    prepare: `create table people (id int); create table blocks (a int, b int); create table mutes (a int, b int);
      create table threads (u int, t int); create table likes (u int, p int); create table posts (id int, owner int)`,
  });
  onTestFinished(() => database.drop());
  const client = await database.client();
  const wanted = async () => (await missingIndexes(client, config)).map(({ what }) => what.replace('public.', ''));
  const all = [
    'people by id',
    'blocks by a',
    'blocks by b',
    'mutes by a or b',
    'threads by u or t',
    'posts by id',
    'likes by u or p',
  ];
  const first = await wanted();
  expect(first.map((what) => what.split(' (')[0]).sort()).toEqual(all.sort());
  await client.query('create index on people (id) where id > 0; create index on people ((id + 1))');
  expect((await wanted()).sort()).toEqual([...first].sort());
  // What it says to run puts it right, one after the other.
  for (let left = first.length; left > 0; left -= 1) {
    const [missing] = await missingIndexes(client, config);
    await client.query(missing?.sql ?? '');
    expect((await wanted()).sort()).toEqual(first.slice(first.length - left + 1).sort());
  }
});

it('of text that is compared as ids of people are: on what it is compared as, which then serves', async () => {
  const database = await createTestDatabase({
    prepare: `create table people (id uuid primary key); create table blocks (a text, b text); create index on blocks (a); create index on blocks (b);
      create table mutes (a uuid, b text); create table threads (u text, t int); create index on threads (t); create table likes (u int primary key, p int);
      create table posts (id int primary key, owner uuid); create index on mutes (a)`,
  });
  onTestFinished(() => database.drop());
  const client = await database.client();
  const missing = await missingIndexes(client, config);
  expect(missing.map(({ what }) => what).sort()).toEqual([
    'public.blocks by a (blocks)',
    'public.blocks by b (blocks)',
  ]);
  for (const { sql } of missing) await client.query(sql);
  expect(await missingIndexes(client, config)).toEqual([]);
  const types = await loadColumnTypes(client, config);
  await client.query('set enable_seqscan = off');
  for (const column of ['a', 'b']) {
    const { rows } = await client.query<Record<string, string>>(
      `explain select from blocks t where ${personColumn('public.blocks', column, types).sql} = '00000000-0000-4000-8000-000000000001'`,
    );
    expect(rows.map((row) => row['QUERY PLAN']).join()).toContain('Index Cond');
  }
});
