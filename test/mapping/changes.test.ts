/** What an update means: it emits or retracts by the value of a column, softly deletes, or moves between types. */

import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { startMapping } from './rig.js';
import type { Mapping } from './rig.js';

vi.setConfig({ testTimeout: 240_000, hookTimeout: 240_000 });

const tables = `
create schema app;
create type app.state as enum ('pending', 'accepted', 'declined');
create table votes (user_id int, post_id int, score smallint, primary key (user_id, post_id));
create table friendships (id int primary key, from_id int, to_id int, state app.state default 'pending');
create table applications (id int primary key, employer int, applicant int, status int default 0);
create table comments (id int primary key, author int, owner int, body text, deleted boolean, hidden_at timestamp, status varchar(10) default 'live');
create table reactions (id int primary key, author int, owner int, emoji text, post int);
create table hearts (author int, owner int, post int, primary key (author, post));
create table activity (id int primary key, kind text, payload jsonb);
`;

const sources = `
  - { name: upvote, type: upvote, table: votes, key: [user_id, post_id], actor: user_id, object: { kind: post, id: post_id }, recipient: post_id, when: "score = 1" }
  - { name: downvote, type: downvote, table: votes, key: [user_id, post_id], actor: user_id, object: { kind: post, id: post_id }, recipient: post_id, when: "score < 0" }
  - { name: request, type: friend_request, table: friendships, key: [id], actor: from_id, recipient: to_id, when: "state = 'pending'" }
  - { name: acceptance, type: friend_accepted, table: friendships, key: [id], actor: to_id, recipient: from_id, when: "state = 'accepted'" }
  - { name: application, type: job_application, table: applications, key: [id, status], actor: employer, object: { kind: job_application, id: id }, recipient: applicant, when: "status <> 0" }
  - { name: comment, type: comment, table: comments, key: [id], actor: author, recipient: owner, when: "deleted is not true and hidden_at is null and status = 'live'", object: { kind: comment, id: id } }
  - { name: love, type: like, table: reactions, key: [id], actor: author, object: { kind: post, id: post }, recipient: owner, when: "emoji in ('heart', 'like')" }
  - { name: laugh, type: laugh, table: reactions, key: [id], actor: author, object: { kind: post, id: post }, recipient: owner, when: "emoji = 'laugh'" }
  - { name: heart, type: like, table: hearts, key: [author, post], actor: author, object: { kind: post, id: post }, recipient: owner }
  - name: activity
    type: mention
    table: activity
    key: [id]
    recipient: { list: payload, at: "$.to[*]" }
    when: "kind = 'mention' and payload ->> 'silent' is null"
`;

let mapping: Mapping;
beforeAll(async () => {
  mapping = await startMapping(tables, sources);
});
afterAll(() => mapping.stop());

describe('by value', () => {
  it('a score of 1, -1 and 0', async () => {
    expect(await mapping.heard('insert into votes values (2, 10, 1)')).toEqual(['10 upvote 2 post:10!']);
    expect(await mapping.heard('update votes set score = -1')).toEqual(['10 -upvote', '10 downvote 2 post:10!']);
    expect(await mapping.heard('update votes set score = 0')).toEqual(['10 -downvote']);
    // Back within a minute: the same again, and no second ring.
    expect(await mapping.heard('update votes set score = 1')).toEqual(['10 upvote 2 post:10']);
    expect(await mapping.heard('delete from votes')).toEqual(['10 -upvote']);
    expect(await mapping.heard('insert into votes values (3, 10, 0); update votes set score = null')).toEqual([]);
  });

  it('upsert with the same value is nothing, with another one it is that', async () => {
    const upsert = (score: number) =>
      `insert into votes values (4, 11, ${String(score)}) on conflict (user_id, post_id) do update set score = excluded.score`;
    expect(await mapping.heard(upsert(1))).toEqual(['11 upvote 4 post:11!']);
    expect(await mapping.heard(upsert(1))).toEqual([]);
    expect(await mapping.heard(upsert(-1))).toEqual(['11 -upvote', '11 downvote 4 post:11!']);
  });

  it('an enum: asked, accepted (who asked hears of it), declined', async () => {
    expect(await mapping.heard('insert into friendships (id, from_id, to_id) values (1, 2, 3), (2, 4, 3)')).toEqual([
      '3 friend_request 2!',
      '3 friend_request 4!',
    ]);
    expect(await mapping.heard(`update friendships set state = 'accepted' where id = 1`)).toEqual([
      '2 friend_accepted 3!',
      '3 -friend_request',
    ]);
    expect(await mapping.heard(`update friendships set state = 'declined' where id = 2`)).toEqual([
      '3 -friend_request',
    ]);
  });

  it('an integer enum, each value a notification of its own: the value is part of the key', async () => {
    expect(await mapping.heard('insert into applications values (1, 5, 6)')).toEqual([]);
    expect(await mapping.heard('update applications set status = 1')).toEqual([
      '6 job_application 5 job_application:1!',
    ]);
    expect(await mapping.heard('update applications set status = 2')).toEqual([
      '6 -job_application',
      '6 job_application 5 job_application:1!',
    ]);
    expect(await mapping.heard('update applications set status = 0')).toEqual(['6 -job_application']);
  });

  it('a new value in the enum, added later, is none of those that count', async () => {
    await mapping.sql(`alter type app.state add value 'blocked'`);
    expect(await mapping.heard(`insert into friendships values (3, 2, 3, 'blocked')`)).toEqual([]);
    expect(await mapping.heard(`update friendships set state = 'accepted' where id = 3`)).toEqual([
      '2 friend_accepted 3!',
    ]);
  });
});

