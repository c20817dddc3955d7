/** Channels on a real Postgres: who may subscribe, what they get, in which order, and what happens to gaps. */

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { CounterPublication } from '../../src/broker/broker.js';
import { AccessRules } from '../../src/gateway/channels/access.js';
import { addUsers, block, follow } from '../support/social.js';
import { startRig, tokenFor, type Client, type Frame, type Rig } from './support.js';

let rig: Rig;
let [ada, bob, cleo] = ['', '', ''];
beforeAll(async () => {
  rig = await startRig({
    yaml: `
presence: { read: "select from public.follows where follower_id = :user and followed_id = :other" }
limits: { subscriptions: 5, messagesPerSecond: 200 }`,
    change: (config) => ({
      ...config,
      channels: {
        ...config.channels,
        room: { read: 'public', publish: 'public', recheck: [] },
        group: {
          read: { sql: 'select from public.follows f where f.follower_id = :user and f.followed_id = :id -- members' },
          publish: 'none',
          recheck: ['user_follow'],
        },
        broken: { read: { sql: 'select from no_such_table where x = :id' }, publish: 'none', recheck: [] },
        slow: { read: { sql: 'select from pg_sleep(30) where :id = :user' }, publish: 'none', recheck: [] },
      },
    }),
  });
  [ada = '', bob = '', cleo = ''] = await addUsers(rig.db.pool, 'Ada', 'Bob', 'Cleo');
});
afterEach(() => rig.hangUp());
afterAll(() => rig.stop());

const subscribe = (client: Client, channel: string, more: Record<string, unknown> = {}): Promise<Frame> =>
  client.request({ op: 'subscribe', channel, ...more });
const offsets = (frames: readonly Frame[]): unknown[] =>
  frames.filter((frame) => 'offset' in frame).map((frame) => frame['offset']);
const pong = (client: Client): Promise<Frame> => client.request({ op: 'ping' });

describe('subscribe', () => {
  it('answers offset, epoch and every counter', async () => {
    const client = await rig.login(ada);
    const answer = await subscribe(client, 'post:9001');
    expect(answer.ok).toMatchObject({
      channel: 'post:9001',
      offset: 0,
      recovered: true,
      state: { likes_count: 0, comments_count: 0 },
    });
  });

  it.each([
    ['of a kind that the config does not name', 'secret:1', 'forbidden'],
    ['that the SQL gives no row for', 'group:4711', 'forbidden'],
    ['whose id cannot be cast', 'group:not-a-number', 'forbidden'],
    ['without an id', 'post:', 'forbidden'],
    ['whose SQL fails', 'broken:1', 'unavailable'],
  ])('refuses a channel %s', async (_what, channel, code) => {
    const client = await rig.login(ada);
    const { error } = (await subscribe(client, channel)) as { error: { code: string; message: string } };
    expect(error.code).toBe(code);
    expect(error.message).not.toMatch(/no_such_table|select|relation/);
  });

  it('bounds the time that the SQL may take, and others do not wait for it', async () => {
    const [client, other] = [await rig.login(ada), await rig.login(bob)];
    const began = performance.now();
    const slow = subscribe(client, `slow:${ada}`);
    expect((await subscribe(other, 'post:1')).ok).toBeDefined();
    expect(performance.now() - began).toBeLessThan(1500);
    expect((await slow)['error']).toMatchObject({ code: 'unavailable', retry: true });
    expect(performance.now() - began).toBeLessThan(4000);
  });

  it('allows whom the SQL gives a row for', async () => {
    await rig.db.pool.query('insert into public.follows (follower_id, followed_id) values ($1, $2)', [bob, ada]);
    const client = await rig.login(bob);
    expect((await subscribe(client, `group:${ada}`)).ok).toBeDefined();
  });

  it('refuses more than limits.subscriptions', async () => {
    const client = await rig.login(ada);
    for (let i = 0; i < 5; i++) expect((await subscribe(client, `post:${i}`)).ok).toBeDefined();
    expect((await subscribe(client, 'post:5'))['error']).toMatchObject({ code: 'too_many_subscriptions' });
    expect((await subscribe(client, 'post:4')).ok).toBeDefined();
    await client.request({ op: 'unsubscribe', channel: 'post:0' });
    expect((await subscribe(client, 'post:5')).ok).toBeDefined();
  });

  it('replays after an offset, then live, each once and in order', async () => {
    const client = await rig.login(ada);
    for (let i = 0; i < 5; i++) await rig.event('room1', 'said', { i });
    const { epoch } = (await subscribe(client, 'room1')).ok as { epoch: string };
    await client.request({ op: 'unsubscribe', channel: 'room1' });
    const answer = await subscribe(client, 'room1', { offset: 2, epoch });
    expect(answer.ok).toMatchObject({ offset: 5, recovered: true });
    rig.broker.publish([await rig.event('room1', 'said', { i: 5 })]);
    await client.take((frame) => frame['offset'] === 6);
    expect(offsets(client.all)).toEqual([3, 4, 5, 6]);
    const foreign = await subscribe(client, 'room1', { offset: 2, epoch: 'another' });
    expect(foreign.ok).toMatchObject({ recovered: false, offset: 6 });
  });

  it('gets each event once and in order while others publish all the time', async () => {
    const base = await rig.event('busy', 'said');
    const { epoch } = (await subscribe(await rig.login(ada), 'busy')).ok as { epoch: string };
    let stopped = false;
    const publishing = (async () => {
      while (!stopped) rig.broker.publish([await rig.event('busy', 'said')]);
    })();
    const clients = await Promise.all(Array.from({ length: 5 }, () => rig.login(bob)));
    for (const client of clients) {
      for (let round = 0; round < 4; round++) {
        client.frames.length = 0;
        const at = client.all.length;
        const answer = await subscribe(client, 'busy', { offset: base.offset, epoch });
        if (answer.ok!['recovered'] !== true) break;
        await client.take((frame) => Number(frame['offset']) > Number(answer.ok!['offset']) + 5);
        await client.request({ op: 'unsubscribe', channel: 'busy' });
        const got = offsets(client.all.slice(at)).map(Number);
        expect(got).toEqual(got.map((_, i) => base.offset + 1 + i));
      }
    }
    stopped = true;
    await publishing;
  });
});

