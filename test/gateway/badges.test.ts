/** The numbers of a badge that rise by new notifications are reckoned, told at once, and right in the end. */

import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { startRig, tokenFor, type Client, type Rig } from './support.js';

let rig: Rig;
beforeAll(async () => {
  rig = await startRig();
});
afterAll(() => rig.stop());
afterEach(() => rig.hangUp());

const queries = (): Promise<number> => rig.metric('belfry_gateway_badge_queries_total');
const rose = (userId: string, from: number, through = from) =>
  ({ to: 'badge', userId, onlyRises: true, rose: [from, through] }) as const;
const badges = (client: Client): unknown[] =>
  client.all.filter(({ event }) => event === 'badge').map(({ data }) => data);
/** Everything that was published before it has been heard. */
const settled = (client: Client): Promise<unknown> => client.request({ op: 'ping' });

it('new notifications add to the numbers without a query, on all sockets of the person', async () => {
  await rig.notification('81', 'from before');
  const [one, other] = [await rig.login('81'), await rig.login('81')];
  const asked = await queries();
  for (const [from, through] of [
    [2, 2],
    [3, 5],
  ] as const) {
    for (let seq = from; seq <= through; seq++) rig.broker.publish([await rig.notification('81')]);
    rig.broker.publish([rose('81', from, through)]);
  }
  await settled(one);
  await settled(other);
  for (const client of [one, other])
    expect(badges(client)).toEqual([
      { unseen: 2, unread: 2 },
      { unseen: 5, unread: 5 },
    ]);
  expect(await queries()).toBe(asked);
  // And are counted a little later, which finds the same.
  await expect.poll(queries, { timeout: 10_000 }).toBe(asked + 1);
  await settled(one);
  expect(badges(one)).toHaveLength(2);
});

it('what comes twice, or was counted before it came, adds nothing', async () => {
  const client = await rig.login('82');
  const publication = await rig.notification('82');
  rig.broker.publish([publication, rose('82', 1), rose('82', 1)]);
  const next = await rig.notification('82');
  rig.broker.publish([{ to: 'badge', userId: '82' }]);
  await client.until(({ event, data }) => event === 'badge' && (data as { unread: number }).unread === 2);
  rig.broker.publish([next, rose('82', 2), rose('82', 1)]);
  await settled(client);
  expect(badges(client)).toEqual([
    { unseen: 1, unread: 1 },
    { unseen: 2, unread: 2 },
  ]);
});

it('after a position of which nothing was heard the inbox is counted', async () => {
  const client = await rig.login('83');
  await rig.notification('83', 'lost on its way');
  rig.broker.publish([await rig.notification('83'), rose('83', 2)]);
  expect((await client.push('badge')).data).toEqual({ unseen: 2, unread: 2 });
});

it('while the inbox is being counted, what comes is counted after it', async () => {
  const client = await rig.login('84');
  const blocker = await rig.db.client();
  await blocker.query('begin; lock table belfry.head in access exclusive mode');
  const asked = await queries();
  rig.broker.publish([{ to: 'badge', userId: '84' }]);
  await expect.poll(queries).toBe(asked + 1);
  rig.broker.publish([rose('84', 1)]);
  await settled(client);
  // Nobody knows yet whether the answer will hold it.
  expect(badges(client)).toEqual([]);
  await blocker.query('rollback');
  await rig.notification('84');
  await expect.poll(queries).toBe(asked + 2);
  await expect.poll(() => badges(client).at(-1)).toEqual({ unseen: 1, unread: 1 });
});

it('numbers that were marked down meanwhile are not reckoned from', async () => {
  const client = await rig.login('85');
  for (let seq = 1; seq <= 3; seq++) rig.broker.publish([await rig.notification('85'), rose('85', seq)]);
  await client.until(({ event, data }) => event === 'badge' && (data as { unread: number }).unread === 3);
  // By another process, whose word of it is late.
  await rig.db.pool.query(`select belfry.mark('85', 'read', null, 3, null)`);
  rig.broker.publish([await rig.notification('85'), rose('85', 5)]);
  expect((await client.push('badge')).data).toEqual({ unseen: 1, unread: 1 });
});

it('what the rule of who may read what hides is taken off again soon', async () => {
  const client = await rig.login('86');
  const publication = await rig.notification('86');
  await rig.db.pool.query(
    `update belfry.notification set actors = array['999999'], actor_count = 1 where user_id = '86'`,
  );
  rig.broker.publish([publication, rose('86', 1)]);
  expect((await client.push('badge')).data).toEqual({ unseen: 1, unread: 1 });
  await expect.poll(() => badges(client).at(-1), { timeout: 10_000 }).toEqual({ unseen: 0, unread: 0 });
});

