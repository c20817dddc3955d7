/** What becomes of a notification that stands: windows that end, actors who leave, marks that come meanwhile, and what a second source tells of its subject. */

import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { loadDueGroups, nextDueMs } from '../../src/relay/facts/group-facts.js';
import { addComment, addPost, addUsers, like, unlike } from '../support/social.js';
import { framesOf, useWorld } from './world.js';
import type { Frame } from './world.js';
import { recover } from '../support/recover.js';
import { ageWindows } from '../support/windows.js';

const world = useWorld();
const pool = () => world.database.pool;

const fansOf = (count: number) => addUsers(pool(), ...Array.from({ length: count }, (_, i) => `Fan ${String(i)}`));

/** The frames of a window that ends, before the relay reads what was written meanwhile. */
async function windowEnds(userId: string): Promise<Frame[]> {
  await world.age(userId, '5 s');
  await world.batches.flush();
  return framesOf(world.batches.heard(), userId);
}

const waiting = async (userId: string) =>
  (await pool().query('select from belfry.notification where user_id = $1 and due_at is not null', [userId])).rowCount;

const archive = async (userId: string) => {
  const { seq } = await world.list(userId);
  await world.batches.inbox.mark(userId, 'archived', { through: seq }, null);
};

describe('a window that ends before the relay has heard what changed', () => {
  /** Bo's like was told; eight more wait, and are all that is shown. */
  async function nineLikes(): Promise<string[]> {
    const { ada, bo, post } = world;
    await like(pool(), bo, post);
    await world.heard(ada);
    const fans = await fansOf(8);
    await world.sql('insert into likes select id, $1 from unnest($2::bigint[]) id', [post, fans]);
    expect(await world.heard(ada)).toEqual([]);
    return fans;
  }

  it('tells of those who do not fit into the sample, though all in it were muted', async () => {
    const { ada } = world;
    const fans = await nineLikes();
    await world.sql('insert into mutes select $1, id from unnest($2::bigint[]) id', [ada, fans]);
    expect(await windowEnds(ada)).toMatchObject([{ data: { data: { actor_count: 1, actors: [] } } }]);
  });

  it('tells of nobody who was muted where all fit', async () => {
    const { ada, bo, cleo, post } = world;
    await like(pool(), bo, post);
    await world.heard(ada);
    await like(pool(), cleo, post);
    await world.heard(ada);
    await world.sql('insert into mutes select $1, id from unnest($2::bigint[]) id', [ada, [bo, cleo]]);
    expect(await windowEnds(ada)).toEqual([]);
    expect(await waiting(ada)).toBe(0);
  });

  it('tells nothing of a type that was turned off, however many there are', async () => {
    const { ada } = world;
    await nineLikes();
    await world.batches.inbox.setPreferences(ada, { like: 'off' });
    expect(await windowEnds(ada)).toEqual([]);
    expect(await waiting(ada)).toBe(0);
  });
});

it.each([-1, 1])('the next window is due by the clock of the relay, which is off by %i days', async (days) => {
  const { ada, bo, cleo, post, batches } = world;
  await like(pool(), bo, post);
  await world.heard(ada);
  await like(pool(), cleo, post);
  await world.heard(ada);
  await ageWindows(pool(), '-55 min');
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + days * 86_400_000 });
  onTestFinished(() => void vi.useRealTimers());
  const untilDueMs = ((await nextDueMs(batches.writer)) ?? 0) - Date.now();
  expect(untilDueMs).toBeGreaterThan(1_800_000);
  expect(untilDueMs).toBeLessThanOrEqual(3_600_000);
});

