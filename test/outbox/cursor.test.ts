/** The snapshot cursor: every committed row exactly once, whatever the order of ids, xids and commits. */
import fc from 'fast-check';
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import {
  advance,
  advanceWithin,
  type Cursor,
  pageQuery,
  endOfDelta,
  parseSnapshot,
  prepareUnread,
  unreadQuery,
  unreadSql,
} from '../../src/outbox/cursor.js';
import { ensurePartitions } from '../../src/outbox/partitions.js';
import { OutboxReader } from '../../src/outbox/reader.js';
import { connect } from '../../src/postgres/connect.js';
import { createTestDatabase, type TestDatabase } from '../support/postgres.js';
import { Collector, insertEvent, seeded, testStatement, type TestRow } from './rig.js';

describe('pure', () => {
  test('a snapshot is read as Postgres writes it', () => {
    expect(parseSnapshot('10:20:')).toEqual({ xmin: '10', xmax: '20', xip: [] });
    expect(parseSnapshot('10:20:10,14')).toEqual({ xmin: '10', xmax: '20', xip: ['10', '14'] });
    for (const wrong of ['', '10:20', "1:2:3'", '1:2:3,', 'a:b:'])
      expect(() => parseSnapshot(wrong)).toThrow(RangeError);
  });

  test('unread, as a condition', () => {
    expect(unreadSql('10:20:10,14')).toBe(`(xid >= '20'::xid8 or xid = any('{10,14}'::xid8[]))`);
  });

  const cursor: Cursor = { seen: '1:5:', target: null, afterId: '0', maxId: '9' };

  test('a full page keeps its target, a short one ends the delta', () => {
    const full = advance(cursor, { count: 2, limit: 2, lastId: '12', snapshot: '1:8:' });
    expect(full).toEqual({ seen: '1:5:', target: '1:8:', afterId: '12', maxId: '12' });
    const short = advance(full, { count: 1, limit: 2, lastId: '13', snapshot: '1:99:' });
    expect(short).toEqual({ seen: '1:8:', target: null, afterId: '0', maxId: '13' });
    expect(advance(full, { count: 0, limit: 2, lastId: null, snapshot: null })).toEqual({ ...short, maxId: '12' });
  });

  test('an empty read between deltas moves nothing; max_id never goes back; ids are compared as numbers', () => {
    expect(advance(cursor, { count: 0, limit: 2, lastId: null, snapshot: null })).toEqual(cursor);
    expect(advance(cursor, { count: 1, limit: 2, lastId: '7', snapshot: '1:8:' }).maxId).toBe('9');
    expect(advance(cursor, { count: 1, limit: 2, lastId: '10', snapshot: '1:8:' }).maxId).toBe('10');
  });

  test('half a page: the rest of the delta follows', () => {
    const half = advanceWithin(cursor, { count: 4, limit: 50, lastId: '14', snapshot: '1:8:' }, '12');
    expect(half).toEqual({ seen: '1:5:', target: '1:8:', afterId: '12', maxId: '12' });
  });
});

