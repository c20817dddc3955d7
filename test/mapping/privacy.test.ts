/** Blocks and mutes as applications keep them, and who may see what. */

import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { startMapping } from './rig.js';
import type { Mapping } from './rig.js';
import { recover } from '../support/recover.js';
import { ageWindows } from '../support/windows.js';

vi.setConfig({ testTimeout: 240_000, hookTimeout: 240_000 });

const tables = `
create type visibility as enum ('public', 'followers', 'private');
create table users (id int primary key, name text);
create table relationships (owner int, other int, kind text, active boolean default true, ends_at timestamptz);
create table one_way (a int, b int, lifted boolean default false);
create table silenced (who int, topic text, topic_id int, until timestamptz);
create table posts (id int primary key, owner int, seen_by visibility default 'public', allowed int[] default '{}');
create table follows (follower int, followed int);
create table likes (id serial primary key, who int, post int, kind text default 'like');
create table watchers (post int, who int);
insert into users select i, 'U' || i from generate_series(1, 9) i;
insert into posts values (10, 1, 'public', '{}'), (11, 1, 'followers', '{}'), (12, 1, 'private', '{3,4}');
insert into follows values (2, 1), (3, 1);
insert into watchers select p, u from unnest(array[10, 11, 12]) p, generate_series(1, 4) u;
`;

const sources = `
  - { name: like, type: like, table: likes, key: [id], actor: who, object: { kind: post, id: post }, recipient: { path: [{ from: post, table: posts, match: id, take: owner }] }, when: "kind = 'like'" }
  - name: activity
    type: activity
    table: likes
    key: [id]
    actor: who
    object: { kind: post, id: post }
    recipient: { query: "select who from watchers where post = :post" }
    when: "kind = 'activity'"
    visible: >-
      select 1 from posts p where p.id = :object_id and (p.owner = :user or p.seen_by = 'public'
        or p.seen_by = 'followers' and exists (select from follows f where f.follower = :user and f.followed = p.owner)
        or :user = any (p.allowed))
`;

const kept = (sections: string) => startMapping(tables, sources, `people: { table: users, name: name }\n${sections}`);

/** `actor object` of everything that a person's list shows, sorted. */
async function shownTo(mapping: Mapping, userId: number): Promise<string[]> {
  const { items } = await mapping.batches.inbox.list(String(userId), { limit: 100, before: null, state: null });
  return (items as { user_id: string; post_id: string }[]).map((item) => `${item.user_id} ${item.post_id}`).sort();
}

let nr = 0;
const like = (who: number, post = 10) =>
  `insert into likes (id, who, post) values (${String((nr += 1))}, ${String(who)}, ${String(post)})`;