describe('a subscriber who knows more than the hub', () => {
  it('does not get again what its answer stood for, and is not left behind', async () => {
    const [first, second] = [await rig.login(ada), await rig.login(bob)];
    await subscribe(first, 'ahead');
    const committed = await rig.event('ahead', 'said', { n: 1 });
    expect((await subscribe(second, 'ahead')).ok).toMatchObject({ offset: 1 });
    rig.broker.publish([committed, await rig.event('ahead', 'said', { n: 2 })]);
    rig.broker.publish([await rig.event('ahead', 'said', { n: 3 })]);
    for (const client of [first, second]) await client.take((frame) => frame['offset'] === 3);
    expect(offsets(first.all).slice(-3)).toEqual([1, 2, 3]);
    expect(second.all.filter((frame) => frame['event'] === 'said').map((frame) => frame['offset'])).toEqual([2, 3]);
    expect(rig.gateway.context.channels.hubs.get('ahead')?.individual.size).toBe(0);
  });
});

describe('a counter that changes while somebody subscribes', () => {
  const count = (
    channel: string,
    comments_count: number,
    more: Partial<CounterPublication> = {},
  ): CounterPublication => ({
    to: 'counter',
    channel,
    event: 'comment_update',
    data: { comments_count },
    actorId: null,
    ...more,
  });
  const counts = (client: Client): unknown[] =>
    client.all.filter((frame) => frame['event'] === 'comment_update').map((frame) => frame.data!['comments_count']);

  /** Asks for a channel; what `meanwhile` does happens while the recovery is read. */
  async function during(
    clients: readonly Client[],
    channel: string,
    meanwhile: () => void | Promise<void>,
  ): Promise<void> {
    const blocker = await rig.db.client();
    await blocker.query('begin; lock table belfry.epoch');
    const answers = clients.map((client) => subscribe(client, channel));
    await expect.poll(() => rig.gateway.context.channels.hubs.get(channel)?.joining).toBe(clients.length);
    await meanwhile();
    await blocker.query('commit');
    for (const answer of await Promise.all(answers)) expect(answer.ok).toBeDefined();
  }

  it('is told behind the answer, its newest value, without an actor who is blocked', async () => {
    const [pia = '', quin = ''] = await addUsers(rig.db.pool, 'Pia', 'Quin');
    await block(rig.db.pool, pia, quin);
    const [blocker, free] = [await rig.login(pia), await rig.login(bob)];
    await during([blocker, free], 'count1', () => {
      rig.broker.publish([
        count('count1', 1, { counter: 'a 1' }),
        count('count1', 5, { counter: 'a 2', actorId: quin }),
      ]);
    });
    expect((await blocker.push('comment_update')).data).toEqual({ comments_count: 1 });
    expect((await blocker.push('comment_update')).data).toEqual({ comments_count: 5 });
    await free.push('comment_update');
    expect((await free.push('comment_update')).data).toEqual({ comments_count: 5, user_id: quin });
    expect(rig.gateway.context.channels.hubs.get('count1')).toMatchObject({ joining: 0, counts: null });
    const late = await rig.login(ada);
    await subscribe(late, 'count1');
    await pong(late);
    expect(counts(late)).toEqual([]);
  });

  it('is not told when a logged event has told a newer value', async () => {
    const client = await rig.login(ada);
    await during([client], 'count2', async () => {
      rig.broker.publish([count('count2', 1), await rig.event('count2', 'comment_update', { comments_count: 2 })]);
    });
    rig.broker.publish([count('count2', 3, { counter: 'another' })]);
    await client.push('comment_update');
    expect(counts(client)).toEqual([3]);
  });

  it('waits for the stream where the answer stood for more than the hub knew', async () => {
    const [first, second] = [await rig.login(ada), await rig.login(bob)];
    await subscribe(first, 'count3');
    const committed = await rig.event('count3', 'comment_update', { comments_count: 6 });
    expect((await subscribe(second, 'count3')).ok).toMatchObject({ offset: 1 });
    rig.broker.publish([count('count3', 5), count('count3', 1, { counter: 'another' })]);
    rig.broker.publish([committed, count('count3', 7, { counter: 'a third' })]);
    for (const client of [first, second]) await client.take((frame) => frame.data?.['comments_count'] === 7);
    expect(counts(first)).toEqual([5, 1, 6, 7]);
    expect(counts(second)).toEqual([1, 7]);
  });

  it('does not wait for a sweep where the hub will never hear of what the answer stood for', async () => {
    const [first, second] = [await rig.login(ada), await rig.login(bob)];
    await subscribe(first, 'count5');
    await rig.event('count5', 'said');
    expect((await subscribe(second, 'count5')).ok).toMatchObject({ offset: 1 });
    rig.broker.publish([count('count5', 4)]);
    // A sweep comes every ten seconds.
    expect((await second.take(({ event }) => event === 'comment_update', 3000)).data).toEqual({ comments_count: 4 });
    await first.push('said');
  });

  it('is told as resync where more changed than are kept', async () => {
    const client = await rig.login(ada);
    await during([client], 'count4', () => {
      rig.broker.publish(Array.from({ length: 513 }, (_, n) => count('count4', n, { counter: `a ${n}` })));
    });
    expect((await client.push('resync')).data).toEqual({ reason: 'channel', channel: 'count4' });
    expect(counts(client)).toEqual([]);
  });
});

