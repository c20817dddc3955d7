/** Retention of inboxes and logs: what is old goes, what is young stays, and who comes back from before is told to fetch. */

import type pg from 'pg';
import { afterAll, beforeAll, beforeEach, expect, it, vi } from 'vitest';
import { parseConfig } from '../../src/config.js';
import { prune, pruneRows } from '../../src/inbox/prune.js';
import { PostgresInbox } from '../../src/inbox/inbox.js';
import { loadColumnTypes } from '../../src/schema/columns.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { socialConfig, socialSql } from '../support/social.js';
import { recover } from '../support/recover.js';

const day = 86_400_000;
const retention = { outboxMs: day, inboxMs: 7 * day, channelsMs: day / 24 };

let database: TestDatabase;
let client: pg.Client;
let inbox: PostgresInbox;

beforeAll(async () => {
  database = await createTestDatabase({ prepare: socialSql });
  client = await database.client();
  const config = parseConfig(socialConfig(database.url, { people: null }), {}, { path: 'test.yaml' });
  inbox = new PostgresInbox(database.pool, config, await loadColumnTypes(client, config));
});
afterAll(() => database.drop());
beforeEach(() =>
  client.query(`truncate belfry.notification, belfry.stream_position, belfry.notification_event, belfry.head, belfry.state_change, belfry.verdict,
    belfry.channel_event, belfry.announcement, belfry.held, belfry.pruned, belfry.revocation`),
);

/** Notifications of a person, one event behind each, the first with seq 1. */
async function notifications(userId: string, count: number, age: string): Promise<void> {
  await client.query(
    `with head as (
       insert into belfry.head as h (user_id, seq) values ($1, $2::int)
       on conflict (user_id) do update set seq = h.seq + excluded.seq returning seq - $2::int as before
     ), made as (
       insert into belfry.notification (user_id, seq, type, group_key, actor_count, event_count, first_at, last_at)
       select $1, head.before + n, 'system', $3 || n, 0, 1, clock_timestamp() - $3::interval, clock_timestamp() - $3::interval
         from head, generate_series(1, $2::int) n
       returning id, user_id, seq, group_key, last_at
     ), placed as (
       insert into belfry.stream_position (user_id, seq, notification_id) select user_id, seq, id from made
     )
     insert into belfry.notification_event (source, key, user_id, notification_id, event_id, at)
     select 'belfry.notify', group_key, user_id, id, 1, last_at from made`,
    [userId, count, age],
  );
}

const countIn = async (table: string): Promise<number> =>
  (await client.query<{ n: number }>(`select count(*)::int as n from belfry.${table}`)).rows[0]?.n ?? -1;

it('old notifications go with what stands behind them, young ones stay', async () => {
  await notifications('ada', pruneRows + 10, '8 days');
  await notifications('bo', 5, '6 days');
  let pieces = 0;
  const counts = await prune(client, retention, () => {
    pieces += 1;
    return Promise.resolve(true);
  });
  expect(counts).toMatchObject({ notifications: pruneRows + 10 });
  expect(pieces).toBeGreaterThan(7);
  expect(await countIn('notification')).toBe(5);
  expect(await countIn('notification_event')).toBe(5);
  expect(await countIn('stream_position')).toBe(5);
  expect(await prune(client, retention, () => Promise.resolve(true))).toMatchObject({ notifications: 0 });
});

it('an old one that got a new event stays', async () => {
  await notifications('ada', 2, '8 days');
  await client.query('update belfry.notification set last_at = clock_timestamp() where seq = 1');
  await prune(client, retention, () => Promise.resolve(true));
  expect((await client.query('select seq from belfry.notification')).rows).toEqual([{ seq: '1' }]);
});