describe('blocks and mutes in one table, told apart by a flag', () => {
  let mapping: Mapping;
  beforeAll(async () => {
    mapping = await kept(`
blocks: { table: relationships, from: owner, to: other, when: "kind = 'block' and active", until: ends_at }
mutes: { table: relationships, from: owner, to: other, when: "kind = 'mute'", until: ends_at }
threadMutes: { table: silenced, user: who, kind: topic, id: topic_id, until: until }`);
  });
  afterAll(() => mapping.stop());

  it('a row of another kind is neither', async () => {
    expect(await mapping.heard(`insert into relationships values (1, 2, 'friend'); ${like(2)}`)).toEqual([
      '1 like 2 post:10!',
    ]);
  });

  it('a row of another kind, a block that was lifted and a mute that is over hide nothing from whoever reads', async () => {
    await mapping.sql('insert into posts values (60, 5)');
    await mapping.heard([2, 3, 4].map((who) => like(who, 60)).join(';'));
    const grouped = ['4 60'];
    const hiding = [
      [`(5, 4, 'block', true, null)`, ['3 60']],
      [`(4, 5, 'block', true, now() + interval '1 hour')`, ['3 60']],
      [`(5, 4, 'mute', true, null)`, ['3 60']],
      [`(5, 4, 'friend', true, null)`, grouped],
      [`(4, 5, 'friend', true, null)`, grouped],
      [`(5, 4, 'block', false, null)`, grouped],
      [`(5, 4, 'block', true, now() - interval '1 s')`, grouped],
      [`(5, 4, 'mute', true, now() - interval '1 s')`, grouped],
      [`(4, 5, 'mute', true, null)`, grouped],
    ] as const;
    for (const [row, shown] of hiding) {
      await mapping.sql(`insert into relationships values ${row}`);
      expect(await shownTo(mapping, 5), row).toEqual(shown);
      await mapping.sql('delete from relationships where 5 in (owner, other)');
    }
    await mapping.batches.run();
  });

  it('a block works both ways, one that is over or was lifted does not', async () => {
    expect(
      await mapping.suppressed(
        `insert into relationships values (1, 3, 'block', true, null), (4, 1, 'block', true, now() + interval '1 hour'); ${like(3)}; ${like(4)}`,
      ),
    ).toEqual(['1 blocked', '1 blocked']);
    await mapping.sql(
      `update relationships set active = false where other = 3; update relationships set ends_at = now() - interval '1 second' where owner = 4`,
    );
    expect(await mapping.suppressed(`${like(3)}; ${like(4)}`)).toEqual([]);
  });

  it('an update that makes a row a block withdraws what came from the blocked', async () => {
    expect(await mapping.heard(`insert into posts values (20, 5); ${like(6, 20)}`)).toEqual(['5 like 6 post:20!']);
    expect(await mapping.heard(`insert into relationships values (5, 6, 'friend')`)).toEqual([]);
    expect(await mapping.heard(`update relationships set kind = 'block' where owner = 5`)).toEqual(['5 -like']);
  });

  it('a mute is one-way and ends', async () => {
    await mapping.sql(
      `insert into posts values (30, 7), (31, 8); insert into relationships values (7, 8, 'mute', true, now() + interval '1 hour')`,
    );
    expect(await mapping.suppressed(`${like(8, 30)}; ${like(7, 31)}`)).toEqual(['7 muted']);
    await mapping.sql(`update relationships set ends_at = now() where owner = 7`);
    expect(await mapping.suppressed(like(8, 30))).toEqual([]);
  });

  it('a muted thread is of a kind that stands in the row, and ends', async () => {
    await mapping.sql(
      `insert into posts values (40, 9); insert into silenced values (9, 'post', 40), (9, 'group', 40)`,
    );
    expect(await mapping.suppressed(like(2, 40))).toEqual(['9 thread_muted']);
    expect(await mapping.heard(`insert into posts values (41, 9); ${like(2, 41)}`)).toEqual(['9 like 2 post:41!']);
    await mapping.sql(`insert into silenced values (9, 'group', 41)`);
    expect(await shownTo(mapping, 9)).toEqual(['2 41']);
    await mapping.sql(`insert into silenced values (9, 'post', 41)`);
    expect(await shownTo(mapping, 9)).toEqual([]);
    await mapping.sql(`update silenced set until = now()`);
    expect(await shownTo(mapping, 9)).toEqual(['2 41']);
    expect(await mapping.suppressed(like(3, 40))).toEqual([]);
  });

  it('a thread that is muted by its kind in the row is withdrawn, and only that', async () => {
    expect(await mapping.heard(`insert into posts values (42, 9); ${like(2, 42)}`)).toEqual(['9 like 2 post:42!']);
    expect(await mapping.heard(`insert into silenced values (9, 'group', 42)`)).toEqual([]);
    expect(await mapping.heard(`insert into silenced values (9, 'post', 42)`)).toEqual(['9 -like']);
    expect(await mapping.heard(`insert into posts values (43, 9); ${like(2, 43)}`)).toEqual(['9 like 2 post:43!']);
    expect(await mapping.heard(`insert into silenced values (9, 'group', 43)`)).toEqual([]);
    expect(await mapping.heard(`update silenced set topic = 'post' where topic_id = 43`)).toEqual(['9 -like']);
    expect(await mapping.heard(`insert into posts values (44, 9); ${like(2, 44)}`)).toEqual(['9 like 2 post:44!']);
    expect(await mapping.heard(`insert into silenced values (9, 'group', 44)`)).toEqual([]);
    expect(
      await mapping.heard(`delete from silenced where topic_id = 44; insert into silenced values (9, 'post', 44)`),
    ).toEqual(['9 -like']);
  });

  it.each([
    ['post', 0],
    ['group', 1],
  ])('when a window ends and when events are replayed, a mute of kind %s counts as one', async (kind, told) => {
    const post = 70 + told;
    const endWindows = async () => {
      await ageWindows(mapping.database.pool, '1 min');
      await mapping.batches.flush();
      return mapping.batches.heard().filter(({ to }) => to === 'user');
    };
    await endWindows();
    expect(await mapping.heard(`insert into posts values (${String(post)}, 9); ${like(2, post)}`)).toHaveLength(1);
    expect(await mapping.heard(like(3, post))).toEqual([]);
    await mapping.sql(`insert into silenced values (9, '${kind}', ${String(post)})`);
    expect(await endWindows()).toHaveLength(told);
    await mapping.batches.run();
    const [{ now } = {}] = await mapping.sql('select clock_timestamp() as now');
    expect(await mapping.suppressed(like(4, post))).toEqual(told === 0 ? ['9 thread_muted'] : []);
    expect(await mapping.batches.replay('deliver', { since: now as Date })).toMatchObject({
      processed: 1,
      delivered: 0,
      suppressed: 1 - told,
      already: told,
    });
  });
});

