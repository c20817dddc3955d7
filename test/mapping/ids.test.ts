/** How tables, columns and keys may be called, and what ids may be: they are text on the way, whatever they are in the table. */

import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { startMapping } from './rig.js';
import type { Mapping } from './rig.js';

vi.setConfig({ testTimeout: 240_000, hookTimeout: 240_000 });

const uuid = (digit: number): string => `00000000-0000-4000-8000-${String(digit).padStart(12, '0')}`;

const tables = `
create schema "App";
create table "user" ("id" int primary key, "Full Name" text);
create table "App"."Posts" ("postId" int primary key, "order" int);
create table "App"."like" ("from" int, "table" int, primary key ("from", "table"));
create table "_UserFollows" ("A" int, "B" int);

create table big_posts (id bigint primary key, owner bigint);
create table big_likes (id bigint primary key, who bigint, post bigint, note jsonb);

create table uuid_posts (id uuid primary key, owner uuid);
create table uuid_likes (who uuid, post uuid);
create table uri_likes (uri text primary key, did text, subject text);
create table uri_posts (uri text primary key, did text);

create table votes (who int, post int);
create table natural_keys (pk serial primary key, email citext_like, slug text, unique (email, slug));
`.replace('citext_like', 'varchar(80)');

const sources = `
  - name: odd_like
    type: like
    table: '"App"."like"'
    key: [from, table]
    actor: from
    object: { kind: post, id: table }
    recipient: { path: [{ from: table, table: '"App"."Posts"', match: postId, take: order }] }
    channels: ['post:{table}']
    include: [from]
  - { name: user_follows, type: follow, table: 'public."_UserFollows"', key: [A, B], actor: A, recipient: B }
  - name: big_like
    type: big
    table: big_likes
    key: [id]
    actor: who
    object: { kind: post, id: post }
    subject: { kind: big_like, id: id }
    recipient: { query: "select owner from public.big_posts where id = :post" }
    visible: "select 1 from public.big_posts where id = :object_id and owner = :user"
    channels: ['post:{post}']
    include: [id, who, note]
  - name: uuid_like
    type: like
    table: uuid_likes
    key: [who, post]
    actor: who
    object: { kind: post, id: post }
    recipient: { path: [{ from: post, table: uuid_posts, match: id, take: owner }] }
  - name: uri_like
    type: like
    table: uri_likes
    key: [uri]
    actor: did
    object: { kind: record, id: subject }
    recipient: { path: [{ from: subject, table: uri_posts, match: uri, take: did }] }
    channels: ['record:{subject}']
    counter: { event: like_update, field: likes_count }
  - name: vote
    type: vote
    table: votes
    key: [who, post]
    actor: who
    object: { kind: post, id: post }
    recipient: { path: [{ from: post, table: '"App"."Posts"', match: postId, take: order }] }
    channels: ['post:{post}']
    counter: { event: vote_update, field: votes }
  - { name: natural, type: invitation, table: natural_keys, key: [email, slug], recipient: email, object: { kind: group, id: slug } }
`;

let mapping: Mapping;
beforeAll(async () => {
  mapping = await startMapping(tables, sources, `channels: { post: { read: public }, record: { read: public } }`);
  await mapping.sql(`insert into "App"."Posts" values (10, 1)`);
});
afterAll(() => mapping.stop());

describe('names', () => {
  it('with schema, mixed case, spaces and reserved words', async () => {
    expect(await mapping.heard(`insert into "App"."like" values (2, 10)`)).toEqual(['1 like 2 post:10!']);
    expect(await mapping.heard(`delete from "App"."like"`)).toEqual(['1 -like']);
  });

  it('of a join table that an ORM made, without a primary key', async () => {
    expect(await mapping.heard(`insert into "_UserFollows" values (3, 4)`)).toEqual(['4 follow 3!']);
    expect(await mapping.heard(`delete from "_UserFollows" where "A" = 3`)).toEqual(['4 -follow']);
  });
});

