/** Who did it and who hears of it: over hops, from lists and texts, and where the owner is not known at once. */

import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { seedCounters } from '../../src/inbox/seed.js';
import { startMapping } from './rig.js';
import type { Mapping } from './rig.js';

vi.setConfig({ testTimeout: 240_000, hookTimeout: 240_000 });

const tables = `
create table accounts (id int primary key, username text unique);
create table profiles (handle text primary key, account int);
create table boards (slug text primary key, moderator text);
create table threads (path text primary key, board text);
create table replies (id int primary key, thread_path text, author_handle text, body text, draft boolean default false);
create table links (id int primary key, from_handle text, to_handle text);
create table claims (id int primary key, by_id int, owner_id int, lot int);
create table lots (id int primary key, owner int);
create table tags (post_id int, account_id int, by_id int, primary key (post_id, account_id));
create table photos (id int primary key, by_id int, tagged int[], meta jsonb, names text[]);
create table notes (id int primary key, by_id int, body text);
insert into accounts values (1, 'ada'), (2, 'bo'), (3, 'cleo'), (4, 'dora-lee');
insert into profiles values ('@ada', 1), ('@bo', 2), ('@cleo', 3);
insert into boards values ('chess', '@ada');
insert into threads values ('chess/1', 'chess');
`;

const sources = `
  - name: reply
    type: reply
    table: replies
    key: [id]
    actor: { path: [{ from: author_handle, table: profiles, match: handle, take: account }] }
    object: { kind: thread, id: thread_path }
    recipient:
      path:
        - { from: thread_path, table: threads, match: path, take: board }
        - { table: boards, match: slug, take: moderator }
        - { table: profiles, match: handle, take: account }
    channels: ['thread:{thread_path}']
    include: [body]
  - name: link
    type: friend_request
    table: links
    key: [id]
    actor: { path: [{ from: from_handle, table: profiles, match: handle, take: account }] }
    recipient: { path: [{ from: to_handle, table: profiles, match: handle, take: account }] }
  - { name: claim, type: claim, table: claims, key: [id], actor: by_id, recipient: owner_id }
  - name: lot_claim
    type: lot_claim
    table: claims
    key: [id]
    actor: by_id
    recipient: { path: [{ from: lot, table: lots, match: id, take: owner }] }
  - { name: tag, type: tag, table: tags, key: [post_id, account_id], actor: by_id, object: { kind: post, id: post_id }, recipient: account_id }
  - { name: tagged, type: tagged, table: photos, key: [id], actor: by_id, recipient: { list: tagged } }
  - { name: in_meta, type: in_meta, table: photos, key: [id], actor: by_id, recipient: { list: meta, at: "$.people[*].id" } }
  - name: by_name
    type: by_name
    table: photos
    key: [id]
    actor: by_id
    recipient: { list: names, path: [{ table: accounts, match: username, take: id }] }
  - name: by_query
    type: by_query
    table: photos
    key: [id]
    actor: by_id
    # Its alias is one that Belfry's own statement has.
    recipient: { query: "select p.id from accounts p where p.id = any(:tagged) and ':tagged' <> ''" }
  - name: mention
    type: mention
    table: notes
    key: [id]
    actor: by_id
    object: { kind: note, id: id }
    recipient: { mentions: body, path: [{ table: accounts, match: username, take: id }] }
`;

let mapping: Mapping;
beforeAll(async () => {
  mapping = await startMapping(tables, sources, 'channels: { thread: { read: public } }');
});
afterAll(() => mapping.stop());