it('the numbers end at 100, and are then not asked for', async () => {
  const client = await rig.login('87');
  await rig.db.pool.query(
    `insert into belfry.head (user_id, seq) values ('87', 101);
     insert into belfry.notification (user_id, seq, type, group_key, open, message, first_at, last_at)
     select '87', n, 'system', 'many' || n, false, 'x', now(), now() from generate_series(1, 101) n`,
  );
  rig.broker.publish([rose('87', 1, 99)]);
  rig.broker.publish([rose('87', 100, 101)]);
  await settled(client);
  expect(badges(client)).toEqual([
    { unseen: 99, unread: 99 },
    { unseen: 100, unread: 100 },
  ]);
});

it('somebody who joins meanwhile is told the numbers of now', async () => {
  const first = await rig.login('88');
  const blocker = await rig.db.client();
  await blocker.query(
    `alter table belfry.epoch rename to epochs;
     create view belfry.epoch as select * from belfry.epochs where pg_advisory_xact_lock_shared(88) is not null;
     select pg_advisory_lock(88)`,
  );
  const joining = rig.login('88');
  const waits = `select count(*)::int as n from pg_locks where locktype = 'advisory' and objid = 88 and not granted`;
  await expect.poll(async () => (await rig.db.pool.query<{ n: number }>(waits)).rows[0]?.n).toBe(1);
  rig.broker.publish([await rig.notification('88'), rose('88', 1)]);
  await settled(first);
  await blocker.query('select pg_advisory_unlock(88)');
  const second = await joining;
  // It was read before.
  expect(second.all[0]?.ok).toMatchObject({ unseen: 0, unread: 0 });
  expect((await second.push('badge')).data).toEqual({ unseen: 1, unread: 1 });
  await blocker.query('drop view belfry.epoch; alter table belfry.epochs rename to epoch');
});

it.each([
  ['joins', () => rig.login('89')],
  ['refreshes its token', (other: Client) => other.request({ op: 'auth', token: tokenFor('89') })],
])('what a socket that %s was told already is told to the others when it is published', async (_, ask) => {
  const [one, other] = [await rig.login('89'), await rig.login('89')];
  const { seq, ...publication } = await rig.notification('89');
  await ask(other);
  rig.broker.publish([{ seq, ...publication }, rose('89', seq)]);
  await settled(one);
  expect(badges(one)).toEqual([{ unseen: seq, unread: seq }]);
});

it('so it is where the numbers have come to their end', async () => {
  await rig.db.pool.query(
    `insert into belfry.head (user_id, seq) values ('90', 99);
     insert into belfry.notification (user_id, seq, type, group_key, open, message, first_at, last_at)
     select '90', n, 'system', 'many' || n, false, 'x', now(), now() from generate_series(1, 99) n`,
  );
  const first = await rig.login('90');
  const publication = await rig.notification('90');
  await rig.login('90');
  rig.broker.publish([publication, rose('90', 100)]);
  await settled(first);
  expect(badges(first)).toEqual([{ unseen: 100, unread: 100 }]);
});

it('a count that began before somebody came does not take back what they were told', async () => {
  const gone = await rig.login('91');
  const blocker = await rig.db.client();
  await blocker.query(
    `alter table belfry.head rename to heads;
     create view belfry.head as select user_id, seq from belfry.heads
      where case when current_query() like 'select u.user_id, coalesce%' then pg_advisory_xact_lock_shared(91) is not null else true end;
     insert into belfry.heads values ('91', 1);
     select pg_advisory_lock(91)`,
  );
  rig.broker.publish([{ to: 'badge', userId: '91' }]);
  const waits = `select count(*)::int as n from pg_locks where locktype = 'advisory' and objid = 91 and not granted`;
  await expect.poll(async () => (await rig.db.pool.query<{ n: number }>(waits)).rows[0]?.n).toBe(1);
  gone.socket.terminate();
  await expect.poll(() => rig.gateway.context.people.hubs.has('91')).toBe(false);
  await rig.db.pool.query(
    `insert into belfry.notification (user_id, seq, type, group_key, open, message, first_at, last_at)
     values ('91', 1, 'system', 'x', false, 'x', now(), now())`,
  );
  const back = await rig.login('91');
  expect(back.all[0]?.ok).toMatchObject({ unread: 1 });
  const asked = await queries();
  await blocker.query('select pg_advisory_unlock(91)');
  await expect.poll(queries, { timeout: 10_000 }).toBe(asked + 1);
  await expect.poll(() => badges(back).at(-1) ?? { unread: 1 }, { timeout: 10_000 }).toMatchObject({ unread: 1 });
  await blocker.query('drop view belfry.head; alter table belfry.heads rename to head');
});
