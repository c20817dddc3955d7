/** CONTRACT §5: channels, counters, publishing, presence; and §3's broadcast. */

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { pause, Raw, startRig, until, type Rig } from './rig.js';

let rig: Rig;
beforeAll(async () => {
  rig = await startRig();
});
afterAll(() => rig.stop());

const like = (user: string, post: string) =>
  rig.db.query('insert into public.likes (user_id, post_id) values ($1, $2)', [user, post]);
const comment = async (user: string, post: string, content = 'well said') => {
  const sql = 'insert into public.comments (user_id, post_id, content) values ($1, $2, $3) returning id';
  return (await rig.db.query<{ id: string }>(sql, [user, post, content])).rows[0]?.id ?? '';
};
const broadcast = (channel: string, event: string, data: object) =>
  rig.db.query('select belfry.broadcast($1, $2, $3)', [channel, event, data]);

/** A post, and a viewer whose socket is subscribed to it. */
async function scene() {
  const post = await rig.post(await rig.user('Grace'));
  const viewer = await rig.user('Vera');
  const raw = await Raw.session(rig, viewer);
  const answer = await raw.ask({ op: 'subscribe', channel: `post:${post}` });
  return { post, channel: `post:${post}`, viewer, ada: await rig.user('Ada'), raw, answer };
}

describe('subscribe', () => {
  it('answers with position and every counter, 0 where there are no rows', async () => {
    const { channel, raw, answer } = await scene();
    expect(answer.ok).toEqual({
      channel,
      offset: 0,
      epoch: raw.auth.ok?.['epoch'],
      recovered: true,
      state: { likes_count: 0, comments_count: 0 },
    });
    raw.end();
  });

  it('counts what was there before Belfry looked', async () => {
    const { channel, post, ada, raw } = await scene();
    await like(ada, post);
    await raw.event('like_update');
    await comment(ada, post);
    await raw.event('comment_update');
    const again = await Raw.session(rig, ada);
    expect((await again.ask({ op: 'subscribe', channel })).ok?.['state']).toEqual({
      likes_count: 1,
      comments_count: 1,
    });
    for (const one of [raw, again]) one.end();
  });

  it.each(['secret:1', 'post', 'nokind:1', 'belfry:1'])(
    'to %s, a kind that the config does not name: forbidden',
    async (channel) => {
      const raw = await Raw.session(rig, await rig.user());
      const { error } = await raw.ask({ op: 'subscribe', channel });
      // `post` without a colon is a room of kind room, which the config names.
      if (channel === 'post') expect(error).toBeUndefined();
      else expect(error).toMatchObject({ code: 'forbidden', retry: false });
      raw.end();
    },
  );

  it('asks the SQL of the config: members only', async () => {
    const [member, stranger] = [await rig.user(), await rig.user()];
    await rig.db.query('insert into public.members values (77, $1)', [member]);
    const [one, two] = [await Raw.session(rig, member), await Raw.session(rig, stranger)];
    expect((await one.ask({ op: 'subscribe', channel: 'conversation:77' })).ok).toBeDefined();
    expect((await two.ask({ op: 'subscribe', channel: 'conversation:77' })).error?.code).toBe('forbidden');
    // A value that cannot be cast to the column's type means no row.
    expect(
      (await one.ask({ op: 'subscribe', channel: `conversation:77'; drop table public.members; --` })).error?.code,
    ).toBe('forbidden');
    for (const raw of [one, two]) raw.end();
  });

  it('to more channels than limits.subscriptions: too_many_subscriptions; unsubscribing makes room', async () => {
    const raw = await Raw.session(rig, await rig.user());
    for (let i = 0; i < 6; i++) expect((await raw.ask({ op: 'subscribe', channel: `r${i}` })).ok).toBeDefined();
    expect((await raw.ask({ op: 'subscribe', channel: 'r6' })).error?.code).toBe('too_many_subscriptions');
    expect((await raw.ask({ op: 'unsubscribe', channel: 'r0' })).ok).toBeDefined();
    expect((await raw.ask({ op: 'subscribe', channel: 'r6' })).ok).toBeDefined();
    raw.end();
  });

  it('ends with unsubscribe', async () => {
    const { channel, post, ada, raw } = await scene();
    await raw.ask({ op: 'unsubscribe', channel });
    const other = await Raw.session(rig, ada);
    await other.ask({ op: 'subscribe', channel });
    await comment(ada, post);
    await other.event('comment_update');
    expect(await raw.quiet()).toEqual([]);
    for (const one of [raw, other]) one.end();
  });
});

