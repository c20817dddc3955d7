/** Dead letters, tried again: what was never done is done once, and what fails again stays. */

import type pg from 'pg';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { installCapture } from '../../src/capture/install.js';
import { seedCounter, seedCounters } from '../../src/inbox/seed.js';
import { createLogger } from '../../src/log.js';
import { storeDead } from '../../src/relay/dead-letters/aside.js';
import { workAlone } from '../../src/relay/replay/alone.js';
import { readJob, requestJob } from '../../src/relay/replay/jobs.js';
import type { Job, JobFilter } from '../../src/relay/replay/jobs.js';
import { deadLetters, dueRetries } from '../../src/relay/replay/retry.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { addComment, addPost, addUsers, like, socialConfig, socialSql, unlike } from '../support/social.js';
import { startBatches } from './batches.js';
import type { Batches } from './batches.js';

let database: TestDatabase;
let client: pg.Client;
let batches: Batches;
let ada: string, bo: string, cleo: string, post: string;

beforeAll(async () => {
  database = await createTestDatabase({ prepare: socialSql });
  client = await database.client();
  batches = await startBatches(database, socialConfig(database.url));
  await installCapture(client, batches.config);
  await seedCounters(client, batches.config, { info: () => undefined });
});
beforeEach(async () => {
  [ada = '', bo = '', cleo = ''] = await addUsers(database.pool, 'Ada', 'Bo', 'Cleo');
  post = await addPost(database.pool, ada);
  await batches.run();
  await client.query('delete from belfry.dead_event');
});
afterAll(async () => {
  await batches.stop();
  await database.drop();
});

/** What was written last becomes a dead letter, as the relay makes it: set aside, and the cursor past it. */
async function bury(count = 1): Promise<string[]> {
  const { rows } = await client.query<{ id: string; term: string }>(
    'select o.id::text, r.term::text from belfry.outbox o cross join belfry.relay r order by o.id desc limit $1',
    [count],
  );
  const poison = Object.assign(new Error('poison'), { code: '22000' });
  const connections = { facts: client, writer: batches.writer };
  for (const { id, term } of rows) await storeDead(connections, term, id, poison, null);
  await client.query('update belfry.relay set seen = pg_current_snapshot()');
  return rows.map(({ id }) => id).toReversed();
}

async function retry(filter: JobFilter): Promise<Job> {
  const id = await requestJob(client, { mode: 'retry', filter, rate: null, mapping: null });
  const job = async (): Promise<Job> => {
    const found = await readJob(client, id);
    if (found === null) throw new Error('no job');
    return found;
  };
  await workAlone({
    config: batches.config,
    log: createLogger({ level: 'silent', name: 'test' }),
    signal: new AbortController().signal,
    wanted: async () => ['waiting', 'running'].includes((await job()).state),
  });
  return job();
}

const inbox = async () => (await batches.inbox.list(ada, { limit: 100, before: null, state: null })).items;
const channel = async () => batches.channels.recover(`post:${post}`, 0, await batches.inbox.epoch());
const deadCount = async () => (await client.query('select 1 from belfry.dead_event')).rowCount;

it('is delivered, counted and told in its channel, once', async () => {
  await addComment(database.pool, post, bo, 'hello');
  const ids = await bury();
  expect(await channel()).toMatchObject({ state: { comments_count: 0 }, offset: 0 });
  expect(await retry({ ids })).toMatchObject({ state: 'done', counts: { processed: 1, delivered: 1, failed: 0 } });
  expect(await inbox()).toMatchObject([{ type: 'comment', user_id: bo }]);
  expect(await channel()).toMatchObject({ state: { comments_count: 1 }, events: [{ event: 'comment_update' }] });
  expect(await deadCount()).toBe(0);
  expect((await retry({ ids })).counts.processed).toBe(0);
  expect(await channel()).toMatchObject({ state: { comments_count: 1 }, offset: 1 });
});

