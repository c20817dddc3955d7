/**
 * The application that benches write to: people, posts, likes, blocks, and a table that nobody captures.
 *
 * Likes have no foreign keys. Their checks would lock the person's and the post's row in every insert, which costs each
 * variant the same and so would hide a part of what a trigger costs. The writers' numbering never repeats a like.
 */

import { execute } from './database.js';

export interface SocialSize {
  readonly users: number;
  readonly posts: number;
}

/** The tables, filled: post p belongs to user ((p - 1) mod users) + 1. */
export async function createSocial(url: string, size: SocialSize): Promise<void> {
  await execute(
    url,
    `create table users (
       id bigint primary key, full_name text not null,
       notifications_enabled boolean not null default true, deleted_at timestamptz
     )`,
    `create table posts (id bigint primary key, user_id bigint not null, body text not null, created_at timestamptz not null default now())`,
    `create table likes (
       user_id bigint not null, post_id bigint not null, created_at timestamptz not null default now(),
       primary key (user_id, post_id)
     )`,
    `create table blocks (blocker_id bigint not null, blocked_id bigint not null, primary key (blocker_id, blocked_id))`,
    `create table hot (id bigint primary key, n bigint not null default 0) with (fillfactor = 50)`,
    `insert into users (id, full_name) select n, 'Person ' || n from generate_series(1, ${size.users}) n`,
    `insert into posts (id, user_id, body) select n, (n - 1) % ${size.users} + 1, repeat('post ', 20) from generate_series(1, ${size.posts}) n`,
    // One person in a hundred has blocked somebody, so that the check is never of an empty table.
    `insert into blocks select n, n % ${size.users} + 1 from generate_series(1, ${size.users}, 100) n`,
    `insert into hot (id) select generate_series(1, 100)`,
    `vacuum analyze`,
  );
}

/** Config of Belfry for these tables; JSON is YAML. */
export function socialConfig(options: {
  url: string;
  port: number;
  wakeup: 'notify' | 'poll';
  secret: string;
  /** Further sources. */
  more?: readonly object[];
}): string {
  return JSON.stringify(
    {
      version: 1,
      database: { url: options.url, wakeup: options.wakeup },
      server: { host: '127.0.0.1', port: options.port },
      auth: { secret: options.secret, algorithms: ['HS256'], issuer: null, audience: null },
      people: {
        table: 'public.users',
        id: 'id',
        name: 'full_name',
        enabled: 'notifications_enabled',
        active: 'deleted_at is null',
      },
      blocks: { table: 'public.blocks', from: 'blocker_id', to: 'blocked_id' },
      sources: [
        {
          name: 'post_like',
          type: 'like',
          table: 'public.likes',
          key: ['user_id', 'post_id'],
          actor: 'user_id',
          object: { kind: 'post', id: 'post_id' },
          recipient: { path: [{ from: 'post_id', table: 'public.posts', match: 'id', take: 'user_id' }] },
          channels: ['post:{post_id}'],
          counter: { event: 'like_update', field: 'likes_count' },
        },
        ...(options.more ?? []),
      ],
      channels: { post: { read: 'public', publish: 'none' } },
      limits: { connectionsPerAddress: 20000, handshakesPerSecond: 100000, httpPerMinute: 100000 },
    },
    null,
    2,
  );
}