describe('counter updates', () => {
  it('like_update holds the absolute count and the latest actor, and no position', async () => {
    const { channel, post, ada, raw } = await scene();
    await like(ada, post);
    expect(await raw.event('like_update')).toEqual({
      event: 'like_update',
      channel,
      data: { post_id: post, likes_count: 1, user_id: ada },
    });
    await rig.db.query('delete from public.likes where post_id = $1', [post]);
    expect((await raw.event('like_update')).data).toMatchObject({ likes_count: 0 });
    raw.end();
  });

  it('a new comment comes at once, with the include columns and an offset', async () => {
    const { channel, post, ada, raw } = await scene();
    const id = await comment(ada, post, 'well said');
    expect(await raw.event('comment_update')).toEqual({
      event: 'comment_update',
      channel,
      offset: 1,
      data: { post_id: post, comments_count: 1, user_id: ada, comment: { id, content: 'well said', user_id: ada } },
    });
    await rig.db.query('update public.comments set deleted_at = now() where id = $1', [id]);
    const gone = await raw.event('comment_update');
    expect(gone.data).toMatchObject({ comments_count: 0 });
    expect(gone.data).not.toHaveProperty('comment');
    raw.end();
  });

  it('are coalesced to at most one in 250 ms, and the last is exact', async () => {
    const { post, raw } = await scene();
    const people = await Promise.all(Array.from({ length: 60 }, () => rig.user()));
    const began = Date.now();
    for (const person of people) {
      await like(person, post);
      await pause(15);
    }
    await raw.next((frame) => frame.event === 'like_update' && frame.data?.['likes_count'] === 60);
    const took = Date.now() - began;
    const updates = raw.frames.filter(({ event }) => event === 'like_update');
    expect(updates.length).toBeGreaterThan(1);
    expect(updates.length).toBeLessThanOrEqual(Math.ceil(took / 250) + 1);
    raw.end();
  });

  it('come to a subscriber with a block relation without actor and comment', async () => {
    const { channel, post, ada, raw } = await scene();
    const [blocker, blocked] = [await rig.user(), await rig.user()];
    await rig.db.query('insert into public.blocks values ($1, $2), ($2, $3)', [blocker, ada, blocked]);
    const hidden = [await Raw.session(rig, blocker), await Raw.session(rig, blocked)];
    for (const one of hidden) await one.ask({ op: 'subscribe', channel });
    await like(ada, post);
    expect((await raw.event('like_update')).data).toMatchObject({ user_id: ada });
    for (const one of hidden) {
      expect((await one.event('like_update')).data).toEqual({ post_id: post, likes_count: 1 });
    }
    await comment(ada, post);
    expect((await raw.event('comment_update')).data).toMatchObject({ user_id: ada, comment: { user_id: ada } });
    for (const one of hidden) {
      expect((await one.event('comment_update')).data).toEqual({ post_id: post, comments_count: 1 });
    }
    for (const one of [raw, ...hidden]) one.end();
  });

  it('a block after subscribing counts, too', async () => {
    const { post, viewer, ada, raw } = await scene();
    await like(ada, post);
    expect((await raw.event('like_update')).data).toMatchObject({ user_id: ada });
    await rig.db.query('insert into public.blocks values ($1, $2)', [ada, viewer]);
    await pause(1000);
    await comment(ada, post);
    const update = await raw.event('comment_update');
    expect(update.data).toEqual({ post_id: post, comments_count: 1 });
    raw.end();
  });

  it('of a truncated table are 0, what came from it is gone, and the client is told to fetch', async () => {
    const own = await startRig();
    try {
      const author = await own.user('Grace');
      const post = await own.post(author);
      const raw = await Raw.session(own, author);
      await raw.ask({ op: 'subscribe', channel: `post:${post}` });
      await own.db.query('insert into public.likes values ($1, $2)', [await own.user('Ada'), post]);
      const { seq } = await raw.event('notification');
      await own.db.query('truncate public.likes');
      // Either on the open socket, or by sending it away and not recovering it.
      await until('told', () => raw.closed !== null || raw.frames.some(({ event }) => event === 'resync'));
      const back = await Raw.session(own, author, { since: seq, epoch: raw.auth.ok?.['epoch'] });
      if (raw.closed !== null) {
        expect(raw.closed.code).toBe(1012);
        expect(back.auth.ok).toMatchObject({ recovered: false });
      }
      expect(back.auth.ok).toMatchObject({ unseen: 0, unread: 0 });
      const { ok } = await back.ask({ op: 'subscribe', channel: `post:${post}` });
      expect(ok?.['state']).toMatchObject({ likes_count: 0 });
      for (const one of [raw, back]) one.end();
    } finally {
      await own.stop();
    }
  });
});