describe('over hops', () => {
  it('three of them, by columns that are no ids, without foreign keys; the actor by one', async () => {
    expect(await mapping.heard(`insert into replies values (1, 'chess/1', '@bo', 'hello')`)).toEqual([
      '1 reply 2 thread:chess/1!',
    ]);
  });

  it('an update of what is only included changes neither actor nor recipient', async () => {
    expect(await mapping.heard(`update replies set body = 'hello!' where id = 1`)).toEqual([]);
  });

  it('another author is another event', async () => {
    expect(await mapping.heard(`update replies set author_handle = '@cleo' where id = 1`)).toEqual([
      '1 reply 3 thread:chess/1!',
    ]);
  });

  it('on both sides', async () => {
    expect(await mapping.heard(`insert into links values (1, '@bo', '@cleo')`)).toEqual(['3 friend_request 2!']);
    expect(await mapping.heard(`delete from links`)).toEqual(['3 -friend_request']);
  });

  it('that lead nowhere are nobody', async () => {
    expect(await mapping.heard(`insert into links values (2, '@bo', '@nobody')`)).toEqual([]);
    expect(await mapping.heard(`insert into links values (3, '@nobody', '@bo')`)).toEqual(['2 friend_request nobody!']);
  });
});

describe('an owner who is not known at once', () => {
  it('is held, and told by a later update', async () => {
    expect(await mapping.heard('insert into claims (id, by_id) values (1, 2)')).toEqual([]);
    expect(await mapping.heard('update claims set owner_id = 1 where id = 1')).toEqual(['1 claim 2!']);
    // Once told a change is another event.
    expect(await mapping.heard('update claims set owner_id = 3 where id = 1')).toEqual(['1 -claim', '3 claim 2!']);
  });

  it('expires after an hour', async () => {
    await mapping.heard('insert into claims (id, by_id) values (2, 2)');
    await mapping.sql(`update belfry.held set until = until - interval '1 hour'`);
    expect(await mapping.heard('update claims set owner_id = 1 where id = 2')).toEqual([]);
  });

  it('is forgotten with its row', async () => {
    await mapping.heard('insert into claims (id, by_id, lot) values (3, 2, 7)');
    expect(await mapping.sql(`select source from belfry.held where key = '["3"]' order by 1`)).toEqual([
      { source: 'claim' },
      { source: 'lot_claim' },
    ]);
    await mapping.heard('delete from claims where id = 3');
    expect(await mapping.sql(`select source from belfry.held where key = '["3"]'`)).toEqual([]);
  });

  it('at the end of a path is found by an update of the row', async () => {
    await mapping.heard(
      'insert into lots values (8, null); insert into claims (id, by_id, lot, owner_id) values (4, 2, 8, 9)',
    );
    await mapping.sql('update lots set owner = 1');
    expect(await mapping.heard('update claims set by_id = by_id, lot = 8 where id = 4')).toEqual([]);
    expect(await mapping.heard('update claims set by_id = 3 where id = 4')).toEqual(['1 lot_claim 3!', '9 claim 3!']);
  });
});

describe('several people in one row', () => {
  it('from a table of mentions', async () => {
    expect(await mapping.heard('insert into tags values (10, 1, 2), (10, 3, 2), (10, 2, 2)')).toEqual([
      '1 tag 2 post:10!',
      '3 tag 2 post:10!',
    ]);
  });

  it('from an array, JSON, names in an array, a query with an array', async () => {
    const heard = await mapping.heard(
      `insert into photos values (1, 2, '{1,3}', '{"people":[{"id":1},{"id":"3"},{"no":5}]}', '{ada,nobody}')`,
    );
    expect(heard).toEqual([
      '1 by_name 2!',
      '1 by_query 2!',
      '1 in_meta 2!',
      '1 tagged 2!',
      '3 by_query 2!',
      '3 in_meta 2!',
      '3 tagged 2!',
    ]);
  });

  it('none at all, in every way of saying so', async () => {
    expect(
      await mapping.heard(
        `insert into photos values (2, 2, null, null, null), (3, 2, '{}', '[]', '{}'), (4, 2, '{null}', '{"people":"x"}', '{null}')`,
      ),
    ).toEqual([]);
    expect(
      await mapping.sql(`select 1 from belfry.held where source in ('tagged', 'in_meta', 'by_name', 'mention')`),
    ).toEqual([]);
  });

  it('when the list is edited: who is new hears, who is out loses it, the others notice nothing', async () => {
    expect(
      (await mapping.heard(`update photos set tagged = '{3,4}' where id = 1`)).filter((line) =>
        line.includes('tagged'),
      ),
    ).toEqual(['1 -tagged', '4 tagged 2!']);
  });
});