describe('when windows end is kept apart from them', () => {
  /** Of Ada's notifications. */
  const endsSql = `select w.* from belfry.window_end w join belfry.notification n on n.id = w.notification_id where n.user_id = $1 order by w.due_at`;
  const ends = async () => (await pool().query(endsSql, [world.ada])).rows.length;

  /** Bo's like was told, Cleo's waits. */
  async function oneWaits(): Promise<void> {
    const { ada, bo, cleo, post } = world;
    await like(pool(), bo, post);
    await world.heard(ada);
    await like(pool(), cleo, post);
    expect(await world.heard(ada)).toEqual([]);
    expect(await ends()).toBe(1);
  }

  /** The tenth is told at once, with the one that waited. */
  async function tenth(): Promise<void> {
    const fans = await fansOf(8);
    await world.sql('insert into likes select id, $1 from unnest($2::bigint[]) id', [world.post, fans]);
    expect(await world.heard(world.ada)).toMatchObject([{ data: { data: { actor_count: 10 } } }]);
    expect(await waiting(world.ada)).toBe(0);
  }

  it('an end is forgotten with its window', async () => {
    await oneWaits();
    await like(pool(), (await fansOf(1))[0] ?? '', world.post);
    expect(await world.heard(world.ada)).toEqual([]);
    expect(await ends()).toBe(1);
    expect(await windowEnds(world.ada)).toMatchObject([{ data: { data: { actor_count: 3 } } }]);
    expect(await ends()).toBe(0);
  });

  it('the end of a window that was told early tells nothing, and is forgotten when its time has come', async () => {
    await oneWaits();
    await tenth();
    expect(await windowEnds(world.ada)).toEqual([]);
    expect(await ends()).toBe(0);
  });

  it('the next window has its own, whatever is left of the one before', async () => {
    await oneWaits();
    await tenth();
    await like(pool(), (await fansOf(1))[0] ?? '', world.post);
    expect(await world.heard(world.ada)).toEqual([]);
    expect(await ends()).toBe(2);
    await world.sql(
      `update belfry.window_end set due_at = now() where due_at = (select min(x.due_at) from (${endsSql}) x)`,
      [world.ada],
    );
    await world.batches.flush();
    expect(world.batches.heard()).toEqual([]);
    expect([await ends(), await waiting(world.ada)]).toEqual([1, 1]);
    expect(await windowEnds(world.ada)).toMatchObject([{ data: { data: { actor_count: 11 } } }]);
    expect(await ends()).toBe(0);
  });

  it('those that end together are looked at together, however many were asked for', async () => {
    const { ada, bo, cleo, batches } = world;
    const posts = [world.post, await addPost(pool(), ada), await addPost(pool(), ada)];
    for (const by of [bo, cleo]) {
      for (const post of posts) await like(pool(), by, post);
      await world.heard(ada);
    }
    const { rows } = await pool().query<{ notification_id: string }>(endsSql, [ada]);
    const two = rows.slice(0, 2).map((row) => row.notification_id);
    await world.sql(`update belfry.notification set due_at = '2020-01-01Z' where id = any($1)`, [two]);
    await world.sql(`update belfry.window_end set due_at = '2020-01-01Z' where notification_id = any($1)`, [two]);
    const due = await loadDueGroups(batches.writer, 1);
    expect([due.ended, due.groups.length, due.through]).toEqual([2, 2, '2020-01-01T00:00:00.000000Z']);
    expect(await windowEnds(ada)).toHaveLength(3);
    expect(await ends()).toBe(0);
  });
});

describe('somebody who leaves', () => {
  it('an archived group leaves it in silence, and the archive is right', async () => {
    const { ada, bo, cleo, post } = world;
    await like(pool(), bo, post);
    await like(pool(), cleo, post);
    await world.heard(ada);
    await archive(ada);
    await world.age(ada, '5 s');
    await unlike(pool(), cleo, post);
    expect(await world.heard(ada)).toEqual([]);
    expect(await waiting(ada)).toBe(0);
    const archived = await world.batches.inbox.list(ada, { limit: 10, before: null, state: 'archived' });
    expect(archived.items).toMatchObject([{ user_id: bo, data: { actor_count: 1, event_count: 1 } }]);
  });

  it('a group that is withdrawn because of its thread does not bring it back', async () => {
    const { ada, bo, cleo, post } = world;
    await like(pool(), bo, post);
    await like(pool(), cleo, post);
    await world.heard(ada);
    await world.sql('insert into thread_mutes values ($1, $2)', [ada, post]);
    expect(await world.heard(ada)).toMatchObject([{ event: 'withdrawn' }]);
    await world.age(ada, '5 s');
    await unlike(pool(), cleo, post);
    expect(await world.heard(ada)).toEqual([]);
    expect(await waiting(ada)).toBe(0);
  });

  it('a group that nobody was told of again takes its waiting along', async () => {
    const { ada, bo, post } = world;
    await like(pool(), bo, post);
    await world.heard(ada);
    await unlike(pool(), bo, post);
    expect(await world.heard(ada)).toMatchObject([{ event: 'withdrawn' }]);
    // Within the minute: waits for its window, and is gone before it ends.
    await like(pool(), bo, post);
    expect(await world.heard(ada)).toEqual([]);
    expect(await waiting(ada)).toBe(1);
    await unlike(pool(), bo, post);
    expect(await world.heard(ada)).toEqual([]);
    expect(await waiting(ada)).toBe(0);
  });
});