describe('logged events', () => {
  it('belfry.broadcast reaches the subscribers, with dense offsets', async () => {
    const { channel, raw } = await scene();
    await broadcast(channel, 'post_update', { title: 'new' });
    await broadcast(channel, 'post_update', { title: 'newer' });
    expect(await raw.event('post_update')).toEqual({
      event: 'post_update',
      channel,
      offset: 1,
      data: { title: 'new' },
    });
    expect(await raw.event('post_update')).toMatchObject({ offset: 2, data: { title: 'newer' } });
    raw.end();
  });

  it('to channel all reaches every session without subscribing', async () => {
    const [one, two] = [await Raw.session(rig, await rig.user()), await Raw.session(rig, await rig.user())];
    await broadcast('all', 'maintenance', { at: '22:00' });
    for (const raw of [one, two]) {
      expect(await raw.event('maintenance')).toMatchObject({ channel: 'all', data: { at: '22:00' } });
      raw.end();
    }
  });

  it('are replayed from an offset, ascending, after the answer', async () => {
    const { channel, post, ada, raw, answer } = await scene();
    const epoch = answer.ok?.['epoch'];
    for (let i = 1; i <= 5; i++) await comment(ada, post, `c${i}`);
    await raw.next(({ offset }) => offset === 5);
    const back = await Raw.session(rig, ada);
    const again = await back.ask({ op: 'subscribe', channel, offset: 2, epoch });
    expect(again.ok).toMatchObject({ offset: 5, recovered: true, state: { comments_count: 5 } });
    for (const offset of [3, 4, 5]) {
      expect(await back.event('comment_update')).toMatchObject({
        offset,
        data: { comment: { content: `c${offset}` } },
      });
    }
    await comment(ada, post, 'c6');
    expect(await back.event('comment_update')).toMatchObject({ offset: 6 });
    for (const one of [raw, back]) one.end();
  });

  it.each([
    ['another epoch', { offset: 1, epoch: 'another' }],
    ['beyond the head', { offset: 99 }],
  ])('cannot be replayed from %s: recovered false', async (_, from) => {
    const { channel, post, ada, raw, answer } = await scene();
    await comment(ada, post);
    await raw.event('comment_update');
    const again = await raw.ask({ op: 'subscribe', channel, epoch: answer.ok?.['epoch'], ...from });
    expect(again.ok).toMatchObject({ offset: 1, recovered: false });
    expect(await raw.quiet()).toEqual([]);
    raw.end();
  });

  it('500 are replayed, 501 are not', async () => {
    const { channel, raw, answer } = await scene();
    const epoch = answer.ok?.['epoch'];
    await rig.db.query(`select belfry.broadcast($1, 'e', jsonb_build_object('n', n)) from generate_series(1, 501) n`, [
      channel,
    ]);
    await raw.next(({ offset }) => offset === 501);
    const back = await Raw.session(rig, await rig.user());
    expect((await back.ask({ op: 'subscribe', channel, offset: 0, epoch })).ok).toMatchObject({
      recovered: false,
      offset: 501,
    });
    expect((await back.ask({ op: 'subscribe', channel, offset: 1, epoch })).ok).toMatchObject({ recovered: true });
    await back.next(({ offset }) => offset === 501);
    const offsets = back.frames.flatMap(({ offset }) => (offset === undefined ? [] : [offset]));
    expect(offsets).toEqual(Array.from({ length: 500 }, (_, i) => i + 2));
    for (const one of [raw, back]) one.end();
  });
});