describe('in one direction', () => {
  let mapping: Mapping;
  beforeAll(async () => {
    mapping = await kept(`
blocks: { table: one_way, from: a, to: b, direction: one, when: "not lifted" }
mutes: { table: relationships, from: owner, to: other, direction: both }`);
    await mapping.sql('insert into posts values (50, 2), (51, 3), (52, 4)');
  });
  afterAll(() => mapping.stop());

  it('a block keeps only what the blocked does, before and after', async () => {
    expect(await mapping.heard(`${like(2)}; ${like(1, 50)}`)).toEqual(['1 like 2 post:10!', '2 like 1 post:50!']);
    expect(await mapping.heard('insert into one_way values (1, 2)')).toEqual(['1 -like']);
    expect(await mapping.suppressed(`${like(2)}; ${like(1, 50)}`)).toEqual(['1 blocked']);
    expect(await shownTo(mapping, 1)).toEqual([]);
    expect(await shownTo(mapping, 2)).toEqual(['1 50']);
    const people = await mapping.batches.inbox.blockedWith(['1', '2']);
    expect([...(people.get('1') ?? [])]).toEqual(['2']);
    expect([...(people.get('2') ?? [])]).toEqual([]);
    await mapping.sql('update one_way set lifted = true');
    expect([...((await mapping.batches.inbox.blockedWith(['1'])).get('1') ?? [])]).toEqual([]);
  });

  it('gateways are told who no longer hears of whom', async () => {
    expect(await mapping.published('insert into one_way values (7, 8)')).toContainEqual(
      expect.objectContaining({ kind: 'blocks', pairs: [['7', '8']] }),
    );
  });

  it('a mute may work both ways', async () => {
    expect(
      await mapping.suppressed(`insert into relationships values (3, 4, 'any'); ${like(4, 51)}; ${like(3, 52)}`),
    ).toEqual(['3 muted', '4 muted']);
    await mapping.heard(`insert into posts values (53, 5), (54, 6); ${like(6, 53)}; ${like(5, 54)}`);
    await mapping.sql(`insert into relationships values (5, 6, 'any')`);
    for (const user of [5, 6]) expect(await shownTo(mapping, user)).toEqual([]);
  });
});

describe('without any of them', () => {
  it('somebody who is behind a group twice is counted once, until both are gone', async () => {
    const mapping = await startMapping(tables, sources);
    const behind = async () => {
      await mapping.batches.run();
      const { items } = await mapping.batches.inbox.list('1', { limit: 10, before: null, state: null });
      return (items as { data: { actor_count: number; event_count: number } }[]).map(({ data }) => [
        data.actor_count,
        data.event_count,
      ]);
    };
    try {
      await mapping.sql(`insert into likes (id, who, post) values (1001, 2, 10), (1002, 3, 10)`);
      expect(await behind()).toEqual([[2, 2]]);
      await mapping.sql(`insert into likes (id, who, post) values (1003, 2, 10)`);
      expect(await behind()).toEqual([[2, 3]]);
      await mapping.sql(`delete from likes where id = 1001`);
      expect(await behind()).toEqual([[2, 2]]);
      await mapping.sql(`delete from likes where id = 1003`);
      expect(await behind()).toEqual([[1, 1]]);
    } finally {
      await mapping.stop();
    }
  });

  it('everybody hears of everything, visibility apart: an enum, a table of followers, a list of those allowed', async () => {
    const mapping = await startMapping(tables, sources);
    try {
      const activity = (post: number) =>
        mapping.heard(`insert into likes (who, post, kind) values (9, ${String(post)}, 'activity')`);
      const to =
        (...users: number[]) =>
        (post: number) =>
          users.map((user) => `${String(user)} activity 9 post:${String(post)}!`);
      expect(await activity(10)).toEqual(to(1, 2, 3, 4)(10));
      expect(await activity(11)).toEqual(to(1, 2, 3)(11));
      expect(await activity(12)).toEqual(to(1, 3, 4)(12));
      expect(
        await mapping.suppressed(
          `update posts set allowed = '{}'; insert into likes (who, post, kind) values (8, 12, 'activity')`,
        ),
      ).toEqual(['2 not_visible', '3 not_visible', '4 not_visible']);
    } finally {
      await mapping.stop();
    }
  });
});

