/** What holds for any history: how it is cut into batches, and what counters and badges say. Who may see what: never-shown.test.ts. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { addPost, addUsers } from '../support/social.js';
import { useSocialBatches } from './world.js';
import { recover } from '../support/recover.js';

const social = useSocialBatches();

/** Four people, of whom the first two have a post each. */
interface Cast {
  readonly people: readonly string[];
  readonly posts: readonly string[];
}

async function cast(): Promise<Cast> {
  const people = await addUsers(social.database.pool, 'Ada', 'Bo', 'Cleo', 'Dan');
  return {
    people,
    posts: [await addPost(social.database.pool, people[0] ?? ''), await addPost(social.database.pool, people[1] ?? '')],
  };
}

/** Something that people do, as SQL over $1 (who), $2 (to whom), $3 (which post). */
interface Deed {
  readonly what: string;
  readonly who: number;
  readonly whom: number;
  readonly post: number;
}

const deeds: Readonly<Record<string, string>> = {
  like: 'insert into likes select $1::bigint, $3::bigint where $2::bigint is not null on conflict do nothing',
  unlike: 'delete from likes where user_id = $1::bigint and post_id = $3::bigint and $2::bigint is not null',
  'like anew': `with gone as (delete from likes where user_id = $1::bigint and post_id = $3::bigint and $2::bigint is not null returning *)
    insert into likes select user_id, $3::bigint from gone on conflict do nothing`,
  comment: `insert into comments (user_id, post_id, content) select $1::bigint, $3::bigint, 'text' where $2::bigint is not null`,
  'delete a comment':
    'update comments set deleted_at = now() where user_id = $1::bigint and post_id = $3::bigint and deleted_at is null and $2::bigint is not null',
  'restore a comment':
    'update comments set deleted_at = null where user_id = $1::bigint and post_id = $3::bigint and $2::bigint is not null',
  repost: `insert into reposts select $1::bigint, $3::bigint, 1 where $2::bigint is not null
    on conflict (user_id, post_id) do update set score = 1 - reposts.score`,
  follow: 'insert into follows select $1::bigint, $2::bigint where $3::bigint is not null on conflict do nothing',
  unfollow:
    'delete from follows where follower_id = $1::bigint and followed_id = $2::bigint and $3::bigint is not null',
  block:
    'insert into blocks select $1::bigint, $2::bigint where $1::bigint <> $2::bigint and $3::bigint is not null on conflict do nothing',
  unblock: 'delete from blocks where blocker_id = $1::bigint and blocked_id = $2::bigint and $3::bigint is not null',
  mute: 'insert into mutes select $1::bigint, $2::bigint, null where $3::bigint is not null on conflict do nothing',
  unmute: 'delete from mutes where muter_id = $1::bigint and muted_id = $2::bigint and $3::bigint is not null',
};

const deedOf = (of: Readonly<Record<string, string>>) =>
  fc.record({
    what: fc.constantFrom(...Object.keys(of)),
    who: fc.nat(3),
    whom: fc.nat(3),
    post: fc.nat(1),
  });

async function act({ people, posts }: Cast, all: readonly Deed[]): Promise<void> {
  for (const { what, who, whom, post } of all)
    await social.database.pool.query(deeds[what] ?? '', [people[who], people[whom], posts[post]]);
}

interface Item {
  readonly id: string;
  readonly type: string;
  readonly post_id?: string;
  readonly data: {
    readonly actor_count: number;
    readonly event_count: number;
    readonly state: string;
    readonly actors: readonly { id: string }[];
  };
}

const listOf = async (userId: string): Promise<Item[]> =>
  (await social.batches.inbox.list(userId, { limit: 100, before: null, state: null })).items as Item[];

/** Everybody's inbox in words that do not depend on ids. */
async function inboxes({ people, posts }: Cast): Promise<unknown> {
  const name = (id: string) => people.indexOf(id);
  return await Promise.all(
    people.map(async (userId) => {
      const items = (await listOf(userId)).map(({ type, post_id, data: { actor_count, event_count, actors } }) =>
        JSON.stringify([
          type,
          posts.indexOf(post_id ?? ''),
          actor_count,
          event_count,
          actors.map(({ id }) => name(id)).sort(),
        ]),
      );
      return items.sort();
    }),
  );
}

async function expectCounters({ posts }: Cast): Promise<void> {
  for (const post of posts) {
    const { rows } = await social.database.pool.query<{ likes_count: number; comments_count: number }>(
      `select (select count(*)::int from likes where post_id = $1) as likes_count,
              (select count(*)::int from comments where post_id = $1 and deleted_at is null) as comments_count`,
      [post],
    );
    const { state } = await social.batches.channels.recover(`post:${post}`, null, null);
    expect(state).toEqual(rows[0]);
  }
}

/** Numbers and lists, asked in every way there is. */
async function expectBadges({ people }: Cast): Promise<void> {
  const { inbox } = social.batches;
  for (const userId of people) {
    const list = await inbox.list(userId, { limit: 100, before: null, state: null });
    const unseen = (await inbox.list(userId, { limit: 100, before: null, state: 'unseen' })).items.length;
    const unread = (await inbox.list(userId, { limit: 100, before: null, state: 'unread' })).items.length;
    const resumed = await recover(inbox, userId, 0, list.epoch);
    const badge = (await inbox.badges([userId])).get(userId);
    for (const told of [list, resumed, badge]) expect(told).toMatchObject({ unseen, unread });
    const replayed = resumed.frames
      .map(({ frame }) => JSON.parse(frame) as { event: string; data: Item })
      .filter(({ event, data }) => event === 'notification' && data.data.state !== 'archived');
    expect(replayed.map(({ data }) => data.id).reverse()).toEqual(list.items.map((item) => (item as Item).id));
    for (const { data } of replayed) expect(list.items).toContainEqual({ ...data, data: { ...data.data } });
  }
}

describe('any history', () => {
  it('ends in the same inbox however it is cut into batches, with exact counters', { timeout: 240_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(deedOf(deeds), { minLength: 2, maxLength: 14 }),
        fc.integer({ min: 1, max: 6 }),
        fc.boolean(),
        async (all, pageSize, ahead) => {
          const [whole, cut] = [await cast(), await cast()];
          await social.batches.run();
          await act(whole, all);
          await social.batches.run();
          await act(cut, all);
          await social.batches.run(pageSize, ahead);
          expect(await inboxes(cut)).toEqual(await inboxes(whole));
          await expectCounters(whole);
          await expectCounters(cut);
          await expectBadges(cut);
        },
      ),
      { numRuns: 12, seed: 20_261_124 },
    );
  });
});
