/** Who does not hear of what, and what is taken back when that changes: rows in, frames and inbox out. */

import { describe, expect, it } from 'vitest';
import { addComment, addPost, block, follow, like } from '../support/social.js';
import { useWorld } from './world.js';
import { recover } from '../support/recover.js';

const world = useWorld();

const pool = () => world.database.pool;
const suspend = (userId: string) => world.sql('update users set deleted_at = now() where id = $1', [userId]);
const mute = (muter: string, muted: string, until: string | null = null) =>
  world.sql('insert into mutes values ($1, $2, now() + $3::interval)', [muter, muted, until]);
const muteThread = (userId: string, post: string) =>
  world.sql('insert into thread_mutes values ($1, $2)', [userId, post]);
const mention = (comment: string, post: string, author: string, userId: string) =>
  world.sql('insert into mentions values ($1, $2, $3, $4)', [comment, post, author, userId]);

/** List, badge and resume say the same; the unseen that they show. */
async function shownTo(userId: string): Promise<string[]> {
  const { inbox } = world.batches;
  const list = await world.list(userId);
  const badge = (await inbox.badges([userId])).get(userId);
  const [each] = await inbox.recoverEach([{ userId, since: null, epoch: null }]);
  const resumed = await recover(inbox, userId, 0, list.epoch);
  const present = resumed.frames.map(({ frame }) => JSON.parse(frame) as { event: string; data: { id: string } });
  const ids = list.items.map((item) => (item as { id: string }).id);
  expect(present.flatMap(({ event, data }) => (event === 'notification' ? [data.id] : [])).reverse()).toEqual(ids);
  const unseen = await inbox.list(userId, { limit: 100, before: null, state: 'unseen' });
  const numbers = { unseen: unseen.items.length, unread: list.unread };
  for (const seen of [list, badge, each, resumed]) expect(seen).toMatchObject(numbers);
  return list.items.map((item) => (item as { message: string }).message);
}

describe('mutes', () => {
  it('a mute that is in force keeps away what the muted does, and only until it ends', async () => {
    const { ada, bo, post } = world;
    await mute(ada, bo, '1 hour');
    await like(pool(), bo, post);
    expect(await world.heard(ada)).toEqual([]);
    expect(await world.rules(ada)).toEqual(['muted']);
    await world.sql(`update mutes set expires_at = now() - interval '1 s' where muter_id = $1`, [ada]);
    await addComment(pool(), post, bo);
    expect(await world.heard(ada)).toMatchObject([{ data: { message: 'Bo commented on your post' } }]);
  });

  it('is one-way', async () => {
    const { ada, bo, post } = world;
    await mute(bo, ada);
    await like(pool(), bo, post);
    expect(await world.heard(ada)).toHaveLength(1);
  });

  it('a new one withdraws what came from the muted, from the muter alone', async () => {
    const { ada, bo, cleo, post } = world;
    const other = await addPost(pool(), cleo);
    await like(pool(), bo, post);
    await like(pool(), cleo, post);
    await addComment(pool(), post, bo);
    await like(pool(), bo, other);
    await world.heard(ada);
    await world.age(ada, '5 s');
    await mute(ada, bo, '1 hour');
    const frames = await world.heard(ada);
    expect(frames.map(({ event }) => event).sort()).toEqual(['notification', 'withdrawn']);
    expect(await shownTo(ada)).toEqual(['Cleo liked your post']);
    expect(await shownTo(cleo)).toEqual(['Bo liked your post']);
  });

  it('one that is over already withdraws nothing, and does when it is lengthened', async () => {
    const { ada, bo, post } = world;
    await like(pool(), bo, post);
    await world.heard(ada);
    await mute(ada, bo, '-1 s');
    expect(await world.heard(ada)).toEqual([]);
    expect(await shownTo(ada)).toHaveLength(1);
    await world.sql(`update mutes set expires_at = now() + interval '1 h' where muter_id = $1`, [ada]);
    expect(await world.heard(ada)).toMatchObject([{ event: 'withdrawn' }]);
    expect(await shownTo(ada)).toEqual([]);
  });

  it('before the relay has heard of it, nothing is shown either', async () => {
    const { ada, bo, post } = world;
    await like(pool(), bo, post);
    await world.heard(ada);
    await mute(ada, bo);
    expect(await shownTo(ada)).toEqual([]);
  });

  it('a muted thread says nothing more, and what it said is withdrawn', async () => {
    const { ada, bo, cleo, post } = world;
    const other = await addPost(pool(), ada);
    await like(pool(), bo, post);
    await addComment(pool(), post, bo);
    await like(pool(), bo, other);
    await world.heard(ada);
    await muteThread(ada, post);
    expect((await world.heard(ada)).map(({ event }) => event)).toEqual(['withdrawn', 'withdrawn']);
    await like(pool(), cleo, post);
    expect(await world.heard(ada)).toEqual([]);
    expect(await world.rules(ada)).toEqual(['thread_muted']);
    expect(await shownTo(ada)).toHaveLength(1);
    // What happens afterwards is news; what was taken away stays away.
    await world.sql('delete from thread_mutes where user_id = $1', [ada]);
    await world.sql('insert into likes select $1, $2', [world.dan, post]);
    expect(await world.heard(ada)).toMatchObject([
      { data: { message: 'Dan liked your post', data: { actor_count: 1 } } },
    ]);
  });
});