describe('gaps', () => {
  it('fetches what the broker lost', async () => {
    const client = await rig.login(ada);
    await subscribe(client, 'gap1');
    await rig.event('gap1', 'said');
    rig.broker.publish([await rig.event('gap1', 'said')]);
    await client.take((frame) => frame['offset'] === 2);
    expect(offsets(client.all)).toEqual([1, 2]);
  });

  it('says resync where the log does not hold it any more', async () => {
    const client = await rig.login(ada);
    await subscribe(client, 'gap2');
    await rig.event('gap2', 'said');
    await rig.db.pool.query(`delete from belfry.channel_event where channel = 'gap2'`);
    rig.broker.publish([await rig.event('gap2', 'said')]);
    expect((await client.push('resync')).data).toMatchObject({ channel: 'gap2' });
    rig.broker.publish([await rig.event('gap2', 'said')]);
    await client.take((frame) => frame['offset'] === 3);
    // What had come is told all the same, behind the resync.
    expect(client.all.map((frame) => frame['offset'] ?? frame['event']).slice(-3)).toEqual(['resync', 2, 3]);
  });

  it('is found in a sweep', async () => {
    const client = await rig.login(ada);
    await subscribe(client, 'gap3');
    await rig.event('gap3', 'said');
    await rig.gateway.sweep.run();
    await client.take((frame) => frame['offset'] === 1);
  });
});

describe('a count in an event that the broker lost', () => {
  it('is that of now, as it comes behind newer ones', async () => {
    const client = await rig.login(ada);
    await subscribe(client, 'post:76');
    const data = { post_id: '76', comments_count: 3 };
    await rig.event('post:76', 'comment_update', { ...data, comment: { id: '1' } }, { dataWithoutActor: data });
    await rig.event('post:76', 'said', { comments_count: 3 });
    const values = `('post_comment', '76', 2), ('post_like', '76', 9)`;
    await rig.db.pool.query(`insert into belfry.counter (source, object_id, count) values ${values}`);
    rig.broker.publish([
      { to: 'counter', channel: 'post:76', event: 'comment_update', data: { comments_count: 2 }, actorId: null },
    ]);
    await client.push('comment_update');
    await rig.gateway.sweep.run();
    expect((await client.push('comment_update')).data).toEqual({ ...data, comments_count: 2, comment: { id: '1' } });
    // No counter's event: what it says is its own.
    expect((await client.push('said')).data).toEqual({ comments_count: 3 });
  });
});

