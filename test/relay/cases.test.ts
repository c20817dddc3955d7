/**
 * Rows in, frames and inbox out: what people hear and what they do not, on a real Postgres with real triggers.
 * Ada owns the post in every case; each case has a database of its own.
 */

import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { parse, stringify } from 'yaml';
import type { Publication } from '../../src/broker/broker.js';
import { installCapture } from '../../src/capture/install.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import {
  addComment,
  addPost,
  addUsers,
  block,
  follow,
  like,
  socialConfig,
  socialSql,
  testSecret,
  unlike,
} from '../support/social.js';
import { startBatches } from './batches.js';
import type { Batches } from './batches.js';
import { recover } from '../support/recover.js';
import { ageWindows } from '../support/windows.js';

let database: TestDatabase;
let batches: Batches;
let ada: string;
let bo: string;
let cleo: string;
let others: string[];
let post: string;

beforeAll(async () => {
  database = await createTestDatabase({ prepare: socialSql });
  batches = await startBatches(database, socialConfig(database.url));
  const client = await database.client();
  await installCapture(client, batches.config);
});

/** Everybody and the post are new for each case, so that cases share a database and no history. */
beforeEach(async () => {
  [ada = '', bo = '', cleo = '', ...others] = await addUsers(
    database.pool,
    'Ada',
    'Bo',
    'Cleo',
    ...Array.from({ length: 12 }, (_, i) => `Other ${String(i)}`),
  );
  post = await addPost(database.pool, ada);
  await batches.run();
  batches.heard();
});

afterAll(async () => {
  await batches.stop();
  await database.drop();
});

interface Frame {
  readonly event: string;
  readonly seq: number;
  readonly data: {
    readonly id: string;
    readonly message?: string;
    readonly data?: { readonly actor_count: number; readonly alert: boolean; readonly actors: unknown[] };
  };
}

/** Processes what was written; the frames that Ada gets. */
async function heardByAda(): Promise<Frame[]> {
  await batches.run();
  return framesOf(batches.heard(), ada);
}

function framesOf(publications: readonly Publication[], userId: string): Frame[] {
  return publications.flatMap((publication) =>
    publication.to === 'user' && publication.userId === userId ? [JSON.parse(publication.frame) as Frame] : [],
  );
}

const inbox = (userId = ada) => batches.inbox.list(userId, { limit: 100, before: null, state: null });

/** As if the last push had been so long ago. */
const age = (interval: string) => ageWindows(database.pool, interval, [ada]);

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

describe('counters', () => {
  it('are told in the channel, absolute, with the latest actor', async () => {
    await like(database.pool, bo, post);
    await like(database.pool, cleo, post);
    await batches.run();
    expect(batches.heard().filter(({ to }) => to === 'counter')).toMatchObject([
      { channel: `post:${post}`, event: 'like_update', data: { post_id: post, likes_count: 2 }, actorId: cleo },
    ]);
    expect(await batches.channels.recover(`post:${post}`, null, null)).toMatchObject({
      state: { likes_count: 2, comments_count: 0 },
    });
  });

  it('a new comment is told at once with its text and the count', async () => {
    const comment = await addComment(database.pool, post, bo, 'hello');
    await batches.run();
    expect(batches.heard().filter(({ to }) => to === 'channel' || to === 'counter')).toMatchObject([
      {
        to: 'channel',
        channel: `post:${post}`,
        offset: 1,
        event: 'comment_update',
        data: {
          post_id: post,
          comments_count: 1,
          user_id: bo,
          comment: { id: comment, content: 'hello', user_id: bo },
        },
        dataWithoutActor: { post_id: post, comments_count: 1 },
      },
    ]);
  });

  it('of a replayed comment are those of now, as in the state that comes before it', async () => {
    const channel = `post:${post}`;
    const [kept, gone] = [await addComment(database.pool, post, bo), await addComment(database.pool, post, cleo)];
    await batches.run(1);
    await database.pool.query('delete from comments where id = $1', [gone]);
    await batches.run(1);
    const live = batches.heard().flatMap((one) => (one.to === 'channel' ? [one.data] : []));
    expect(live).toMatchObject([{ comments_count: 1 }, { comments_count: 2 }]);
    const { epoch } = await batches.channels.recover(channel, null, null);
    const { state, events } = await batches.channels.recover(channel, 0, epoch);
    expect(state).toMatchObject({ comments_count: 1 });
    expect(events).toMatchObject(
      [kept, gone].map((id) => ({
        data: { comments_count: 1, post_id: post, comment: { id } },
        dataWithoutActor: { comments_count: 1, post_id: post },
      })),
    );
  });

  it('of another object are told all the same where the two share a channel', async () => {
    const text = parse(socialConfig(database.url)) as { sources: { channels?: string[] }[] };
    for (const source of text.sources) source.channels?.push('all');
    const shared = await startBatches(database, stringify(text));
    onTestFinished(() => shared.stop());
    const other = await addPost(database.pool, ada);
    const comment = await addComment(database.pool, other, bo);
    await shared.run();
    shared.heard();
    await addComment(database.pool, post, bo);
    await database.pool.query('delete from comments where id = $1', [comment]);
    await shared.run();
    const told = shared.heard().flatMap((one) => (one.to === 'channel' || one.to === 'counter' ? [one] : []));
    expect(told.filter(({ channel }) => channel === 'all')).toMatchObject([
      { to: 'channel', data: { post_id: post, comments_count: 1 }, counter: `post_comment ${post}` },
      { to: 'counter', data: { post_id: other, comments_count: 0 }, counter: `post_comment ${other}` },
    ]);
    expect(told.map(({ channel }) => channel).sort()).toEqual(['all', 'all', `post:${other}`, `post:${post}`].sort());
  });
});

