/** The doorbell: no wake-up is lost, a busy relay costs writers nothing, and nothing that dies takes the bell with it. */
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { Doorbell } from '../../src/outbox/doorbell.js';
import { doorbellKey, Sleeper } from '../../src/outbox/sleeper.js';
import { startScript } from '../support/program.js';
import { createTestDatabase, type TestDatabase } from '../support/postgres.js';
import { interleave } from './interleave.js';
import { Collector, eventually, insertEvent, type Relay, startRelay, testLog, writeEvent } from './rig.js';

let database: TestDatabase;
let writer: pg.Client;
let relay: Relay | null = null;

beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(() => database.drop());
beforeEach(async () => {
  writer = await database.client();
});
afterEach(async () => {
  await relay?.stop();
  relay = null;
  await writer.end().catch(() => undefined);
});

async function newRelay(mode: 'notify' | 'poll' = 'notify'): Promise<Relay> {
  relay = await startRelay(database.url, { mode });
  return relay;
}

/** What a writer finds: would it have to ring now? */
async function mustRing(client: pg.ClientBase): Promise<boolean> {
  const { rows } = await client.query<{ rings: boolean }>(
    `select not pg_try_advisory_xact_lock_shared(${doorbellKey}) as rings`,
  );
  return rows[0]?.rings === true;
}

/** A doorbell and a collector without the loop. */
async function byHand(): Promise<{ collector: Collector; doorbell: Doorbell }> {
  const collector = await Collector.open(database.url);
  const doorbell = new Doorbell({ mode: 'notify', url: database.url, unread: collector.unread, log: testLog() });
  await doorbell.start();
  return { collector, doorbell };
}

async function kill(applicationName: string): Promise<void> {
  const { rowCount } = await database.pool.query(
    `select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1 and datname = current_database()`,
    [applicationName],
  );
  expect(rowCount).toBeGreaterThan(0);
}

describe('asleep', () => {
  test('it wakes by the bell, at once', async () => {
    const { collector, doorbell, asleep } = await newRelay();
    for (let i = 0; i < 30; i += 1) {
      await asleep();
      await writeEvent(writer, i);
      await collector.until(i + 1);
    }
    const ages = collector.rows.map((row) => row.age_ms).toSorted((a, b) => a - b);
    // Median: about a millisecond on a quiet machine; the safety poll takes half a second.
    expect(ages[15]).toBeLessThan(100);
    expect(doorbell.counters.rings).toBe(30);
    expect(doorbell.counters.safetyWakes).toBe(0);
  });

  test('its transaction holds no snapshot, no xid and no lock but K, and the server bounds it', async () => {
    const { asleep } = await newRelay();
    await asleep();
    const locks = async (): Promise<unknown> =>
      (
        await database.pool.query(
          `select l.locktype, l.relation::regclass::text as relation from pg_locks l join pg_stat_activity a using (pid)
            where a.application_name = 'belfry doorbell' and a.datname = current_database() and l.locktype <> 'virtualxid'`,
        )
      ).rows;
    expect(await locks()).toEqual([{ locktype: 'advisory', relation: null }]);
    // Also after a safety poll.
    await new Promise((resolve) => setTimeout(resolve, 1_200));
    expect(await locks()).toEqual([{ locktype: 'advisory', relation: null }]);
    const { rows } = await database.pool.query(
      `select state, backend_xmin, backend_xid from pg_stat_activity where application_name = 'belfry doorbell' and datname = current_database()`,
    );
    expect(rows).toEqual([{ state: 'idle in transaction', backend_xmin: null, backend_xid: null }]);
  });

  test('an event without a ring is found by the safety poll', async () => {
    const { collector, doorbell, asleep } = await newRelay();
    await asleep();
    await insertEvent(writer, 'silent');
    await collector.until(1);
    expect(collector.rows[0]?.age_ms).toBeLessThan(1_500);
    expect(doorbell.counters).toMatchObject({ rings: 0, safetyWakes: 1 });
  });

  test('no more than a query a second while nothing happens', async () => {
    const { collector, doorbell, asleep } = await newRelay();
    await asleep();
    const reads = collector.reads;
    await new Promise((resolve) => setTimeout(resolve, 2_500));
    expect(collector.reads).toBe(reads);
    expect(doorbell.counters).toMatchObject({ sleeps: 1, refusals: 0 });
  });

  test('wake and maxMs end a wait', async () => {
    const { doorbell, collector, asleep } = await newRelay();
    await asleep();
    const reads = collector.reads;
    doorbell.wake();
    await eventually(async () => collector.reads > reads, 'a read after wake');
    await asleep();
  });
});

