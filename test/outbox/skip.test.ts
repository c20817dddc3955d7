/** Beginning elsewhere than where the last relay left off. */

import type pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import type { Cursor } from '../../src/outbox/cursor.js';
import { planSkip, skipTo } from '../../src/outbox/skip.js';
import { createTestDatabase, type TestDatabase } from '../support/postgres.js';
import { Collector, insertEvent } from './rig.js';

let database: TestDatabase;
let client: pg.Client;
let collector: Collector;

beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(() => database.drop());
beforeEach(async () => {
  await database.pool.query('truncate belfry.outbox');
  await database.pool.query(
    `update belfry.relay set seen = pg_current_snapshot(), target = null, after_id = 0, lease_until = '-infinity'`,
  );
  client = await database.client();
  collector = await Collector.open(database.url, { limit: 3, smallLimit: 2 });
});
afterEach(async () => {
  await client.end();
  await collector.client.end();
});

const stored = async (): Promise<Cursor> => {
  const { rows } = await client.query<Cursor>(
    'select seen::text, target::text, after_id::text as "afterId", max_id::text as "maxId" from belfry.relay',
  );
  if (rows[0] === undefined) throw new Error('no relay row');
  return rows[0];
};

/** Of tables that nobody counts. */
const skip = (from: Date | null) => skipTo(client, from, () => Promise.resolve());

/** As a relay would go on now. */
async function read(): Promise<unknown[]> {
  collector.cursor = await stored();
  await collector.drain();
  return collector.numbers;
}

const age = (n: string, interval: string) =>
  client.query(`update belfry.outbox set at = at - $2::interval where new ->> 'n' = $1`, [n, interval]);

test('now: everything unread is skipped, what comes after is read', async () => {
  await insertEvent(client, 'old');
  const open = await database.client();
  await open.query('begin');
  await insertEvent(open, 'still open');
  expect(await planSkip(client, null)).toMatchObject({ skipped: 1, kept: 0 });
  await skip(null);
  await insertEvent(client, 'new');
  await open.query('commit');
  await open.end();
  expect((await read()).toSorted()).toEqual(['new', 'still open']);
});

test('a time: what was written before is skipped, the rest is read once, also what commits later', async () => {
  for (const n of ['a', 'b', 'c', 'd', 'e']) await insertEvent(client, n);
  for (const n of ['a', 'b']) await age(n, '3 hours');
  const open = await database.client();
  await open.query('begin');
  await insertEvent(open, 'open');
  const time = new Date(Date.now() - 3_600_000);
  expect(await planSkip(client, time)).toMatchObject({ skipped: 2, kept: 3, oldest: expect.any(Date) as Date });
  await skip(time);
  await insertEvent(client, 'f');
  expect(await read()).toEqual(['c', 'd', 'e', 'f']);
  await open.query('commit');
  await open.end();
  await collector.drain();
  expect(collector.numbers.slice(4)).toEqual(['open']);
});

test('a time before everything skips nothing; one after everything all', async () => {
  await insertEvent(client, 'a');
  // How far reading ever came is kept: after a restore into another cluster it says what is unread.
  await database.pool.query('update belfry.relay set max_id = 1000000');
  await skip(new Date(0));
  expect(await stored()).toMatchObject({ maxId: '1000000' });
  expect(await planSkip(client, new Date(Date.now() + 60_000))).toMatchObject({ skipped: 1, kept: 0 });
  await skip(new Date(Date.now() + 60_000));
  expect(await read()).toEqual([]);
});

test('refused while a relay leads; and the one that led is fenced', async () => {
  await database.pool.query(`update belfry.relay set lease_until = clock_timestamp() + interval '1 minute'`);
  const before = await client.query<{ term: string }>('select term from belfry.relay');
  await expect(skip(null)).rejects.toMatchObject({ code: 'unavailable' });
  await database.pool.query(`update belfry.relay set lease_until = '-infinity'`);
  await skip(null);
  const after = await client.query<{ term: string }>('select term from belfry.relay');
  expect(Number(after.rows[0]?.term)).toBe(Number(before.rows[0]?.term) + 1);
});
