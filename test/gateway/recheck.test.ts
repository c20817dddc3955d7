/** Open subscriptions are asked again by themselves: at a refresh of the token, at a block, every minute. */

import { afterAll, afterEach, beforeAll, expect, it, vi } from 'vitest';
import { addUsers, block } from '../support/social.js';
import { startRig, tokenFor, type Client, type Rig } from './support.js';

let rig: Rig;
let ada: string;
let bo: string;

beforeAll(async () => {
  // Before the gateway starts: its minute is ours to pass. What is shorter goes by the clock.
  vi.useFakeTimers({ toFake: ['setInterval'] });
  rig = await startRig({
    change: (config) => ({
      ...config,
      presence: {
        read: { sql: 'select from public.follows f where f.follower_id = :user and f.followed_id = :other' },
      },
      channels: {
        group: {
          read: { sql: 'select from public.follows f where f.follower_id = :user and f.followed_id = :id' },
          publish: 'none',
          recheck: [],
        },
      },
    }),
  });
});
afterEach(() => rig.hangUp());
afterAll(async () => {
  vi.useRealTimers();
  await rig.stop();
});

/** Somebody who follows somebody, and is in that person's group. */
async function follower(): Promise<Client> {
  [ada = '', bo = ''] = await addUsers(rig.db.pool, 'Ada', 'Bo');
  await rig.db.pool.query('insert into public.follows (follower_id, followed_id) values ($1, $2)', [ada, bo]);
  const client = await rig.login(ada);
  expect((await client.request({ op: 'subscribe', channel: `group:${bo}` })).ok).toBeDefined();
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

it('every minute whom one must not see, too', async () => {
  const client = await follower();
  await rig.login(bo);
  await client.request({ op: 'presence', users: [bo] });
  await block(rig.db.pool, bo, ada);
  vi.advanceTimersByTime(60_000);
  expect((await client.push('presence')).data).toEqual({ user_id: bo, status: 'offline' });
});
