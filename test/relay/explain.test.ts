/** What became of an event: every verdict of the contract, from what is stored and from the rules. */

import type pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { parse, stringify } from 'yaml';
import { installCapture } from '../../src/capture/install.js';
import { explainEvent } from '../../src/relay/look/explain.js';
import type { ExplainedRecipient } from '../../src/relay/look/explain.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { addComment, addPost, addUsers, block, like, socialConfig, socialSql, unlike } from '../support/social.js';
import { startBatches } from './batches.js';
import type { Batches } from './batches.js';
import { ageWindows } from '../support/windows.js';

let database: TestDatabase;
let client: pg.Client;
let batches: Batches;
let wrong: Batches;
let ada: string, bo: string, cleo: string, post: string;

beforeAll(async () => {
  database = await createTestDatabase({
    prepare: `${socialSql}; create table public.thread_mutes (user_id bigint, post_id bigint, primary key (user_id, post_id));
      create table public.tagged (id bigint generated always as identity primary key, by_id bigint not null, people bigint[] not null);`,
  });
  client = await database.client();
  const threadMutes = { table: 'thread_mutes', user: 'user_id', kind: 'post', id: 'post_id' };
  const tagged = {
    name: 'tagged',
    type: 'tag',
    table: 'tagged',
    key: ['id'],
    actor: 'by_id',
    recipient: { list: 'people' },
  };
  const social = parse(socialConfig(database.url, { threadMutes })) as { sources: unknown[] };
  const text = stringify({ ...social, sources: [...social.sources, tagged] });
  batches = await startBatches(database, text);
  await installCapture(client, batches.config);
  const mistaken = parse(text) as { sources: { name: string; recipient: unknown }[] };
  for (const source of mistaken.sources) if (source.name === 'post_like') source.recipient = 'user_id';
  wrong = await startBatches(database, stringify(mistaken));
});

beforeEach(async () => {
  [ada = '', bo = '', cleo = ''] = await addUsers(database.pool, 'Ada', 'Bo', 'Cleo');
  post = await addPost(database.pool, ada);
  await batches.run();
});

afterAll(async () => {
  await batches.stop();
  await wrong.stop();
  await database.drop();
});

const lastEvent = async (): Promise<string> =>
  (await client.query<{ id: string }>('select max(id)::text as id from belfry.outbox')).rows[0]?.id ?? '';

async function explain(id: string, user: string | null = null): Promise<readonly ExplainedRecipient[]> {
  return (await explainEvent(client, batches.config, id, user))?.recipients ?? [];
}

const notificationOf = async (userId: string) =>
  (
    await client.query<{ id: string; seq: number; at: Date; due: Date | null }>(
      'select id::text, seq::int, pushed_at as at, due_at as due from belfry.notification where user_id = $1',
      [userId],
    )
  ).rows[0];

