/** What is told besides inboxes: counters in channels, and what the SQL API says. */

import { describe, expect, it, onTestFinished } from 'vitest';
import { parse, stringify } from 'yaml';
import { createTestDatabase } from '../support/postgres.js';
import { recover } from '../support/recover.js';
import { addComment, addPost, like, socialConfig, testSecret } from '../support/social.js';
import { ada, batches, bo, cleo, database, heardByAda, inbox, post, useAda } from './ada.js';
import { startBatches } from './batches.js';
import { framesOf } from './world.js';
import type { Frame } from './world.js';

useAda();

it('what rows and the SQL API say in one page is told in the order in which it was written', async () => {
  const say = (event: string) =>
    database.pool.query('select belfry.broadcast($1, $2, $3)', [`post:${post}`, event, {}]);
  const tell = (message: string) => database.pool.query('select belfry.notify($1, $2, $3)', [ada, 'system', message]);
  await say('first');
  await tell('one');
  await addComment(database.pool, post, bo, 'two');
  await say('third');
  await tell('three');
  await addComment(database.pool, post, cleo, 'four');
  await batches.run();
  const heard = batches.heard();
  expect(heard.flatMap((one) => (one.to === 'channel' ? [[one.offset, one.event]] : []))).toEqual([
    [1, 'first'],
    [2, 'comment_update'],
    [3, 'third'],
    [4, 'comment_update'],
  ]);
  expect(framesOf(heard, ada).map(({ seq, data }) => [seq, data.message])).toEqual([
    [1, 'one'],
    [2, 'Bo commented on your post'],
    [3, 'three'],
    [4, 'Cleo commented on your post'],
  ]);
});

describe('counters', () => {
  it('are told in the channel, absolute, with the latest actor', async () => {
    await like(database.pool, bo, post);
    await like(database.pool, cleo, post);
    await batches.run();
    expect(batches.heard().filter(({ to }) => to === 'counter')).toMatchObject([
      { channel: `post:${post}`, event: 'like_update', data: { post_id: post, likes_count: 2 }, actorId: cleo },
    ]);
    expect(await batches.channels.recover(`post:${post}`, null, null)).toMatchObject({
      state: { likes_count: 2, comments_count: 0 },
    });
  });

  it('are told with the actor that the row has now', async () => {
    await like(database.pool, bo, post);
    await database.pool.query('update likes set user_id = $1 where user_id = $2', [cleo, bo]);
    await batches.run();
    const [told] = batches.heard().filter(({ to }) => to === 'counter');
    expect(told).toMatchObject({ data: { likes_count: 1 }, actorId: cleo });
  });

  it('that are below 0, since a creation is a dead letter, are 0 for who looks on', async () => {
    const channel = `post:${post}`;
    for (const source of ['post_like', 'post_comment'])
      await database.pool.query('insert into belfry.counter (source, object_id, count) values ($1, $2, -2)', [
        source,
        post,
      ]);
    await like(database.pool, bo, post);
    await addComment(database.pool, post, bo);
    await batches.run();
    const told = batches.heard().flatMap((one) => (one.to === 'channel' || one.to === 'counter' ? [one.data] : []));
    expect(told).toMatchObject([{ comments_count: 0 }, { likes_count: 0 }]);
    expect(await batches.channels.recover(channel, null, null)).toMatchObject({
      state: { likes_count: 0, comments_count: 0 },
    });
    const heads = await batches.channels.counters([channel]);
    expect(heads.map(({ data }) => data)).toMatchObject([{ likes_count: 0 }, { comments_count: 0 }]);
    await like(database.pool, cleo, post);
    await like(database.pool, ada, post);
    await batches.run();
    expect(await batches.channels.recover(channel, null, null)).toMatchObject({ state: { likes_count: 1 } });
  });

  it('a new comment is told at once with its text and the count', async () => {
    const comment = await addComment(database.pool, post, bo, 'hello');
    await batches.run();
    expect(batches.heard().filter(({ to }) => to === 'channel' || to === 'counter')).toMatchObject([
      {
        to: 'channel',
        channel: `post:${post}`,
        offset: 1,
        event: 'comment_update',
        data: {
          post_id: post,
          comments_count: 1,
          user_id: bo,
          comment: { id: comment, content: 'hello', user_id: bo },
        },
        dataWithoutActor: { post_id: post, comments_count: 1 },
      },
    ]);
  });

  it('of a replayed comment are those of now, as in the state that comes before it', async () => {
    const channel = `post:${post}`;
    const [kept, gone] = [await addComment(database.pool, post, bo), await addComment(database.pool, post, cleo)];
    await batches.run(1);
    await database.pool.query('delete from comments where id = $1', [gone]);
    await batches.run(1);
    const live = batches.heard().flatMap((one) => (one.to === 'channel' ? [one.data] : []));
    expect(live).toMatchObject([{ comments_count: 1 }, { comments_count: 2 }]);
    const { epoch } = await batches.channels.recover(channel, null, null);
    const { state, events } = await batches.channels.recover(channel, 0, epoch);
    expect(state).toMatchObject({ comments_count: 1 });
    expect(events).toMatchObject(
      [kept, gone].map((id) => ({
        data: { comments_count: 1, post_id: post, comment: { id } },
        dataWithoutActor: { comments_count: 1, post_id: post },
      })),
    );
  });

  it('of another object are told all the same where the two share a channel', async () => {
    const text = parse(socialConfig(database.url)) as { sources: { channels?: string[] }[] };
    for (const source of text.sources) source.channels?.push('all');
    const shared = await startBatches(database, stringify(text));
    onTestFinished(() => shared.stop());
    const other = await addPost(database.pool, ada);
    const comment = await addComment(database.pool, other, bo);
    await shared.run();
    shared.heard();
    await addComment(database.pool, post, bo);
    await database.pool.query('delete from comments where id = $1', [comment]);
    await shared.run();
    const told = shared.heard().flatMap((one) => (one.to === 'channel' || one.to === 'counter' ? [one] : []));
    expect(told.filter(({ channel }) => channel === 'all')).toMatchObject([
      { to: 'channel', data: { post_id: post, comments_count: 1 }, counter: `post_comment ${post}` },
      { to: 'counter', data: { post_id: other, comments_count: 0 }, counter: `post_comment ${other}` },
    ]);
    expect(told.map(({ channel }) => channel).sort()).toEqual(['all', 'all', `post:${other}`, `post:${post}`].sort());
  });
});

