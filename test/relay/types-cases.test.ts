/** Every type that the guide knows, from tables and from SQL, and what happens when they are answered. */

import { describe, expect, it } from 'vitest';
import { addComment, like, unlike } from '../support/social.js';
import { useWorld } from './world.js';

const world = useWorld();
const pool = () => world.database.pool;

describe('messages', () => {
  it('go to every member but the sender, one by one, and to the channel', async () => {
    const { ada, bo, cleo, dan } = world;
    for (const user of [ada, bo, cleo]) await world.sql('insert into members values ($1, $2)', [ada, user]);
    for (const body of ['hi', 'there'])
      await world.sql('insert into messages (conversation_id, sender_id, body) values ($1, $2, $3)', [ada, bo, body]);
    await world.batches.run();
    const heard = world.batches.heard();
    expect(heard.filter(({ to }) => to === 'channel')).toMatchObject([
      { channel: `conversation:${ada}`, offset: 1, event: 'message', data: { message: { body: 'hi', sender_id: bo } } },
      { channel: `conversation:${ada}`, offset: 2, event: 'message', data: { message: { body: 'there' } } },
    ]);
    for (const user of [ada, cleo]) {
      const list = await world.list(user);
      expect(list).toMatchObject({ unseen: 2, items: [{ message: 'Bo sent you a message' }, { type: 'message' }] });
    }
    for (const user of [bo, dan]) expect(await world.list(user)).toMatchObject({ items: [] });
  });
});

describe('friend requests', () => {
  const request = (from: string, to: string) =>
    world.sql('insert into friend_requests (requester_id, addressee_id) values ($1, $2)', [from, to]);
  const answer = (from: string, to: string, status: string) =>
    world.sql('update friend_requests set status = $3 where requester_id = $1 and addressee_id = $2', [
      from,
      to,
      status,
    ]);

  it('accepted: leaves the list, and the requester hears of it', async () => {
    const { ada, bo } = world;
    await request(bo, ada);
    expect(await world.heard(ada)).toMatchObject([{ data: { message: 'Bo sent you a friend request' } }]);
    await answer(bo, ada, 'accepted');
    expect(await world.heard(ada)).toMatchObject([{ event: 'withdrawn', data: { type: 'friend_request' } }]);
    expect(world.frames(bo)).toMatchObject([
      { data: { type: 'friend_accepted', message: 'Ada accepted your friend request', data: { alert: true } } },
    ]);
    expect(await world.list(ada)).toMatchObject({ unseen: 0, items: [] });
  });

  it('accepted before the relay reads: only the requester hears', async () => {
    const { ada, bo } = world;
    await request(bo, ada);
    await answer(bo, ada, 'accepted');
    expect(await world.heard(ada)).toEqual([]);
    expect(world.frames(bo)).toHaveLength(1);
  });

  it('declined: leaves the list, and nobody hears of it', async () => {
    const { ada, bo } = world;
    await request(bo, ada);
    await world.heard(ada);
    await answer(bo, ada, 'declined');
    expect(await world.heard(ada)).toMatchObject([{ event: 'withdrawn' }]);
    expect(world.frames(bo)).toEqual([]);
  });

  it('withdrawn and repeated: there again, and within a minute it does not ring twice', async () => {
    const { ada, bo } = world;
    await request(bo, ada);
    await world.heard(ada);
    await world.sql('delete from friend_requests where requester_id = $1', [bo]);
    await world.heard(ada);
    await request(bo, ada);
    expect(await world.heard(ada)).toMatchObject([{ event: 'notification', data: { data: { alert: false } } }]);
    expect(await world.list(ada)).toMatchObject({ unseen: 1, items: [{ type: 'friend_request' }] });
  });

  it('repeated a day after it was withdrawn: it rings', async () => {
    const { ada, bo } = world;
    await request(bo, ada);
    const [first] = await world.heard(ada);
    await world.batches.inbox.mark(ada, 'read', { ids: [first?.data.id ?? ''] }, null);
    await world.sql('delete from friend_requests where requester_id = $1', [bo]);
    await world.heard(ada);
    await world.sql(
      `update belfry.notification_event set removed_at = removed_at - interval '1 d' where user_id = $1`,
      [ada],
    );
    await request(bo, ada);
    expect(await world.heard(ada)).toMatchObject([
      { event: 'notification', data: { data: { alert: true, state: 'unseen' } } },
    ]);
  });
});

describe('job applications', () => {
  it('tell the applicant only of what the employer changed', async () => {
    const { ada, bo } = world;
    const change = (by: string, status: string) =>
      world.sql(
        'insert into application_changes (application_id, applicant_id, changed_by, status) values (7, $1, $2, $3)',
        [ada, by, status],
      );
    await change(ada, 'sent');
    expect(await world.heard(ada)).toEqual([]);
    expect(await world.rules(ada)).toEqual(['self']);
    await change(bo, 'interview');
    expect(await world.heard(ada)).toMatchObject([
      { data: { type: 'job_application', application_id: '7', message: 'Your job application was updated' } },
    ]);
  });
});

