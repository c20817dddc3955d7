/** Names that must be quoted in SQL, in YAML and in comments; keys of several columns; whatever a database may hold, migrate takes what init writes. */

import { describe, expect, it, onTestFinished } from 'vitest';
import type { Config } from '../../src/config.js';
import type { Draft } from '../../src/init/draft.js';
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

describe('kinds', () => {
  const kindsOf = (draft: Draft) => draft.sources.map(({ table, object }) => [table.schema, object?.value.kind]);

  it('of two tables differ, whatever their names: who may see the one says nothing of the other', async () => {
    const { draft, config } = await through(`
      create table users (id int primary key, username text);
      create schema blog;
      create table blog.posts (id int primary key, user_id int references users);
      create table blog.comments (id int primary key, user_id int references users, post_id int references blog.posts);
      create schema hr;
      create table hr.posts (id int primary key, user_id int references users, is_private boolean);
      create table hr.comments (id int primary key, user_id int references users, post_id int references hr.posts);`);
    expect(kindsOf(draft)).toEqual([
      ['blog', 'post'],
      ['hr', 'hr_post'],
    ]);
    expect(config.sources.map(({ counter }) => counter?.field)).toEqual(['comments_count', 'comments_count']);
    expect(config.channels).toMatchObject({
      post: { read: 'public' },
      hr_post: { read: { sql: expect.stringContaining('is_private is not true') as string } },
    });
  });

  it('of names that no kind can hold, or of which only the spelling differs, are told apart by numbers', async () => {
    const { draft } = await through(`
      create table users (id int primary key, username text);
      create table "посты" (id int primary key, user_id int references users);
      create table "видео" (id int primary key, user_id int references users);
      create table post (id int primary key, user_id int references users);
      create table posts (id int primary key, user_id int references users);
      create table "Posts" (id int primary key, user_id int references users);
      create table likes_1 (user_id int references users, thing_id int references "посты");
      create table likes_2 (user_id int references users, thing_id int references "видео");
      create table likes_3 (user_id int references users, post_id int references post);
      create table likes_4 (user_id int references users, post_id int references posts);
      create table likes_5 (user_id int references users, post_id int references "Posts");`);
    const kinds = kindsOf(draft).map(([, kind]) => kind);
    expect(kinds).toHaveLength(5);
    expect(new Set(kinds).size).toBe(5);
  });

  it('of comments in two schemas are comments: seen by whoever sees what they are about', async () => {
    const of = (schema: string) => `
      create schema ${schema};
      create table ${schema}.posts (id int primary key, user_id int references users, is_private boolean);
      create table ${schema}.comments (id int primary key, user_id int references users, post_id int references ${schema}.posts);
      create table ${schema}.likes (user_id int references users, comment_id int references ${schema}.comments);`;
    const { config } = await through(
      `create table users (id int primary key, username text); ${of('blog')} ${of('hr')}`,
    );
    expect(config.channels).toMatchObject({
      comment: { read: { sql: expect.stringContaining('blog.posts where is_private is not true') as string } },
      hr_comment: { read: { sql: expect.stringContaining('hr.posts where is_private is not true') as string } },
    });
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

describe('votes against a thing', () => {
  it('are told by a boolean, whatever it is called; by a text that nothing explains they are asked about', async () => {
    const { draft } = await through(`
      create table users (id int primary key, username text);
      create table posts (id int primary key, user_id int references users);
      create table votes (id int primary key, votable_type text, votable_id int, voter_type text, voter_id int, vote_flag boolean, vote_scope text, vote_weight int);
      create table post_votes (user_id int references users, post_id int references posts, value boolean);
      create table post_thumbs (user_id int references users, post_id int references posts, helpful boolean);
      create table post_reactions (user_id int references users, post_id int references posts, direction text);
      create table post_hearts (user_id int references users, post_id int references posts, is_deleted boolean);`);
    const of = (name: string) => draft.sources.find(({ table }) => table.name === name);
    expect(of('votes')?.when?.value).toBe(
      `votable_type in ('Post', 'post', 'posts', 'App\\Models\\Post') and vote_flag is true`,
    );
    expect(of('post_votes')?.when?.value).toBe('value is true');
    expect(of('post_thumbs')).toMatchObject({ when: null, questions: ['public.post_thumbs.helpful'] });
    expect(of('post_reactions')).toMatchObject({
      when: { value: "direction = 'up'" },
      questions: ['public.post_reactions.direction'],
    });
    expect(of('post_hearts')?.when?.value).toBe('is_deleted is not true');
    expect(
      draft.questions.map(({ id, choices, fallback }) => [id, choices.map((choice) => choice.id), fallback]),
    ).toEqual([
      ['public.post_reactions.direction', ['up', 'upvote', 'like', 'every'], 'up'],
      ['public.post_thumbs.helpful', ['true', 'false', 'every'], 'every'],
    ]);
  });
});

describe('states of which nothing says what they mean', () => {
  const schema = (type: string) => `
    create type stage as enum ('under_review', 'interviewing', 'rejected');
    create type tie as enum ('maybe', 'yes');
    create table users (id int primary key, username text);
    create table jobs (id int primary key, user_id int references users);
    create table applications (id int primary key, user_id int references users, job_id int references jobs, status ${type});
    create table friendships (id int primary key, user_id int references users, friend_id int references users, status ${type});`;
  const answered = ({ sources }: Config) => sources.filter(({ type }) => type !== 'application_received');
  const chosen = (draft: Draft) =>
    draft.questions.map(({ id, choices, fallback }) => [id, choices.map((choice) => choice.id), fallback]);
  const [applications, friendships] = ['public.applications.status', 'public.friendships.status'];

  it('are offered where they are known, and nothing is written meanwhile', async () => {
    const { draft, config, text } = await through(schema('stage'));
    expect(chosen(draft)).toEqual([
      [applications, ['under_review', 'interviewing', 'rejected'], null],
      [friendships, ['under_review', 'interviewing'], null],
    ]);
    expect(answered(config)).toEqual([]);
    expect(text).toContain("#   when: status <> 'interviewing'");
    const second = await through(schema('stage'), { [applications]: 'interviewing', [friendships]: 'interviewing' });
    expect(answered(second.config).map(({ type, when }) => [type, when])).toEqual([
      ['job_application', "status <> 'interviewing'"],
      ['friend_request', "status = 'interviewing'"],
      ['friend_accepted', "status = 'under_review'"],
    ]);
  });

  it('are true and false of a boolean', async () => {
    const { draft, config } = await through(schema('boolean'));
    expect(chosen(draft)).toEqual([
      [applications, ['false', 'null'], null],
      [friendships, ['true', 'false'], null],
    ]);
    expect(answered(config)).toEqual([]);
    const second = await through(schema('boolean'), { [applications]: 'false', [friendships]: 'true' });
    expect(answered(second.config).map(({ type, when }) => [type, when])).toEqual([
      ['job_application', 'status is true'],
      ['friend_request', 'status is not true'],
      ['friend_accepted', 'status is true'],
    ]);
  });

  it.each(['jsonb', 'uuid', 'numeric'])('are for a person to write of a %s', async (type) => {
    const { draft, config } = await through(schema(type));
    expect(chosen(draft)).toEqual([
      [applications, [], 'none'],
      [friendships, [], 'none'],
    ]);
    expect(answered(config)).toEqual([]);
  });
});
