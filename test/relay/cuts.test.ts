/** However transactions end and the stream is cut: each event once. */

import { describe, expect, it } from 'vitest';
import { addComment, block, like, unlike } from '../support/social.js';
import { ada, batches, bo, cleo, database, heardByAda, inbox, others, post, useAda } from './ada.js';

useAda();

describe('however the stream is cut', () => {
  it('what was rolled back, to a savepoint or wholly, says nothing', async () => {
    const liking = (user: string) => `insert into likes (user_id, post_id) values (${user}, ${post})`;
    await database.pool.query(`begin; ${liking(bo)}; rollback`);
    expect(await heardByAda()).toEqual([]);
    await database.pool.query(
      `begin; savepoint a; ${liking(bo)}; rollback to a; ${liking(cleo)}; savepoint b; ${liking(others[0] ?? '')}; release b; commit`,
    );
    expect(await heardByAda()).toMatchObject([{ data: { user_id: others[0], data: { actor_count: 2 } } }]);
    expect(await batches.channels.recover(`post:${post}`, null, null)).toMatchObject({ state: { likes_count: 2 } });
  });

  it('a lower id that is committed late is neither lost nor told twice', async () => {
    const late = await database.client();
    const late2 = await database.client();
    for (const [client, user] of [
      [late, bo],
      [late2, cleo],
    ] as const) {
      await client.query('begin');
      await client.query('insert into comments (post_id, user_id, content) values ($1, $2, $3)', [post, user, 'late']);
    }
    await addComment(database.pool, post, others[0] ?? '', 'early');
    const commenters = async () => (await heardByAda()).map(({ data }) => (data as { user_id?: string }).user_id);
    expect(await commenters()).toEqual([others[0]]);
    await late2.query('commit');
    expect(await commenters()).toEqual([cleo]);
    await addComment(database.pool, post, others[1] ?? '', 'later');
    expect(await commenters()).toEqual([others[1]]);
    await late.query('commit');
    expect(await commenters()).toEqual([bo]);
    expect(await commenters()).toEqual([]);
    expect(await inbox()).toMatchObject({ unseen: 4 });
    expect(await batches.channels.recover(`post:${post}`, null, null)).toMatchObject({ state: { comments_count: 4 } });
  });

  it.each([
    ['all in one page', () => Promise.resolve()],
    ['a page each', () => batches.run()],
  ])('a row that is replaced tells who was not told of it before, and nobody twice: %s', async (_, cut) => {
    const enable = (enabled: boolean) =>
      database.pool.query('update users set notifications_enabled = $2 where id = $1', [ada, enabled]);
    await enable(false);
    await like(database.pool, bo, post);
    expect(await heardByAda()).toEqual([]);
    await enable(true);
    const replace = async (user: string): Promise<void> => {
      await unlike(database.pool, user, post);
      await cut();
      await like(database.pool, user, post);
    };
    await replace(bo);
    expect(await heardByAda()).toMatchObject([{ event: 'notification', data: { user_id: bo } }]);
    await replace(bo);
    await batches.run();
    expect(await inbox()).toMatchObject({ unseen: 1, items: [{ data: { actor_count: 1, event_count: 1 } }] });
    // A block takes it away, and is lifted.
    await block(database.pool, ada, bo);
    await batches.run();
    await database.pool.query('delete from blocks where blocker_id = $1', [ada]);
    await cut();
    await replace(bo);
    await batches.run();
    expect(await inbox()).toMatchObject({ unseen: 1, items: [{ data: { actor_count: 1, event_count: 1 } }] });
  });

  it('the same outbox row twice does nothing the second time', async () => {
    await like(database.pool, bo, post);
    await database.pool.query(
      `insert into belfry.outbox (source, op, new) select source, op, new from belfry.outbox order by id desc limit 1`,
    );
    expect(await heardByAda()).toHaveLength(1);
    expect(await inbox()).toMatchObject({ unseen: 1, items: [{ data: { actor_count: 1, event_count: 1 } }] });
  });
});