describe('soft delete', () => {
  it.each([
    ['a flag', 1, 'deleted = true', 'deleted = false'],
    ['a time', 2, 'hidden_at = now()', 'hidden_at = null'],
    ['a status', 3, `status = 'spam'`, `status = 'live'`],
  ])('by %s, and undelete without a new alert, also long after', async (_, nr, remove, restore) => {
    const id = String(nr);
    expect(await mapping.heard(`insert into comments (id, author, owner) values (${id}, 2, 3)`)).toEqual([
      `3 comment 2 comment:${id}!`,
    ]);
    expect(await mapping.heard(`update comments set ${remove} where id = ${id}`)).toEqual(['3 -comment']);
    await mapping.sql(
      `update belfry.notification_event set removed_at = removed_at - interval '1 day' where removed_at is not null`,
    );
    expect(await mapping.heard(`update comments set ${restore} where id = ${id}`)).toEqual([
      `3 comment 2 comment:${id}`,
    ]);
    // The end of a row that is deleted softly is nothing more.
    await mapping.heard(`update comments set ${remove} where id = ${id}`);
    expect(await mapping.heard(`delete from comments where id = ${id}`)).toEqual([]);
  });

  it('a row without owner is told when it gets one, also where that was read while it was stored', async () => {
    await mapping.sql('insert into comments (id, author, owner) values (90, 2, null)');
    await mapping.sql('update comments set owner = 3 where id = 90');
    await mapping.batches.run(1, true);
    expect(await mapping.heard()).toEqual(['3 comment 2 comment:90!']);
  });

  it('a row that is hidden at first is told when it is shown', async () => {
    expect(await mapping.heard(`insert into comments (id, author, owner, status) values (100, 2, 3, 'draft')`)).toEqual(
      [],
    );
    expect(await mapping.heard(`update comments set body = 'better' where id = 100`)).toEqual([]);
    expect(await mapping.heard(`update comments set status = 'live' where id = 100`)).toEqual([
      '3 comment 2 comment:100!',
    ]);
  });
});

describe('types and tables', () => {
  it('several types from one table; a row may change from one to another', async () => {
    expect(
      await mapping.heard(
        `insert into reactions values (1, 2, 3, 'heart', 10), (2, 4, 3, 'laugh', 10), (3, 5, 3, 'shrug', 10)`,
      ),
    ).toEqual(['3 laugh 4 post:10!', '3 like 2 post:10!']);
    expect(await mapping.heard(`update reactions set emoji = 'laugh' where id = 1`)).toEqual([
      '3 -like',
      '3 laugh 2 post:10!',
    ]);
  });

  it('one that goes over to something else of the same person is told anew, and rings', async () => {
    await mapping.heard(`insert into reactions values (30, 2, 3, 'laugh', 30)`);
    expect(await mapping.heard('update reactions set post = 31 where id = 30')).toEqual([
      '3 -laugh',
      '3 laugh 2 post:31!',
    ]);
  });

  it('one type from several tables groups together', async () => {
    await mapping.heard(`insert into reactions values (10, 2, 7, 'like', 20)`);
    await mapping.heard('insert into hearts values (4, 7, 20)');
    const [group] = await mapping.sql(
      `select count(*)::int as groups, max(actor_count) as actors from belfry.notification where user_id = '7' and not withdrawn`,
    );
    expect(group).toEqual({ groups: 1, actors: 2 });
    // One of them gone, the other stays.
    await mapping.heard('delete from reactions where id = 10');
    const [left] = await mapping.sql(`select actors, withdrawn from belfry.notification where user_id = '7'`);
    expect(left).toEqual({ actors: ['4'], withdrawn: false });
  });

  it('a table of all sorts of rows, filtered by a column and JSON', async () => {
    expect(
      await mapping.heard(
        `insert into activity values (1, 'login', '{"to":1}'), (2, 'mention', '{"to":2}'), (3, 'mention', '{"to":3,"silent":true}'), (4, 'mention', '{"to":[4,5]}')`,
      ),
    ).toEqual(['2 mention nobody!', '4 mention nobody!', '5 mention nobody!']);
  });
});