describe('the SQL API', () => {
  it('notify: the message as given, once per dedupe_key', async () => {
    for (let i = 0; i < 2; i++)
      await database.pool.query(
        `select belfry.notify($1, 'system', 'Your export is ready', '{"url": "/x", "big": 9007199254740993}', null, 'export-1')`,
        [ada],
      );
    const frames = await heardByAda();
    expect(frames).toMatchObject([
      { data: { type: 'system', message: 'Your export is ready', data: { url: '/x', alert: true, event_count: 1 } } },
    ]);
    expect(await inbox()).toMatchObject({ unseen: 1 });
  });

  it('broadcast: an event in the channel with an offset', async () => {
    await database.pool.query(`select belfry.broadcast($1, 'typing', '{"by": "Bo"}')`, [`post:${post}`]);
    await batches.run();
    expect(batches.heard()).toMatchObject([
      { to: 'channel', channel: `post:${post}`, offset: 1, event: 'typing', data: { by: 'Bo' } },
    ]);
  });

  it('announce: a notification without seq to everyone, until it is seen', async () => {
    await database.pool.query(`select belfry.announce('Hello world')`);
    await batches.run();
    const [heard] = batches.heard();
    expect(heard).toMatchObject({ to: 'everyone' });
    const { announcements } = await recover(batches.inbox, ada, null, null);
    const last = JSON.parse(announcements.at(-1) ?? '{}') as Frame;
    expect(last).toMatchObject({ event: 'notification', data: { type: 'system', message: 'Hello world' } });
    expect(last).not.toHaveProperty('seq');
    await batches.inbox.mark(ada, 'seen', { ids: [last.data.id] }, null);
    expect((await recover(batches.inbox, ada, null, null)).announcements).toEqual([]);
  });

  it('revoke: kept with the batch, for those whom no message reaches', async () => {
    const { revocation } = await batches.inbox.heads([], []);
    await database.pool.query(`select belfry.revoke('x7'), belfry.revoke_session('s-1')`);
    await batches.run();
    expect(batches.heard()).toMatchObject([
      { kind: 'revoke', userId: 'x7' },
      { kind: 'revokeSession', session: 's-1' },
    ]);
    const kept = await batches.inbox.revokedAfter(revocation);
    expect(kept).toMatchObject([
      { userId: 'x7', session: null },
      { userId: null, session: 's-1' },
    ]);
    expect((await batches.inbox.heads([], [])).revocation).toBe(kept[1]?.id);
    for (const { ageMs } of kept) expect(ageMs).toBeGreaterThanOrEqual(0);
  });

  it('revoke: as old as its commit is, however late it is read', async () => {
    const { revocation } = await batches.inbox.heads([], []);
    const client = await database.client();
    const now = async (): Promise<string> =>
      (await client.query<{ now: string }>('select clock_timestamp()::text as now')).rows[0]!.now;
    await client.query(`begin; select belfry.revoke('x8')`);
    const beforeCommit = await now();
    await client.query('commit');
    const afterCommit = await now();
    await client.end();
    await batches.run();
    const { rows } = await database.pool.query(
      'select revoked_at between $2 and $3 as right, at > $3 as later from belfry.revocation where id > $1',
      [revocation, beforeCommit, afterCommit],
    );
    expect(rows).toEqual([{ right: true, later: true }]);
    expect((await database.pool.query('select from belfry.revoke_call')).rowCount).toBe(0);
  });
});

it('a config without sources, blocks or mutes tells what the SQL API says', async () => {
  const bare = await createTestDatabase();
  onTestFinished(() => bare.drop());
  const config = { version: 1, database: { url: bare.url }, auth: { secret: testSecret }, sources: [] };
  const alone = await startBatches(bare, stringify(config));
  onTestFinished(() => alone.stop());
  await bare.pool.query(`select belfry.notify('7', 'greeting', 'hello')`);
  await alone.run();
  expect(await alone.inbox.list('7', { limit: 20, before: null, state: null })).toMatchObject({
    items: [{ message: 'hello' }],
  });
});
