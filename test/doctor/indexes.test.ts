/** Each look-up of the relay and the gateway wants its index, and is content with one that begins with its column. */
import { expect, it, onTestFinished } from 'vitest';
import { missingIndexes } from '../../src/doctor/indexes.js';
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
