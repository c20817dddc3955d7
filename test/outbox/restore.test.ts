/** After a promotion, a dump and restore, a copy elsewhere: what was unread is read once, what was read is not read again. */
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { installCapture } from '../../src/capture/install.js';
import { seedCounter } from '../../src/inbox/seed.js';
import type { Cursor } from '../../src/outbox/cursor.js';
import type { Leadership } from '../../src/outbox/lease.js';
import { judgePast, settlePast } from '../../src/outbox/restore.js';
import { serverInfo } from '../../src/postgres/server.js';
import { storeDead } from '../../src/relay/dead-letters/aside.js';
import { requestJob, takeJob } from '../../src/relay/replay/jobs.js';
import { startBatches } from '../relay/batches.js';
import { createTestDatabase, type TestDatabase } from '../support/postgres.js';
import { addPost, addUsers, like, socialConfig, socialSql } from '../support/social.js';
import { Collector, cursorNow, insertEvent } from './rig.js';

const now = { systemIdentifier: '7', timeline: '00000001', nextXid: '1000' };
const cursor = { seen: '900:910:', target: null };

test.each([
  ['first', { systemIdentifier: null, timeline: null, cursor }],
  ['same', { systemIdentifier: '7', timeline: '00000001', cursor }],
  ['promoted', { systemIdentifier: '7', timeline: '00000002', cursor }],
  ['restored', { systemIdentifier: '8', timeline: '00000001', cursor }],
  ['restored', { systemIdentifier: '7', timeline: '00000001', cursor: { seen: '900:1001:', target: null } }],
  ['restored', { systemIdentifier: null, timeline: null, cursor: { seen: '900:1001:', target: null } }],
  ['restored', { systemIdentifier: '7', timeline: '00000001', cursor: { seen: '900:910:', target: '900:1001:' } }],
])('%s: %j', (past, stored) => {
  expect(judgePast(stored, now)).toBe(past);
});

/** What a leader finds when the stored cursor is this one. */
async function leadershipOf(client: pg.Client, set: string): Promise<Leadership> {
  const info = await serverInfo(client);
  const { rows } = await client.query<{ [key: string]: string }>(
    `update belfry.relay set system_identifier = $1, timeline = $2, target = null, after_id = 0 returning term::text`,
    [info.systemIdentifier, info.timeline],
  );
  const { rows: stored } = await client.query<Record<string, string | null>>(
    `update belfry.relay set ${set}
     returning term::text, epoch, seen::text, target::text, after_id::text, max_id::text, system_identifier, timeline`,
  );
  const row = stored[0] ?? {};
  expect(row['term']).toBe(rows[0]?.['term']);
  return {
    term: row['term'] ?? '',
    epoch: row['epoch'] ?? '',
    paused: false,
    cursor: {
      seen: row['seen'] ?? '',
      target: row['target'] ?? null,
      afterId: row['after_id'] ?? '0',
      maxId: row['max_id'] ?? '0',
    },
    systemIdentifier: row['system_identifier'] ?? null,
    timeline: row['timeline'] ?? null,
  };
}

