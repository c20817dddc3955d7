/** What does not reach Ada, and why; and what a block takes back. */

import { describe, expect, it } from 'vitest';
import { addComment, block, follow, like, unlike } from '../support/social.js';
import { ada, age, batches, bo, cleo, database, heardByAda, inbox, post, useAda } from './ada.js';
import { framesOf } from './world.js';

useAda();

describe('privacy', () => {
  it.each([
    ['nobody hears of what they did themselves', 'self', () => like(database.pool, ada, post)],
    [
      'notifications off',
      'notifications_off',
      async () => {
        await database.pool.query('update users set notifications_enabled = false where id = $1', [ada]);
        await like(database.pool, bo, post);
      },
    ],
    [
      'that type off',
      'type_off',
      async () => {
        await batches.inbox.setPreferences(ada, { like: 'off' });
        await like(database.pool, bo, post);
      },
    ],
    [
      'only of people whom one follows',
      'policy',
      async () => {
        await batches.inbox.setPreferences(ada, { like: 'following' });
        await like(database.pool, bo, post);
      },
    ],
    [
      'Ada blocks Bo',
      'blocked',
      async () => {
        await block(database.pool, ada, bo);
        await like(database.pool, bo, post);
      },
    ],
    [
      'Bo blocks Ada',
      'blocked',
      async () => {
        await block(database.pool, bo, ada);
        await like(database.pool, bo, post);
      },
    ],
    [
      'a block committed between the event and its processing',
      'blocked',
      async () => {
        await like(database.pool, bo, post);
        await block(database.pool, ada, bo);
      },
    ],
    [
      'the actor is deleted',
      'actor_gone',
      async () => {
        await like(database.pool, bo, post);
        await database.pool.query('update users set deleted_at = now() where id = $1', [bo]);
      },
    ],
    [
      'the recipient is deleted',
      'recipient_gone',
      async () => {
        await like(database.pool, bo, post);
        await database.pool.query('update users set deleted_at = now() where id = $1', [ada]);
      },
    ],
  ])('%s', async (_, rule, act) => {
    await act();
    expect(await heardByAda()).toEqual([]);
    expect(await inbox()).toMatchObject({ unseen: 0, items: [] });
    const { rows } = await database.pool.query<{ rule: string }>(
      'select rule from belfry.verdict where $1 = any(user_ids) order by id desc limit 1',
      [ada],
    );
    expect(rows).toEqual([{ rule }]);
  });

  it('with preference `following` the like of somebody whom Ada follows arrives', async () => {
    await batches.inbox.setPreferences(ada, { like: 'following' });
    await follow(database.pool, ada, bo);
    await like(database.pool, bo, post);
    expect(await heardByAda()).toHaveLength(1);
  });

  it('a new block withdraws what came from the blocked, and lifting it brings nothing back', async () => {
    await like(database.pool, bo, post);
    await like(database.pool, cleo, post);
    await addComment(database.pool, post, bo);
    await heardByAda();
    await age('5 s');
    await block(database.pool, ada, bo);
    const frames = await heardByAda();
    expect(frames.map(({ event }) => event).sort()).toEqual(['notification', 'withdrawn']);
    expect(await inbox()).toMatchObject({ unseen: 1, items: [{ message: 'Cleo liked your post' }] });
    await database.pool.query('delete from blocks where blocker_id = $1', [ada]);
    expect(await heardByAda()).toEqual([]);
    expect(await inbox()).toMatchObject({ unseen: 1 });
  });

  describe('of what was taken back and came again, while a block came and was lifted,', () => {
    const unblock = (): Promise<unknown> => database.pool.query('delete from blocks where blocker_id = $1', [ada]);
    const setComment = (id: string, deleted: string): Promise<unknown> =>
      database.pool.query(`update comments set deleted_at = ${deleted} where id = $1`, [id]);
    const inPages = async (together: boolean, acts: readonly (() => Promise<unknown>)[]): Promise<void> => {
      for (const act of acts) {
        await act();
        if (!together) await heardByAda();
      }
      const frames = await heardByAda();
      expect(frames.filter(({ data }) => data.data?.alert === true)).toEqual([]);
    };

    it.each([true, false])('what came again after the block stands, read together: %s', async (together) => {
      await like(database.pool, bo, post);
      const comment = await addComment(database.pool, post, bo);
      await heardByAda();
      await inPages(together, [
        () => unlike(database.pool, bo, post),
        () => setComment(comment, 'now()'),
        () => block(database.pool, ada, bo),
        unblock,
        () => like(database.pool, bo, post),
        () => setComment(comment, 'null'),
      ]);
      expect(await inbox()).toMatchObject({ unseen: 2 });
      const messages = ['Bo commented on your post', 'Bo liked your post'].map((message) => ({ message }));
      expect((await inbox()).items).toEqual(
        expect.arrayContaining(messages.map((one) => expect.objectContaining(one))),
      );
    });

    it.each([true, false])('what came again before the block stays away, read together: %s', async (together) => {
      await like(database.pool, bo, post);
      await heardByAda();
      await inPages(together, [
        () => unlike(database.pool, bo, post),
        () => like(database.pool, bo, post),
        () => block(database.pool, ada, bo),
        unblock,
      ]);
      expect(await inbox()).toMatchObject({ unseen: 0, items: [] });
    });

    it.each([true, false])('nothing stands beside a block that is in force, read together: %s', async (together) => {
      await like(database.pool, bo, post);
      await heardByAda();
      await inPages(together, [
        () => unlike(database.pool, bo, post),
        () => block(database.pool, ada, bo),
        () => like(database.pool, bo, post),
      ]);
      expect(await inbox()).toMatchObject({ unseen: 0, items: [] });
    });
  });

  it('a window that ends after notifications were turned off says nothing', async () => {
    await like(database.pool, bo, post);
    await heardByAda();
    await like(database.pool, cleo, post);
    await heardByAda();
    await database.pool.query('update users set notifications_enabled = false where id = $1', [ada]);
    await age('5 s');
    await batches.flush();
    expect(framesOf(batches.heard(), ada)).toEqual([]);
    const { rows } = await database.pool.query(
      'select 1 from belfry.notification where user_id = $1 and due_at is not null',
      [ada],
    );
    expect(rows).toEqual([]);
  });
});