describe('falling asleep', () => {
  test('an event between the empty read and the lock is read before it sleeps', async () => {
    // The loop by hand: what follows happens between its read and its wait.
    const { collector, doorbell } = await byHand();
    expect(await collector.readPage()).toBeNull();
    await writeEvent(writer, 'skipped the bell');
    const found = await doorbell.wait(collector.readPage);
    expect(found?.[0]?.n).toBe('skipped the bell');
    expect(doorbell.counters).toMatchObject({ rings: 0, sleeps: 0, safetyWakes: 0 });
    // K is free again although the relay has not come back for more.
    await eventually(async () => !(await mustRing(writer)), 'K released', 1_000);
    await doorbell.stop();
    await collector.client.end();
  });

  test('a transaction that skipped the bell keeps it from sleeping, and is read when it commits', async () => {
    const { collector, doorbell } = await byHand();
    await writer.query('begin');
    await writeEvent(writer, 'skipped the bell');
    const waiting = doorbell.wait(collector.readPage);
    await new Promise((resolve) => setTimeout(resolve, 300));
    // 300 ms at 1, 2, 4 … 25 ms.
    expect(doorbell.counters.refusals).toBeGreaterThan(5);
    expect(doorbell.counters.refusals).toBeLessThan(40);
    expect(doorbell.counters.sleeps).toBe(0);
    await writer.query('commit');
    expect((await waiting)?.[0]?.n).toBe('skipped the bell');
    expect(doorbell.counters).toMatchObject({ rings: 0, safetyWakes: 0 });
    await doorbell.stop();
    await collector.client.end();
  });

  test('savepoints rolled back before and after the ring, writers that ring and stay open', async () => {
    const { collector, doorbell, asleep } = await newRelay();
    await asleep();
    await writer.query('begin; savepoint s');
    await writeEvent(writer, 'undone');
    await writer.query('rollback to s');
    await writeEvent(writer, 'rang after an undone ring');
    await writer.query('commit');
    await collector.until(1);
    await asleep();
    await writer.query('begin');
    await writeEvent(writer, 'rang before an undone one');
    await writer.query('savepoint s');
    await writeEvent(writer, 'undone');
    await writer.query('rollback to s; commit');
    await collector.until(2);
    await asleep();
    // It rings, another one wakes the relay and lets it sleep again, and only then it commits.
    await writer.query('begin');
    await writeEvent(writer, 'rang early');
    const other = await database.client();
    await writeEvent(other, 'in between');
    await collector.until(3);
    await asleep();
    const { sleeps } = doorbell.counters;
    expect(sleeps).toBeGreaterThan(0);
    await writer.query('commit');
    await collector.until(4);
    await asleep();
    // And one whose only ring is undone with its event.
    await writer.query('begin; savepoint s');
    await writeEvent(writer, 'undone');
    await writer.query('rollback to s; commit');
    expect(collector.numbers).toEqual([
      'rang after an undone ring',
      'rang before an undone one',
      'in between',
      'rang early',
    ]);
    expect(doorbell.counters.safetyWakes).toBe(0);
  });

  test('a thousand interleavings: none lost, none that only the safety poll found', async () => {
    const result = await interleave(database, { rounds: 500, writers: 2, seed: 1 });
    expect(result.lost).toEqual([]);
    expect(result.twice).toEqual([]);
    expect(result.counters.safetyWakes).toBe(0);
    // It did fall asleep, and was kept from it, often enough to mean something; how often is the machine's affair.
    expect(result.counters.sleeps).toBeGreaterThan(20);
    expect(result.counters.refusals).toBeGreaterThan(10);
    expect(result.slowestMs).toBeLessThan(1_000);
  });
});

