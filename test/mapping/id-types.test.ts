/** Ids of types that hold more values than look alike, or fewer than there are texts: found where the database says equal, else nobody. */

import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { seedCounters } from '../../src/inbox/seed.js';
import { listOutbox } from '../../src/relay/look/browse.js';
import { startMapping } from './rig.js';
import type { Mapping } from './rig.js';
import { recover } from '../support/recover.js';

vi.setConfig({ testTimeout: 240_000, hookTimeout: 240_000 });

describe('char(n)', () => {
  let chars: Mapping;
  beforeAll(async () => {
    chars = await startMapping(
      `create table users (id char(8) primary key, name text, handle char(8) unique);
       create table posts (id char(8) primary key, owner char(8));
       create table likes (who char(8), post char(8));
       create table notes (id char(8) primary key, by_id char(8), told char(8)[], body text);
       create table blocks (a char(8), b char(8));
       create table threads (who char(8), thread char(8));
       insert into users select u, initcap(u), u from unnest(array['ada', 'bo', 'cleo', 'dora', 'eightlet']) u;
       insert into posts values ('p1', 'ada'), ('p2', 'eightlet'), ('p3', 'cleo');
       insert into likes values ('dora', 'p1');`,
      `
  - name: like
    type: like
    table: likes
    key: [who, post]
    actor: who
    object: { kind: post, id: post }
    recipient: { path: [{ from: post, table: posts, match: id, take: owner }] }
    visible: "select 1 from posts where id = :object_id and owner = :user"
    channels: ['post:{post}']
    counter: { event: like_update, field: likes_count }
    include: [who]
  - { name: told, type: told, table: notes, key: [id], actor: by_id, recipient: { list: told } }
  - { name: mention, type: mention, table: notes, key: [id], actor: by_id, recipient: { mentions: body, path: [{ table: users, match: handle, take: id }] } }`,
      `
people: { table: users, name: name }
blocks: { table: blocks, from: a, to: b }
threadMutes: { table: threads, user: who, kind: post, id: thread }
channels: { post: { read: public } }`,
    );
    await seedCounters(await chars.database.client(), chars.batches.config, { info: () => undefined });
  });
  afterAll(() => chars.stop());

  const listOf = async (user: string) =>
    (await chars.batches.inbox.list(user, { limit: 10, before: null, state: null })).items.map((item) =>
      JSON.stringify(item),
    );

  it('are whole, and without the blanks that fill them up', async () => {
    const published = await chars.published(`insert into likes values ('bo', 'p1'), ('bo', 'p2')`);
    const people = published.flatMap((one) => (one.to === 'user' ? [`${one.userId} ${one.frame}`] : []));
    expect(people).toEqual([
      expect.stringMatching(/^ada .*"user_id":"bo","post_id":"p1","message":"Bo liked/),
      expect.stringMatching(/^eightlet .*"user_id":"bo","post_id":"p2","message":"Bo liked/),
    ]);
    const rooms = published.flatMap((one) => (one.to === 'channel' ? [one] : []));
    expect(rooms.map(({ channel }) => channel)).toEqual(['post:p1', 'post:p2']);
    expect(JSON.stringify(rooms)).toContain('{"who":"bo"}');
    expect(await listOf('ada')).toEqual([expect.stringContaining('"name":"Bo"')]);
    expect(await chars.sql(`select object_id, count::int from belfry.counter order by 1`)).toEqual([
      { object_id: 'p1', count: 2 },
      { object_id: 'p2', count: 1 },
    ]);
  });

  it('in the outbox as it is looked at', async () => {
    const client = await chars.database.client();
    const [item] = await listOutbox(client, chars.batches.config, { source: 'like', user: 'bo', object: 'post:p2' }, 1);
    const row = { who: 'bo', post: 'p2' };
    expect(item).toMatchObject({ actor_id: 'bo', object: { kind: 'post', id: 'p2' }, new: row });
  });

  it('in lists, mentions and calls', async () => {
    expect(await chars.heard(`insert into notes values ('n1', 'bo', '{ada,cleo}', 'Hi @Dora')`)).toEqual([
      'ada told bo!',
      'cleo told bo!',
      'dora mention bo!',
    ]);
    expect(await chars.heard(`select belfry.notify('ada', 'news', 'hello', actor_id => 'cleo')`)).toEqual([
      'ada news cleo!',
    ]);
  });

  it('of rows that are alike, and of rows that go', async () => {
    expect(await chars.heard(`insert into likes values ('ada', 'p3'), ('ada', 'p3')`)).toEqual([
      'cleo like ada post:p3!',
    ]);
    expect(await chars.heard(`delete from likes where ctid = (select max(ctid) from likes)`)).toEqual([]);
    expect(await chars.heard(`delete from likes where post = 'p3'`)).toEqual(['cleo -like']);
  });

  it('of those who are blocked, and of threads that are muted', async () => {
    expect(await chars.heard(`insert into blocks values ('ada', 'bo')`)).toEqual(['ada -like', 'ada -told']);
    expect(await chars.batches.inbox.blockedWith(['ada', 'bo'])).toEqual(
      new Map([
        ['ada', new Set(['bo'])],
        ['bo', new Set(['ada'])],
      ]),
    );
    expect(await chars.suppressed(`select belfry.notify('ada', 'news', 'hello', actor_id => 'bo')`)).toEqual([
      'ada blocked',
    ]);
    expect(
      await chars.suppressed(`insert into threads values ('eightlet', 'p2'); insert into likes values ('dora', 'p2')`),
    ).toEqual(['eightlet thread_muted']);
  });

  it('to be replayed', async () => {
    expect(await chars.batches.replay('deliver', { source: 'like', object: 'post:p2' })).toMatchObject({
      processed: 2,
      already: 1,
      suppressed: 1,
    });
  });
});

describe('values that are none of the type', () => {
  let typed: Mapping;
  beforeAll(async () => {
    typed = await startMapping(
      `create domain user_id as bigint check (value > 0);
       create domain amount_id as numeric;
       create type color as enum ('red', 'green');
       create table users (id user_id primary key, name text);
       create table accounts (no numeric primary key, owner user_id);
       create table blocks (a user_id, b user_id);
       create table shades (kind color primary key, owner user_id);
       create table votes (who user_id, kind color);
       create table payments (id int primary key, by_id user_id, account text, shade text);
       insert into users select i, 'U' || i from generate_series(1, 3) i;
       insert into accounts values (77, 1), (12.50, 2);
       insert into shades values ('red', 3);`,
      `
  - { name: payment, type: payment, table: payments, key: [id], actor: by_id, recipient: { path: [{ from: account, table: accounts, match: no, take: owner }] } }
  - { name: shade, type: shade, table: payments, key: [id], actor: by_id, recipient: { path: [{ from: shade, table: shades, match: kind, take: owner }] } }
  - name: vote
    type: vote
    table: votes
    key: [who, kind]
    actor: who
    object: { kind: color, id: kind }
    recipient: { path: [{ from: kind, table: shades, match: kind, take: owner }] }
    visible: "select 1 from users where id = :user::user_id and :object_id <> ''"`,
      `
people: { table: users, name: name }
blocks: { table: blocks, from: a, to: b }`,
    );
  });
  afterAll(() => typed.stop());

  it('find nobody', async () => {
    expect(
      await typed.suppressed(`select belfry.notify('bot', 'system', 'x'), belfry.notify('-1', 'system', 'x')`),
    ).toEqual(['-1 recipient_gone', 'bot recipient_gone']);
    expect(
      await typed.heard(
        `insert into payments values (1, 2, '77', 'red'), (2, 1, '12.5', 'mauve'), (3, 2, 'n/a', null), (4, 2, repeat('9', 200), '')`,
      ),
    ).toEqual(['1 payment 2!', '2 payment 1!', '3 shade 2!']);
    expect(await typed.sql(`select source, key from belfry.held order by 1, 2`)).toEqual(
      [
        ['payment', '["3"]'],
        ['payment', '["4"]'],
        ['shade', '["2"]'],
        ['shade', '["3"]'],
        ['shade', '["4"]'],
      ].map(([source, key]) => ({ source, key })),
    );
  });

  it('are asked for by whoever has such an id', async () => {
    const { inbox } = typed.batches;
    for (const user of ['service', '-1']) {
      const list = await inbox.list(user, { limit: 10, before: null, state: null });
      expect(list.items).toEqual([]);
      expect(await recover(inbox, user, 0, list.epoch)).toMatchObject({ frames: [] });
    }
  });

  it('were once: a label of an enum that was renamed', async () => {
    expect(await typed.heard(`insert into votes values (1, 'red'), (1, 'red')`)).toEqual(['3 vote 1 color:red!']);
    await typed.sql(`delete from votes; alter type color rename value 'red' to 'crimson'`);
    expect(await typed.heard()).toEqual(['3 -vote']);
  });
});

describe('an id that is equal but written in another way', () => {
  const lower = (digit: number): string => `abcdef00-0000-4000-8000-${String(digit).padStart(12, '0')}`;
  const upper = (digit: number): string => lower(digit).toUpperCase();

  it('of a uuid: it is the person as their row writes it', async () => {
    const uuids = await startMapping(
      `create table users (id uuid primary key, name text);
       create table blocks (a uuid, b uuid);
       create table notes (id int primary key, by_id text, told text, also text[]);
       insert into users values ('${lower(1)}', 'Ada'), ('${lower(2)}', 'Bo');`,
      `
  - { name: note, type: note, table: notes, key: [id], actor: by_id, recipient: told }
  - { name: also, type: also, table: notes, key: [id], actor: by_id, recipient: { list: also } }
  - { name: asked, type: asked, table: notes, key: [id], actor: by_id, recipient: { query: "select unnest(:also)" } }`,
      `
people: { table: users, name: name }
blocks: { table: blocks, from: a, to: b }`,
    );
    try {
      const notify = `select belfry.notify('${upper(1)}', 'news', 'hello', actor_id => '${upper(2)}')`;
      expect(await uuids.heard(notify)).toEqual([`${lower(1)} news ${lower(2)}!`]);
      const { items } = await uuids.batches.inbox.list(lower(1), { limit: 10, before: null, state: null });
      expect(items).toHaveLength(1);
      expect(
        await uuids.heard(`insert into notes values (1, '${upper(2)}', '${upper(1)}', '{${upper(1)},nobody}')`),
      ).toEqual(['also', 'asked', 'note'].map((type) => `${lower(1)} ${type} ${lower(2)}!`));
      // Whoever looks for the person may spell them either way, too.
      for (const user of [lower(1), upper(1)]) {
        const { batches, database } = uuids;
        const found = await listOutbox(await database.client(), batches.config, { user }, 10);
        expect(found.map(({ source }) => source).sort()).toEqual(['also', 'asked', 'belfry.notify', 'note']);
        expect(await batches.replay('deliver', { user })).toMatchObject({ processed: 4, already: 4 });
        await uuids.sql(`update belfry.notification_event set removed_at = now()`);
        expect(await batches.replay('rebuild', { user })).toMatchObject({ processed: 4, delivered: 4 });
      }
      // What is no uuid is nobody's id.
      for (const user of ['who', '5']) {
        const { batches, database } = uuids;
        expect(await listOutbox(await database.client(), batches.config, { user }, 10)).toEqual([]);
        expect(await batches.replay('deliver', { user })).toMatchObject({ delivered: 0 });
      }
      uuids.batches.heard();
      expect(await uuids.heard(`update notes set by_id = lower(by_id), told = lower(told)`)).toEqual([]);
      expect(await uuids.published(`select belfry.revoke('${upper(1)}')`)).toEqual([
        expect.objectContaining({ kind: 'revoke', userId: lower(1) }),
      ]);
      expect(await uuids.suppressed(`insert into blocks values ('${lower(1)}', '${lower(2)}'); ${notify}`)).toEqual([
        `${lower(1)} blocked`,
      ]);
      expect(await uuids.suppressed(`select belfry.notify('${upper(3)}', 'news', 'hello')`)).toEqual([
        `${lower(3)} recipient_gone`,
      ]);
    } finally {
      await uuids.stop();
    }
  });

  it('of a uuid in relations of text: blocks, mutes, muted threads and follows hold', async () => {
    const written = await startMapping(
      `create table users (id uuid primary key, name text);
       create table blocks (a text, b text);
       create table mutes (a text, b text);
       create table threads (who text, thread int);
       create table follows (who text, whom text);
       create table posts (id int primary key, owner uuid);
       create table likes (who text, post int);
       insert into users values ('${lower(1)}'), ('${lower(2)}'), ('${lower(3)}'), ('${lower(4)}'), ('${lower(5)}');
       insert into posts values (1, '${lower(1)}'), (2, '${lower(1)}');
       insert into mutes values ('${upper(1)}', '${upper(3)}'), ('nobody', '${upper(3)}');
       insert into threads values ('${upper(1)}', 2);
       insert into follows values ('${upper(1)}', '${upper(5)}');`,
      `
  - { name: like, type: like, table: likes, key: [who, post], actor: who, object: { kind: post, id: post }, recipient: { path: [{ from: post, table: posts, match: id, take: owner }] } }
  - { name: follow, type: follow, table: follows, key: [who, whom], actor: who, recipient: whom }`,
      `
people: { table: users, name: name }
blocks: { table: blocks, from: a, to: b }
mutes: { table: mutes, from: a, to: b }
threadMutes: { table: threads, user: who, kind: post, id: thread }`,
    );
    const { inbox } = written.batches;
    const likes = (digit: number, post = 1): string => `insert into likes values ('${upper(digit)}', ${String(post)});`;
    const shown = async () => (await inbox.list(lower(1), { limit: 10, before: null, state: null })).items.length;
    try {
      expect(await written.heard(likes(2))).toEqual([`${lower(1)} like ${lower(2)} post:1!`]);
      expect(await shown()).toBe(1);
      // Read before the relay has seen it.
      await written.sql(`insert into blocks values ('${upper(2)}', '${upper(1)}'), ('nobody', '${upper(1)}')`);
      expect(await shown()).toBe(0);
      expect((await inbox.badges([lower(1)])).get(lower(1))).toMatchObject({ unseen: 0, unread: 0 });
      expect((await inbox.blockedWith([lower(1), 'nobody'])).get(lower(1))).toEqual(new Set(['nobody', lower(2)]));
      await written.heard();
      const notify = `select belfry.notify('${upper(1)}', 'news', 'hello', actor_id => '${upper(2)}');`;
      expect(await written.suppressed(notify)).toEqual([`${lower(1)} blocked`]);
      expect(await written.suppressed(likes(3))).toEqual([`${lower(1)} muted`]);
      expect(await written.suppressed(likes(4, 2))).toEqual([`${lower(1)} thread_muted`]);
      await inbox.setPreferences(lower(1), { like: 'following' });
      expect(await written.suppressed(likes(4))).toEqual([`${lower(1)} policy`]);
      expect(await written.heard(likes(5))).toEqual([`${lower(1)} like ${lower(5)} post:1!`]);
    } finally {
      await written.stop();
    }
  });

  it('of a uuid, without a table of people: blocks, mutes and muted threads hold', async () => {
    const uuids = await startMapping(
      `create table blocks (a uuid, b uuid);
       create table threads (who uuid, topic uuid);
       create table notes (id int primary key, told text, topic text);
       insert into blocks values ('${lower(1)}', '${lower(2)}');
       insert into threads values ('${lower(1)}', '${lower(5)}');`,
      `
  - { name: note, type: note, table: notes, key: [id], object: { kind: thread, id: topic }, recipient: told }`,
      `
blocks: { table: blocks, from: a, to: b }
mutes: { table: blocks, from: b, to: a }
threadMutes: { table: threads, user: who, kind: thread, id: topic }`,
    );
    try {
      expect(
        await uuids.suppressed(`select belfry.notify('${lower(1)}', 'news', 'hi', actor_id => '${upper(2)}')`),
      ).toEqual([`${lower(1)} blocked`]);
      expect(await uuids.suppressed(`insert into notes values (1, '${lower(1)}', '${upper(5)}')`)).toEqual([
        `${lower(1)} thread_muted`,
      ]);
    } finally {
      await uuids.stop();
    }
  });

  it('of a citext that nothing keeps apart: it is one of those that are equal', async () => {
    const cased = await startMapping(
      `create extension citext;
       create table accounts (id citext, name text);
       create table notes (id int primary key, told text);
       insert into accounts values ('Ada', 'Ada'), ('ADA', 'Ada');`,
      `
  - { name: note, type: note, table: notes, key: [id], recipient: told }`,
      `
people: { table: accounts, name: name }`,
    );
    try {
      expect(await cased.heard(`insert into notes values (1, 'ada')`)).toEqual([
        expect.stringMatching(/^(Ada|ADA) note nobody!$/),
      ]);
    } finally {
      await cased.stop();
    }
  });

  it('of a citext: it is the person as their row writes it', async () => {
    const cased = await startMapping(
      `create extension citext;
       create table users (id citext primary key, name text);
       create table posts (id int primary key, owner citext references users);
       create table likes (who citext references users, post int, primary key (who, post));
       create table blocks (a citext references users, b citext references users);
       create table mutes (a citext references users, b citext references users);
       insert into users values ('Ada', 'Ada'), ('Bo', 'Bo'), ('Cleo', 'Cleo'), ('Dora', 'Dora');
       insert into posts values (1, 'ADA'), (2, 'dora');`,
      `
  - name: like
    type: like
    table: likes
    key: [who, post]
    actor: who
    object: { kind: post, id: post }
    recipient: { path: [{ from: post, table: posts, match: id, take: owner }] }`,
      `
people: { table: users, name: name }
blocks: { table: blocks, from: a, to: b }
mutes: { table: mutes, from: a, to: b }`,
    );
    const { inbox } = cased.batches;
    try {
      expect(await cased.heard(`insert into likes values ('bo', 1)`)).toEqual(['Ada like Bo post:1!']);
      expect(await cased.suppressed(`insert into likes values ('ada', 1)`)).toEqual(['Ada self']);
      expect(await cased.heard(`select belfry.notify('ada', 'news', 'hello', actor_id => 'CLEO')`)).toEqual([
        'Ada news Cleo!',
      ]);
      const shown = async () => (await inbox.list('Ada', { limit: 10, before: null, state: null })).items.length;
      expect(await shown()).toBe(2);
      await cased.sql(`insert into blocks values ('aDA', 'bO')`);
      expect(await shown()).toBe(1);
      expect(await cased.published()).toEqual(
        expect.arrayContaining([
          expect.objectContaining({
            ...{ kind: 'blocks', userIds: ['Ada', 'Bo'] },
            pairs: [
              ['Ada', 'Bo'],
              ['Bo', 'Ada'],
            ],
          }),
          expect.objectContaining({ to: 'user', userId: 'Ada' }),
        ]),
      );
      expect(await inbox.blockedWith(['Ada', 'Bo'])).toEqual(
        new Map([
          ['Ada', new Set(['Bo'])],
          ['Bo', new Set(['Ada'])],
        ]),
      );
      expect(await cased.heard(`insert into likes values ('CLEO', 2)`)).toEqual(['Dora like Cleo post:2!']);
      expect(await cased.heard(`insert into mutes values ('dora', 'cleo')`)).toEqual(['Dora -like']);
      expect(await cased.suppressed(`select belfry.notify('DORA', 'news', 'hello', actor_id => 'cleo')`)).toEqual([
        'Dora muted',
      ]);
      expect(await cased.suppressed(`select belfry.notify('nobody', 'news', 'hello')`)).toEqual([
        'nobody recipient_gone',
      ]);
    } finally {
      await cased.stop();
    }
  });
});