it('so does one that gets it just as it is pruned', async () => {
  await notifications('ada', 2, '8 days');
  const other = await database.client();
  await other.query('begin');
  await other.query('update belfry.notification set last_at = clock_timestamp() where seq = 1');
  const pruning = prune(client, retention, () => Promise.resolve(true));
  await vi.waitFor(async () => {
    const { rowCount } = await other.query(
      `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
    );
    expect(rowCount).toBe(1);
  }, 20_000);
  await other.query('commit');
  expect(await pruning).toMatchObject({ notifications: 1 });
  expect((await database.pool.query('select seq from belfry.notification')).rows).toEqual([{ seq: '1' }]);
  expect((await database.pool.query('select from belfry.stream_position')).rowCount).toBe(1);
});

it('what is behind many such ones goes, if not at once', async () => {
  const pages = 43;
  await notifications('ada', pages * pruneRows, '1 hour');
  await notifications('bo', 5, '8 days');
  const place = { afterId: '0' };
  const pruned = async () => (await prune(client, retention, () => Promise.resolve(true), place)).notifications;
  expect([await pruned(), await pruned()]).toEqual([0, 5]);
  expect(place).toEqual({ afterId: '0' });
});

it('who was last here before what was pruned is told to fetch, nobody else', async () => {
  await notifications('ada', 3, '8 days');
  await notifications('ada', 2, '1 hour');
  await notifications('bo', 3, '1 hour');
  await prune(client, retention, () => Promise.resolve(true));
  const epoch = await inbox.epoch();
  expect(await recover(inbox, 'ada', 2, epoch)).toMatchObject({ recovered: false, frames: [] });
  expect((await inbox.recoverEach([{ userId: 'ada', since: 1, epoch }]))[0]).toMatchObject({ recovered: false });
  expect(await recover(inbox, 'ada', 3, epoch)).toMatchObject({ recovered: true, frames: [{ seq: 4 }, { seq: 5 }] });
  expect(await recover(inbox, 'ada', 5, epoch)).toMatchObject({ recovered: true, frames: [] });
  expect(await recover(inbox, 'bo', 0, epoch)).toMatchObject({ recovered: true });
});

it('how far a stream was pruned never goes back', async () => {
  await notifications('ada', 2, '8 days');
  // Pruned before the notifications are, and further on in the stream.
  await client.query(
    `insert into belfry.state_change (user_id, seq, state, at) values ('ada', 3, 'read', clock_timestamp() - interval '8 days')`,
  );
  await client.query(`update belfry.head set seq = 3 where user_id = 'ada'`);
  await notifications('ada', 1, '1 hour');
  await prune(client, retention, () => Promise.resolve(true));
  const epoch = await inbox.epoch();
  expect(await recover(inbox, 'ada', 2, epoch)).toMatchObject({ recovered: false, frames: [] });
  expect(await recover(inbox, 'ada', 3, epoch)).toMatchObject({ recovered: true, frames: [{ seq: 4 }] });
});

it('logs go after their own time', async () => {
  await client.query(`
    insert into belfry.channel_event (channel, "offset", at, event, data)
    select 'post:1', n, clock_timestamp() - n * interval '20 minutes', 'x', '{}' from generate_series(1, 6) n;
    insert into belfry.verdict (at, rule, event_ids, user_ids)
    select clock_timestamp() - n * interval '9 hours', 'self', '{1}', '{a}' from generate_series(1, 4) n;
    insert into belfry.state_change (user_id, seq, state, at)
    select 'ada', n, 'read', clock_timestamp() - n * interval '3 days' from generate_series(1, 4) n;
    insert into belfry.held (source, key, event_id, until) values ('s', 'a', 1, clock_timestamp() - interval '1 s'), ('s', 'b', 1, clock_timestamp() + interval '1 hour');
    insert into belfry.revocation (at, user_id) select clock_timestamp() - n * interval '11 hours', 'ada' from generate_series(1, 4) n`);
  expect(await prune(client, retention, () => Promise.resolve(true))).toMatchObject({
    channel_events: 4,
    verdicts: 2,
    state_changes: 2,
    held: 1,
    revocations: 2,
  });
  expect(await countIn('channel_event')).toBe(2);
  expect((await client.query('select user_id, seq from belfry.pruned')).rows).toEqual([{ user_id: 'ada', seq: '4' }]);
});

it('a job goes, but not while its event is a dead letter', async () => {
  await client.query(`
    insert into belfry.fanout_job (kind, source, key, event_id, step, row, done_at)
    select 'deliver', 's', n::text, n, '{}', '{}', clock_timestamp() - interval '8 days' from generate_series(1, 2) n;
    insert into belfry.dead_event (event_id, source, op, event_at, error) values (2, 's', 'created', clock_timestamp() - interval '9 days', 'poison')`);
  expect(await prune(client, retention, () => Promise.resolve(true))).toMatchObject({ wide_events: 1 });
  expect((await client.query('select event_id from belfry.fanout_job')).rows).toEqual([{ event_id: '2' }]);
  await client.query('truncate belfry.fanout_job, belfry.dead_event');
});

it('an inbox is kept at least as long as the outbox', async () => {
  await notifications('ada', 1, '8 days');
  await prune(client, { ...retention, outboxMs: 9 * day }, () => Promise.resolve(true));
  expect(await countIn('notification')).toBe(1);
});

it('ends between two pieces when it is told to', async () => {
  await notifications('ada', 3 * pruneRows, '8 days');
  let left = 11;
  await prune(client, retention, () => Promise.resolve((left -= 1) > 0));
  const rest = await countIn('notification');
  expect(rest).toBeGreaterThan(0);
  expect(rest).toBeLessThan(3 * pruneRows);
});