describe('on Postgres', () => {
  let database: TestDatabase;
  let collector: Collector;
  let a: pg.Client;
  let b: pg.Client;

  beforeAll(async () => {
    database = await createTestDatabase();
  });
  afterAll(() => database.drop());
  beforeEach(async () => {
    collector = await Collector.open(database.url);
    a = await database.client();
    b = await database.client();
  });
  afterEach(() => Promise.all([collector.client.end(), a.end(), b.end()]));

  test('a lower id that commits later is read, and only once', async () => {
    await a.query('begin');
    await insertEvent(a, 'low');
    await insertEvent(b, 'high');
    await collector.drain();
    expect(collector.numbers).toEqual(['high']);
    await a.query('commit');
    await collector.drain();
    expect(collector.numbers).toEqual(['high', 'low']);
    await collector.drain();
    expect(collector.numbers).toEqual(['high', 'low']);
  });

  test('a lower xid that commits later is read, and only once', async () => {
    await a.query('begin');
    await a.query('select pg_current_xact_id()');
    await insertEvent(b, 'first');
    await collector.drain();
    await insertEvent(a, 'second');
    await a.query('commit');
    await collector.drain();
    expect(collector.numbers).toEqual(['first', 'second']);
  });

  test('two changes of one row behind an unrelated open transaction: at once, in order', async () => {
    await a.query('begin; select pg_current_xact_id()');
    const c = await database.client();
    // The lock of the row puts the second change's commit after the first one's, but its xid came before.
    await c.query('begin; select pg_current_xact_id()');
    await insertEvent(b, 'change 1');
    await insertEvent(c, 'change 2');
    await c.query('commit');
    expect((await collector.drain()).map((row) => row.n)).toEqual(['change 1', 'change 2']);
    const [first, second] = collector.rows;
    expect(BigInt(first?.xid ?? 0)).toBeGreaterThan(BigInt(second?.xid ?? 0));
    await a.query('rollback');
    expect(await collector.drain()).toEqual([]);
  });

  /** So many rows for each event as its `n` says. */
  const severalRows = (page: string) => `select several.* from (${testStatement(page)}) several
    cross join lateral generate_series(1, n::int) order by several.id::bigint`;

  test('a page is bounded in rows too: it ends after the last event that fits, and grows again with what comes', async () => {
    const several = await Collector.open(database.url, { limit: 16, smallLimit: 16, rowLimit: 40 }, severalRows);
    const counts = [...Array<number>(20).fill(9), ...Array<number>(100).fill(1)];
    await a.query(
      `insert into belfry.outbox (source, op, new)
       select 'test', 'created', jsonb_build_object('n', n) from unnest($1::int[]) with ordinality t(n, i) order by i`,
      [counts],
    );
    const ids: string[] = [];
    const events: number[] = [];
    for (let rows = await several.readPage(); rows !== null; rows = await several.readPage()) {
      expect(rows.length).toBeLessThanOrEqual(40);
      const page = [...new Set(rows.map(({ id }) => id))];
      // All rows of an event are in one page.
      for (const id of page) {
        const ofEvent = rows.filter((row) => row.id === id);
        expect(ofEvent).toHaveLength(Number(ofEvent[0]?.n));
      }
      ids.push(...page);
      events.push(page.length);
    }
    expect(ids).toHaveLength(counts.length);
    expect(ids).toEqual(ids.toSorted((x, y) => Number(BigInt(x) - BigInt(y))));
    expect(new Set(ids).size).toBe(counts.length);
    expect(events.slice(0, 5)).toEqual([4, 4, 4, 4, 4]);
    expect(events.slice(5, 8)).toEqual([4, 8, 16]);
    await several.client.end();
  });

  test('events of one row each come in pages as large as they may be', async () => {
    const ordinary = await Collector.open(database.url, { limit: 2_000 });
    await a.query(`insert into belfry.outbox (source, op) select 'test', 'created' from generate_series(1, 4100)`);
    const events: number[] = [];
    for (let rows = await ordinary.readPage(); rows !== null; rows = await ordinary.readPage())
      events.push(rows.length);
    expect(events).toEqual([50, 2_000, 2_000, 50]);
    await ordinary.client.end();
  });

  test('an event with more rows than fit into a page comes alone, with some of them', async () => {
    const several = await Collector.open(database.url, { limit: 16, rowLimit: 40 }, severalRows);
    for (const n of [100, 3, 100, 2]) await insertEvent(a, n);
    const pages: string[][] = [];
    for (let rows = await several.readPage(); rows !== null; rows = await several.readPage())
      pages.push(rows.map(({ n }) => n));
    expect(pages.map((page) => [...new Set(page)])).toEqual([['100'], ['3'], ['100'], ['2']]);
    expect(pages.map(({ length }) => length)).toEqual([41, 3, 41, 2]);
    await several.client.end();
  });

  test('rollback, rollback to savepoint, subtransactions', async () => {
    await a.query('begin');
    await insertEvent(a, 'undone');
    await a.query('rollback; begin');
    await insertEvent(a, 'kept 1');
    await a.query('savepoint s');
    await insertEvent(a, 'undone too');
    await a.query('rollback to s; savepoint t');
    await insertEvent(a, 'kept 2');
    await a.query('release t; savepoint u');
    await insertEvent(a, 'kept 3');
    expect(await collector.drain()).toEqual([]);
    await a.query('commit');
    await collector.drain();
    expect(collector.numbers).toEqual(['kept 1', 'kept 2', 'kept 3']);
    // More subtransactions than a backend's cache holds: only top-level xids stand in a snapshot.
    await a.query('begin');
    for (let i = 0; i < 70; i += 1) {
      await a.query('savepoint s');
      await insertEvent(a, `sub ${i}`);
    }
    expect(await collector.drain()).toEqual([]);
    await a.query('commit');
    expect(await collector.drain()).toHaveLength(70);
    expect(await collector.drain()).toEqual([]);
  });

  test('a row written in the transaction that takes the snapshot is never read: why the relay must not', async () => {
    await a.query('begin');
    await insertEvent(a, 'own');
    await insertEvent(b, 'before');
    const { rows } = await a.query<{ s: string }>('select pg_current_snapshot()::text as s');
    await insertEvent(b, 'after');
    await a.query('commit');
    collector.cursor = { ...collector.cursor, seen: rows[0]?.s ?? '' };
    await collector.drain();
    expect(collector.numbers).toEqual(['after']);
  });

  test('a delta that ends at the end of a page is over; what came meanwhile follows', async () => {
    const small = await Collector.open(database.url, { limit: 2 });
    for (const n of [1, 2, 3, 4]) await insertEvent(a, n);
    await small.readPage();
    expect(small.cursor.target).not.toBeNull();
    await insertEvent(a, 5);
    await small.readPage();
    await small.readPage();
    expect(small.numbers).toEqual(['1', '2', '3', '4', '5']);
    expect(await small.readPage()).toBeNull();
    await small.client.end();
  });

  test('a cursor that was stored in the middle of a delta goes on there', async () => {
    const small = await Collector.open(database.url, { limit: 3 });
    await a.query('begin');
    await insertEvent(a, 'late');
    for (const n of [1, 2, 3, 4]) await insertEvent(b, n);
    await small.readPage();
    await a.query('commit');
    // Another relay takes over from what was stored.
    const heir = await Collector.open(database.url, { limit: 3 });
    heir.cursor = small.cursor;
    await heir.drain();
    expect([...small.numbers, ...heir.numbers]).toEqual(['1', '2', '3', '4', 'late']);
    await Promise.all([small.client.end(), heir.client.end()]);
  });

  test('a delta is read to its end over the connection on which that began', async () => {
    const small = await database.client();
    const reader = new OutboxReader<TestRow>({
      ...{ client: collector.client, smallClient: small, statement: testStatement },
      ...{ limit: 4, smallLimit: 2 },
    });
    for (let n = 1; n <= 6; n++) await insertEvent(a, n);
    const first = await reader.read(collector.cursor);
    const second = await reader.read(first!.next);
    expect([first?.count, second?.count]).toEqual([2, 4]);
    // In the middle of something that went wrong.
    await small.query('begin');
    await expect(small.query('select 1 / 0')).rejects.toThrow('division by zero');
    expect(await reader.read(second!.next)).toBeNull();
    await small.query('rollback');
    expect(await reader.read(endOfDelta(second!.next))).toBeNull();
  });

  test('whether anything is unread, without reading it', async () => {
    await collector.client.query(prepareUnread);
    const more = async () => {
      const { rows } = await collector.client.query<{ more: boolean }>(unreadQuery(collector.cursor));
      return rows[0]?.more;
    };
    await a.query('begin');
    await insertEvent(a, 1);
    await insertEvent(b, 2);
    expect(await more()).toBe(true);
    await collector.drain();
    expect(await more()).toBe(false);
    await a.query('commit');
    expect(await more()).toBe(true);
  });
});

