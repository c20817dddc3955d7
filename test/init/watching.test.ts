/** Who may watch what: nothing goes to a channel that some of those who may watch it may not see. */

import { describe, expect, it } from 'vitest';
import type { Config } from '../../src/config.js';
import { through } from './through.js';

const things = `
  create table users (id int primary key, username text);
  create table posts (id int primary key, user_id int references users);`;

/** What is told in channels, and when; what notifies, and when. */
const partsOf = ({ sources }: Config) => ({
  told: sources
    .filter(({ channels }) => channels.length > 0)
    .map(({ name, when, include, counter, recipient }) => ({
      name,
      when,
      include,
      counter: counter?.field,
      notifies: recipient !== null,
    })),
  notifying: sources.filter(({ recipient }) => recipient !== null).map(({ name, when }) => ({ name, when })),
});

describe('a comment that only some may see', () => {
  const comments = (column: string) =>
    `${things} create table comments (id int primary key, post_id int references posts, user_id int references users, body text, ${column});`;

  it('notifies, and only what everybody may see goes to those who watch the post', async () => {
    const { config } = await through(comments('is_private boolean, deleted_at timestamptz'));
    expect(partsOf(config)).toEqual({
      told: [
        {
          name: 'post_comment_public',
          when: 'deleted_at is null and is_private is not true',
          include: ['id', 'body', 'user_id'],
          counter: 'comments_count',
          notifies: false,
        },
      ],
      notifying: [{ name: 'post_comment', when: 'deleted_at is null' }],
    });
  });

  it('goes to nobody who watches where the column cannot be read, until that is answered', async () => {
    const { config, draft } = await through(comments('visibility int'));
    expect(partsOf(config)).toEqual({ told: [], notifying: [{ name: 'post_comment', when: null }] });
    expect(draft.questions.map(({ id }) => id)).toEqual(['public.comments.visibility']);
    const answered = await through(comments('visibility int'), { 'public.comments.visibility': 'all' });
    expect(partsOf(answered.config).told).toMatchObject([{ name: 'post_comment', notifies: true }]);
  });
});

describe('a thing that what it is in may hide', () => {
  const photos = (users: string, albums: string) => `
    create table users (id int primary key, username text ${users});
    create table albums (id int primary key, user_id int references users ${albums});
    create table photos (id int primary key, user_id int references users, album_id int references albums);
    create table photo_comments (id int primary key, photo_id int references photos, user_id int references users, body text);`;

  it.each([
    ['a private album', photos('', ', is_private boolean'), /public\.photos\.album_id leads there/],
    ['a private account', photos(', is_private boolean', ''), /public\.users/],
    [
      'an album of a workspace',
      `create table workspaces (id int primary key); ${photos('', ', workspace_id int references workspaces')}`,
      /public\.workspaces/,
    ],
    [
      'a post in a private community',
      `${things} create table communities (id int primary key, visibility text);
       alter table posts add column community_id int references communities;
       create table likes (user_id int references users, post_id int references posts);`,
      /public\.communities/,
    ],
    [
      'a post with a status that cannot be read',
      `${things} alter table posts add column status int; create table likes (user_id int references users, post_id int references posts);`,
      /its status/i,
    ],
    [
      'a post with a status that hides, and none that shows',
      `${things} alter table posts add column status text check (status in ('draft', 'live')); create table likes (user_id int references users, post_id int references posts);`,
      /its status/i,
    ],
  ])('%s: asked, and closed until it is answered', async (_, schema, text) => {
    const { draft } = await through(schema);
    const [channel] = draft.channels;
    const id = `channels.${channel?.kind ?? ''}`;
    expect(channel).toMatchObject({ read: { value: 'none' }, questions: [id] });
    expect(draft.questions).toMatchObject([{ id, text: expect.stringMatching(text) as string, fallback: 'none' }]);
    const answered = await through(schema, { [id]: 'public' });
    expect(answered.draft.channels).toMatchObject([{ read: { value: 'public' } }]);
  });

  it.each([
    [
      'an album and an account that hide nothing',
      photos(', status text, deleted_at timestamptz', ', deleted_at timestamptz'),
    ],
    [
      'a status that hides nothing',
      `${things} alter table posts add column status text check (status in ('open', 'solved')); create table likes (user_id int references users, post_id int references posts);`,
    ],
  ])('%s: everybody may watch', async (_, schema) => {
    const { draft } = await through(schema);
    expect(draft.questions).toEqual([]);
    expect(draft.channels).toMatchObject([{ read: { value: 'public' } }]);
  });
});

