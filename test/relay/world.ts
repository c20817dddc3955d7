/**
 * The social app with everything that people can do to each other: a database with real triggers, batches driven by hand,
 * and people who are new for each case, so that cases share a database and no history.
 */

import { afterAll, beforeAll, beforeEach } from 'vitest';
import type { Publication } from '../../src/broker/broker.js';
import { installCapture } from '../../src/capture/install.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { addPost, addUsers, socialConfig, socialSql } from '../support/social.js';
import { startBatches } from './batches.js';
import type { Batches } from './batches.js';
import { ageWindows } from '../support/windows.js';

/** What the social app lacks: mutes, posts for followers, conversations, requests, applications, mentions. */
export const moreSql = `
create table mutes (muter_id bigint not null, muted_id bigint not null, expires_at timestamptz, primary key (muter_id, muted_id));
create table thread_mutes (user_id bigint not null, post_id bigint not null, primary key (user_id, post_id));
alter table users add column locale text;
alter table posts add column audience text not null default 'public';
create table members (conversation_id bigint not null, user_id bigint not null, primary key (conversation_id, user_id));
create table messages (id bigint generated always as identity primary key, conversation_id bigint not null, sender_id bigint not null, body text not null);
create table friend_requests (requester_id bigint not null, addressee_id bigint not null, status text not null default 'pending',
  primary key (requester_id, addressee_id));
create table application_changes (id bigint generated always as identity primary key, application_id bigint not null, applicant_id bigint not null,
  changed_by bigint not null, status text not null);
create table mentions (comment_id bigint not null references comments on delete cascade, post_id bigint not null, author_id bigint not null,
  user_id bigint not null, primary key (comment_id, user_id));
create table reposts (user_id bigint not null, post_id bigint not null references posts on delete cascade, score int not null default 1, primary key (user_id, post_id));
`;

const visible = `select 1 from posts where id = :object_id and (audience = 'public' or user_id = :user
  or exists (select from follows where follower_id = :user and followed_id = posts.user_id))`;

export const moreSources = [
  {
    name: 'conversation_message',
    type: 'message',
    table: 'messages',
    key: ['id'],
    actor: 'sender_id',
    object: { kind: 'conversation', id: 'conversation_id' },
    subject: { kind: 'message', id: 'id' },
    recipient: { query: 'select user_id from members where conversation_id = :conversation_id' },
    channels: ['conversation:{conversation_id}'],
    include: ['id', 'body', 'sender_id'],
  },
  {
    name: 'friend_request',
    type: 'friend_request',
    table: 'friend_requests',
    key: ['requester_id', 'addressee_id'],
    actor: 'requester_id',
    recipient: 'addressee_id',
    when: "status = 'pending'",
  },
  {
    name: 'friend_accepted',
    type: 'friend_accepted',
    table: 'friend_requests',
    key: ['requester_id', 'addressee_id'],
    actor: 'addressee_id',
    recipient: 'requester_id',
    when: "status = 'accepted'",
  },
  {
    name: 'application',
    type: 'job_application',
    table: 'application_changes',
    key: ['id'],
    actor: 'changed_by',
    object: { kind: 'application', id: 'application_id' },
    recipient: 'applicant_id',
  },
  {
    name: 'comment_mention',
    type: 'mention',
    table: 'mentions',
    key: ['comment_id', 'user_id'],
    actor: 'author_id',
    object: { kind: 'post', id: 'post_id' },
    subject: { kind: 'comment', id: 'comment_id' },
    recipient: 'user_id',
    visible,
  },
  {
    name: 'post_repost',
    type: 'repost',
    table: 'reposts',
    key: ['user_id', 'post_id'],
    actor: 'user_id',
    object: { kind: 'post', id: 'post_id' },
    recipient: { path: [{ from: 'post_id', table: 'posts', match: 'id', take: 'user_id' }] },
    when: 'score > 0',
  },
];

export interface Frame {
  readonly event: string;
  readonly seq: number;
  readonly data: {
    readonly id: string;
    readonly type: string;
    readonly message?: string;
    readonly data?: { readonly actor_count: number; readonly alert: boolean; readonly actors: unknown[] };
  };
}

export interface World {
  readonly database: TestDatabase;
  readonly batches: Batches;
  readonly ada: string;
  readonly bo: string;
  readonly cleo: string;
  readonly dan: string;
  /** Ada's. */
  readonly post: string;
  sql(text: string, values?: unknown[]): Promise<unknown>;
  /** Processes what was written; the frames that this person gets. */
  heard(userId: string): Promise<Frame[]>;
  /** Frames of a person in what was published last. */
  frames(userId: string): Frame[];
  list(userId: string): ReturnType<Batches['inbox']['list']>;
  /** As if everything of this person had been pushed so long ago. */
  age(userId: string, interval: string): Promise<void>;
  /** Reasons why something did not reach this person, oldest first. */
  rules(userId: string): Promise<string[]>;
}