describe('blocks', () => {
  it('withdraw in both directions', async () => {
    const { ada, bo, post } = world;
    const theirs = await addPost(pool(), bo);
    await like(pool(), bo, post);
    await like(pool(), ada, theirs);
    await world.heard(ada);
    await block(pool(), bo, ada);
    await world.heard(ada);
    expect(await shownTo(ada)).toEqual([]);
    expect(await shownTo(bo)).toEqual([]);
  });

  it.each([
    ['blocked', () => block(pool(), world.ada, world.cleo)],
    ['blocking', () => block(pool(), world.cleo, world.ada)],
  ])('a comment in the thread of somebody %s says nothing, whoever wrote it', async (_, act) => {
    const { ada, cleo, dan } = world;
    await act();
    const thread = await addPost(pool(), cleo);
    const comment = await addComment(pool(), thread, dan);
    await mention(comment, thread, dan, ada);
    expect(await world.heard(ada)).toEqual([]);
    expect(await world.rules(ada)).toEqual(['blocked']);
  });

  it('what was said in a thread is hidden when its owner is blocked', async () => {
    const { ada, cleo, dan } = world;
    const thread = await addPost(pool(), cleo);
    await mention(await addComment(pool(), thread, dan), thread, dan, ada);
    expect(await world.heard(ada)).toHaveLength(1);
    await block(pool(), ada, cleo);
    expect(await shownTo(ada)).toEqual([]);
  });
});

