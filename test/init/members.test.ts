/** Who takes part in a conversation, and so hears of its messages: nobody who was put out, is only invited, or is in another tenant's. */

import { describe, expect, it } from 'vitest';
import type { Config } from '../../src/config.js';
import { through } from './through.js';

const rooms = `
  create table users (id int primary key, username text);
  create table rooms (id int primary key);
  create table messages (id int primary key, room_id int references rooms, user_id int references users, body text);`;

const joining = (table: string, columns = ''): string =>
  `create table ${table} (room_id int references rooms, user_id int references users ${columns});`;

const recipientOf = ({ sources }: Config) => sources.find(({ type }) => type === 'message')?.recipient;

const membersIn = (table: string) => ({
  kind: 'path',
  hops: [{ from: 'room_id', table: `public.${table}`, match: 'room_id', take: 'user_id' }],
});

describe('of tables that lead to a conversation and a person', () => {
  it('bans, invites and mutes are not who takes part', async () => {
    const { draft, config } = await through(
      rooms +
        joining('room_bans', ', banned_by int references users') +
        joining('chat_invites') +
        joining('muted_room_users') +
        joining('room_members'),
    );
    expect(recipientOf(config)).toMatchObject(membersIn('room_members'));
    expect(draft.channels.map(({ kind, read }) => [kind, read.value])).toEqual([
      ['room', 'select 1 from public.room_members m where m.room_id = :id and m.user_id = :user'],
    ]);
    expect(draft.questions).toEqual([]);
  });

  it('the conversation itself, with its parent and its owner, is none', async () => {
    const { config } = await through(`
      create table users (id int primary key, username text);
      create table groups (id int primary key, parent_id int references groups, owner_id int references users);
      create table memberships (group_id int references groups, user_id int references users);
      create table group_messages (id int primary key, group_id int references groups, user_id int references users, body text);`);
    expect(recipientOf(config)).toMatchObject({
      kind: 'path',
      hops: [{ from: 'group_id', table: 'public.memberships', match: 'group_id', take: 'user_id' }],
    });
  });

  it('one of several that fit is asked for, as is one whose name says something else; till then nobody is told', async () => {
    for (const tables of [joining('room_members') + joining('room_users'), joining('room_bans')]) {
      const { draft, config } = await through(rooms + tables);
      expect(draft.questions).toMatchObject([{ id: 'public.rooms.members', fallback: 'none' }]);
      expect([recipientOf(config), draft.channels]).toEqual([undefined, []]);
    }
    const { config } = await through(rooms + joining('room_members') + joining('room_users'), {
      'public.rooms.members': 'public.room_users',
    });
    expect(recipientOf(config)).toMatchObject(membersIn('room_users'));
  });

  it('the two people of the conversation itself come before a table whose name says something else', async () => {
    const { draft, config } = await through(`
      create table users (id int primary key, username text);
      create table chats (id int primary key, first_user_id int references users, second_user_id int references users);
      create table chat_mutes (chat_id int references chats, user_id int references users);
      create table messages (id int primary key, chat_id int references chats, user_id int references users, body text);`);
    expect(recipientOf(config)).toMatchObject({ kind: 'query', parameters: ['chat_id'] });
    expect(draft.questions).toEqual([]);
  });
});

describe('a member whose row says that they are out', () => {
  it.each([
    ["status text check (status in ('active', 'pending', 'banned'))", "m.status in ('active')"],
    ["role text check (role in ('owner', 'member', 'banned'))", "m.role in ('owner', 'member')"],
    ["status text not null default 'joined'", "m.status in ('joined')"],
    ['accepted_at timestamptz', 'm.accepted_at is not null'],
    ['is_banned boolean, left_at timestamptz', 'm.is_banned is not true and m.left_at is null'],
  ])('by %s hears of nothing and watches nothing', async (column, sql) => {
    const { config, draft } = await through(rooms + joining('room_members', `, ${column}`));
    expect(recipientOf(config)).toMatchObject({
      sql: `select m.user_id from public.room_members m where m.room_id = :room_id and ${sql}`,
    });
    expect(draft.channels[0]?.read.value).toBe(
      `select 1 from public.room_members m where m.room_id = :id and m.user_id = :user and ${sql}`,
    );
  });

  it('by a number or text of which nothing says what it means: asked, and nobody is told', async () => {
    const schema = rooms + joining('room_members', ', status int');
    const { config, draft } = await through(schema);
    expect(draft.questions).toMatchObject([{ id: 'public.room_members.status', fallback: 'none' }]);
    expect(recipientOf(config)).toBeUndefined();
    const answered = await through(schema, { 'public.room_members.status': 'all' });
    expect(recipientOf(answered.config)).toMatchObject(membersIn('room_members'));
  });
});

describe('a conversation with a key of several columns', () => {
  const tenants = `
    create table users (id int primary key, username text);
    create table conversations (tenant_id int, id int, user_one_id int, user_two_id int, primary key (tenant_id, id));
    create table messages (tenant_id int, id int, conversation_id int, user_id int references users, body text, primary key (tenant_id, id),
      foreign key (tenant_id, conversation_id) references conversations (tenant_id, id));`;

  it('is looked up by all of them, and watched by nobody', async () => {
    const { draft, config } = await through(`${tenants}
      create table conversation_members (tenant_id int, conversation_id int, user_id int references users,
        foreign key (tenant_id, conversation_id) references conversations (tenant_id, id));`);
    expect(recipientOf(config)).toMatchObject({
      parameters: ['tenant_id', 'conversation_id'],
      sql: 'select m.user_id from public.conversation_members m where m.tenant_id = :tenant_id and m.conversation_id = :conversation_id',
    });
    expect(config.sources).toMatchObject([{ channels: [], include: [] }]);
    expect(draft.channels).toMatchObject([{ kind: 'conversation', read: { value: 'none' } }]);
  });

  it('of two people, too', async () => {
    const { draft, config } = await through(
      tenants.replace(
        'user_one_id int, user_two_id int',
        'user_one_id int references users, user_two_id int references users',
      ),
    );
    expect(recipientOf(config)).toMatchObject({ parameters: ['tenant_id', 'conversation_id'] });
    expect(draft.channels).toMatchObject([{ kind: 'conversation', read: { value: 'none' } }]);
  });
});