describe('the SQL API', () => {
  it('notify: the message as given, once per dedupe_key', async () => {
    for (let i = 0; i < 2; i++)
      await database.pool.query(
        `select belfry.notify($1, 'system', 'Your export is ready', '{"url": "/x", "big": 9007199254740993}', null, 'export-1')`,
        [ada],
      );
    const frames = await heardByAda();
    expect(frames).toMatchObject([
      { data: { type: 'system', message: 'Your export is ready', data: { url: '/x', alert: true, event_count: 1 } } },
    ]);
    expect(await inbox()).toMatchObject({ unseen: 1 });
  });

  it('broadcast: an event in the channel with an offset', async () => {
    await database.pool.query(`select belfry.broadcast($1, 'typing', '{"by": "Bo"}')`, [`post:${post}`]);
    await batches.run();
    expect(batches.heard()).toMatchObject([
      { to: 'channel', channel: `post:${post}`, offset: 1, event: 'typing', data: { by: 'Bo' } },
    ]);
  });

  it('announce: a notification without seq to everyone, until it is seen', async () => {
    await database.pool.query(`select belfry.announce('Hello world')`);
    await batches.run();
    const [heard] = batches.heard();
    expect(heard).toMatchObject({ to: 'everyone' });
    const { announcements } = await recover(batches.inbox, ada, null, null);
    const last = JSON.parse(announcements.at(-1) ?? '{}') as Frame;
    expect(last).toMatchObject({ event: 'notification', data: { type: 'system', message: 'Hello world' } });
    expect(last).not.toHaveProperty('seq');
    await batches.inbox.mark(ada, 'seen', { ids: [last.data.id] }, null);
    expect((await recover(batches.inbox, ada, null, null)).announcements).toEqual([]);
  });

  it('revoke: kept with the batch, for those whom no message reaches', async () => {
    const { revocation } = await batches.inbox.heads([], []);
    await database.pool.query(`select belfry.revoke('x7'), belfry.revoke_session('s-1')`);
    await batches.run();
    expect(batches.heard()).toMatchObject([
      { kind: 'revoke', userId: 'x7' },
      { kind: 'revokeSession', session: 's-1' },
    ]);
    const kept = await batches.inbox.revokedAfter(revocation);
    expect(kept).toMatchObject([
      { userId: 'x7', session: null },
      { userId: null, session: 's-1' },
    ]);
    expect((await batches.inbox.heads([], [])).revocation).toBe(kept[1]?.id);
    for (const { ageMs } of kept) expect(ageMs).toBeGreaterThanOrEqual(0);
  });

  it('revoke: as old as its commit is, however late it is read', async () => {
    const { revocation } = await batches.inbox.heads([], []);
    const client = await database.client();
    const now = async (): Promise<string> =>
      (await client.query<{ now: string }>('select clock_timestamp()::text as now')).rows[0]!.now;
    await client.query(`begin; select belfry.revoke('x8')`);
    const beforeCommit = await now();
    await client.query('commit');
    const afterCommit = await now();
    await client.end();
    await batches.run();
    const { rows } = await database.pool.query(
      'select revoked_at between $2 and $3 as right, at > $3 as later from belfry.revocation where id > $1',
      [revocation, beforeCommit, afterCommit],
    );
    expect(rows).toEqual([{ right: true, later: true }]);
    expect((await database.pool.query('select from belfry.revoke_call')).rowCount).toBe(0);
  });
});

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

  it('the same outbox row twice does nothing the second time', async () => {
    await like(database.pool, bo, post);
    await database.pool.query(
      `insert into belfry.outbox (source, op, new) select source, op, new from belfry.outbox order by id desc limit 1`,
    );
    expect(await heardByAda()).toHaveLength(1);
    expect(await inbox()).toMatchObject({ unseen: 1, items: [{ data: { actor_count: 1, event_count: 1 } }] });
  });
});

it('a config without sources, blocks or mutes tells what the SQL API says', async () => {
  const bare = await createTestDatabase();
  onTestFinished(() => bare.drop());
  const config = { version: 1, database: { url: bare.url }, auth: { secret: testSecret }, sources: [] };
  const alone = await startBatches(bare, stringify(config));
  onTestFinished(() => alone.stop());
  await bare.pool.query(`select belfry.notify('7', 'greeting', 'hello')`);
  await alone.run();
  expect(await alone.inbox.list('7', { limit: 20, before: null, state: null })).toMatchObject({
    items: [{ message: 'hello' }],
  });
});