describe('two tables that count one thing', () => {
  const likes = (name: string): string =>
    `create table ${name} (user_id int references users, post_id int references posts, primary key (user_id, post_id));`;
  const countersOf = ({ sources }: Config) =>
    Object.fromEntries(sources.map(({ table, counter, channels }) => [table, [counter, channels.length]]));

  it('have a field and an event each, by their words', async () => {
    const { config, text } = await through(`${things} ${likes('post_favorites')} ${likes('"Post-Likes"')}`);
    expect(countersOf(config)).toEqual({
      'public.post_favorites': [{ event: 'favorite_update', field: 'favorites_count' }, 1],
      'public."Post-Likes"': [{ event: 'like_update', field: 'likes_count' }, 1],
    });
    expect(config.warnings.filter((warning) => warning.includes('hear nothing'))).toEqual([]);
    expect(text.match(/# counted by Belfry itself/g)).toHaveLength(2);
  });

  it('by the whole name where the word is the same', async () => {
    const { config } = await through(`${things} ${likes('likes')} ${likes('old_likes')}`);
    expect(countersOf(config)).toEqual({
      'public.likes': [{ event: 'like_update', field: 'likes_count' }, 1],
      'public.old_likes': [{ event: 'old_like_update', field: 'old_likes_count' }, 1],
    });
  });

  it('are told to those who watch only by the first where names do not tell them apart, and why stands there', async () => {
    const { config, text } = await through(`${things} ${likes('post_likes')} ${likes('"PostLikes"')}`);
    const counters = Object.values(countersOf(config));
    expect(counters).toEqual(
      expect.arrayContaining([
        [{ event: 'like_update', field: 'likes_count' }, 1],
        [null, 0],
      ]),
    );
    expect(config.sources.every(({ recipient }) => recipient !== null)).toBe(true);
    expect(text).toContain('; no channel hears of it: it has no name of its own for a count, and no columns to show');
    expect(config.warnings.filter((warning) => warning.includes('hear nothing'))).toEqual([]);
  });
});

describe('row-level security', () => {
  const social = `${things}
    create table comments (id int primary key, post_id int references posts, user_id int references users, body text);
    alter table posts enable row level security; alter table comments enable row level security;
    create policy own on posts for all using (user_id = current_setting('app.user')::int);`;
  const channelsOf = ({ channels }: Config) => Object.values(channels).map(({ read }) => read);

  it('that lets not everybody see a thing closes its channel, until that is answered', async () => {
    const schema = `${social} create policy open on comments for select using (true);`;
    const { config, draft } = await through(schema);
    expect(channelsOf(config)).toEqual(['none']);
    expect(draft.questions.map(({ id }) => id)).toEqual(['channels.post']);
    expect(channelsOf((await through(schema, { 'channels.post': 'public' })).config)).toEqual(['public']);
  });

  it('that lets everybody see it leaves it open, that of the comments is asked about', async () => {
    const { config, draft } = await through(`${social} create policy open on posts for select using (true);`);
    expect(partsOf(config)).toEqual({ told: [], notifying: [{ name: 'post_comment', when: null }] });
    expect(draft.questions.map(({ id }) => id)).toEqual(['public.comments.row-level security']);
  });
});