describe('Postgres has gone back behind what was told', () => {
  /** It is where it was before the newest events of a channel. */
  async function undo(channel: string, head: number): Promise<void> {
    await rig.db.pool.query('delete from belfry.channel_event where channel = $1 and "offset" > $2', [channel, head]);
    await rig.db.pool.query('update belfry.channel_head set "offset" = $2 where channel = $1', [channel, head]);
  }
  /** Three are told, and two of them are undone; the position of the first. */
  async function toldAndUndone(channel: string): Promise<number> {
    const events = [await rig.event(channel, 'kept'), await rig.event(channel, 'x'), await rig.event(channel, 'x')];
    rig.broker.publish(events);
    await undo(channel, events[0]!.offset);
    return events[0]!.offset;
  }
  const said = async (client: Client, channel: string): Promise<void> => {
    const event = await rig.event(channel, 'said');
    rig.broker.publish([event]);
    expect(await client.push('said')).toMatchObject({ channel, offset: event.offset });
  };

  it('after a failover: `all` goes on from there', async () => {
    const client = await rig.login(ada);
    await toldAndUndone('all');
    await client.take((frame) => frame['event'] === 'kept');
    await rig.db.pool.query(`update belfry.relay set epoch = 'after a failover'`);
    rig.broker.publish([{ to: 'control', kind: 'epoch', epoch: 'after a failover' }]);
    expect((await client.closed).code).toBe(1012);
    await said(await rig.login(ada), 'all');
  });

  it('after a failover: so does a channel with somebody who has not been closed yet', async () => {
    await subscribe(await rig.login(ada), 'back1');
    const head = await toldAndUndone('back1');
    const { channels } = rig.gateway.context;
    channels.restart(channels.all.position);
    const client = await rig.login(bob);
    expect((await subscribe(client, 'back1')).ok).toMatchObject({ offset: head });
    await said(client, 'back1');
    expect(client.all.filter(({ event }) => event === 'resync')).toEqual([]);
  });

  it('without a new epoch: a sweep says so, once, and the channel goes on from there', async () => {
    const client = await rig.login(ada);
    await subscribe(client, 'back2');
    await toldAndUndone('back2');
    await rig.gateway.sweep.run();
    expect((await client.push('resync')).data).toEqual({ reason: 'channel', channel: 'back2' });
    await said(client, 'back2');
    const answer = await subscribe(client, 'back2', { offset: 3, epoch: 'resync' });
    expect(answer.ok).toMatchObject({ offset: 2, recovered: false });
    await said(client, 'back2');
    expect(client.frames.filter(({ event }) => event === 'resync')).toEqual([]);
  });
});

