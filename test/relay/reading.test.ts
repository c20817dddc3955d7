/** What is read ahead is used where reading goes on behind it, and nowhere else. */

import type pg from 'pg';
import { afterAll, beforeAll, beforeEach, expect, it, onTestFinished, vi } from 'vitest';
import type { Cursor } from '../../src/outbox/cursor.js';
import { OutboxReader } from '../../src/outbox/reader.js';
import { connect } from '../../src/postgres/connect.js';
import type { Preparation } from '../../src/relay/batch.js';
import { Reading } from '../../src/relay/reading.js';
import type { ResolvedRow } from '../../src/relay/plan/resolved.js';
import { cursorNow, insertEvent, testStatement } from '../outbox/rig.js';
import { createTestDatabase, type TestDatabase } from '../support/postgres.js';

let database: TestDatabase;
let cursor: Cursor;
/** Of each page that was prepared: how many events, and whether beside the storing of the one before it. */
let prepared: { readonly events: number; readonly beside: boolean }[];

beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(() => database.drop());
beforeEach(async () => {
  cursor = await cursorNow(database.pool);
  prepared = [];
});

async function open(pipelined = false): Promise<{ readonly reading: Reading; readonly client: pg.Client }> {
  const client = await connect(database.url, { applicationName: 'test', session: OutboxReader.session, pipelined });
  onTestFinished(() => client.end());
  const pages = new OutboxReader<ResolvedRow>({ client, statement: testStatement, limit: 100 });
  const reading = new Reading(pages, (rows, beside) => {
    prepared.push({ events: rows.length, beside });
    return {} as Preparation;
  });
  return { reading, client };
}

it('is read once, and used by whoever goes on there', async () => {
  const { reading } = await open();
  await insertEvent(database.pool, 1);
  reading.readAhead(cursor, true);
  reading.readAhead(cursor, false);
  const page = await reading.next(cursor);
  expect(page?.page.count).toBe(1);
  expect(prepared).toEqual([{ events: 1, beside: true }]);
  expect(await reading.next(page!.page.next)).toBeNull();
});

it('what comes after it was read comes next, though it found nothing', async () => {
  const { reading, client } = await open();
  reading.readAhead(cursor, false);
  // Behind it on the same connection.
  await client.query('select 1');
  await insertEvent(database.pool, 1);
  expect(await reading.next(cursor)).toBeNull();
  expect((await reading.next(cursor))?.page.count).toBe(1);
});

it('asked for behind what is stored, it sees what that wrote', async () => {
  const { reading, client } = await open(true);
  const stored = client.query(
    `insert into belfry.outbox (source, op, new) select 'test', 'created', '{}' from pg_sleep(0.05)`,
  );
  reading.readAhead(cursor, false);
  expect((await reading.next(cursor))?.page.count).toBe(1);
  await stored;
});

it('is dropped where reading goes on elsewhere: nothing comes twice', async () => {
  const { reading } = await open();
  await insertEvent(database.pool, 1);
  reading.readAhead(cursor, false);
  const elsewhere = await cursorNow(database.pool);
  await insertEvent(database.pool, 2);
  const page = await reading.next(elsewhere);
  expect(page?.page.count).toBe(1);
  expect(await reading.next(page!.page.next)).toBeNull();
});

it('is dropped when what it was read with has changed, and read again', async () => {
  const { reading } = await open();
  await insertEvent(database.pool, 1);
  reading.readAhead(cursor, true);
  reading.forgetAhead();
  expect((await reading.next(cursor))?.page.count).toBe(1);
  expect(prepared.at(-1)).toEqual({ events: 1, beside: false });
});

it('is read again where it waited too long, but in a backlog: who is gone by now is not known to what was asked then', async () => {
  const { reading, client } = await open();
  await insertEvent(database.pool, 1);
  for (const beside of [true, false]) {
    prepared = [];
    reading.readAhead(cursor, beside);
    // Behind it on the same connection.
    await client.query('select 1');
    vi.useFakeTimers({ toFake: ['performance'], now: Date.now() });
    onTestFinished(() => void vi.useRealTimers());
    vi.advanceTimersByTime(60_000);
    expect((await reading.next(cursor))?.page.count).toBe(1);
    vi.useRealTimers();
    expect(prepared).toHaveLength(beside ? 1 : 2);
  }
});

it('one that fails is told when it is asked for', async () => {
  const { reading, client } = await open();
  await client.query('set statement_timeout = 50');
  const holder = await database.client();
  await holder.query('begin; lock table belfry.outbox in access exclusive mode');
  reading.readAhead(cursor, false);
  await new Promise((resolve) => setTimeout(resolve, 200));
  await expect(reading.next(cursor)).rejects.toThrow('statement timeout');
  await holder.query('rollback');
  expect(await reading.next(cursor)).toBeNull();
});