describe('@name in a text', () => {
  it('is looked up as it is and in lower case; addresses are no names; twice is once', async () => {
    expect(
      await mapping.heard(
        `insert into notes values (1, 2, 'Hi @Ada, @ada: ask @dora-lee. or mail cleo@cleo.example @nobody')`,
      ),
    ).toEqual(['1 mention 2 note:1!', '4 mention 2 note:1!']);
  });

  it('added in an edit tells only who is new; an edit beside the names tells nobody', async () => {
    expect(await mapping.heard(`update notes set body = 'Hello @ada and @dora-lee!' where id = 1`)).toEqual([]);
    expect(await mapping.heard(`update notes set body = '@ada @cleo' where id = 1`)).toEqual([
      '3 mention 2 note:1!',
      '4 -mention',
    ]);
  });

  it('added to a text without any', async () => {
    expect(await mapping.heard(`insert into notes values (2, 2, 'nobody here')`)).toEqual([]);
    expect(await mapping.heard(`update notes set body = '@ada!' where id = 2`)).toEqual(['1 mention 2 note:2!']);
    expect(await mapping.heard('delete from notes')).toEqual(['1 -mention', '1 -mention', '3 -mention']);
  });
});

it('SQL may end in a comment wherever it stands', async () => {
  const commented = await startMapping(
    `create table users (id int primary key, gone boolean default false);
     create table pairs (a int, b int, kind text);
     create table silenced (who int, thread int, over boolean default false);
     create table news (id int primary key, by_id int, topic int, draft boolean default false);
     create table mails (id int primary key, by_id int);
     insert into users select i, i = 4 from generate_series(1, 1002) i;
     insert into pairs values (5, 1, 'block'), (6, 1, 'mute');
     insert into silenced values (7, 9);`,
    `
  - name: news
    type: news
    table: news
    key: [id]
    actor: by_id
    object: { kind: topic, id: topic }
    recipient: { query: "select p.id from users p where p.id <= 9 and p.id <> :by_id -- the first" }
    visible: "select 1 from users where id = :user and id <> 8 and :object_id > 0 -- nearly all"
    when: "not draft -- published"
    channels: ['topic:{topic}']
    counter: { event: news_update, field: news_count }
  - { name: mail, type: mail, table: mails, key: [id], actor: by_id, recipient: { query: "select id from users -- all" } }`,
    `
people: { table: users, active: "not gone -- still here" }
blocks: { table: pairs, from: a, to: b, when: "kind = 'block' -- not mutes" }
mutes: { table: pairs, from: a, to: b, when: "kind = 'mute' -- not blocks" }
threadMutes: { table: silenced, user: who, kind: topic, id: thread, when: "not over -- yet" }
channels: { topic: { read: "select 1 where :user = :id -- nobody" } }`,
  );
  try {
    const { batches } = commented;
    const client = await commented.database.client();
    expect(await seedCounters(client, batches.config, { info: () => undefined })).toEqual(['news']);
    expect(await commented.heard('insert into news values (1, 1, 9, false), (2, 1, 9, true)')).toEqual(
      ['2', '3', '9'].map((user) => `${user} news 1 topic:9!`),
    );
    expect((await batches.inbox.list('2', { limit: 10, before: null, state: null })).items).toHaveLength(1);
    await commented.heard('insert into mails values (1, 1)');
    // All but the sender, one who is gone, and two who shun the sender.
    await batches.fanOut();
    expect(await commented.sql(`select count(*)::int as n from belfry.notification where type = 'mail'`)).toEqual([
      { n: 998 },
    ]);
  } finally {
    await commented.stop();
  }
});