describe('settled', () => {
  let database: TestDatabase;
  let client: pg.Client;
  let collector: Collector;

  beforeAll(async () => {
    database = await createTestDatabase();
  });
  afterAll(() => database.drop());
  beforeEach(async () => {
    await database.pool.query('truncate belfry.outbox');
    client = await database.client();
    collector = await Collector.open(database.url, { limit: 3, smallLimit: 2 });
  });
  afterEach(async () => {
    await client.end();
    await collector.client.end();
  });

  const leadershipWith = (set: string): Promise<Leadership> => leadershipOf(client, set);

  /** A row as a dump brings it: its xid is of the old cluster, whose counter was far ahead. */
  async function dumped(n: string, xid: number): Promise<string> {
    const { rows } = await client.query<{ id: string }>(
      `insert into belfry.outbox (xid, source, op, new) values ($2::text::xid8, 'test', 'created', jsonb_build_object('n', $1::text)) returning id::text`,
      [n, String(xid)],
    );
    return rows[0]?.id ?? '0';
  }

  test('the same database: nothing is written', async () => {
    const leadership = await leadershipWith(`max_id = max_id`);
    expect(await settlePast(client, leadership)).toEqual({
      past: 'same',
      cursor: leadership.cursor,
      epoch: leadership.epoch,
    });
  });

  test('promoted: a new epoch, the cursor stays', async () => {
    const leadership = await leadershipWith(`timeline = '000000FF'`);
    const settled = await settlePast(client, leadership);
    expect(settled).toMatchObject({ past: 'promoted', cursor: leadership.cursor });
    expect(settled.epoch).not.toBe(leadership.epoch);
    expect((await settlePast(client, await leadershipWith('max_id = max_id'))).past).toBe('same');
  });

  test('restored into a younger cluster: what was unread then, and all that is new, once', async () => {
    const million = 1_000_000_000;
    await dumped('read 1', million + 1);
    await dumped('unread, lower id', million + 5);
    const lastRead = await dumped('read 2', million + 4);
    await dumped('unread', million + 11);
    // Written after the restore, before the relay came: numbers of the new cluster, all "visible" in the old snapshot.
    await insertEvent(client, 'new 1');
    const open = await database.client();
    await open.query('begin');
    await insertEvent(open, 'open while it happens');
    const leadership = await leadershipWith(
      `seen = '${million + 1}:${million + 10}:${million + 5}', max_id = ${lastRead}`,
    );
    const settled = await settlePast(client, leadership);
    expect(settled.past).toBe('restored');
    expect(settled.epoch).not.toBe(leadership.epoch);
    await insertEvent(client, 'new 2');
    collector.cursor = settled.cursor;
    await collector.drain();
    expect(collector.numbers).toEqual(['unread, lower id', 'unread', 'new 1', 'new 2']);
    await open.query('commit');
    await collector.drain();
    expect(collector.numbers.slice(4)).toEqual(['open while it happens']);
    expect(await collector.drain()).toEqual([]);
    await open.end();
  });

  test('restored in the middle of a delta: what the pages had brought is not read again', async () => {
    const far = 2_000_000_000;
    await dumped('read before', far + 1);
    await dumped('read in a page', far + 12);
    const lastRead = await dumped('read in a page too', far + 11);
    await dumped('unread', far + 13);
    const leadership = await leadershipWith(
      `seen = '${far}:${far + 10}:', target = '${far}:${far + 20}:', after_id = ${lastRead}, max_id = ${lastRead}`,
    );
    const settled = await settlePast(client, leadership);
    collector.cursor = settled.cursor;
    await collector.drain();
    expect(collector.numbers).toEqual(['unread']);
  });

  test('restored while others commit: what it rewrites lies past the snapshot that it takes', async () => {
    for (let round = 0; round < 5; round += 1) {
      await client.query('truncate belfry.outbox');
      await dumped('unread', 3_000_000_000);
      const leadership = await leadershipWith(`seen = '1:2999999999:', max_id = 0`);
      let over = false;
      const others = Array.from({ length: 3 }, async () => {
        while (!over) await database.pool.query('select pg_current_xact_id()');
      });
      const settled = await settlePast(client, leadership);
      over = true;
      await Promise.all(others);
      collector.cursor = settled.cursor;
      expect((await collector.drain()).map((row) => row.n)).toEqual(['unread']);
    }
  });

  test('restored once more: what the restore before found unread and counted was read since', async () => {
    const far = 4_000_000_000;
    onTestFinished(
      async () => void (await database.pool.query(`delete from belfry.source_state where source = 'test'`)),
    );
    for (const name of ['one', 'two']) {
      const id = await dumped(name, far + 50);
      await client.query(
        `insert into belfry.source_state (source, seed) values ('test', $1)
         on conflict (source) do update set seed = excluded.seed, at = clock_timestamp()`,
        [`${far + 100}:${far + 100}:`],
      );
      const leadership = await leadershipWith(`seen = '${far}:${far + 10}:', max_id = ${id}`);
      collector.cursor = (await settlePast(client, leadership)).cursor;
      expect((await collector.drain()).map((row) => row.n)).toEqual([name]);
    }
  });

  test('a leader of an older term changes nothing', async () => {
    await dumped('unread', 3_000_000_000);
    const leadership = await leadershipWith(`seen = '1:3000000000:', max_id = 0, timeline = '000000FF'`);
    await client.query('update belfry.relay set term = term + 1');
    await expect(settlePast(client, leadership)).rejects.toMatchObject({ code: 'lease_lost' });
    const { rows } = await client.query(`select xid::text from belfry.outbox`);
    expect(rows).toEqual([{ xid: '3000000000' }]);
  });
});