describe('awake', () => {
  test('nobody rings while it works', async () => {
    const { collector, doorbell } = await byHand();
    const asleep = doorbell.wait(collector.readPage);
    await eventually(async () => doorbell.counters.sleeps === 1, 'asleep');
    expect(await mustRing(writer)).toBe(true);
    await writeEvent(writer, 'wakes it');
    expect(await asleep).toBeNull();
    await eventually(async () => !(await mustRing(writer)), 'K released', 1_000);
    // Now it is awake, and for as long as it works on what it read no commit rings.
    for (let i = 0; i < 50; i += 1) await writeEvent(writer, i);
    await doorbell.wait(collector.readPage);
    // The release is on its way.
    await eventually(async () => !(await mustRing(writer)), 'K released', 1_000);
    for (let i = 0; i < 50; i += 1) await writeEvent(writer, i);
    expect(await mustRing(writer)).toBe(false);
    expect(doorbell.counters.rings).toBe(1);
    await doorbell.stop();
    await collector.client.end();
  });

  test('a busy relay is rung a few times, not once per commit', async () => {
    const { collector, doorbell } = await newRelay();
    const commits = 2_000;
    await Promise.all(
      Array.from({ length: 8 }, async (_, w) => {
        const client = await database.pool.connect();
        for (let i = 0; i < commits / 8; i += 1) await writeEvent(client, `${w}.${i}`);
        client.release();
      }),
    );
    await collector.until(commits);
    // Kept awake by eight writers it hardly sleeps; holding K while awake makes this nearly every commit.
    expect(doorbell.counters.rings).toBeLessThan(commits / 4);
  });
});

describe('what can die', () => {
  test('a sleeper that cannot look leaves no connection behind', async () => {
    const log = testLog();
    const sleeper = new Sleeper({ url: database.url, log, onLost: () => undefined });
    await sleeper.start();
    const { pid } = sleeper;
    await database.pool.query('alter table belfry.outbox rename to gone');
    await database.pool.query('select pg_terminate_backend($1)', [pid]);
    await expect
      .poll(() => log.lines.filter((line) => line.includes('could not be replaced yet')).length, { timeout: 20_000 })
      .toBeGreaterThan(3);
    const connections = async () =>
      (
        await database.pool.query(
          `select from pg_stat_activity where application_name = 'belfry doorbell' and datname = current_database()`,
        )
      ).rowCount;
    expect(await connections()).toBeLessThan(2);
    await sleeper.stop();
    await expect.poll(connections).toBe(0);
    await database.pool.query('alter table belfry.gone rename to outbox');
  });

  test('the listener: events are polled meanwhile, then the bell is back', async () => {
    const { collector, doorbell, asleep } = await newRelay();
    await asleep();
    await kill('belfry listener');
    await eventually(async () => doorbell.counters.replacements === 1, 'loss noticed');
    await insertEvent(writer, 'while deaf');
    await collector.until(1);
    await eventually(async () => !(await mustRing(writer)) || doorbell.counters.sleeps > 1, 'no sleep without a bell');
    await eventually(async () => doorbell.counters.sleeps > 1, 'sleep after it is back');
    await asleep();
    await writeEvent(writer, 'heard');
    await collector.until(2);
    expect(doorbell.counters.rings).toBe(1);
  });

  test('the sleeper: K is free at once, events are polled meanwhile, then it sleeps again', async () => {
    const { collector, doorbell, asleep } = await newRelay();
    await asleep();
    await kill('belfry doorbell');
    await insertEvent(writer, 'while restless');
    await collector.until(1);
    expect(doorbell.counters.replacements).toBe(1);
    const { sleeps } = doorbell.counters;
    await eventually(async () => doorbell.counters.sleeps > sleeps, 'sleep on the new connection');
    await asleep();
    await writeEvent(writer, 'heard');
    await collector.until(2);
    expect(doorbell.counters.rings).toBe(1);
  });

  test('the whole process, stopped in its sleep: nobody rings after 4 s, and it goes on when it wakes', async () => {
    const program = startScript(sleeperScript, { env: { URL: database.url } });
    try {
      await program.waitFor(/asleep/);
      expect(await mustRing(writer)).toBe(true);
      process.kill(program.pid, 'SIGSTOP');
      const stoppedAt = Date.now();
      await eventually(async () => !(await mustRing(writer)), 'K free', 4_000);
      expect(Date.now() - stoppedAt).toBeGreaterThan(500);
      await writeEvent(writer, 'while stopped');
      process.kill(program.pid, 'SIGCONT');
      await program.waitFor(/read while stopped/);
    } finally {
      process.kill(program.pid, 'SIGCONT');
      await program.kill();
    }
  });
});

