/**
 * Open subscriptions are asked again by themselves: at a refresh of the token, at a block, when a source changes, every minute;
 * whatever is the matter with the config's SQL, or with the way to Postgres.
 */

import { afterAll, afterEach, beforeAll, expect, inject, it, onTestFinished, vi } from 'vitest';
import { withPort } from '../support/postgres.js';
import { startProxy, type Proxy } from '../support/proxy.js';
import { addUsers, block, follow } from '../support/social.js';
import { startRig, tokenFor, type Client, type Rig } from './support.js';

let rig: Rig;
/** Between the gateway and Postgres, for the config's SQL alone. */
let proxy: Proxy;
let ada: string;
let bo: string;

/** A rule that is as slow or as broken as the test wants; whoever holds the lock 77 keeps its answers back. */
const moodSql = `
  create table public.mood (open boolean default true, broken boolean default false,
                            stuck_s float8 default 0, statement_s float8 default 0);
  insert into public.mood default values;
  create function public.may_read(who text, what text) returns boolean language plpgsql as $$
  declare answer boolean;
  begin
    if (select broken from public.mood) then raise 'out of order'; end if;
    perform pg_sleep(stuck_s) from public.mood where what = 'stuck';
    answer := open from public.mood;
    perform pg_advisory_xact_lock_shared(77);
    return answer;
  end $$`;

beforeAll(async () => {
  // Before the gateway starts: its minute is ours to pass. What is shorter goes by the clock.
  vi.useFakeTimers({ toFake: ['setInterval'] });
  proxy = await startProxy({ host: '127.0.0.1', port: Number(new URL(inject('postgresUrl')).port) });
  rig = await startRig({
    sql: moodSql,
    yaml: 'limits: { messagesPerSecond: 1000 }',
    change: (config) => ({
      ...config,
      database: { ...config.database, url: withPort(config.database.url, proxy.port) },
      presence: {
        read: {
          sql: `select from public.follows f where f.follower_id = :user and f.followed_id = :other
                   and (select pg_sleep(statement_s) is not null from public.mood)`,
        },
      },
      channels: {
        club: { read: { sql: 'select where public.may_read(:user, :id)' }, publish: 'none', recheck: ['mood'] },
        room: { read: { sql: 'select where public.may_read(:user, :id)' }, publish: 'none', recheck: ['mood'] },
        group: {
          read: { sql: 'select from public.follows f where f.follower_id = :user and f.followed_id = :id' },
          publish: 'none',
          recheck: ['user_follow'],
        },
      },
    }),
  });
});
afterEach(async () => {
  await rig.hangUp();
  await mood('open = default, broken = default, stuck_s = default, statement_s = default');
});
afterAll(async () => {
  vi.useRealTimers();
  await rig.stop();
  await proxy.close();
});

const mood = (is: string): Promise<unknown> => rig.db.pool.query(`update public.mood set ${is}`);
const recheck = (source: string): void => rig.broker.publish([{ to: 'control', kind: 'recheck', sources: [source] }]);
/** Statements of the config's SQL that are running. */
const asking = async (like: string): Promise<number> => {
  const { rows } = await rig.db.pool.query<{ n: number }>(
    `select count(*)::int as n from pg_stat_activity
      where datname = current_database() and application_name = 'belfry access' and state = 'active' and query like $1`,
    [like],
  );
  return rows[0]?.n ?? 0;
};
const subscribe = async (client: Client, channel: string): Promise<void> =>
  expect((await client.request({ op: 'subscribe', channel })).ok).toBeDefined();

/** Somebody who follows somebody, and is in that person's group. */
async function follower(): Promise<Client> {
  [ada = '', bo = ''] = await addUsers(rig.db.pool, 'Ada', 'Bo');
  await follow(rig.db.pool, ada, bo);
  const client = await rig.login(ada);
  await subscribe(client, `group:${bo}`);
  return client;
}

const loses = async (client: Client): Promise<void> =>
  expect((await client.push('unsubscribed'))['channel']).toBe(`group:${bo}`);
const unfollow = (): Promise<unknown> => rig.db.pool.query('delete from public.follows where follower_id = $1', [ada]);

it('when the token is refreshed', async () => {
  const client = await follower();
  await unfollow();
  await client.request({ op: 'auth', token: tokenFor(ada) });
  await loses(client);
});

it('when somebody blocks or is blocked', async () => {
  const client = await follower();
  await unfollow();
  rig.broker.publish([{ to: 'control', kind: 'blocks', userIds: [ada] }]);
  await loses(client);
});

it('while its recovery is read, and the subscribe is answered all the same', async () => {
  const client = await follower();
  await client.request({ op: 'unsubscribe', channel: `group:${bo}` });
  const blocker = await rig.db.client();
  await blocker.query('begin; lock table belfry.epoch');
  client.send({ id: 'again', op: 'subscribe', channel: `group:${bo}` });
  await expect.poll(() => rig.gateway.context.channels.hubs.has(`group:${bo}`)).toBe(true);
  await unfollow();
  rig.broker.publish([{ to: 'control', kind: 'blocks', userIds: [ada] }]);
  await loses(client);
  await blocker.query('commit');
  const { error } = await client.take((frame) => frame['id'] === 'again');
  expect(error).toMatchObject({ code: 'forbidden', retry: false });
});

it('every minute', async () => {
  const client = await follower();
  await unfollow();
  vi.advanceTimersByTime(59_000);
  await client.request({ op: 'ping' });
  expect(client.frames.filter((frame) => frame['event'] === 'unsubscribed')).toEqual([]);
  vi.advanceTimersByTime(1_000);
  await loses(client);
});