describe('property: any page size gives every committed row exactly once', () => {
  let database: TestDatabase;
  beforeAll(async () => {
    database = await createTestDatabase();
  });
  afterAll(() => database.drop());

  test('under 8 writers that mix autocommit, rollback, repeatable read, savepoints and held-open', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          limit: fc.integer({ min: 1, max: 40 }),
          smallLimit: fc.integer({ min: 1, max: 40 }),
          seed: fc.integer(),
        }),
        async (sizes) => {
          const { committed, read, order } = await race(database, sizes);
          expect(read.toSorted()).toEqual(committed.toSorted());
          expect(order).toBe(true);
        },
      ),
      { numRuns: 12, seed: 20_261_123 },
    );
  });
});

/** One run: the writers' committed events, and what a paging reader saw of them meanwhile and after. */
async function race(
  database: TestDatabase,
  { limit, smallLimit, seed }: { limit: number; smallLimit: number; seed: number },
): Promise<{ committed: string[]; read: string[]; order: boolean }> {
  const collector = await Collector.open(database.url, { limit, smallLimit });
  const committed: string[] = [];
  let writing = true;
  const writers = Array.from({ length: 8 }, async (_, w) => {
    const random = seeded(seed + w);
    const client = await database.pool.connect();
    try {
      for (let i = 0; i < 12; i += 1) await writeTransaction(client, random, `${w}.${i}`, committed);
    } finally {
      client.release();
    }
  });
  const reading = (async () => {
    while (writing) if ((await collector.readPage()) === null) await new Promise((resolve) => setImmediate(resolve));
    await collector.drain();
  })();
  await Promise.all(writers);
  writing = false;
  await reading;
  await collector.client.end();
  return { committed, read: collector.numbers, order: perWriterInOrder(collector.numbers) };
}