/** Numbers of a cluster that is far ahead. */
const farSql = `
create function far(x xid8) returns xid8 language sql return (x::text::bigint + 1000000000)::text::xid8;
create function far(s pg_snapshot) returns pg_snapshot language sql return format('%s:%s:%s', far(pg_snapshot_xmin(s)), far(pg_snapshot_xmax(s)),
  (select string_agg(far(x)::text, ',' order by x) from pg_snapshot_xip(s) x))::pg_snapshot`;

test('restored: counters go on from what they had counted, replays and repairs from what was', async () => {
  const database = await createTestDatabase({ prepare: `${socialSql};${farSql}` });
  onTestFinished(() => database.drop());
  const client = await database.client();
  const batches = await startBatches(database, socialConfig(database.url));
  onTestFinished(() => batches.stop());
  const source = batches.config.sources.find(({ name }) => name === 'post_like');
  if (source === undefined) throw new Error('no such source');
  await installCapture(client, batches.config);
  await seedCounter(client, source);
  const [ada = '', ...fans] = await addUsers(client, 'Ada', 'Bo', 'Cleo', 'Dora', 'Eve', 'Fay', 'Gil', 'Hal');
  const post = await addPost(client, ada);
  const liked = (by = client) => like(by, fans.shift() ?? '', post);
  const counted = async () =>
    (await client.query<{ count: number }>(`select count::int from belfry.counter where source = 'post_like'`)).rows[0]
      ?.count;
  const lastId = async (by = client) =>
    (await by.query<{ id: string }>('select max(id)::text as id from belfry.outbox')).rows[0]?.id ?? '0';
  const bury = (id: string, cursor: Cursor): Promise<unknown> =>
    storeDead({ facts: client, writer: batches.writer }, '0', id, new Error('poison'), cursor);

  // Read; and one that is dead.
  await liked();
  await batches.run();
  await liked();
  const before = await cursorNow(client);
  await bury(await lastId(), { ...before, maxId: await lastId() });
  // A count of the table, between the commits of one that is read in its delta, and dead, and of one that is not.
  const slow = await database.client();
  await slow.query('begin');
  await liked(slow);
  const slowId = await lastId(slow);
  await liked();
  await seedCounter(client, source);
  await slow.query('commit');
  const { seen: target } = await cursorNow(client);
  await bury(slowId, { seen: before.seen, target, afterId: slowId, maxId: slowId });
  await liked();
  const replay = await requestJob(client, { mode: 'deliver', filter: {}, rate: null, mapping: null });
  await takeJob(client, replay, '0', 'test');
  await client.query(`insert into belfry.lost (source, sqlstate) values ('post_like', '55P03')`);

  await client.query(`
    update belfry.outbox set xid = far(xid); update belfry.dead_event set xid = far(xid); update belfry.lost set xid = far(xid);
    update belfry.source_state set seed = far(seed); update belfry.replay_job set seen = far(seen), target = far(target)`);
  await liked();
  const leadership = await leadershipOf(
    client,
    `seen = far('${before.seen}'::pg_snapshot), target = far('${target}'::pg_snapshot), after_id = ${slowId}`,
  );
  const { past, cursor } = await settlePast(client, leadership);
  expect(past).toBe('restored');
  await batches.run();
  // Three by the count, one from before the restore, one from after it.
  expect(await counted()).toBe(5);
  await liked();
  await batches.run();
  expect(await counted()).toBe(6);
  await batches.retry();
  expect(await counted()).toBe(7);
  expect((await client.query('select from likes')).rowCount).toBe(7);

  expect(await takeJob(client, replay, '0', 'test')).toEqual({ seen: cursor.seen, target: null, targetId: '0' });
  const lost = await client.query('select from belfry.lost where pg_visible_in_snapshot(xid, pg_current_snapshot())');
  expect(lost.rowCount).toBe(1);
});