it('fails again: one attempt more, and nothing of it is done', async () => {
  await client.query(
    `create or replace function belfry_test_poison() returns trigger language plpgsql as $$ begin raise 'still poison' using errcode = '22023'; end $$`,
  );
  await client.query(
    'create trigger poison before insert on belfry.notification for each row execute function belfry_test_poison()',
  );
  await addComment(database.pool, post, bo);
  const ids = await bury();
  const job = await retry({ ids });
  await client.query('drop trigger poison on belfry.notification');
  expect(job).toMatchObject({ state: 'done', counts: { processed: 1, delivered: 0, failed: 1 } });
  const { rows } = await client.query('select attempts, sqlstate, error from belfry.dead_letter');
  expect(rows).toEqual([{ attempts: 2, sqlstate: '22023', error: 'still poison' }]);
  expect(await channel()).toMatchObject({ state: { comments_count: 0 }, offset: 0 });
  expect((await retry({ ids })).counts.delivered).toBe(1);
});

it('is counted also when the outbox no longer holds it', async () => {
  await like(database.pool, bo, post);
  const ids = await bury();
  await client.query('delete from belfry.outbox where id = $1', [ids[0]]);
  expect((await retry({ ids })).counts).toMatchObject({ delivered: 1 });
  expect(await channel()).toMatchObject({ state: { likes_count: 1 } });
});

it('is not counted when its table was counted since', async () => {
  await like(database.pool, bo, post);
  const ids = await bury();
  for (const source of batches.config.sources) if (source.counter !== null) await seedCounter(client, source);
  expect((await retry({ ids })).counts).toMatchObject({ delivered: 1 });
  expect(await channel()).toMatchObject({ state: { likes_count: 1 } });
});

it('is judged by its row as it is now', async () => {
  await like(database.pool, bo, post);
  const created = await bury();
  await unlike(database.pool, bo, post);
  await batches.run();
  expect((await retry({ ids: created })).counts).toMatchObject({ processed: 1, delivered: 0 });
  expect(await inbox()).toEqual([]);
  // Up by the one and down by the other.
  expect(await channel()).toMatchObject({ state: { likes_count: 0 } });
});

it('a comment that is gone is not shown to its channel', async () => {
  const comment = await addComment(database.pool, post, bo, 'gone');
  const created = await bury();
  await client.query('delete from comments where id = $1', [comment]);
  await batches.run();
  expect((await retry({ ids: created })).counts).toMatchObject({ processed: 1, delivered: 0 });
  expect(await channel()).toMatchObject({ state: { comments_count: 0 }, events: [] });
});

it('a removal takes back', async () => {
  await like(database.pool, bo, post);
  await batches.run();
  await unlike(database.pool, bo, post);
  const ids = await bury();
  expect(await inbox()).toHaveLength(1);
  expect((await retry({ ids })).counts).toMatchObject({ withdrawn: 1 });
  expect(await inbox()).toEqual([]);
  expect(await channel()).toMatchObject({ state: { likes_count: 0 } });
});

it('is chosen by the filters of events', async () => {
  await like(database.pool, bo, post);
  await addComment(database.pool, post, cleo);
  const [likeId, commentId] = await bury(2);
  const { config } = batches;
  expect(await deadLetters(client, config, {})).toEqual([likeId, commentId]);
  expect(await deadLetters(client, config, { type: 'comment' })).toEqual([commentId]);
  expect(await deadLetters(client, config, { object: `post:${post}`, source: 'post_like' })).toEqual([likeId]);
  expect((await retry({ type: 'comment' })).counts.processed).toBe(1);
  expect(await deadLetters(client, config, {})).toEqual([likeId]);
});

it('is due by itself after a while, that grows, and not for ever', async () => {
  await like(database.pool, bo, post);
  const ids = await bury();
  const age = (attempts: number, interval: string) =>
    client.query('update belfry.dead_event set attempts = $1, failed_at = clock_timestamp() - $2::interval', [
      attempts,
      interval,
    ]);
  expect(await dueRetries(client, 10)).toEqual([]);
  await age(1, '31 s');
  expect(await dueRetries(client, 10)).toEqual(ids);
  await age(2, '31 s');
  expect(await dueRetries(client, 10)).toEqual([]);
  await age(2, '121 s');
  expect(await dueRetries(client, 10)).toEqual(ids);
  await age(8, '30 days');
  expect(await dueRetries(client, 10)).toEqual([]);
});