export interface SocialBatches {
  readonly database: TestDatabase;
  readonly batches: Batches;
}

/** The database with its triggers, and batches over it, without people. To be called at the top of a file; made before the first test. */
export function useSocialBatches(overrides: Readonly<Record<string, unknown>> = {}): SocialBatches {
  let database: TestDatabase | null = null;
  let batches: Batches | null = null;
  const started = (): SocialBatches => {
    if (database === null || batches === null) throw new Error('the world is made before the first test');
    return { database, batches };
  };

  beforeAll(async () => {
    database = await createTestDatabase({ prepare: `${socialSql};${moreSql}` });
    batches = await startBatches(database, worldConfig(database.url, overrides));
    await installCapture(await database.client(), batches.config);
  });
  afterAll(async () => {
    await batches?.stop();
    await database?.drop();
  });

  return {
    get database() {
      return started().database;
    },
    get batches() {
      return started().batches;
    },
  };
}

/** To be called at the top of a file; the world is made before the first test, its people before each. */
export function useWorld(overrides: Readonly<Record<string, unknown>> = {}): World {
  const social = useSocialBatches(overrides);
  let people: string[] = [];
  let post = '';
  let last: Publication[] = [];

  beforeEach(async () => {
    const { database, batches } = social;
    people = await addUsers(database.pool, 'Ada', 'Bo', 'Cleo', 'Dan');
    post = await addPost(database.pool, people[0] ?? '');
    await batches.run();
    batches.heard();
  });

  return {
    get database() {
      return social.database;
    },
    get batches() {
      return social.batches;
    },
    get ada() {
      return people[0] ?? '';
    },
    get bo() {
      return people[1] ?? '';
    },
    get cleo() {
      return people[2] ?? '';
    },
    get dan() {
      return people[3] ?? '';
    },
    get post() {
      return post;
    },
    sql: (text, values) => social.database.pool.query(text, values),
    async heard(userId) {
      await social.batches.run();
      last = social.batches.heard();
      return framesOf(last, userId);
    },
    frames: (userId) => framesOf(last, userId),
    list: (userId) => social.batches.inbox.list(userId, { limit: 100, before: null, state: null }),
    async age(userId, interval) {
      await ageWindows(social.database.pool, interval, [userId]);
    },
    async rules(userId) {
      const { rows } = await social.database.pool.query<{ rule: string }>(
        'select rule from belfry.verdict where $1 = any(user_ids) order by id',
        [userId],
      );
      return rows.map(({ rule }) => rule);
    },
  };
}

/** The social app's config with all that `moreSql` adds. */
export function worldConfig(databaseUrl: string, overrides: Readonly<Record<string, unknown>> = {}): string {
  const { sources } = overrides;
  return socialConfig(databaseUrl, {
    people: {
      table: 'public.users',
      name: 'full_name',
      enabled: 'notifications_enabled',
      active: 'deleted_at is null',
      locale: 'locale',
    },
    mutes: { table: 'public.mutes', from: 'muter_id', to: 'muted_id', until: 'expires_at' },
    threadMutes: { table: 'public.thread_mutes', user: 'user_id', kind: 'post', id: 'post_id' },
    channels: { post: { read: 'public' }, conversation: { read: 'public' } },
    ...overrides,
    sources: Array.isArray(sources) ? [...baseSources, ...(sources as unknown[])] : baseSources,
  });
}

const likesAndComments = [
  {
    name: 'post_like',
    type: 'like',
    table: 'likes',
    key: ['user_id', 'post_id'],
    actor: 'user_id',
    object: { kind: 'post', id: 'post_id' },
    recipient: { path: [{ from: 'post_id', table: 'posts', match: 'id', take: 'user_id' }] },
    channels: ['post:{post_id}'],
    counter: { event: 'like_update', field: 'likes_count' },
  },
  {
    name: 'post_comment',
    type: 'comment',
    table: 'comments',
    key: ['id'],
    actor: 'user_id',
    object: { kind: 'post', id: 'post_id' },
    subject: { kind: 'comment', id: 'id' },
    recipient: { path: [{ from: 'post_id', table: 'posts', match: 'id', take: 'user_id' }] },
    channels: ['post:{post_id}'],
    counter: { event: 'comment_update', field: 'comments_count' },
    include: ['id', 'content', 'user_id'],
    when: 'deleted_at is null',
  },
  {
    name: 'user_follow',
    type: 'follow',
    table: 'follows',
    key: ['follower_id', 'followed_id'],
    actor: 'follower_id',
    recipient: 'followed_id',
  },
];

const baseSources = [...likesAndComments, ...moreSources];

export function framesOf(publications: readonly Publication[], userId: string): Frame[] {
  return publications.flatMap((publication) =>
    publication.to === 'user' && publication.userId === userId ? [JSON.parse(publication.frame) as Frame] : [],
  );
}