async function writeTransaction(
  client: pg.ClientBase,
  random: () => number,
  name: string,
  committed: string[],
): Promise<void> {
  const kind = random();
  if (kind < 0.3) {
    await insertEvent(client, name);
    committed.push(name);
    return;
  }
  await client.query(kind < 0.5 ? 'begin isolation level repeatable read' : 'begin');
  const mine: string[] = [];
  for (let i = 0; i < 1 + Math.floor(random() * 4); i += 1) {
    const undone = random() < 0.2;
    if (undone) await client.query('savepoint s');
    await insertEvent(client, `${name}.${i}`);
    if (undone) await client.query('rollback to s');
    else mine.push(`${name}.${i}`);
    if (kind > 0.85) await new Promise((resolve) => setTimeout(resolve, random() * 8));
  }
  const keep = random() < 0.75;
  await client.query(keep ? 'commit' : 'rollback');
  if (keep) committed.push(...mine);
}

/** What one session committed one after the other is read in that order. */
function perWriterInOrder(read: readonly string[]): boolean {
  const last = new Map<string, string>();
  for (const name of read) {
    const [writer = '', transaction = '', i = ''] = name.split('.');
    const position = `${transaction.padStart(4, '0')}.${i.padStart(4, '0')}`;
    if (position <= (last.get(writer) ?? '')) return false;
    last.set(writer, position);
  }
  return true;
}

describe('plans', () => {
  let database: TestDatabase;
  let client: pg.Client;
  beforeAll(async () => {
    database = await createTestDatabase();
    client = await connect(database.url, { applicationName: 'belfry reader', session: OutboxReader.session });
  });
  afterAll(async () => {
    await client.end();
    await database.drop();
  });

  const start: Cursor = { seen: '3:3:', target: null, afterId: '0', maxId: '0' };

  /** Runs the statement as the reader does, and tells by what plan. */
  const run = async (cursor: Cursor, limit: number): Promise<{ rows: number; plan: string }> => {
    const page = pageQuery(cursor, limit);
    const { rows } = await client.query({
      name: page.name,
      text: testStatement(page.text),
      values: [...page.values],
    });
    const values = page.values.map((value) => (Array.isArray(value) ? `'{${value.join(',')}}'` : `'${String(value)}'`));
    const explained = await client.query<{ 'QUERY PLAN': string }>(
      `explain (costs off) execute ${page.name} (${values.join(', ')})`,
    );
    return { rows: rows.length, plan: explained.rows.map((row) => row['QUERY PLAN']).join('\n') };
  };

  const byXid = (plan: string): void => {
    expect(plan).not.toContain('Seq Scan on outbox');
    expect(plan).not.toMatch(/pkey/);
    expect(plan).toMatch(/xid_id/);
  };
  const byId = (plan: string): void => {
    expect(plan).not.toContain('Seq Scan on outbox');
    expect(plan).not.toMatch(/xid_id/);
    expect(plan).toMatch(/Index Scan using \S*pkey/);
  };

  test('a plan made on empty tables is right for full ones, and stays so when they are analysed', async () => {
    await ensurePartitions(client, { daysAhead: 2, today: true });
    await client.query('vacuum analyze belfry.outbox');
    byXid((await run(start, 50)).plan);
    byId((await run({ ...start, target: '3:3:' }, 5_000)).plan);
    await client.query(`
      insert into belfry.outbox (xid, source, op, new)
      select (1000 + i / 10)::text::xid8, 'test', 'created', jsonb_build_object('n', i) from generate_series(1, 100000) i`);
    for (const analyse of [false, true]) {
      if (analyse) await client.query('vacuum analyze belfry.outbox');
      const last = await run({ ...start, seen: '10999:10999:' }, 50);
      expect(last.rows).toBe(11);
      byXid(last.plan);
      const straggler = await run({ ...start, seen: '1500:11100:1500' }, 50);
      expect(straggler.rows).toBe(10);
      byXid(straggler.plan);
      const page = await run({ seen: '3:3:', target: '99999:99999:', afterId: '50000', maxId: '0' }, 5_000);
      expect(page.rows).toBe(5_000);
      byId(page.plan);
    }
  });
});