describe('fan-out', () => {
  const counter = (channel: string, likes_count: number, actorId: string | null = null): CounterPublication => ({
    to: 'counter',
    channel,
    event: 'like_update',
    data: { post_id: channel.split(':')[1]!, likes_count },
    actorId,
  });

  it('coalesces counters: the first at once, the latest after 250 ms, none in between', async () => {
    const client = await rig.login(ada);
    await subscribe(client, 'post:77');
    const began = performance.now();
    for (let i = 1; i <= 50; i++) rig.broker.publish([counter('post:77', i, bob)]);
    expect(await client.push('like_update')).toMatchObject({
      channel: 'post:77',
      data: { post_id: '77', likes_count: 1, user_id: bob },
    });
    expect((await client.push('like_update')).data).toMatchObject({ likes_count: 50 });
    expect(performance.now() - began).toBeGreaterThan(200);
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(client.frames.filter((frame) => frame['event'] === 'like_update')).toEqual([]);
  });

  it('never lets an older count follow a newer one that came with a logged event', async () => {
    const client = await rig.login(ada);
    await subscribe(client, 'post:78');
    const comments = (count: number): CounterPublication => ({
      ...counter('post:78', 0),
      event: 'comment_update',
      data: { comments_count: count },
    });
    rig.broker.publish([comments(1), comments(2), await rig.event('post:78', 'comment_update', { comments_count: 3 })]);
    await client.take((frame) => frame['offset'] === 1);
    await new Promise((resolve) => setTimeout(resolve, 350));
    expect(
      client.all.filter((frame) => frame['event'] === 'comment_update').map((frame) => frame.data!['comments_count']),
    ).toEqual([1, 3]);
  });

  it('forgets what still waits when its channel has no subscriber any more', async () => {
    const client = await rig.login(ada);
    for (const post of [74, 75]) await subscribe(client, `post:${post}`);
    // The window of 75 began after that of 74, and so ends after it.
    rig.broker.publish([
      ...[7, 8].map((count) => counter('post:74', count)),
      ...[1, 2].map((count) => counter('post:75', count)),
    ]);
    await client.request({ op: 'unsubscribe', channel: 'post:74' });
    // Nobody hears of this one.
    await rig.db.pool.query(`insert into belfry.counter (source, object_id, count) values ('post_like', '74', 9)`);
    rig.broker.publish([counter('post:74', 9)]);
    expect((await subscribe(client, 'post:74')).ok!['state']).toMatchObject({ likes_count: 9 });
    await client.take((frame) => frame['channel'] === 'post:75' && frame.data?.['likes_count'] === 2);
    const counts = client.all.filter(({ event, channel }) => event === 'like_update' && channel === 'post:74');
    expect(counts.map((frame) => frame.data!['likes_count'])).toEqual([7]);
  });

  it('keeps the counts of different objects in one channel apart', async () => {
    const client = await rig.login(ada);
    await subscribe(client, 'shared');
    const comments = (post: string, count: number): CounterPublication => ({
      ...counter('shared', 0),
      event: 'comment_update',
      data: { post_id: post, comments_count: count },
      counter: `post_comment ${post}`,
    });
    rig.broker.publish(['1', '2', '3'].flatMap((post) => [comments(post, 1), comments(post, 2)]));
    const logged = await rig.event('shared', 'comment_update', { post_id: '1', comments_count: 3 });
    rig.broker.publish([{ ...logged, counter: 'post_comment 1' }]);
    const last = (post: string) => client.all.findLast((frame) => frame.data?.['post_id'] === post)?.data;
    await expect.poll(() => [last('2'), last('3')].map((data) => data?.['comments_count'])).toEqual([2, 2]);
    const counts = client.all.filter((frame) => frame.data?.['post_id'] === '1');
    expect(counts.map((frame) => frame.data!['comments_count'])).toEqual([1, 3]);
  });

  it('shows an event of somebody blocked without its actor, offsets still dense', async () => {
    await block(rig.db.pool, ada, cleo);
    const [blocker, free] = [await rig.login(ada), await rig.login(bob)];
    for (const client of [blocker, free]) await subscribe(client, 'post:79');
    const comment = { comments_count: 1, user_id: cleo, comment: { id: '1' } };
    rig.broker.publish([
      await rig.event('post:79', 'comment_update', comment, { actorId: cleo, dataWithoutActor: { comments_count: 1 } }),
      await rig.event('post:79', 'secret', { by: cleo }, { actorId: cleo }),
      await rig.event('post:79', 'open', { by: bob }, { actorId: bob }),
      counter('post:79', 4, cleo),
    ]);
    await free.push('like_update');
    await blocker.push('like_update');
    expect(free.all.slice(-4).map((frame) => frame.data)).toEqual([
      comment,
      { by: cleo },
      { by: bob },
      { post_id: '79', likes_count: 4, user_id: cleo },
    ]);
    expect(blocker.all.slice(-4).map(({ event, offset, data }) => ({ event, offset, data }))).toEqual([
      { event: 'comment_update', offset: 1, data: { comments_count: 1 } },
      { event: 'hidden', offset: 2, data: {} },
      { event: 'open', offset: 3, data: { by: bob } },
      { event: 'like_update', offset: undefined, data: { post_id: '79', likes_count: 4 } },
    ]);
  });

  it('takes a new block to heart at once, and its end', async () => {
    const [dora = '', eve = ''] = await addUsers(rig.db.pool, 'Dora', 'Eve');
    const client = await rig.login(dora);
    await subscribe(client, 'post:80');
    const event = async () => rig.broker.publish([await rig.event('post:80', 'x', { by: eve }, { actorId: eve })]);
    await event();
    expect((await client.push('x')).data).toEqual({ by: eve });
    await block(rig.db.pool, dora, eve);
    rig.broker.publish([{ to: 'control', kind: 'blocks', userIds: [dora, eve] }]);
    await expect.poll(() => rig.gateway.context.people.hubs.get(dora)?.blocks?.has(eve)).toBe(true);
    await event();
    expect(await client.push('hidden')).toMatchObject({ offset: 2 });
    await rig.db.pool.query('delete from public.blocks where blocker_id = $1', [dora]);
    rig.broker.publish([{ to: 'control', kind: 'blocks', userIds: [dora, eve] }]);
    await expect.poll(() => rig.gateway.context.people.hubs.get(dora)?.blocks).toBe(null);
    await event();
    expect(await client.push('x')).toMatchObject({ offset: 3, data: { by: eve } });
  });

  it('hides somebody just blocked from what comes right behind the block, in both directions, and nobody else', async () => {
    const [gus = '', hal = '', ivo = ''] = await addUsers(rig.db.pool, 'Gus', 'Hal', 'Ivo');
    const clients = [await rig.login(gus), await rig.login(hal)] as const;
    for (const client of clients) await subscribe(client, 'post:82');
    await block(rig.db.pool, gus, hal);
    const by = (actorId: string) => rig.event('post:82', 'x', { by: actorId }, { actorId });
    rig.broker.publish([
      { to: 'control', kind: 'blocks', userIds: [gus, hal] },
      await by(hal),
      await by(gus),
      await by(ivo),
      counter('post:82', 1, hal),
    ]);
    for (const client of clients) await client.push('like_update');
    const seen = clients.map(({ all }) =>
      all.filter(({ event }) => event !== 'synced' && event !== undefined).map(({ event, data }) => [event, data]),
    );
    expect(seen).toEqual([
      [
        ['hidden', {}],
        ['x', { by: gus }],
        ['x', { by: ivo }],
        ['like_update', { post_id: '82', likes_count: 1 }],
      ],
      [
        ['x', { by: hal }],
        ['hidden', {}],
        ['x', { by: ivo }],
        ['like_update', { post_id: '82', likes_count: 1, user_id: hal }],
      ],
    ]);
    await rig.db.pool.query('delete from public.blocks where blocker_id = $1', [gus]);
    rig.broker.publish([{ to: 'control', kind: 'blocks', userIds: [gus, hal] }]);
    const { hubs } = rig.gateway.context.people;
    await expect.poll(() => [hubs.get(gus)?.blocks, hubs.get(hal)?.blocks]).toEqual([null, null]);
  });

  it('hides nobody else of those whose blocks come together, nor in the other direction', async () => {
    const [jan = '', kai = '', lou = '', mia = ''] = await addUsers(rig.db.pool, 'Jan', 'Kai', 'Lou', 'Mia');
    const clients = [await rig.login(jan), await rig.login(kai)] as const;
    for (const client of clients) await subscribe(client, 'post:88');
    const by = (actorId: string) => rig.event('post:88', 'x', { by: actorId }, { actorId });
    rig.broker.publish([
      {
        ...{ to: 'control', kind: 'blocks' },
        userIds: [jan, kai, lou, mia],
        pairs: [
          [jan, kai],
          [lou, mia],
          [mia, lou],
        ],
      },
      await by(lou),
      await by(kai),
      await by(jan),
      counter('post:88', 1, lou),
    ]);
    for (const client of clients) await client.push('like_update');
    const seen = clients.map(({ all }) => all.flatMap(({ offset, data }) => (offset === undefined ? [] : [data])));
    expect(seen).toEqual([
      [{ by: lou }, {}, { by: jan }],
      [{ by: lou }, { by: kai }, { by: jan }],
    ]);
  });

  it('reaches everybody with the channel all, subscribed or not, once', async () => {
    const [plain, blocker, explicit] = [await rig.login(bob), await rig.login(ada), await rig.login(bob)];
    expect((await subscribe(explicit, 'all')).ok).toBeDefined();
    const event = await rig.event('all', 'news', { n: 1 });
    rig.broker.publish([event, { ...event, offset: event.offset }, counter('all', 3)]);
    for (const client of [plain, blocker, explicit]) {
      await client.push('like_update');
      expect(client.all.filter((frame) => frame['event'] === 'news')).toHaveLength(1);
    }
    await explicit.request({ op: 'unsubscribe', channel: 'all' });
    rig.broker.publish([await rig.event('all', 'news', { n: 2 })]);
    expect((await explicit.take((frame) => frame['event'] === 'news' && frame.data!['n'] === 2))['offset']).toBe(
      event.offset + 1,
    );
  });
});