describe('a mark while a window is open', () => {
  it('read is what was pushed: what waits makes it unseen when its window ends, and rings', async () => {
    const { ada, bo, cleo, post } = world;
    await like(pool(), bo, post);
    await world.heard(ada);
    await like(pool(), cleo, post);
    await world.heard(ada);
    const { seq } = await world.list(ada);
    await world.batches.inbox.mark(ada, 'read', { through: seq }, null);
    expect(await windowEnds(ada)).toMatchObject([{ data: { data: { state: 'unseen', alert: true } } }]);
    expect(await world.list(ada)).toMatchObject({ unseen: 1, unread: 1, items: [{ data: { actor_count: 2 } }] });
  });

  it('never goes back: not from read to seen, nor from archived to read; and reaches nobody else’s', async () => {
    const { ada, bo } = world;
    const { inbox } = world.batches;
    await world.sql(`select belfry.notify($1, 'system', 'one'), belfry.notify($1, 'system', 'two')`, [ada]);
    await world.heard(ada);
    const ids = (await world.list(ada)).items.map((item) => (item as { id: string }).id);
    const [one = '', two = ''] = ids;
    await inbox.mark(ada, 'read', { ids: [one] }, null);
    await inbox.mark(ada, 'archived', { ids: [two] }, null);
    for (const state of ['seen', 'read'] as const) {
      expect(await inbox.mark(ada, state, { ids }, null)).toMatchObject({ publications: [] });
      expect(await inbox.mark(ada, state, { through: 1_000 }, null)).toMatchObject({ publications: [] });
    }
    expect(await inbox.mark(bo, 'archived', { ids }, null)).toMatchObject({ publications: [] });
    expect((await world.list(ada)).items).toMatchObject([{ id: one, data: { state: 'read' } }]);
  });

  it('archived between the deciding and the storing of a like: the like is a notification of its own', async () => {
    const { ada, bo, cleo, post } = world;
    await like(pool(), bo, post);
    const [first] = await world.heard(ada);
    const client = await world.database.client();
    await client.query('begin');
    await client.query(`select belfry.mark($1, 'archived', $2, null, null)`, [ada, [first?.data.id]]);
    await like(pool(), cleo, post);
    const heard = world.heard(ada);
    const storing = async () =>
      (
        await pool().query(
          `select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database() and query like '%store_batch%'`,
        )
      ).rowCount;
    await expect.poll(storing).toBe(1);
    await client.query('commit');
    expect(await heard).toMatchObject([{ data: { user_id: cleo, data: { actor_count: 1, alert: true } } }]);
    expect((await world.list(ada)).items).toMatchObject([{ user_id: cleo, data: { state: 'unseen' } }]);
    const archived = await world.batches.inbox.list(ada, { limit: 10, before: null, state: 'archived' });
    expect(archived.items).toMatchObject([{ id: first?.data.id, data: { actor_count: 1 } }]);
  });

  it('archived up to a position leaves what came later', async () => {
    const { ada } = world;
    await world.sql(`select belfry.notify($1, 'system', 'one')`, [ada]);
    await world.heard(ada);
    const { seq } = await world.list(ada);
    await world.sql(`select belfry.notify($1, 'system', 'two')`, [ada]);
    await world.heard(ada);
    await world.batches.inbox.mark(ada, 'archived', { through: seq }, null);
    expect((await world.list(ada)).items).toMatchObject([{ message: 'two' }]);
  });

  it('of announcements: an older one that comes late brings no newer one back', async () => {
    const { ada } = world;
    const { inbox } = world.batches;
    await world.sql(`select belfry.announce('one'), belfry.announce('two')`);
    await world.heard(ada);
    const { announcements } = await world.list(ada);
    const [two = '', one = ''] = (announcements as { id: string }[]).map(({ id }) => id);
    await inbox.mark(ada, 'seen', { ids: [two] }, null);
    await inbox.mark(ada, 'seen', { ids: [one] }, null);
    expect((await recover(inbox, ada, null, null)).announcements).toEqual([]);
  });
});

describe('a subject that two sources tell of', () => {
  const mention = (comment: string, post: string, author: string, userId: string) =>
    world.sql('insert into mentions values ($1, $2, $3, $4)', [comment, post, author, userId]);

  it('is told once, also where the second comes later', async () => {
    const { ada, bo, post } = world;
    const comment = await addComment(pool(), post, bo);
    expect(await world.heard(ada)).toHaveLength(1);
    await mention(comment, post, bo, ada);
    expect(await world.heard(ada)).toEqual([]);
    expect(await world.list(ada)).toMatchObject({ unseen: 1 });
  });

  it('is told each of those who are named, and by each who names them', async () => {
    const { ada, bo, cleo, dan, post } = world;
    const comment = await addComment(pool(), post, bo);
    await mention(comment, post, bo, cleo);
    expect(await world.heard(ada)).toMatchObject([{ data: { type: 'comment' } }]);
    expect(world.frames(cleo)).toMatchObject([{ data: { type: 'mention' } }]);
    await mention(comment, post, dan, ada);
    expect(await world.heard(ada)).toMatchObject([{ data: { type: 'mention', user_id: dan } }]);
  });

  it('is told by the second where the first was taken back', async () => {
    const { ada, bo, post } = world;
    const comment = await addComment(pool(), post, bo);
    await world.heard(ada);
    await world.sql('insert into thread_mutes values ($1, $2)', [ada, post]);
    expect(await world.heard(ada)).toMatchObject([{ event: 'withdrawn' }]);
    await world.sql('delete from thread_mutes where user_id = $1', [ada]);
    await mention(comment, post, bo, ada);
    expect(await world.heard(ada)).toMatchObject([{ event: 'notification', data: { type: 'mention' } }]);
  });

  it('that moves to another object is told of there', async () => {
    const { ada, bo, post } = world;
    const comment = await addComment(pool(), post, bo);
    await world.heard(ada);
    const other = await addPost(pool(), ada);
    await world.sql('update comments set post_id = $2 where id = $1', [comment, other]);
    expect((await world.heard(ada)).map(({ event }) => event).sort()).toEqual(['notification', 'withdrawn']);
    expect((await world.list(ada)).items).toMatchObject([{ post_id: other, comment_id: comment }]);
  });
});
