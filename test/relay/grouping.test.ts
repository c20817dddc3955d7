/** Which notification an event goes into, when it is pushed again, and what an undo leaves. */

import { describe, expect, it } from 'vitest';
import { addComment, block, follow, like, unlike } from '../support/social.js';
import { ada, age, batches, bo, cleo, database, heardByAda, inbox, others, post, useAda } from './ada.js';
import { framesOf } from './world.js';
import type { Frame } from './world.js';

useAda();

describe('grouping', () => {
  it('one like: one notification that rings', async () => {
    await like(database.pool, bo, post);
    expect(await heardByAda()).toMatchObject([
      { event: 'notification', seq: 1, data: { message: 'Bo liked your post', data: { actor_count: 1, alert: true } } },
    ]);
    expect(await inbox()).toMatchObject({
      unseen: 1,
      unread: 1,
      items: [{ type: 'like', user_id: bo, post_id: post }],
    });
  });

  it('ten likes at once: one notification of ten actors that shows eight', async () => {
    for (const user of others.slice(0, 10)) await like(database.pool, user, post);
    const frames = await heardByAda();
    expect(frames).toHaveLength(1);
    expect(frames[0]?.data).toMatchObject({
      message: 'Other 9 and 9 others liked your post',
      data: { actor_count: 10 },
    });
    expect(frames[0]?.data.data?.actors).toHaveLength(8);
    expect(await inbox()).toMatchObject({ unseen: 1 });
  });

  it('the first at once, the second when the window ends, the tenth early', async () => {
    await like(database.pool, bo, post);
    expect(await heardByAda()).toHaveLength(1);
    await like(database.pool, cleo, post);
    expect(await heardByAda()).toHaveLength(0);
    await batches.flush();
    expect(batches.heard()).toEqual([]);
    await age('5 s');
    await batches.flush();
    expect(framesOf(batches.heard(), ada)).toMatchObject([
      { seq: 2, data: { message: 'Cleo and Bo liked your post', data: { actor_count: 2, alert: false } } },
    ]);
    for (const user of others.slice(0, 7)) await like(database.pool, user, post);
    expect(await heardByAda()).toHaveLength(0);
    await like(database.pool, others[7] ?? '', post);
    expect(await heardByAda()).toMatchObject([{ seq: 3, data: { data: { actor_count: 10, alert: false } } }]);
  });

  it('a group takes no more 12 hours after its first event', async () => {
    const [first, second, third] = others.slice(0, 3);
    await like(database.pool, first ?? '', post);
    await heardByAda();
    await database.pool.query(
      `update belfry.notification set first_at = first_at - interval '11:59' where user_id = $1`,
      [ada],
    );
    await like(database.pool, second ?? '', post);
    await heardByAda();
    expect((await inbox()).items).toHaveLength(1);
    await database.pool.query(
      `update belfry.notification set first_at = first_at - interval '0:02' where user_id = $1`,
      [ada],
    );
    await like(database.pool, third ?? '', post);
    expect(await heardByAda()).toMatchObject([{ data: { data: { actor_count: 1, alert: true } } }]);
    expect((await inbox()).items).toHaveLength(2);
  });

  it('read, then another like: the same notification, unseen again, and it rings', async () => {
    await like(database.pool, bo, post);
    const [first] = await heardByAda();
    await batches.inbox.mark(ada, 'read', { ids: [first?.data.id ?? ''] }, null);
    expect(await inbox()).toMatchObject({ unseen: 0, unread: 0 });
    await age('5 s');
    await like(database.pool, cleo, post);
    const [second] = await heardByAda();
    expect(second?.data).toMatchObject({ id: first?.data.id, data: { state: 'unseen', alert: true } });
    expect(await inbox()).toMatchObject({ unseen: 1, unread: 1 });
  });

  it.each([
    ['seen', false],
    ['read', true],
    ['archived', true],
  ] as const)('%s while another like waits for its window: that one comes up with it, unseen', async (state, alert) => {
    await like(database.pool, bo, post);
    const [first] = await heardByAda();
    await like(database.pool, cleo, post);
    expect(await heardByAda()).toEqual([]);
    await batches.inbox.mark(ada, state, { through: first?.seq ?? 0 }, null);
    expect(await inbox()).toMatchObject({ unseen: 0 });
    await age('5 s');
    await batches.flush();
    expect(framesOf(batches.heard(), ada)).toMatchObject([
      { event: 'notification', data: { id: first?.data.id, user_id: cleo, data: { state: 'unseen', alert } } },
    ]);
    expect(await inbox()).toMatchObject({ unseen: 1, items: [{ data: { state: 'unseen', actor_count: 2 } }] });
  });

  it('archived while an undo waits for its window: nothing comes up', async () => {
    const [second = ''] = others;
    await like(database.pool, bo, post);
    const [first] = await heardByAda();
    await age('5 s');
    await like(database.pool, second, post);
    expect(await heardByAda()).toHaveLength(1);
    await unlike(database.pool, second, post);
    expect(await heardByAda()).toEqual([]);
    await batches.inbox.mark(ada, 'archived', { ids: [first?.data.id ?? ''] }, null);
    await age('5 s');
    await batches.flush();
    expect(framesOf(batches.heard(), ada)).toEqual([]);
    expect(await inbox()).toMatchObject({ unseen: 0, items: [] });
  });

  it('archived, then another like: a new notification', async () => {
    await like(database.pool, bo, post);
    const [first] = await heardByAda();
    await batches.inbox.mark(ada, 'archived', { ids: [first?.data.id ?? ''] }, null);
    await like(database.pool, cleo, post);
    const [second] = await heardByAda();
    expect(second?.data.id).not.toBe(first?.data.id);
    expect(second?.data).toMatchObject({ data: { actor_count: 1, alert: true } });
    expect((await inbox()).items).toHaveLength(1);
  });

  it('a group of which nothing was left takes a like again however old it is, and rings', async () => {
    await like(database.pool, bo, post);
    const [first] = await heardByAda();
    await unlike(database.pool, bo, post);
    await heardByAda();
    await database.pool.query(
      `update belfry.notification set first_at = first_at - interval '13 h' where user_id = $1`,
      [ada],
    );
    await like(database.pool, cleo, post);
    expect(await heardByAda()).toMatchObject([
      { event: 'notification', data: { id: first?.data.id, data: { actor_count: 1, alert: true } } },
    ]);
    // Twelve hours from now, not from then.
    await like(database.pool, bo, post);
    await heardByAda();
    expect((await inbox()).items).toMatchObject([{ data: { actor_count: 2 } }]);
  });

  it.each(['unseen', 'seen'] as const)(
    'one that is %s does not ring where a like and the block of all who were behind it are read at once',
    async (state) => {
      await like(database.pool, bo, post);
      const [first] = await heardByAda();
      const id = first?.data.id ?? '';
      if (state === 'seen') await batches.inbox.mark(ada, state, { ids: [id] }, null);
      await like(database.pool, cleo, post);
      await block(database.pool, ada, bo);
      // Ada's page never hears that it was gone: for her it is an update in place.
      expect(await heardByAda()).toMatchObject([
        { event: 'notification', data: { id, data: { state: 'unseen', actor_count: 1, alert: false } } },
      ]);
    },
  );

  it('comments are never grouped', async () => {
    await addComment(database.pool, post, bo, 'one');
    await addComment(database.pool, post, bo, 'two');
    expect(await heardByAda()).toHaveLength(2);
    expect(await inbox()).toMatchObject({ unseen: 2 });
  });

  it('a follow groups by recipient alone and has no object', async () => {
    await follow(database.pool, bo, ada);
    const [frame] = await heardByAda();
    expect(frame?.data).toMatchObject({ type: 'follow', user_id: bo, message: 'Bo started following you' });
    expect(frame?.data.data).not.toHaveProperty('object');
  });
});