describe('publish', () => {
  it('goes to everybody in the channel, with the offset that the sender is told', async () => {
    const [one, two] = [await Raw.session(rig, await rig.user()), await Raw.session(rig, await rig.user())];
    for (const raw of [one, two]) await raw.ask({ op: 'subscribe', channel: 'lobby' });
    const answer = await one.ask({ op: 'publish', channel: 'lobby', event: 'hello-there', data: { text: 'hi' } });
    const offset = answer.ok?.['offset'];
    expect(offset).toEqual(expect.any(Number));
    expect(await two.event('hello-there')).toEqual({
      event: 'hello-there',
      channel: 'lobby',
      offset,
      data: { text: 'hi' },
    });
    for (const raw of [one, two]) raw.end();
  });

  it('64 letters are allowed for an event', async () => {
    const raw = await Raw.session(rig, await rig.user());
    const answer = await raw.ask({ op: 'publish', channel: 'lobby', event: 'x'.repeat(64), data: {} });
    expect(answer.ok).toBeDefined();
    raw.end();
  });

  it.each(['post:1', 'conversation:5', 'unknown:1', 'all'])(
    'to %s, where the config does not allow it: forbidden',
    async (channel) => {
      const raw = await Raw.session(rig, await rig.user());
      const answer = await raw.ask({ op: 'publish', channel, event: 'e', data: {} });
      expect(answer.error?.code).toBe('forbidden');
      raw.end();
    },
  );
});

describe('presence', () => {
  it('tells whom one may see, and then every change', async () => {
    const [follower, followed, stranger] = [await rig.user(), await rig.user(), await rig.user()];
    await rig.db.query('insert into public.follows values ($1, $2)', [follower, followed]);
    const [raw, seen, unseen] = [
      await Raw.session(rig, follower),
      await Raw.session(rig, followed),
      await Raw.session(rig, stranger),
    ];
    const answer = await raw.ask({ op: 'presence', users: [followed, stranger, '99999'] });
    expect(answer.ok).toEqual({ [followed]: 'online', [stranger]: 'offline', 99999: 'offline' });
    for (const one of [seen, unseen]) one.end();
    expect((await raw.next(({ event }) => event === 'presence')).data).toEqual({
      user_id: followed,
      status: 'offline',
    });
    const back = await Raw.session(rig, followed);
    expect((await raw.next(({ event }) => event === 'presence')).data).toEqual({ user_id: followed, status: 'online' });
    expect(raw.frames.filter(({ event, data }) => event === 'presence' && data?.['user_id'] === stranger)).toEqual([]);
    for (const one of [raw, back]) one.end();
  }, 60_000);

  it('tells who is in a channel that one may read, of those whom one may see', async () => {
    const [follower, followed, stranger] = [await rig.user(), await rig.user(), await rig.user()];
    await rig.db.query('insert into public.follows values ($1, $2)', [follower, followed]);
    await rig.db.query('insert into public.members values (77, $1), (77, $2)', [followed, stranger]);
    const [raw, seen, unseen] = [
      await Raw.session(rig, follower),
      await Raw.session(rig, followed),
      await Raw.session(rig, stranger),
    ];
    for (const one of [seen, unseen]) {
      for (const channel of ['room:hall', 'conversation:77']) await one.ask({ op: 'subscribe', channel });
    }
    expect((await raw.ask({ op: 'presence', channel: 'room:hall' })).ok).toEqual({ [followed]: 'online' });
    expect((await raw.ask({ op: 'presence', channel: 'room:empty' })).ok).toEqual({});
    expect((await raw.ask({ op: 'presence', channel: 'conversation:77' })).error).toMatchObject({ code: 'forbidden' });
    for (const one of [raw, seen, unseen]) one.end();
  });

  it('takes ids that are numbers for their digits', async () => {
    const [follower, followed] = [await rig.user(), await rig.user()];
    await rig.db.query('insert into public.follows values ($1, $2)', [follower, followed]);
    const [raw, seen] = [await Raw.session(rig, follower), await Raw.session(rig, followed)];
    expect((await raw.ask({ op: 'presence', users: [Number(followed)] })).ok).toEqual({ [followed]: 'online' });
    for (const one of [raw, seen]) one.end();
  });
});
