/** What people do to their inbox, and what it says: states, numbers, pages, several sockets. */

import { describe, expect, it } from 'vitest';
import { locksAwaited } from '../support/postgres.js';
import { addComment, addUsers, like } from '../support/social.js';
import { useWorld } from './world.js';
import type { Frame } from './world.js';
import { recover } from '../support/recover.js';

const world = useWorld();
const pool = () => world.database.pool;

async function notify(userId: string, count: number): Promise<void> {
  await world.sql(`select belfry.notify($1, 'system', 'n ' || i) from generate_series(1, $2) i`, [userId, count]);
  await world.heard(userId);
}

const ids = (page: { readonly items: readonly unknown[] }) => page.items.map((item) => (item as { id: string }).id);

describe('pages', () => {
  it('never repeat or skip while new ones arrive', async () => {
    const { ada, bo, cleo, post } = world;
    await notify(ada, 25);
    await like(pool(), bo, post);
    await world.heard(ada);
    const all = ids(await world.list(ada));
    const seen: string[] = [];
    let before: string | null = null;
    for (let round = 0; ; round++) {
      const page = await world.batches.inbox.list(ada, { limit: 7, before, state: null });
      expect(page.hasMore).toBe(page.next !== null);
      seen.push(...ids(page));
      if (page.next === null) break;
      before = page.next;
      // Meanwhile: a new one, and one that moves to the top.
      await notify(ada, 1);
      if (round === 0) {
        await world.age(ada, '5 s');
        await like(pool(), cleo, post);
        await world.heard(ada);
      }
    }
    expect(seen).toEqual(all);
  });

  it.each([
    [99, 99, false],
    [100, 100, false],
    [101, 100, true],
  ])('%i unseen are told as %i', async (count, told, hasMore) => {
    const { dan } = world;
    await notify(dan, count);
    expect(await world.list(dan)).toMatchObject({ unseen: told, unread: told, hasMore });
    expect((await world.batches.inbox.badges([dan])).get(dan)).toMatchObject({ unseen: told, unread: told });
  });
});

describe('states', () => {
  it('the unseen are counted to the last, also where there are more unread than are counted', async () => {
    const { dan } = world;
    await notify(dan, 110);
    const { seq } = await world.list(dan);
    await world.batches.inbox.mark(dan, 'seen', { through: seq }, null);
    await notify(dan, 10);
    const numbers = { unseen: 10, unread: 100 };
    expect((await world.batches.inbox.badges([dan])).get(dan)).toMatchObject(numbers);
    expect(await world.list(dan)).toMatchObject(numbers);
  });

  it('through is a high-water mark: what came later stays, and a late mark takes nothing back', async () => {
    const { ada } = world;
    const { inbox } = world.batches;
    await notify(ada, 3);
    const { seq } = await world.list(ada);
    await notify(ada, 2);
    expect(await inbox.mark(ada, 'read', { through: seq }, null)).toMatchObject({ unseen: 2, unread: 2 });
    expect(await inbox.mark(ada, 'seen', { through: seq }, null)).toMatchObject({
      unseen: 2,
      unread: 2,
      publications: [],
    });
    expect(await inbox.mark(ada, 'seen', { through: seq - 2 }, null)).toMatchObject({
      unseen: 2,
      unread: 2,
      publications: [],
    });
    expect(await inbox.list(ada, { limit: 10, before: null, state: 'unread' })).toMatchObject({ items: [{}, {}] });
  });

  it('of somebody else are nobody’s business', async () => {
    const { ada, bo } = world;
    const { inbox } = world.batches;
    await notify(ada, 2);
    await inbox.mark(bo, 'archived', { ids: ids(await world.list(ada)) }, null);
    await inbox.mark(bo, 'read', { through: 1_000_000 }, null);
    expect(await world.list(ada)).toMatchObject({ unseen: 2 });
  });

  it('archived leaves the list and both numbers, and is there when asked for', async () => {
    const { ada } = world;
    const { inbox } = world.batches;
    await notify(ada, 2);
    const [first = '', second = ''] = ids(await world.list(ada));
    expect(await inbox.mark(ada, 'archived', { ids: [first] }, null)).toMatchObject({ unseen: 1, unread: 1 });
    expect(ids(await world.list(ada))).toEqual([second]);
    expect(ids(await inbox.list(ada, { limit: 10, before: null, state: 'archived' }))).toEqual([first]);
  });

  it('three sockets: one marks read while a new one arrives and another resumes', async () => {
    const { ada, bo, post } = world;
    const { inbox } = world.batches;
    await notify(ada, 2);
    const { seq, epoch } = await world.list(ada);
    await addComment(pool(), post, bo);
    const [marked, [arrived]] = await Promise.all([
      inbox.mark(ada, 'read', { through: seq }, 'session-1'),
      world.heard(ada),
    ]);
    const { frames, unseen } = await recover(inbox, ada, seq, epoch);
    const replayed = frames.map(({ frame }) => JSON.parse(frame) as Frame);
    // Whatever the order was, all hear the same: the state change and the new one, each with a position of its own.
    expect(replayed.map(({ event }) => event).sort()).toEqual(['notification', 'state']);
    expect(replayed.map((frame) => frame.seq)).toEqual([seq + 1, seq + 2]);
    expect(new Set([marked.seq, arrived?.seq])).toEqual(new Set([seq + 1, seq + 2]));
    expect(marked.publications[0]).toMatchObject({ to: 'user', userId: ada, exceptSession: 'session-1' });
    expect(unseen).toBe(1);
    expect(await world.list(ada)).toMatchObject({ unseen: 1, unread: 1 });
  });
});