describe('explain', () => {
  it('pending before the relay has read it, delivered after, withdrawn once it is undone', async () => {
    await like(database.pool, bo, post);
    const id = await lastEvent();
    const nothing = { user_id: ada, rule: null, notification_id: null, seq: null, at: null, sockets: null };
    expect(await explain(id)).toEqual([{ ...nothing, verdict: 'pending' }]);
    await batches.run();
    const sent = await notificationOf(ada);
    const known = { ...nothing, notification_id: sent?.id, seq: sent?.seq };
    expect(await explain(id)).toEqual([{ ...known, verdict: 'delivered', at: sent?.at.toISOString() }]);
    await unlike(database.pool, bo, post);
    expect(await explain(await lastEvent())).toEqual([{ ...nothing, verdict: 'pending' }]);
    await batches.run();
    const withdrawn = { ...known, seq: 2, verdict: 'withdrawn', at: expect.stringMatching(/Z$/) as string };
    expect(await explain(id)).toEqual([withdrawn]);
    // The event that undid it says the same.
    expect(await explain(await lastEvent())).toEqual([withdrawn]);
  });

  it('withdrawn where its thread was muted since, whether it was alone in its notification, joined it or waits', async () => {
    const ids: string[] = [];
    for (const act of [
      () => addComment(database.pool, post, bo),
      () => like(database.pool, bo, post),
      () => like(database.pool, cleo, post),
    ]) {
      await act();
      ids.push(await lastEvent());
      await batches.run();
    }
    for (const id of ids.slice(0, 2)) expect(await explain(id)).toMatchObject([{ verdict: 'delivered' }]);
    await client.query('insert into thread_mutes values ($1, $2)', [ada, post]);
    await batches.run();
    const { rows } = await client.query<{ at: Date }>(
      'select pushed_at as at from belfry.notification where user_id = $1 and withdrawn order by id',
      [ada],
    );
    const [comment, likes] = rows.map(({ at }) => at.toISOString());
    for (const [i, at] of [comment, likes, likes].entries())
      expect(await explain(ids[i] ?? '')).toMatchObject([{ user_id: ada, verdict: 'withdrawn', rule: null, at }]);
  });

  it('of belfry.notify tells of the one person alone, however many were given its dedupe_key', async () => {
    const ids: string[] = [];
    for (const userId of [ada, bo, ada]) {
      await client.query(`select belfry.notify($1, 'system', 'Welcome', dedupe_key => $2)`, [userId, `k-${post}`]);
      ids.push(await lastEvent());
      await batches.run();
    }
    expect(await explain(ids[0] ?? '')).toMatchObject([{ user_id: ada, verdict: 'delivered' }]);
    expect(await explain(ids[1] ?? '')).toMatchObject([{ user_id: bo, verdict: 'delivered' }]);
    expect(await explain(ids[2] ?? '')).toMatchObject([{ user_id: ada, verdict: 'suppressed', rule: 'duplicate' }]);
    expect(await explain(ids[0] ?? '', bo)).toEqual([]);
  });

  it('pending in a window, merged when that has ended', async () => {
    await like(database.pool, bo, post);
    const first = await lastEvent();
    await batches.run();
    await like(database.pool, cleo, post);
    const second = await lastEvent();
    await batches.run();
    expect(await explain(first)).toMatchObject([{ verdict: 'delivered' }]);
    expect(await explain(second)).toMatchObject([
      { verdict: 'pending', at: (await notificationOf(ada))?.due?.toISOString() },
    ]);
    await ageWindows(client, '1 min', [ada]);
    await batches.flush();
    expect(await explain(second)).toMatchObject([
      { verdict: 'merged', seq: 2, notification_id: (await notificationOf(ada))?.id },
    ]);
    expect(await explain(first)).toMatchObject([{ verdict: 'delivered', seq: 2 }]);
  });

  it('suppressed, and by which rule', async () => {
    await block(database.pool, ada, bo);
    await batches.run();
    await like(database.pool, bo, post);
    const blocked = await lastEvent();
    await like(database.pool, ada, post);
    const self = await lastEvent();
    await batches.run();
    expect(await explain(blocked)).toEqual([
      {
        user_id: ada,
        verdict: 'suppressed',
        rule: 'blocked',
        notification_id: null,
        seq: null,
        at: expect.stringMatching(/Z$/) as string,
        sockets: null,
      },
    ]);
    expect(await explain(self)).toMatchObject([{ user_id: ada, verdict: 'suppressed', rule: 'self' }]);
    expect(await explain(self, bo)).toEqual([]);
  });

  it('a duplicate', async () => {
    await like(database.pool, bo, post);
    await batches.run();
    await client.query(
      `insert into belfry.outbox (source, op, new) select source, op, new from belfry.outbox order by id desc limit 1`,
    );
    await batches.run();
    expect(await explain(await lastEvent())).toMatchObject([{ verdict: 'suppressed', rule: 'duplicate' }]);
  });

  it('withdrawn where it was undone before the relay read it', async () => {
    await like(database.pool, bo, post);
    const id = await lastEvent();
    await unlike(database.pool, bo, post);
    await batches.run();
    expect(await explain(id)).toMatchObject([{ user_id: ada, verdict: 'withdrawn', notification_id: null }]);
  });

  it('what a wrong mapping missed is pending, with the advice to replay; by the rules of today otherwise', async () => {
    await like(database.pool, bo, post);
    const id = await lastEvent();
    await wrong.run();
    expect(await explainEvent(client, batches.config, id, ada)).toMatchObject({
      recipients: [{ user_id: ada, verdict: 'pending' }],
      notes: [expect.stringContaining('belfry replay') as string],
    });
    await block(database.pool, bo, ada);
    expect(await explain(id)).toMatchObject([
      { user_id: ada, verdict: 'suppressed', rule: 'blocked' },
      { user_id: bo, verdict: 'suppressed', rule: 'self' },
    ]);
  });

  it('a dead letter', async () => {
    await addComment(database.pool, post, bo);
    const id = await lastEvent();
    await batches.run();
    await client.query('delete from belfry.notification_event where user_id = $1', [ada]);
    await client.query(
      `insert into belfry.dead_event (event_id, source, op, new, event_at, error) select id, source, op, new, at, 'poison' from belfry.outbox where id = $1`,
      [id],
    );
    expect(await explain(id)).toMatchObject([
      { user_id: ada, verdict: 'dead', at: expect.stringMatching(/Z$/) as string },
    ]);
    await client.query('delete from belfry.outbox where id = $1', [id]);
    expect(await explain(id)).toMatchObject([{ user_id: ada, verdict: 'dead' }]);
  });

  it('a dead letter that somebody discarded: who and why', async () => {
    await addComment(database.pool, post, bo);
    const id = await lastEvent();
    await batches.run();
    await client.query('delete from belfry.notification_event where user_id = $1', [ada]);
    await client.query(
      `insert into belfry.discarded_event (event_id, source, op, event_at, attempts, error, discarded_by, reason)
       select id, source, op, at, 1, 'poison', 'dba', 'test data' from belfry.outbox where id = $1`,
      [id],
    );
    const found = await explainEvent(client, batches.config, id, null);
    expect(found?.recipients).toMatchObject([{ user_id: ada, verdict: 'dead' }]);
    expect(found?.notes).toEqual([expect.stringContaining('dba discarded: test data')]);
  });

  it('pending while it is held: nothing told yet whom it is for', async () => {
    await client.query('alter table posts alter column user_id drop not null');
    const { rows } = await client.query<{ id: string }>(
      `insert into posts (user_id, body) values (null, 'x') returning id::text`,
    );
    await like(client, bo, rows[0]?.id ?? '');
    await batches.run();
    const id = (await client.query<{ id: string }>('select max(id)::text as id from belfry.outbox')).rows[0]?.id ?? '';
    expect(await explainEvent(client, batches.config, id, null)).toMatchObject({
      ...{ recipients: [], recipientsKnown: false },
      notes: [expect.stringMatching(/^Held until .*Z: when it was read nothing told whom it is for/) as string],
    });
    await client.query('update posts set user_id = $1 where user_id is null', [ada]);
    expect(await explain(id)).toMatchObject([{ user_id: ada, verdict: 'pending' }]);
  });

  it('for one person alone, nothing is said of others', async () => {
    await like(database.pool, bo, post);
    const id = await lastEvent();
    await batches.run();
    expect(await explainEvent(client, batches.config, id, cleo)).toMatchObject({ recipients: [], notes: [] });
  });

  it('a row that was replaced: who had it already keeps what they have', async () => {
    await like(database.pool, bo, post);
    await batches.run();
    await unlike(database.pool, bo, post);
    await like(database.pool, bo, post);
    await batches.run();
    expect(await explainEvent(client, batches.config, await lastEvent(), null)).toMatchObject({
      recipients: [{ user_id: ada, verdict: 'suppressed', rule: 'duplicate' }],
      notes: [],
    });
  });

  it('who became a recipient by a later event has nothing to do with an earlier one', async () => {
    await client.query('insert into tagged (by_id, people) values ($1, $2)', [bo, [ada]]);
    const first = await lastEvent();
    await batches.run();
    await client.query('update tagged set people = $2 where by_id = $1', [bo, [ada, cleo]]);
    await batches.run();
    expect((await explain(first)).map(({ user_id, verdict }) => [user_id, verdict])).toEqual([[ada, 'delivered']]);
    expect((await explain(await lastEvent())).map(({ user_id, verdict }) => [user_id, verdict])).toContainEqual([
      cleo,
      'delivered',
    ]);
  });

  it('nobody is told of what was written while a column of its table was gone', async () => {
    await client.query('alter table public.comments rename column user_id to author_id');
    await client.query(`insert into public.comments (post_id, author_id, content) values ($1, $2, 'hi')`, [post, bo]);
    await client.query('alter table public.comments rename column author_id to user_id');
    const explanation = await explainEvent(client, batches.config, await lastEvent(), null);
    expect(explanation).toMatchObject({ recipients: [], recipientsKnown: false });
    expect(explanation?.notes).toEqual([
      'Its table had no column user_id when it was written, so nobody is told of it. When config and table fit again its row is captured anew, or belfry replay reads it.',
    ]);
  });

  it('notify, and an announcement', async () => {
    const { rows } = await client.query<{ notify: string; announce: string }>(
      `select belfry.notify($1, 'system', 'hello')::text as notify, belfry.announce('hello')::text as announce`,
      [ada],
    );
    const [ids] = rows;
    await batches.run();
    expect(await explain(ids?.notify ?? '')).toMatchObject([{ user_id: ada, verdict: 'delivered', seq: 1 }]);
    expect(await explainEvent(client, batches.config, ids?.announce ?? '', null)).toMatchObject({
      recipients: [],
      recipientsKnown: false,
    });
    expect(await explain(ids?.announce ?? '', ada)).toMatchObject([
      { user_id: ada, verdict: 'delivered', seq: null, notification_id: expect.stringMatching(/^a\d+$/) as string },
    ]);
  });

  it('nothing of an event that there is not', async () => {
    expect(await explainEvent(client, batches.config, '999999999', null)).toBeNull();
  });
});
