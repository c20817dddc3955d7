/** Looking back over the outbox: filters, who did it, ids as text. Rows as triggers write them, on a real database. */

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { COUNTERS_KEY } from '../../src/capture/rows.js';
import { parseConfig } from '../../src/config.js';
import type { Config } from '../../src/config.js';
import { listOutbox, showOutbox } from '../../src/relay/look/browse.js';
import type { OutboxFilter } from '../../src/relay/look/filter.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { addPost, addUsers, socialConfig, socialSql } from '../support/social.js';

let database: TestDatabase;
let config: Config;
let ada: string;
let bob: string;
let post: string;

/** Outbox ids by name, in the order written. */
const ids: Record<string, string> = {};

async function write(
  name: string,
  source: string,
  op: string,
  now: object | null,
  old: object | null = null,
  at = '2026-01-15T12:00:00Z',
): Promise<void> {
  const { rows } = await database.pool.query<{ id: string }>(
    'insert into belfry.outbox (source, op, new, old, at) values ($1, $2, $3, $4, $5) returning id',
    [source, op, now && JSON.stringify(now), old && JSON.stringify(old), at],
  );
  ids[name] = rows[0]?.id ?? '';
}

beforeAll(async () => {
  database = await createTestDatabase({ prepare: socialSql });
  config = parseConfig(socialConfig(database.url), {});
  [ada = '', bob = ''] = await addUsers(database.pool, 'Ada', 'Bob');
  post = await addPost(database.pool, ada);
  const likeRow = { user_id: Number(bob), post_id: Number(post) };
  await write('like', 'post_like', 'created', likeRow, null, '2026-01-15T10:00:00Z');
  await write('unlike', 'post_like', 'removed', null, likeRow);
  await write('comment', 'post_comment', 'created', { id: 7, user_id: 77, post_id: Number(post), content: 'hi' });
  await write('follow', 'user_follow', 'created', { follower_id: Number(bob), followed_id: Number(ada) });
  await write('truncate', 'post_like', 'truncated', null);
  await write('notify', 'belfry.notify', 'notify', {
    user_id: ada,
    type: 'message',
    message: 'm',
    data: { big: 5 },
    actor_id: '99',
    dedupe_key: null,
  });
  await write('announce', 'belfry.announce', 'announce', { message: 'all', data: {} });
  await write('block', 'belfry.blocks', 'created', { blocker_id: Number(bob), blocked_id: 55 });
  await write('gone', 'old_source', 'created', { x: 1 });
  await write('wide', 'post_like', 'created', null);
  await database.pool.query(
    `update belfry.outbox set new = '{"user_id": 9007199254740993, "post_id": 12345678901234567}' where id = $1`,
    [ids['wide']],
  );
});
afterAll(() => database.drop());

async function found(filter: OutboxFilter, limit = 100): Promise<string[]> {
  const client = await database.client();
  const items = await listOutbox(client, config, filter, limit);
  return items.map((item) => Object.keys(ids).find((name) => ids[name] === item.id) ?? item.id);
}