describe('ids', () => {
  it.each([
    ['beyond 2^53', '9007199254740993', '9007199254740995'],
    ['of 19 digits', '1845678901234567890', '1845678901234567891'],
    ['the last bigint there is', '9223372036854775807', '9223372036854775806'],
  ])('bigint %s keep every digit', async (_, post, owner) => {
    const who = '9007199254740997';
    await mapping.sql('insert into big_posts values ($1, $2)', [post, owner]);
    await mapping.sql('insert into big_likes values ($1, $2, $1, $3)', [post, who, { n: 5 }]);
    const published = await mapping.published();
    const frames = published.flatMap((one) =>
      one.to === 'user' ? [{ user: one.userId, ...(JSON.parse(one.frame) as object) }] : [],
    );
    expect(frames).toMatchObject([
      {
        user: owner,
        data: { user_id: who, post_id: post, big_like_id: post, data: { object: { kind: 'post', id: post } } },
      },
    ]);
    expect(published.filter(({ to }) => to === 'channel')).toMatchObject([{ channel: `post:${post}` }]);
    expect(JSON.stringify(published)).toContain(`"who":"${who}"`);
  });

  it('uuid', async () => {
    await mapping.sql('insert into uuid_posts values ($1, $2)', [uuid(1), uuid(2)]);
    expect(await mapping.heard('insert into uuid_likes values ($1, $2)', [uuid(3), uuid(1)])).toEqual([
      `${uuid(2)} like ${uuid(3)} post:${uuid(1)}!`,
    ]);
  });

  it('URIs, with colons, slashes and commas', async () => {
    const post = 'at://did:plc:abc/app.bsky.feed.post/3k,"2';
    await mapping.sql('insert into uri_posts values ($1, $2)', [post, 'did:plc:ada']);
    expect(
      await mapping.heard('insert into uri_likes values ($1, $2, $3)', ['at://did:plc:bo/like/1', 'did:plc:bo', post]),
    ).toEqual([`did:plc:ada like did:plc:bo record:${post}!`]);
    const [counted] = await mapping.sql(`select object_id, count::int from belfry.counter where source = 'uri_like'`);
    expect(counted).toEqual({ object_id: post, count: 1 });
  });

  it('a natural key beside the primary key', async () => {
    expect(await mapping.heard(`insert into natural_keys (email, slug) values ('ada@example', 'chess')`)).toEqual([
      'ada@example invitation nobody group:chess!',
    ]);
    // Written anew under another primary key: the same.
    expect(
      await mapping.heard(
        `begin; delete from natural_keys; insert into natural_keys (email, slug) values ('ada@example', 'chess'); commit`,
      ),
    ).toEqual([]);
  });
});

describe('pairs that are not unique', () => {
  const count = async () =>
    (
      await mapping.sql(
        `select coalesce((select count::int from belfry.counter where source = 'vote' and object_id = '10'), 0) as n`,
      )
    )[0]?.['n'];

  it('notify once, stay while one row stands, and go with the last one; every row counts', async () => {
    expect(await mapping.heard('insert into votes values (2, 10), (2, 10)')).toEqual(['1 vote 2 post:10!']);
    expect(await count()).toBe(2);
    expect(await mapping.heard('delete from votes where ctid = (select min(ctid) from votes)')).toEqual([]);
    expect(await count()).toBe(1);
    expect(await mapping.heard('insert into votes values (2, 10)')).toEqual([]);
    expect(await mapping.heard('delete from votes')).toEqual(['1 -vote']);
    expect(await count()).toBe(0);
  });

  it('also when they come and go before the relay reads', async () => {
    expect(
      await mapping.heard(
        'insert into votes values (5, 10); insert into votes values (5, 10); delete from votes where ctid = (select min(ctid) from votes)',
      ),
    ).toEqual(['1 vote 5 post:10!']);
    expect(await mapping.heard('delete from votes')).toEqual(['1 -vote']);
  });

  it('and when one of them becomes another', async () => {
    expect(await mapping.heard('insert into votes values (6, 10), (6, 10)')).toEqual(['1 vote 6 post:10!']);
    expect(await mapping.heard('update votes set who = 7 where ctid = (select min(ctid) from votes)')).toEqual([
      '1 vote 7 post:10!',
    ]);
    expect(await mapping.heard('delete from votes where who = 6')).toEqual(['1 -vote']);
  });
});