describe('re-check', () => {
  it('ends a subscription whose right is gone, when a named source changes', async () => {
    const [fred = '', gil = ''] = await addUsers(rig.db.pool, 'Fred', 'Gil');
    await rig.db.pool.query('insert into public.follows (follower_id, followed_id) values ($1, $2)', [fred, gil]);
    const client = await rig.login(fred);
    await subscribe(client, `group:${gil}`);
    rig.broker.publish([{ to: 'control', kind: 'recheck', sources: ['user_follow'] }]);
    rig.broker.publish([await rig.event(`group:${gil}`, 'x', { n: 1 })]);
    await client.push('x');
    await rig.db.pool.query('delete from public.follows where follower_id = $1', [fred]);
    const began = performance.now();
    rig.broker.publish([{ to: 'control', kind: 'recheck', sources: ['user_follow'] }]);
    expect(await client.push('unsubscribed')).toEqual({
      event: 'unsubscribed',
      channel: `group:${gil}`,
      data: { code: 'forbidden' },
    });
    expect(performance.now() - began).toBeLessThan(1000);
    rig.broker.publish([await rig.event(`group:${gil}`, 'x', { n: 2 })]);
    await pong(client);
    expect(client.all.filter((frame) => frame['event'] === 'x')).toHaveLength(1);
  });

  it('asks for many with one statement, also where types must be inferred', async () => {
    const people = await addUsers(rig.db.pool, 'H1', 'H2', 'H3');
    const [target = '', other = ''] = await addUsers(rig.db.pool, 'Target', 'Other');
    for (const id of people)
      await rig.db.pool.query('insert into public.follows values ($1, $2), ($1, $3)', [id, target, other]);
    const clients = await Promise.all(people.map((id) => rig.login(id)));
    for (const client of clients) await subscribe(client, `group:${target}`);
    await rig.db.pool.query('delete from public.follows where follower_id = $1 and followed_id = $2', [
      people[1],
      target,
    ]);
    const answered = await clients[1]!.request({ op: 'auth', token: tokenFor(people[1]!) });
    expect(answered.ok).toBeDefined();
    rig.broker.publish([{ to: 'control', kind: 'recheck', sources: ['user_follow'] }]);
    await clients[1]!.push('unsubscribed');
    await Promise.all(clients.map(pong));
    expect(clients[0]!.frames.filter((frame) => frame['event'] === 'unsubscribed')).toEqual([]);
    expect(clients[2]!.frames.filter((frame) => frame['event'] === 'unsubscribed')).toEqual([]);
  });
});