describe('mode poll', () => {
  test('events are found, nobody holds K, nobody rings', async () => {
    const { collector, doorbell } = await newRelay('poll');
    for (let i = 0; i < 5; i += 1) {
      await writeEvent(writer, i);
      await collector.until(i + 1);
      expect(await mustRing(writer)).toBe(false);
    }
    for (const row of collector.rows) expect(row.age_ms).toBeLessThan(1_000);
    expect(doorbell.counters).toMatchObject({ rings: 0, sleeps: 0, refusals: 0 });
    expect(doorbell.backends).toEqual([]);
    // 5, 10, 20 … 500 ms: at most two reads a second once nothing happens.
    await new Promise((resolve) => setTimeout(resolve, 1_100));
    const reads = collector.reads;
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    expect(collector.reads - reads).toBeLessThanOrEqual(4);
  });

  test('stop ends a wait at once', async () => {
    const { collector } = await newRelay('poll');
    await eventually(async () => collector.reads > 5, 'idle');
    const start = Date.now();
    await relay?.stop();
    relay = null;
    expect(Date.now() - start).toBeLessThan(400);
  });
});

/** The relay's loop as a process of its own, from what build.ts made of the sources. */
const sleeperScript = `
  import { connect } from './dist-test/postgres/connect.js';
  import { Doorbell } from './dist-test/outbox/doorbell.js';
  import { OutboxReader } from './dist-test/outbox/reader.js';
  import { unreadQuery } from './dist-test/outbox/cursor.js';
  const url = process.env.URL;
  const client = await connect(url, { applicationName: 'belfry reader', session: OutboxReader.session });
  const statement = (page) => \`with page as materialized (\${page})
    select new ->> 'n' as n, max(id) over ()::text as page_last, count(*) over ()::text as page_count,
           pg_current_snapshot()::text as page_target from page order by id\`;
  const reader = new OutboxReader({ client, statement });
  const { rows } = await client.query('select pg_current_snapshot()::text as seen');
  let cursor = { seen: rows[0].seen, target: null, afterId: '0', maxId: '0' };
  const log = { info: () => undefined, warn: () => undefined };
  const observer = { doorbell: (state) => console.log(state) };
  const doorbell = new Doorbell({ mode: 'notify', url, unread: () => unreadQuery(cursor), log, observer });
  await doorbell.start();
  const read = async () => {
    const page = await reader.read(cursor);
    if (page === null) return null;
    cursor = page.next;
    for (const row of page.rows) console.log('read ' + row.n);
    return page;
  };
  for (;;) if ((await read()) === null) await doorbell.wait(read);
`;
