/** Names that must be quoted in SQL, in YAML and in comments; keys of several columns; whatever a database may hold, migrate takes what init writes. */

import { describe, expect, it, onTestFinished } from 'vitest';
import type { Config } from '../../src/config.js';
import { lookAt } from '../../src/init/look.js';
import { createTestDatabase } from '../support/postgres.js';
import { through } from './through.js';

describe('names', () => {
  it('with quotes, spaces, colons, hashes, line breaks and braces', async () => {
    const { config } = await through(`
      create schema "odd: # schema";
      create table "odd: # schema"."Us""er's" (id int primary key, "E-Mail" text, username text, "na
me" text);
      create table "odd: # schema"."user" ("the id" int primary key, username text);
      create table "odd: # schema"."Post # 1" ("post id" int primary key, "author: id" int references "odd: # schema"."user");
      create table "odd: # schema"."post ""likes"" # 1" ("user's id" int references "odd: # schema"."user", "post id" int references "odd: # schema"."Post # 1", unique ("user's id", "post id"));
      create table "odd: # schema"."a
line comments" (id int primary key, "user id" int references "odd: # schema"."user", "post id" int references "odd: # schema"."Post # 1", "parent id" int references "odd: # schema"."a
line comments", "is deleted" boolean, "{body}" text);
      create table "odd: # schema"."more likes" ("{user} id" int references "odd: # schema"."user", "post
id" int references "odd: # schema"."Post # 1", primary key ("{user} id", "post
id"));
      comment on table "odd: # schema"."user" is E'a comment\\nversion: 2';`);
    expect(config.people).toMatchObject({ table: '"odd: # schema"."user"', id: 'the id', name: 'username' });
    expect(config.sources.map(({ type, actor }) => ({ type, actor }))).toEqual(
      expect.arrayContaining([{ type: 'like', actor: { kind: 'column', column: "user's id" } }]),
    );
  });

  it('that are reserved, mixed and as long as Postgres takes them', async () => {
    const long = 'x'.repeat(57);
    const { config } = await through(`
      create table "user" (id int primary key, name text, email text);
      create table "order" ("group" int primary key, "user" int references "user");
      create table "${long}_like" ("user" int references "user", "order" int references "order", primary key ("user", "order"));
      create table "Like" ("UserId" int references "user", "OrderId" int references "order");`);
    expect(config.sources.map(({ actor }) => actor)).toEqual([
      { kind: 'column', column: 'UserId' },
      { kind: 'column', column: 'user' },
    ]);
    expect(new Set(config.sources.map(({ name }) => name)).size).toBe(2);
  });
});

describe('keys', () => {
  it('of several columns, as where every table has its tenant: the recipient is looked up by all of them', async () => {
    const { config } = await through(`
      create table tenants (id int primary key, name text);
      create table users (id int primary key, tenant_id int references tenants, email text);
      create table posts (tenant_id int references tenants, id int, user_id int references users, primary key (tenant_id, id));
      create table likes (tenant_id int, post_id int, user_id int references users, foreign key (tenant_id, post_id) references posts (tenant_id, id), primary key (tenant_id, post_id, user_id));`);
    expect(config.sources).toMatchObject([
      {
        key: ['tenant_id', 'post_id', 'user_id'],
        object: { kind: 'post', id: 'post_id' },
        recipient: { kind: 'query', parameters: ['tenant_id', 'post_id'] },
      },
    ]);
  });

  it('of partitioned tables: the parent stands for its partitions', async () => {
    const { draft } = await through(`
      create table users (id int primary key, username text);
      create table posts (id int primary key, user_id int references users);
      create table likes (user_id int references users, post_id int references posts, day date not null) partition by range (day);
      create table likes_2026 partition of likes for values from ('2026-01-01') to ('2027-01-01');
      create table likes_rest partition of likes default;`);
    expect(draft.sources.map(({ table }) => table.name)).toEqual(['likes']);
  });
});

it('reads pg_catalog alone', async () => {
  const database = await createTestDatabase({
    prepare:
      'create table users (id int primary key, email text); create table likes (user_id int references users, post_id int);',
  });
  onTestFinished(() => database.drop());
  const client = await database.client();
  await client.query('begin');
  await lookAt(client);
  const { rows } = await client.query<{ relname: string }>(
    `select c.relname from pg_locks l join pg_class c on c.oid = l.relation where l.pid = pg_backend_pid() and c.relnamespace <> 'pg_catalog'::regnamespace`,
  );
  expect(rows).toEqual([]);
});

describe('a row that names several things is about the innermost', () => {
  const things = `
    create table users (id int primary key, username text);
    create table posts (id int primary key, user_id int references users);
    create table comments (id int primary key, user_id int references users, post_id int not null references posts);`;
  const whenOf = (config: Config, kind: string) =>
    config.sources.filter(({ type, object }) => type === 'like' && object?.kind === kind).map(({ when }) => when);

  it('one or the other is filled', async () => {
    const { config } = await through(`${things}
      create table likes (user_id int references users, post_id int references posts, comment_id int references comments);`);
    expect(whenOf(config, 'post')).toEqual(['post_id is not null and comment_id is null']);
    expect(whenOf(config, 'comment')).toEqual(['comment_id is not null']);
  });

  it('the post is always filled', async () => {
    const { config } = await through(`${things}
      create table likes (user_id int references users, post_id int not null references posts, comment_id int references comments);`);
    expect(whenOf(config, 'post')).toEqual(['comment_id is null']);
    expect(whenOf(config, 'comment')).toEqual(['comment_id is not null']);
  });

  it('both are always filled', async () => {
    const { config } = await through(`${things}
      create table likes (user_id int references users, post_id int not null references posts, comment_id int not null references comments);`);
    expect(whenOf(config, 'post')).toEqual([]);
    expect(whenOf(config, 'comment')).toEqual([null]);
  });

  it('two that have nothing to do with each other are always filled: asked', async () => {
    const { draft, config } = await through(`${things}
      create table photos (id int primary key, user_id int references users);
      create table likes (user_id int references users, post_id int not null references posts, photo_id int not null references photos);`);
    expect(draft.questions.map(({ id }) => id)).toEqual(['public.likes.object']);
    expect(whenOf(config, 'post')).toEqual([null]);
    expect(whenOf(config, 'photo')).toEqual([]);
  });
});