describe('ids of any type', () => {
  const tables = `
    create domain public.person as bigint check (value > 0);
    create table public.rooms (id char(26), who char(26), bits bit(3), owner public.person);
    insert into public.rooms values ('01HV0000000000000000000000', 'short', '101', 7)`;
  const asked = async (condition: string, pairs: readonly (readonly [string, string])[]): Promise<boolean[]> => {
    const access = { sql: `select from public.rooms where ${condition}` };
    const of = pairs.map(([user, other]) => ({ user, other }));
    const each = await rules.allowsEach(access, 'id', of);
    const one = await Promise.all(of.map((pair) => rules.allows(access, 'id', pair)));
    expect(each).toEqual(one);
    return each;
  };
  let rules: AccessRules;
  beforeAll(async () => {
    await rig.db.pool.query(tables);
    rules = new AccessRules(rig.db.url);
  });
  afterAll(() => rules.stop());

  it('are whole where many are asked for', async () => {
    const room = '01HV0000000000000000000000';
    expect(
      await asked('who = :user and id = :id', [
        ['short', room],
        ['s', room],
        ['short', '0'],
      ]),
    ).toEqual([true, false, false]);
    expect(
      await asked('bits = :user and id = any (array[:id])', [
        ['101', room],
        ['1', room],
      ]),
    ).toEqual([true, false]);
  });

  it('of whose type nothing tells are text', async () => {
    expect(
      await asked(`:user is not null and length(:id) = 2 and :id is not null`, [
        ['1', 'ab'],
        ['1', 'a'],
      ]),
    ).toEqual([true, false]);
  });

  it('that break a check of the type are no row', async () => {
    expect(
      await asked(`owner = :user::public.person and :id <> ''`, [
        ['7', '1'],
        ['-7', '1'],
        ['x', '1'],
      ]),
    ).toEqual([true, false, false]);
  });
});

describe.each([
  ['the broker was cut off and is back', () => rig.broker.reconnected()],
  ['another relay leads', () => rig.broker.publish([{ to: 'control', kind: 'leader', term: '2' }])],
])('what was lost of what has no position, once %s', (_when, returns) => {
  it('blocks', async () => {
    const [one = '', two = ''] = await addUsers(rig.db.pool, 'One', 'Two');
    const client = await rig.login(one);
    await subscribe(client, 'post:83');
    await block(rig.db.pool, two, one);
    returns();
    const { hubs } = rig.gateway.context.people;
    await expect.poll(() => hubs.get(one)?.blocks?.has(two), { timeout: 10_000 }).toBe(true);
    rig.broker.publish([await rig.event('post:83', 'x', { by: two }, { actorId: two })]);
    expect((await client.push('hidden')).data).toEqual({});
  });

  it('rights', async () => {
    const [one = '', two = ''] = await addUsers(rig.db.pool, 'One', 'Two');
    await rig.db.pool.query('insert into public.follows (follower_id, followed_id) values ($1, $2)', [one, two]);
    const client = await rig.login(one);
    await subscribe(client, `group:${two}`);
    await rig.db.pool.query('delete from public.follows where follower_id = $1', [one]);
    returns();
    expect((await client.push('unsubscribed'))['channel']).toBe(`group:${two}`);
  });

  it('numbers', async () => {
    const [one = ''] = await addUsers(rig.db.pool, 'One');
    const client = await rig.login(one);
    await rig.notification(one);
    returns();
    expect((await client.push('badge')).data).toEqual({ unseen: 1, unread: 1 });
  });

  it('counters, without saying who', async () => {
    const client = await rig.login(ada);
    await subscribe(client, 'post:84');
    await rig.db.pool.query(
      `insert into belfry.counter (source, object_id, count) values ('post_like', '84', 7)
       on conflict (source, object_id) do update set count = 7`,
    );
    returns();
    expect(await client.push('like_update')).toEqual({
      event: 'like_update',
      channel: 'post:84',
      data: { post_id: '84', likes_count: 7 },
    });
    expect((await client.push('comment_update')).data).toEqual({ post_id: '84', comments_count: 0 });
  });
});