describe('the first of somebody, in a batch that moves many heads and counters', () => {
  /** Likes of as many new posts of as many people as are updated before what is missing is inserted (migration 0021: more than 16). */
  async function likesOfOthers(): Promise<void> {
    const others = await addUsers(pool(), ...Array.from({ length: 20 }, (_, i) => `Other ${String(i)}`));
    await world.sql(
      `with made as (insert into posts (user_id, body) select id, 'a post' from unnest($1::bigint[]) id returning id)
       insert into likes (user_id, post_id) select $2, id from made`,
      [others, world.bo],
    );
  }

  /** Whoever updates this table waits at the end of the statement, while `meanwhile` is committed. */
  async function between(
    table: string,
    meanwhile: string,
    values: unknown[],
    work: () => Promise<void>,
  ): Promise<void> {
    await world.sql(`create function hold() returns trigger language plpgsql
        as $$ begin perform pg_advisory_xact_lock_shared(77); return null; end $$;
      create trigger hold after update on ${table} for each statement execute function hold()`);
    const other = await world.database.client();
    try {
      await other.query('select pg_advisory_lock(77)');
      const working = work();
      await expect.poll(() => locksAwaited(other, 'advisory'), { timeout: 20_000 }).toBe(1);
      await other.query(meanwhile, values);
      await other.query('select pg_advisory_unlock(77)');
      await working;
    } finally {
      await other.end();
      await world.sql('drop function hold cascade');
    }
  }

  it('has a position of its own, also if they opened their list just then', async () => {
    const { ada, bo, post } = world;
    await likesOfOthers();
    await like(pool(), bo, post);
    await between('belfry.head', `select belfry.mark($1, 'seen', null, 0, null)`, [ada], async () => {
      expect((await world.heard(ada)).map(({ seq }) => seq)).toEqual([1]);
    });
    expect(await world.list(ada)).toMatchObject({ seq: 1, unseen: 1 });
  });

  it('counts, also if the object was counted just then', async () => {
    const { bo, post } = world;
    await likesOfOthers();
    await like(pool(), bo, post);
    const seeded = `insert into belfry.counter (source, object_id, count) values ('post_like', $1, 5)`;
    await between('belfry.counter', seeded, [post], async () => {
      await world.heard(bo);
    });
    expect(await world.batches.channels.recover(`post:${post}`, null, null)).toMatchObject({
      state: { likes_count: 6 },
    });
  });
});

describe('a celebrity', () => {
  it('a bulk insert of likes is one notification, and a handful of pushes', async () => {
    const { ada, post } = world;
    const fans = await addUsers(pool(), ...Array.from({ length: 6_000 }, (_, i) => `Fan ${String(i)}`));
    await world.sql('insert into likes select id, $1 from unnest($2::bigint[]) id', [post, fans]);
    const frames = await world.heard(ada);
    expect(frames.length).toBeLessThanOrEqual(3);
    await world.age(ada, '5 s');
    await world.batches.flush();
    await world.heard(ada);
    const list = await world.list(ada);
    expect(list).toMatchObject({ unseen: 1, items: [{ data: { actor_count: 6_000, event_count: 6_000 } }] });
    expect((list.items[0] as { data: { actors: unknown[] } }).data.actors).toHaveLength(8);
    expect(await world.batches.channels.recover(`post:${post}`, null, null)).toMatchObject({
      state: { likes_count: 6_000 },
    });
  });
});

describe('announcements', () => {
  it('are one row for everybody, come back until they are seen, and leave the numbers alone', async () => {
    const { ada, bo } = world;
    const { inbox } = world.batches;
    await world.sql(`select belfry.announce('one'); select belfry.announce('two')`);
    await world.heard(ada);
    const messages = async (userId: string) =>
      (await recover(inbox, userId, null, null)).announcements.map(
        (frame) => (JSON.parse(frame) as Frame).data.message,
      );
    expect(await messages(ada)).toEqual(['one', 'two']);
    const page = await world.list(ada);
    expect(page).toMatchObject({ unseen: 0, items: [], announcements: [{ message: 'two' }, { message: 'one' }] });
    const [, older] = page.announcements as { id: string }[];
    await inbox.mark(ada, 'seen', { ids: [older?.id ?? ''] }, null);
    expect(await messages(ada)).toEqual(['two']);
    expect(await messages(bo)).toEqual(['one', 'two']);
    const { rows } = await pool().query('select 1 from belfry.notification where user_id = $1', [ada]);
    expect(rows).toEqual([]);
  });
});