describe('counted rows', () => {
  const repost = (user: string, score: number) =>
    world.sql(
      `insert into reposts values ($1, $2, $3) on conflict (user_id, post_id) do update set score = excluded.score`,
      [user, world.post, score],
    );

  it('score +1, −1, 0: there, gone, and still gone', async () => {
    const { ada, bo } = world;
    await repost(bo, 1);
    expect(await world.heard(ada)).toMatchObject([{ data: { message: 'Bo reposted your post' } }]);
    await repost(bo, -1);
    expect(await world.heard(ada)).toMatchObject([{ event: 'withdrawn' }]);
    await repost(bo, 0);
    expect(await world.heard(ada)).toEqual([]);
  });

  it('an upsert with equal values, or of a column that is not mapped, is nothing', async () => {
    const { ada, bo } = world;
    await repost(bo, 1);
    await world.heard(ada);
    await repost(bo, 1);
    await repost(bo, 2);
    expect(await world.heard(ada)).toEqual([]);
    expect(await world.list(ada)).toMatchObject({ unseen: 1 });
  });
});

describe('by belfry.notify', () => {
  it.each([
    'like',
    'comment',
    'follow',
    'message',
    'mention',
    'friend_request',
    'job_application',
    'system',
    'badge_won',
  ])('%s: the message as it was given, each by itself', async (type) => {
    const { ada, bo } = world;
    for (let i = 0; i < 2; i++)
      await world.sql(`select belfry.notify($1, $2, 'As I say', '{"n": 1}', $3)`, [ada, type, bo]);
    const frames = await world.heard(ada);
    expect(frames).toHaveLength(2);
    expect(frames[0]?.data).toMatchObject({ type, user_id: bo, message: 'As I say', data: { n: 1, alert: true } });
  });

  it('obeys blocks and preferences like everything else', async () => {
    const { ada, bo } = world;
    await world.batches.inbox.setPreferences(ada, { system: 'off' });
    await world.sql('insert into blocks values ($1, $2)', [bo, ada]);
    await world.sql(`select belfry.notify($1, 'system', 'x')`, [ada]);
    await world.sql(`select belfry.notify($1, 'mention', 'x', '{}', $2)`, [ada, bo]);
    expect(await world.heard(ada)).toEqual([]);
    expect(await world.rules(ada)).toEqual(['type_off', 'blocked']);
  });

  it('rolls back with its transaction and its savepoint', async () => {
    const { ada } = world;
    await world.sql(`begin; select belfry.notify('${ada}', 'system', 'one'); rollback`);
    await world.sql(`begin; savepoint a; select belfry.notify('${ada}', 'system', 'two'); rollback to a;
      select belfry.notify('${ada}', 'system', 'three'); commit`);
    expect(await world.heard(ada)).toMatchObject([{ data: { message: 'three' } }]);
  });
});

describe('languages', () => {
  it('the sentence is in the locale of whoever reads it', async () => {
    const { ada, bo, post } = world;
    // No file for it: English. What files say is in test/inbox/messages.test.ts.
    await world.sql(`update users set locale = 'de_AT' where id = $1`, [ada]);
    await like(pool(), bo, post);
    expect(await world.heard(ada)).toMatchObject([{ data: { message: 'Bo liked your post' } }]);
  });
});

describe('capture', () => {
  it.each(['off', 'counters'])('%s: nobody hears of what a transaction does', async (setting) => {
    const { ada, bo, post } = world;
    await world.sql(
      `begin; set local belfry.capture = '${setting}'; insert into likes values (${bo}, ${post}); commit`,
    );
    expect(await world.heard(ada)).toEqual([]);
    const { state } = await world.batches.channels.recover(`post:${post}`, null, null);
    expect(state).toMatchObject({ likes_count: setting === 'off' ? 0 : 1 });
    // What was not announced is not taken back either, and the count stays right.
    if (setting === 'off') return;
    await unlike(pool(), bo, post);
    expect(await world.heard(ada)).toEqual([]);
    expect(await world.batches.channels.recover(`post:${post}`, null, null)).toMatchObject({
      state: { likes_count: 0 },
    });
  });
});

describe('one comment, two reasons', () => {
  it('a reply that mentions the author twice is told once', async () => {
    const { ada, bo, post } = world;
    const comment = await addComment(pool(), post, bo, '@Ada @Ada');
    await world.sql('insert into mentions values ($1, $2, $3, $4)', [comment, post, bo, ada]);
    const frames = await world.heard(ada);
    expect(frames).toMatchObject([{ data: { type: 'comment' } }]);
    expect(await world.rules(ada)).toEqual(['duplicate']);
    expect(await world.list(ada)).toMatchObject({ unseen: 1 });
  });
});
