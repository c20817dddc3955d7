/** Who people are, where names tell it badly: asked about, or found over what leads there; never silently the wrong table. */

import { afterEach, describe, expect, it } from 'vitest';
import { lookAt } from '../../src/init/look.js';
import { recognise } from '../../src/init/recognise.js';
import type { Draft } from '../../src/init/draft.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { judge } from './facts.js';

let database: TestDatabase;
afterEach(() => database.drop());

async function draftOf(schema: string, answers: Readonly<Record<string, string>> = {}): Promise<Draft> {
  database = await createTestDatabase({ template: 'empty', prepare: schema });
  return recognise(await lookAt(await database.client()), new Map(Object.entries(answers)));
}

const wrong = (draft: Draft, facts: readonly string[]) =>
  facts.map((fact) => judge(draft, fact)).filter(({ verdict }) => verdict !== 'right');

// Django's own user, written by the application: AUTH_USER_MODEL = 'accounts.CustomUser'.
const customUser = `create table accounts_customuser (id bigserial primary key, password varchar(128) not null, email varchar(254) not null, username varchar(150) not null unique);`;
const profile = (of: string) =>
  `create table accounts_profile (id bigserial primary key, display_name text, user_id bigint not null unique references ${of} (id));`;
const posts = (person: string, of: string) => `
  create table blog_post (id bigserial primary key, title text, author_id bigint not null references ${of} (id));
  create table blog_like (id bigserial primary key, post_id bigint not null references blog_post (id), ${person} bigint not null references ${of} (id));`;

describe('a user of the application’s own name', () => {
  it('is people', async () => {
    const draft = await draftOf(`${customUser} ${posts('user_id', 'accounts_customuser')}`);
    expect(
      wrong(draft, [
        'people.table = public.accounts_customuser',
        'public.blog_like like post: actor = user_id',
        'public.blog_like like post: recipient = post_id -> public.blog_post(id -> author_id)',
      ]),
    ).toEqual([]);
  });

  it.each([
    ['accounts_customuser', customUser],
    // In another language; that user_id leads there says it all.
    ['kern_mitglied', 'create table kern_mitglied (id bigserial primary key, name text not null);'],
  ])('is people beside profiles, which lead to %s, and asked about', async (table, sql) => {
    const draft = await draftOf(`${sql} ${profile(table)} ${posts('profile_id', 'accounts_profile')}`);
    expect(
      wrong(draft, [
        'asks people',
        `people.table = public.${table}`,
        'public.blog_like like post: actor = profile_id -> public.accounts_profile(id -> user_id)',
      ]),
    ).toEqual([]);
  });
});

describe('people of which no name speaks', () => {
  const schema = `
    create table zugang (id bigserial primary key, kuerzel text not null);
    create table anlage (id bigserial primary key, titel text);
    create table blog_post (id bigserial primary key, title text, autor bigint not null references zugang (id), anlage bigint references anlage (id));
    create table blog_like (id bigserial primary key, post_id bigint not null references blog_post (id), wer bigint not null references zugang (id));`;

  it('are asked about: first what most other tables lead to; nothing is made meanwhile', async () => {
    const draft = await draftOf(schema);
    expect(draft).toMatchObject({ people: null, sources: [], questions: [{ id: 'people', answer: null }] });
    expect(draft.questions[0]?.choices[0]?.id).toBe('public.zugang');
  });

  it('are whatever table the answer names', async () => {
    const draft = await draftOf(schema, { people: 'public.zugang' });
    expect(draft.questions).toMatchObject([{ id: 'people', answer: 'public.zugang' }]);
    expect(wrong(draft, ['people.table = public.zugang', 'public.blog_like like post: actor = wer'])).toEqual([]);
  });

  it('are so beside a table that looks like people', async () => {
    const draft = await draftOf(`${schema} create table users (id bigserial primary key, email text);`, {
      people: 'public.zugang',
    });
    expect(draft.questions).toMatchObject([{ id: 'people', answer: 'public.zugang' }]);
    expect(wrong(draft, ['people.table = public.zugang', 'public.blog_like like post: actor = wer'])).toEqual([]);
  });
});