describe('undo', () => {
  it('like and unlike before the relay reads: nothing', async () => {
    await like(database.pool, bo, post);
    await unlike(database.pool, bo, post);
    expect(await heardByAda()).toEqual([]);
    expect(await inbox()).toMatchObject({ unseen: 0, items: [] });
  });

  it('a like that was delivered is withdrawn', async () => {
    await like(database.pool, bo, post);
    const [first] = await heardByAda();
    await unlike(database.pool, bo, post);
    expect(await heardByAda()).toMatchObject([
      { event: 'withdrawn', seq: 2, data: { id: first?.data.id, type: 'like' } },
    ]);
    expect(await inbox()).toMatchObject({ unseen: 0, unread: 0, items: [] });
  });

  it('Bo and Cleo like, Cleo takes it back: the same notification of one, which does not ring', async () => {
    await like(database.pool, bo, post);
    await like(database.pool, cleo, post);
    const [first] = await heardByAda();
    await age('5 s');
    await unlike(database.pool, cleo, post);
    expect(await heardByAda()).toMatchObject([
      {
        event: 'notification',
        data: {
          id: first?.data.id,
          user_id: bo,
          message: 'Bo liked your post',
          data: { actor_count: 1, actors: [{ id: bo, name: 'Bo' }], alert: false },
        },
      },
    ]);
  });

  it('of ten, of whom eight are shown, one of those takes it back: eight are shown again', async () => {
    for (const user of others.slice(0, 10)) await like(database.pool, user, post);
    await heardByAda();
    await age('5 s');
    await unlike(database.pool, others[9] ?? '', post);
    const [frame] = await heardByAda();
    const shown = others.slice(1, 9).reverse();
    expect(frame?.data).toMatchObject({ user_id: others[8], data: { actor_count: 9 } });
    expect(frame?.data.data?.actors.map((actor) => (actor as { id: string }).id)).toEqual(shown);
    expect(await inbox()).toMatchObject({
      items: [{ user_id: others[8], data: { actors: shown.map((id) => ({ id })) } }],
    });
  });

  it('twenty toggles: the right state at the end, one ring, and few pushes', async () => {
    const frames: Frame[] = [];
    for (let i = 0; i < 10; i++) {
      await like(database.pool, bo, post);
      frames.push(...(await heardByAda()));
      await unlike(database.pool, bo, post);
      frames.push(...(await heardByAda()));
    }
    await like(database.pool, bo, post);
    frames.push(...(await heardByAda()));
    expect(frames.filter(({ data }) => data.data?.alert === true)).toHaveLength(1);
    expect(frames.length).toBeLessThanOrEqual(4);
    expect(await inbox()).toMatchObject({ unseen: 1, items: [{ data: { actor_count: 1, event_count: 1 } }] });
  });

  it('delete and insert of the same pair in one transaction: nothing', async () => {
    await like(database.pool, bo, post);
    await heardByAda();
    await database.pool.query(`begin; delete from likes where user_id = ${bo} and post_id = ${post};
      insert into likes (user_id, post_id) values (${bo}, ${post}); commit`);
    expect(await heardByAda()).toEqual([]);
    expect(await inbox()).toMatchObject({ unseen: 1, items: [{ data: { actor_count: 1 } }] });
  });

  it('soft delete withdraws, undelete brings it back without a ring', async () => {
    const comment = await addComment(database.pool, post, bo);
    await heardByAda();
    await database.pool.query('update comments set deleted_at = now() where id = $1', [comment]);
    expect(await heardByAda()).toMatchObject([{ event: 'withdrawn' }]);
    await database.pool.query(
      `update belfry.notification_event set removed_at = removed_at - interval '1 hour' where user_id = $1`,
      [ada],
    );
    await database.pool.query('update comments set deleted_at = null where id = $1', [comment]);
    expect(await heardByAda()).toMatchObject([{ event: 'notification', data: { data: { alert: false } } }]);
    expect(await inbox()).toMatchObject({ unseen: 1 });
  });

  it('deletion of the post takes everything with it', async () => {
    await like(database.pool, bo, post);
    await addComment(database.pool, post, cleo);
    await heardByAda();
    await database.pool.query('delete from posts where id = $1', [post]);
    expect((await heardByAda()).map(({ event }) => event)).toEqual(['withdrawn', 'withdrawn']);
    expect(await inbox()).toMatchObject({ unseen: 0, items: [] });
  });
});