describe('what was delivered is read by the same rows', () => {
  const inTables = `
blocks: { table: relationships, from: owner, to: other, when: "kind = 'block' and active", until: ends_at }
mutes: { table: relationships, from: owner, to: other, when: "kind = 'mute'", until: ends_at }
threadMutes: { table: silenced, user: who, kind: topic, id: topic_id, until: until }`;
  const oneWay = `
blocks: { table: one_way, from: a, to: b, direction: one, when: "not lifted" }
mutes: { table: relationships, from: owner, to: other, when: "kind = 'mute'", direction: both }`;

  const mappings = new Map<string, Mapping>();
  beforeAll(async () => {
    for (const sections of [inTables, oneWay]) mappings.set(sections, await kept(sections));
  });
  afterAll(async () => {
    for (const mapping of mappings.values()) await mapping.stop();
  });

  // O owns a post P, which A liked: is it still in the list once such rows were written?
  it.each([
    ['a row of another kind', inTables, `insert into relationships values (O, A, 'friend')`, true],
    ['a block', inTables, `insert into relationships values (O, A, 'block')`, false],
    ['a block by the actor', inTables, `insert into relationships values (A, O, 'block')`, false],
    ['a block that was lifted', inTables, `insert into relationships values (O, A, 'block', false)`, true],
    ['a block that ended', inTables, `insert into relationships values (O, A, 'block', true, now())`, true],
    ['a mute', inTables, `insert into relationships values (O, A, 'mute')`, false],
    ['a mute by the actor', inTables, `insert into relationships values (A, O, 'mute')`, true],
    ['a mute that ended', inTables, `insert into relationships values (O, A, 'mute', true, now())`, true],
    ['a muted thread', inTables, `insert into silenced values (O, 'post', P)`, false],
    ['a thread of another kind', inTables, `insert into silenced values (O, 'group', P)`, true],
    ['a muted thread that ended', inTables, `insert into silenced values (O, 'post', P, now())`, true],
    ['a one-way block', oneWay, `insert into one_way values (O, A)`, false],
    ['a one-way block of the recipient', oneWay, `insert into one_way values (A, O)`, true],
    ['a mute both ways', oneWay, `insert into relationships values (A, O, 'mute')`, false],
    [
      'a block among more than are fetched',
      inTables,
      `insert into relationships select O, i, 'block' from generate_series(900000, 900100) i; insert into relationships values (O, A, 'block')`,
      false,
    ],
    [
      'many blocks of others',
      inTables,
      `insert into relationships select O, i, 'block' from generate_series(900000, 900100) i`,
      true,
    ],
  ])('%s', async (_what, sections, rows, shown) => {
    const mapping = mappings.get(sections) as Mapping;
    const [owner, actor, post] = [(nr += 1000), nr + 1, nr + 2].map(String) as [string, string, string];
    await mapping.sql(
      `insert into users values (${owner}, 'O'), (${actor}, 'A'); insert into posts values (${post}, ${owner})`,
    );
    // Beside what the case before withdraws.
    expect(await mapping.heard(like(Number(actor), Number(post)))).toContain(`${owner} like ${actor} post:${post}!`);
    // Not processed yet when it is read: what it would withdraw is still there.
    await mapping.sql(rows.replace(/\b[OAP]\b/g, (name) => ({ O: owner, A: actor })[name] ?? post));
    const { inbox } = mapping.batches;
    const list = await inbox.list(owner, { limit: 10, before: null, state: null });
    const { frames } = await recover(inbox, owner, 0, list.epoch);
    expect(list.items).toHaveLength(shown ? 1 : 0);
    expect((await inbox.badges([actor, owner])).get(owner)).toMatchObject({
      unseen: shown ? 1 : 0,
      unread: shown ? 1 : 0,
    });
    expect(frames.map(({ frame }) => (JSON.parse(frame) as { event: string }).event)).toEqual([
      shown ? 'notification' : 'withdrawn',
    ]);
  });

  it('a parameter of whose type nothing tells is text', async () => {
    const open = sources.replace(
      /select 1 from posts p where [\s\S]*allowed\)\)/,
      `select 1 where :user is not null and :object_id <> '12'`,
    );
    const mapping = await startMapping(tables, open);
    try {
      const heard = async (post: number) =>
        (await mapping.heard(`insert into likes (who, post, kind) values (9, ${String(post)}, 'activity')`)).length;
      expect([await heard(10), await heard(12)]).toEqual([4, 0]);
      expect(await shownTo(mapping, 2)).toEqual(['9 10']);
    } finally {
      await mapping.stop();
    }
  });
});
