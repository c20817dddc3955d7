/** Partitions that go: their rows went without an event, and count no more. */

import { afterAll, beforeAll, expect, it } from 'vitest';
import { installCapture } from '../../src/capture/install.js';
import { verifyCapture } from '../../src/capture/verify.js';
import { parseConfig } from '../../src/config.js';
import { ensurePartitions } from '../../src/outbox/partitions.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { addPost, addUsers, socialConfig, socialSql } from '../support/social.js';
import { withRelay } from './with-relay.js';

const partitioned = `
drop table likes;
create table likes (user_id bigint not null, post_id bigint not null, created_at timestamptz not null default now(), day int not null,
  primary key (user_id, post_id, day)) partition by list (day);
create table likes_1 partition of likes for values in (1);
create table likes_2 partition of likes for values in (2);
create table likes_3 partition of likes for values in (3);
create table likes_4 partition of likes for values in (4)`;

const patience = { timeout: 60_000, interval: 20 };

let database: TestDatabase;
let people: string[];
let post: string;

const config = () => parseConfig(socialConfig(database.url), {}, { path: 'test.yaml' });

beforeAll(async () => {
  database = await createTestDatabase({ prepare: `${socialSql};${partitioned}` });
  const client = await database.client();
  await ensurePartitions(client, { today: true });
  await installCapture(client, config());
  people = await addUsers(database.pool, 'Ada', 'Bo', 'Cleo', 'Dan', 'Eve');
  post = await addPost(database.pool, people[0] ?? '');
  for (const [i, day] of [1, 2, 3, 4].entries())
    await database.pool.query('insert into likes values ($1, $2, now(), $3)', [people[i + 1], post, day]);
});
afterAll(() => database.drop());

/** The counter, and how many people the notification tells of. */
async function counted(): Promise<[number, number]> {
  const { rows } = await database.pool.query<{ likes: number; actors: number }>(
    `select (select count::float8 from belfry.counter where source = 'post_like' and object_id = $1) as likes,
            (select actor_count::float8 from belfry.notification where user_id = $2) as actors`,
    [post, people[0]],
  );
  return [rows[0]?.likes ?? NaN, rows[0]?.actors ?? NaN];
}

async function problems(): Promise<string[]> {
  const health = await verifyCapture(await database.client(), config());
  const wrong = health.filter(({ state }) => state !== 'ok');
  return [...new Set(wrong.map(({ table, state, detail }) => `${table} ${state}: ${detail ?? ''}`))];
}

it('a relay that finds one detached takes out what it held, and what is written to it later is nothing', async () => {
  await withRelay(database.url, async () => {
    await expect.poll(counted, patience).toEqual([4, 4]);
  });
  await database.pool.query('alter table likes detach partition likes_1');
  expect(await problems()).toEqual([
    '"public"."likes_1" drifted: it is no partition any more, and its rows still count: run belfry migrate',
  ]);
  await withRelay(database.url, async () => {
    await expect.poll(counted, patience).toEqual([3, 3]);
  });
  expect(await problems()).toEqual([]);
  await database.pool.query('insert into likes_1 values ($1, $2, now(), 1)', [people[3], post]);
  expect((await database.pool.query(`select from belfry.outbox where op <> 'created'`)).rowCount).toBe(0);
  expect((await database.pool.query('select from belfry.outbox')).rowCount).toBe(4);
});

it('likewise one that was dropped', async () => {
  await database.pool.query('drop table likes_2');
  expect(await problems()).toHaveLength(1);
  await withRelay(database.url, async () => {
    await expect.poll(counted, patience).toEqual([2, 2]);
  });
  expect(await problems()).toEqual([]);
});

it('migrate does the same, and the relay that runs then takes the rows out', async () => {
  await database.pool.query('alter table likes detach partition likes_3');
  await withRelay(database.url, async () => {
    const { changed } = await installCapture(await database.client(), config());
    // Whoever of both was first.
    if (changed.length > 0)
      expect(changed).toContain('"public"."likes_3" is no part of post_like any more: its rows are taken out');
    await expect.poll(counted, patience).toEqual([1, 1]);
  });
  await database.pool.query('alter table likes detach partition likes_4');
  expect((await installCapture(await database.client(), config())).changed).toContain(
    '"public"."likes_4" is no part of post_like any more: its rows are taken out',
  );
  expect((await database.pool.query('select source, sqlstate from belfry.lost')).rows).toEqual([
    { source: 'post_like', sqlstate: '42704' },
  ]);
  expect((await installCapture(await database.client(), config())).changed).toEqual([]);
});