describe('filters', () => {
  it.each<[OutboxFilter, string[]]>([
    [{}, ['wide', 'gone', 'block', 'announce', 'notify', 'truncate', 'follow', 'comment', 'unlike', 'like']],
    [{ source: 'post_like' }, ['wide', 'truncate', 'unlike', 'like']],
    [{ type: 'like' }, ['wide', 'truncate', 'unlike', 'like']],
    [{ type: 'message' }, ['notify']],
    [{ type: 'system' }, ['announce']],
    [{ type: 'nothing' }, []],
    [{ since: new Date('2026-01-15T11:00:00Z'), source: 'post_like' }, ['wide', 'truncate', 'unlike']],
    [{ until: new Date('2026-01-15T12:00:00Z') }, ['like']],
    [{ user: '77' }, ['comment']],
    [{ user: '99' }, ['notify']],
    [{ user: '55' }, ['block']],
    [{ user: '9007199254740993' }, ['wide']],
    [{ object: 'post:12345678901234567' }, ['wide']],
    [{ object: '12345678901234567' }, ['wide']],
    [{ object: 'comment:7' }, []],
  ])('%j', async (filter, names) => {
    expect(await found(filter)).toEqual(names);
  });

  it('find the actor, and the recipient over a path, of what stands and of what was undone', async () => {
    expect(await found({ user: bob })).toEqual(['block', 'follow', 'unlike', 'like']);
    expect(await found({ user: ada, object: `post:${post}` })).toEqual(['comment', 'like']);
    await database.pool.query(
      `with n as (insert into belfry.notification (user_id, seq, type, group_key, first_at, last_at) values ($1, 1, 'like', 'g', now(), now()) returning id)
       insert into belfry.notification_event (source, key, user_id, notification_id, event_id, at)
       select 'post_like', $2, $1, id, 1, now() from n`,
      [ada, `["${bob}", "${post}"]`],
    );
    expect(await found({ user: ada, source: 'post_like' })).toEqual(['unlike', 'like']);
    expect(await found({ user: ada })).toEqual(['notify', 'follow', 'comment', 'unlike', 'like']);
  });

  it('stop at the limit, the newest first', async () => {
    expect(await found({}, 2)).toEqual(['wide', 'gone']);
    expect(await found({ source: 'post_like' }, 1)).toEqual(['wide']);
  });

  it('cannot be broken out of', async () => {
    expect(await found({ source: `'; drop table belfry.outbox; --`, user: `\\'`, object: `'x` })).toEqual([]);
  });

  it('go over more than one page', async () => {
    await database.pool.query(
      `insert into belfry.outbox (source, op, new) select 'bulk', 'created', '{}' from generate_series(1, 2500)`,
    );
    const client = await database.client();
    const all = await listOutbox(client, config, {}, 10_000);
    expect(all).toHaveLength(2_500 + Object.keys(ids).length);
    expect(new Set(all.map((item) => item.id)).size).toBe(all.length);
    expect(await found({ type: 'like' })).toEqual(['wide', 'truncate', 'unlike', 'like']);
    await database.pool.query(`delete from belfry.outbox where source = 'bulk'`);
  });
});

describe('an event', () => {
  it('names actor and object, with ids and wide integers as text', async () => {
    const client = await database.client();
    const show = async (name: string): Promise<unknown> => showOutbox(client, config, ids[name] ?? '0');
    expect(await show('comment')).toEqual({
      id: ids['comment'],
      at: '2026-01-15T12:00:00.000Z',
      source: 'post_comment',
      type: 'comment',
      op: 'created',
      actor_id: '77',
      object: { kind: 'post', id: post },
      new: { id: '7', user_id: '77', post_id: post, content: 'hi' },
      old: null,
    });
    expect(await show('unlike')).toMatchObject({
      op: 'removed',
      actor_id: bob,
      object: { kind: 'post', id: post },
      new: null,
    });
    expect(await show('wide')).toMatchObject({
      new: { user_id: '9007199254740993' },
      object: { id: '12345678901234567' },
    });
    expect(await show('notify')).toMatchObject({
      type: 'message',
      actor_id: '99',
      object: null,
      new: { data: { big: 5 } },
    });
    expect(await show('announce')).toMatchObject({ type: 'system', actor_id: null });
    expect(await show('block')).toMatchObject({ type: null, actor_id: bob, new: { blocked_id: '55' } });
    expect(await show('gone')).toMatchObject({ source: 'old_source', type: null, new: { x: 1 } });
    expect(await showOutbox(client, config, '999999999')).toBeNull();
  });

  it('shows the mapped columns alone, not how the trigger marked them', async () => {
    await database.pool.query(
      `insert into belfry.outbox (source, op, new, old) values
         ('post_like', 'created', $1, null), ('post_like', 'removed', null, $1), ('post_like', 'truncated', $2, null)`,
      [{ user_id: Number(bob), post_id: Number(post), [COUNTERS_KEY]: true }, { [COUNTERS_KEY]: true }],
    );
    const client = await database.client();
    const items = await listOutbox(client, config, {}, 3);
    const row = { user_id: bob, post_id: post };
    expect(items.map((item) => [item.op, item.new, item.old])).toEqual([
      ['truncated', null, null],
      ['removed', null, row],
      ['created', row, null],
    ]);
    await database.pool.query('delete from belfry.outbox where id = any($1)', [items.map(({ id }) => id)]);
  });

  it('whose values do not fit the columns they are looked up in spoils nothing but itself', async () => {
    // A date that is none: the cast fails inside the statement.
    await database.pool.query('create table public.days (day date, user_id bigint)');
    const odd = parseConfig(
      socialConfig(database.url).replace('table: public.posts, match: id,', 'table: public.days, match: day,'),
      {},
    );
    const client = await database.client();
    const items = await listOutbox(client, odd, { user: bob }, 100);
    expect(items.map((item) => item.id)).toEqual([ids['block'], ids['follow'], ids['unlike'], ids['like']]);
  });
});