describe('badges', () => {
  const { ada, cleo } = { ada: () => world.ada, cleo: () => world.cleo };

  it.each([
    ['a block', [ada, cleo], () => block(pool(), ada(), cleo())],
    ['a block that is lifted', [ada, cleo], () => world.sql('delete from blocks where blocker_id = $1', [ada()])],
    ['a mute', [ada], () => mute(ada(), cleo())],
    [
      'a mute that is shortened',
      [ada],
      () => world.sql('update mutes set expires_at = now() where muter_id = $1', [ada()]),
    ],
    ['a mute that is lifted', [ada], () => world.sql('delete from mutes where muter_id = $1', [ada()])],
    ['a muted thread', [ada], (thread: string) => muteThread(ada(), thread)],
    ['a thread that is heard again', [ada], () => world.sql('delete from thread_mutes where user_id = $1', [ada()])],
  ])('%s: those who may count otherwise now are counted again, and nobody else', async (what, who, act) => {
    // In Cleo's thread, by somebody else: a block between Ada and Cleo hides it, and withdraws nothing.
    const thread = await addPost(pool(), cleo());
    await mention(await addComment(pool(), thread, world.dan), thread, world.dan, ada());
    if (what.startsWith('a block that')) await block(pool(), ada(), cleo());
    if (what.startsWith('a mute that')) await mute(ada(), cleo());
    if (what.startsWith('a thread that')) await muteThread(ada(), thread);
    await world.batches.run();
    world.batches.heard();
    await act(thread);
    await world.batches.run();
    const asked = world.batches.heard().flatMap((publication) => (publication.to === 'badge' ? [publication] : []));
    expect(asked.map(({ userId }) => userId).sort()).toEqual(who.map((id) => id()).sort());
    // Not only for those who may count more.
    for (const { onlyRises = false } of asked) expect(onlyRises).toBe(false);
  });

  it.each([
    ['a block', [ada, cleo], 'blocks', 'blocker_id', () => block(pool(), ada(), cleo())],
    ['a mute', [ada], 'mutes', 'muter_id', () => mute(ada(), cleo())],
    ['a muted thread', [ada], 'thread_mutes', 'user_id', () => muteThread(ada(), world.post)],
  ])(
    '%s that is over before it was read: a gateway may have counted while it stood, so it counts again',
    async (_, who, table, column, act) => {
      await act();
      await world.sql(`delete from ${table} where ${column} = $1`, [ada()]);
      await world.batches.run();
      const heard = world.batches.heard();
      const asked = heard.flatMap((publication) => (publication.to === 'badge' ? [publication.userId] : []));
      expect(asked.sort()).toEqual(who.map((id) => id()).sort());
      // The same of whom it holds apart in channels.
      const apart = heard.flatMap((one) => (one.to === 'control' && one.kind === 'blocks' ? one.userIds : []));
      expect([...apart].sort()).toEqual(table === 'blocks' ? asked : []);
    },
  );

  it('where nothing but new notifications came, the gateways are told from which position to which', async () => {
    const { bo, dan, post } = world;
    const told = async (): Promise<readonly unknown[]> => {
      await world.batches.run();
      return world.batches.heard().flatMap(({ to, ...publication }) => (to === 'badge' ? [publication] : []));
    };
    const userId = ada();
    await follow(pool(), bo, userId);
    await like(pool(), bo, post);
    expect(await told()).toEqual([{ userId, onlyRises: true, rose: [1, 2] }]);
    await addComment(pool(), post, cleo());
    expect(await told()).toEqual([{ userId, onlyRises: true, rose: [3, 3] }]);
    // In place, since it takes something away; with a new one beside it.
    await world.sql('delete from likes where user_id = $1 and post_id = $2', [bo, post]);
    await addComment(pool(), post, dan);
    expect(await told()).toEqual([{ userId }]);
    // Nobody sees what somebody did who is gone by the time that it is told.
    const comment = await addComment(pool(), post, dan);
    await world.sql('update belfry.notification set state = $2 where user_id = $1', [userId, 'read']);
    await addComment(pool(), post, cleo());
    await block(pool(), userId, dan);
    expect(comment).toBeTruthy();
    for (const publication of await told()) expect(publication).not.toHaveProperty('rose');
  });
});

describe('what may be seen', () => {
  it('a post for followers is told to them alone', async () => {
    const { ada, bo, cleo, dan } = world;
    const thread = await addPost(pool(), cleo);
    await world.sql(`update posts set audience = 'followers' where id = $1`, [thread]);
    await follow(pool(), ada, cleo);
    const comment = await addComment(pool(), thread, dan);
    for (const user of [ada, bo]) await mention(comment, thread, dan, user);
    expect(await world.heard(ada)).toHaveLength(1);
    expect(world.frames(bo)).toEqual([]);
    expect(await world.rules(bo)).toEqual(['not_visible']);
  });

  it('a post that is made private with an event pending, and after it was told', async () => {
    const { ada, bo, cleo, dan } = world;
    const thread = await addPost(pool(), cleo);
    const comment = await addComment(pool(), thread, dan);
    await mention(comment, thread, dan, ada);
    expect(await world.heard(ada)).toHaveLength(1);
    await mention(comment, thread, dan, bo);
    await world.sql(`update posts set audience = 'followers' where id = $1`, [thread]);
    await world.heard(bo);
    expect(world.frames(bo)).toEqual([]);
    expect(await shownTo(ada)).toEqual([]);
    // Whoever resumes is told that it is gone.
    const { frames } = await recover(world.batches.inbox, ada, 0, (await world.list(ada)).epoch);
    expect(frames.map(({ frame }) => (JSON.parse(frame) as { event: string }).event)).toEqual(['withdrawn']);
  });

  it('an object that is gone without a trace in the other tables', async () => {
    const { ada, dan, cleo } = world;
    const thread = await addPost(pool(), cleo);
    const comment = await addComment(pool(), thread, dan);
    await mention(comment, thread, dan, ada);
    await world.heard(ada);
    await world.sql(
      `begin; set local session_replication_role = replica; delete from posts where id = ${thread}; commit`,
    );
    expect(await shownTo(ada)).toEqual([]);
  });
});