describe('a round of repairs', () => {
  const likes = (post: number, count: number): CounterPublication => ({
    to: 'counter',
    channel: `post:${post}`,
    event: 'like_update',
    data: { post_id: String(post), likes_count: count },
    actorId: null,
    counter: `post_like ${post}`,
  });
  /** Holds up whoever reads a table until it is given back. */
  async function hold(table: string): Promise<() => Promise<void>> {
    const holder = await rig.db.client();
    await holder.query(`begin; lock table ${table} in access exclusive mode`);
    return async () => {
      await holder.query('commit');
      await holder.end();
    };
  }
  const waits = async (): Promise<boolean> => {
    const { rows } = await rig.db.pool.query(
      `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
    );
    return rows.length > 0;
  };

  it('is followed by one more where something was lost while it went on', async () => {
    const client = await rig.login(ada);
    await subscribe(client, 'post:85');
    const release = await hold('public.blocks');
    rig.broker.reconnected();
    await expect.poll(waits, { timeout: 10_000 }).toBe(true);
    for (let i = 0; i < 3; i++) rig.broker.reconnected();
    await release();
    for (let round = 0; round < 2; round++) await client.push('like_update');
  });

  it('tells no counter that was told live while it was read', async () => {
    const client = await rig.login(ada);
    for (const post of [86, 87]) await subscribe(client, `post:${post}`);
    const release = await hold('belfry.counter');
    rig.broker.reconnected();
    await expect.poll(waits, { timeout: 10_000 }).toBe(true);
    rig.broker.publish([likes(86, 9)]);
    await client.push('like_update');
    await release();
    expect((await client.push('like_update'))['channel']).toBe('post:87');
    // Its window began after that of the other, and so ends after it.
    rig.broker.publish([likes(87, 1)]);
    expect((await client.push('like_update')).data).toEqual({ post_id: '87', likes_count: 1 });
    expect(client.all.filter(({ event }) => event === 'like_update')).toHaveLength(3);
  });
});

describe('publish', () => {
  it('logs an event and hands it to all, where the config allows it', async () => {
    const [sender, reader] = [await rig.login(ada), await rig.login(bob)];
    await subscribe(reader, 'talk');
    const answer = await sender.request({ op: 'publish', channel: 'talk', event: 'typing', data: { on: true } });
    expect(answer.ok).toEqual({ channel: 'talk', offset: 1 });
    expect(await reader.push('typing')).toEqual({ event: 'typing', channel: 'talk', offset: 1, data: { on: true } });
  });

  it('refuses where it does not, and names of the protocol', async () => {
    const client = await rig.login(ada);
    expect((await client.request({ op: 'publish', channel: 'post:1', event: 'x' }))['error']).toMatchObject({
      code: 'forbidden',
    });
    expect((await client.request({ op: 'publish', channel: 'all', event: 'x' }))['error']).toMatchObject({
      code: 'forbidden',
    });
    expect((await client.request({ op: 'publish', channel: 'talk', event: 'notification' }))['error']).toMatchObject({
      code: 'bad_request',
    });
    expect((await client.request({ op: 'publish', channel: 'talk', event: 'x'.repeat(65) }))['error']).toMatchObject({
      code: 'bad_request',
    });
  });
});

describe('presence', () => {
  it('tells those who may see, after the grace, and nobody else', async () => {
    const [ina = '', jo = '', kim = ''] = await addUsers(rig.db.pool, 'Ina', 'Jo', 'Kim');
    await rig.db.pool.query('insert into public.follows values ($1, $2)', [ina, jo]);
    const [viewer, stranger] = [await rig.login(ina), await rig.login(kim)];
    expect((await viewer.request({ op: 'presence', users: [jo, 'nonsense'] })).ok).toEqual({
      [jo]: 'offline',
      nonsense: 'offline',
    });
    expect((await stranger.request({ op: 'presence', users: [jo] })).ok).toEqual({ [jo]: 'offline' });
    const seen = await rig.login(jo);
    expect((await viewer.push('presence')).data).toEqual({ user_id: jo, status: 'online' });
    expect((await viewer.request({ op: 'presence', users: [jo] })).ok).toEqual({ [jo]: 'online' });
    for (const users of [`users=${jo},${kim}`, `users=${jo}&users=${kim}`]) {
      expect(await (await rig.http(`/api/presence?${users}`, { userId: ina })).json()).toEqual({
        [jo]: 'online',
        [kim]: 'offline',
      });
    }
    seen.socket.close();
    await seen.closed;
    const back = await rig.login(jo);
    back.socket.close();
    const began = performance.now();
    expect((await viewer.push('presence')).data).toEqual({ user_id: jo, status: 'offline' });
    expect(performance.now() - began).toBeGreaterThan(4000);
    expect(viewer.all.filter((frame) => frame['event'] === 'presence')).toHaveLength(2);
    expect(stranger.all.filter((frame) => frame['event'] === 'presence')).toEqual([]);
  });

  it('is silent about whom a block hides, also for somebody who asks without a socket', async () => {
    const [pia, quin] = await addUsers(rig.db.pool, 'Pia', 'Quin');
    await follow(rig.db.pool, pia!, quin!);
    await rig.login(quin!);
    const asked = async (): Promise<unknown> =>
      (await rig.http(`/api/presence?users=${quin!}`, { userId: pia! })).json();
    expect(await asked()).toEqual({ [quin!]: 'online' });
    await block(rig.db.pool, quin!, pia!);
    expect(await asked()).toEqual({ [quin!]: 'offline' });
  });

  it('lists a channel and tells who comes, to those who may see them', async () => {
    const [lea = '', max = '', nia = ''] = await addUsers(rig.db.pool, 'Lea', 'Max', 'Nia');
    await rig.db.pool.query('insert into public.follows values ($1, $2)', [lea, max]);
    const viewer = await rig.login(lea);
    expect((await viewer.request({ op: 'presence', channel: 'hall' })).ok).toEqual({});
    await subscribe(viewer, 'hall');
    const [seen, unseen] = [await rig.login(max), await rig.login(nia)];
    await subscribe(unseen, 'hall');
    expect((await viewer.request({ op: 'presence', channel: 'hall' })).ok).toEqual({ [lea]: 'online' });
    await subscribe(seen, 'hall');
    expect(await viewer.push('presence')).toEqual({
      event: 'presence',
      channel: 'hall',
      data: { user_id: max, status: 'online' },
    });
    expect((await viewer.request({ op: 'presence', channel: 'hall' })).ok).toEqual({
      [lea]: 'online',
      [max]: 'online',
    });
  });
});