it('every minute whom one sees, too', async () => {
  const client = await follower();
  await rig.login(bo);
  expect((await client.request({ op: 'presence', users: [bo] })).ok).toEqual({ [bo]: 'online' });
  await unfollow();
  vi.advanceTimersByTime(60_000);
  expect((await client.push('presence')).data).toEqual({ user_id: bo, status: 'offline' });
});

it('although all at once take too long, and one even alone', async () => {
  const client = await follower();
  for (const channel of ['club:stuck', 'club:1', 'club:2']) await subscribe(client, channel);
  await mood('stuck_s = 3, open = false');
  recheck('mood');
  for (const channel of ['club:1', 'club:2']) expect((await client.push('unsubscribed'))['channel']).toBe(channel);
  await mood('stuck_s = 0');
  expect((await client.push('unsubscribed'))['channel']).toBe('club:stuck');
});

it('although the rule of another kind, asked before, is broken', async () => {
  const member = await rig.login('1');
  await subscribe(member, 'club:1');
  const client = await follower();
  await mood('broken = true');
  await unfollow();
  vi.advanceTimersByTime(60_000);
  await loses(client);
  await mood('open = false, broken = false');
  expect((await member.push('unsubscribed'))['channel']).toBe('club:1');
});

it('of many who watch somebody, together, while others are put out', async () => {
  const client = await follower();
  const viewers = [ada, ...(await addUsers(rig.db.pool, ...'123456789'))];
  for (const viewer of viewers.slice(1)) await follow(rig.db.pool, viewer, bo);
  await rig.login(bo);
  const clients = [client, ...(await Promise.all(viewers.slice(1).map((viewer) => rig.login(viewer))))];
  for (const viewer of clients) {
    expect((await viewer.request({ op: 'presence', users: [bo] })).ok).toEqual({ [bo]: 'online' });
  }
  await mood('statement_s = 1.5');
  const began = performance.now();
  vi.advanceTimersByTime(60_000);
  await expect.poll(() => asking('%statement_s%')).toBe(1);
  await rig.db.pool.query('delete from public.follows where followed_id = $1', [bo]);
  recheck('user_follow');
  await loses(client);
  // The statement that runs began before: it is the next one that says no.
  rig.broker.publish([{ to: 'control', kind: 'blocks', userIds: viewers }]);
  for (const viewer of clients)
    expect((await viewer.push('presence')).data).toEqual({ user_id: bo, status: 'offline' });
  // One after another they would take 15 s.
  expect(performance.now() - began).toBeLessThan(12_000);
  expect(client.all.map(({ event }) => event).slice(-2)).toEqual(['unsubscribed', 'presence']);
});

it('although the way to Postgres has gone silent', async () => {
  const client = await follower();
  await unfollow();
  proxy.pause();
  onTestFinished(() => proxy.resume());
  recheck('user_follow');
  const answer = await client.request({ op: 'subscribe', channel: 'group:1' });
  expect(answer['error']).toMatchObject({ code: 'unavailable', retry: true });
  proxy.reset();
  proxy.resume();
  await loses(client);
});

// Again when the machine was busy for so long that the rule ran into its bound.
it('of whoever subscribes just then', { retry: 2 }, async () => {
  const client = await follower();
  const [holder, late] = [await rig.db.client(), await rig.login(bo)];
  await holder.query('select pg_advisory_lock(77)');
  const subscribed = subscribe(late, 'club:1');
  // Awaited below; a failure in between is not unhandled.
  subscribed.catch(() => undefined);
  await expect.poll(() => asking('%may_read%')).toBe(1);
  await mood('open = false');
  await unfollow();
  recheck('mood');
  recheck('user_follow');
  await loses(client);
  await holder.end();
  await subscribed;
  expect((await late.push('unsubscribed'))['channel']).toBe('club:1');
});

it('of rooms, but not of all, which is everybody’s', async () => {
  const client = await follower();
  for (const channel of ['hall', 'all']) await subscribe(client, channel);
  await mood('open = false');
  recheck('mood');
  expect((await client.push('unsubscribed'))['channel']).toBe('hall');
  await client.request({ op: 'ping' });
  expect(client.frames.filter(({ event }) => event === 'unsubscribed')).toEqual([]);
});

it('and whoever is put out neither sees nor is seen in the channel', async () => {
  const client = await follower();
  const [cleo = '', dina = ''] = await addUsers(rig.db.pool, 'Cleo', 'Dina');
  for (const [one, other] of [
    [cleo, bo],
    [cleo, ada],
    [ada, dina],
    [dina, bo],
  ] as const)
    await follow(rig.db.pool, one, other);
  const watcher = await rig.login(cleo);
  await subscribe(watcher, `group:${bo}`);
  for (const one of [client, watcher])
    expect((await one.request({ op: 'presence', channel: `group:${bo}` })).ok).toBeDefined();
  await rig.db.pool.query('delete from public.follows where follower_id = $1 and followed_id = $2', [ada, bo]);
  recheck('user_follow');
  await loses(client);
  await subscribe(await rig.login(dina), `group:${bo}`);
  expect(await watcher.push('presence')).toEqual({
    event: 'presence',
    channel: `group:${bo}`,
    data: { user_id: ada, status: 'offline' },
  });
  await client.request({ op: 'ping' });
  expect(client.all.filter(({ event }) => event === 'presence')).toEqual([]);
});

it('every minute whom one must not see, too', async () => {
  const client = await follower();
  await rig.login(bo);
  await client.request({ op: 'presence', users: [bo] });
  await block(rig.db.pool, bo, ada);
  vi.advanceTimersByTime(60_000);
  expect((await client.push('presence')).data).toEqual({ user_id: bo, status: 'offline' });
});