describe('accounts', () => {
  it('a suspended one leaves groups, their counts and what is read; and comes back', async () => {
    const { ada, bo, cleo, post } = world;
    await like(pool(), bo, post);
    await like(pool(), cleo, post);
    await addComment(pool(), post, bo);
    await world.heard(ada);
    await suspend(bo);
    expect(await shownTo(ada)).toEqual(['Cleo liked your post']);
    await world.sql('update users set deleted_at = null where id = $1', [bo]);
    expect(await shownTo(ada)).toEqual(['Bo commented on your post', 'Cleo and Bo liked your post']);
  });

  it('what a suspended one writes is counted in its channel, and told to nobody there', async () => {
    const { bo, cleo, post } = world;
    await suspend(bo);
    await addComment(pool(), post, bo);
    await world.sql('insert into messages (conversation_id, sender_id, body) values (7, $1, $2)', [bo, 'hi']);
    const id = await addComment(pool(), post, cleo);
    await world.batches.run();
    const told = world.batches.heard().flatMap((one) => (one.to === 'channel' ? [one] : []));
    expect(told.map(({ channel, data, actorId }) => [channel, data, actorId])).toEqual([
      [`post:${post}`, { post_id: post, comments_count: 2 }, null],
      [
        `post:${post}`,
        { post_id: post, comments_count: 2, user_id: cleo, comment: expect.objectContaining({ id }) as object },
        cleo,
      ],
    ]);
  });

  it('nor is it shown when a window ends', async () => {
    const { ada, bo, cleo, dan, post } = world;
    await like(pool(), bo, post);
    await world.heard(ada);
    await like(pool(), cleo, post);
    await like(pool(), dan, post);
    await world.heard(ada);
    await suspend(dan);
    await world.age(ada, '5 s');
    await world.batches.flush();
    expect(await world.heard(ada)).toMatchObject([
      { data: { message: 'Cleo and Bo liked your post', data: { actor_count: 2 } } },
    ]);
    expect(await shownTo(ada)).toEqual(['Cleo and Bo liked your post']);
  });

  it('who leaves a group of suspended people is not shown on: when the window ends it is taken away, and it is there when they come back', async () => {
    const { ada, bo, cleo, post } = world;
    await like(pool(), bo, post);
    await world.heard(ada);
    await like(pool(), cleo, post);
    await world.age(ada, '5 s');
    await world.batches.flush();
    expect(await world.heard(ada)).toMatchObject([{ data: { message: 'Cleo and Bo liked your post' } }]);
    await suspend(bo);
    await world.sql('delete from likes where user_id = $1', [cleo]);
    expect(await world.heard(ada)).toEqual([]);
    await world.age(ada, '5 s');
    await world.batches.flush();
    expect(await world.heard(ada)).toMatchObject([{ event: 'withdrawn' }]);
    expect(await shownTo(ada)).toEqual([]);
    await world.sql('update users set deleted_at = null where id = $1', [bo]);
    expect(await shownTo(ada)).toEqual(['Bo liked your post']);
  });

  it('a deleted one takes along what it did', async () => {
    const { ada, bo, cleo, post } = world;
    await like(pool(), bo, post);
    await like(pool(), cleo, post);
    await addComment(pool(), post, bo);
    await follow(pool(), bo, ada);
    await world.heard(ada);
    await world.age(ada, '5 s');
    await world.sql('delete from users where id = $1', [bo]);
    expect((await world.heard(ada)).map(({ event }) => event).sort()).toEqual([
      'notification',
      'withdrawn',
      'withdrawn',
    ]);
    expect(await shownTo(ada)).toEqual(['Cleo liked your post']);
  });
});
