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
