/** An answer to a comment: whoever owns what both are about hears of it once. */

import { expect, it } from 'vitest';
import type { Config } from '../../src/config.js';
import { through } from './through.js';

const things = `
  create table users (id int primary key, username text);
  create table posts (id int primary key, user_id int references users);
  create table photos (id int primary key, user_id int references users);`;

const replyOf = ({ sources }: Config) => sources.find(({ name }) => name === 'comment_reply')?.recipient;

it('to a thing that is named by type and id: but for its owner, whatever it is', async () => {
  const { config } = await through(`${things}
    create table comments (id int primary key, commentable_type text check (commentable_type in ('Post', 'Photo')), commentable_id int,
      parent_id int references comments, user_id int references users, body text);`);
  expect(replyOf(config)).toMatchObject({
    sql:
      'select h0.user_id from public.comments h0 where h0.id = :parent_id' +
      " except select h0.user_id from public.photos h0 where h0.id = :commentable_id and :commentable_type = 'Photo'" +
      " except select h0.user_id from public.posts h0 where h0.id = :commentable_id and :commentable_type = 'Post'",
    parameters: ['parent_id', 'commentable_id', 'commentable_type'],
  });
});

it('to one of several things: but for the owner of the one that it is about', async () => {
  const { config } = await through(`${things}
    alter table photos add column post_id int references posts;
    create table comments (id int primary key, post_id int references posts, photo_id int references photos, parent_id int references comments,
      user_id int references users, body text);`);
  expect(replyOf(config)).toMatchObject({
    sql:
      'select h0.user_id from public.comments h0 where h0.id = :parent_id' +
      ' except select h0.user_id from public.posts h0 where h0.id = :post_id and :post_id is not null and :photo_id is null' +
      ' except select h0.user_id from public.photos h0 where h0.id = :photo_id and :photo_id is not null',
  });
});
