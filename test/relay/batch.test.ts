import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { messageOf } from '../../src/errors.js';
import { blame } from '../../src/relay/failures.js';
import { BatchTooLarge } from '../../src/relay/facts/group-facts.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { addPost, addUsers, socialConfig, socialSql } from '../support/social.js';
import { startBatches } from './batches.js';
import type { Batches } from './batches.js';

let database: TestDatabase;
let batches: Batches;
let ada: string, bo: string, cleo: string, post: string;

beforeAll(async () => {
  database = await createTestDatabase({ prepare: socialSql });
  [ada = '', bo = '', cleo = ''] = await addUsers(database.pool, 'Ada', 'Bo', 'Cleo');
  post = await addPost(database.pool, ada);
  batches = await startBatches(database, socialConfig(database.url));
});

afterAll(async () => {
  await batches.stop();
  await database.drop();
});

async function write(source: string, op: string, row: { new?: object; old?: object }): Promise<void> {
  await database.pool.query('insert into belfry.outbox (source, op, new, old) values ($1, $2, $3, $4)', [
    source,
    op,
    row.new ?? null,
    row.old ?? null,
  ]);
}

describe('a batch', () => {
  it('makes a notification of a like, in place for the second, and withdraws it', async () => {
    await write('post_like', 'created', { new: { user_id: Number(bo), post_id: Number(post) } });
    expect(await batches.run()).toBe(1);
    const heard = batches.heard();
    const frames = heard.flatMap((p) => (p.to === 'user' ? [JSON.parse(p.frame) as unknown] : []));
    expect(frames).toMatchObject([
      {
        event: 'notification',
        seq: 1,
        data: { type: 'like', user_id: bo, post_id: post, message: 'Bo liked your post', data: { alert: true } },
      },
    ]);
    expect(heard).toContainEqual(expect.objectContaining({ to: 'counter', data: { post_id: post, likes_count: 1 } }));
    await write('post_like', 'created', { new: { user_id: Number(cleo), post_id: Number(post) } });
    await batches.run();
    expect(batches.heard().filter(({ to }) => to === 'user')).toEqual([]);
    const list = await batches.inbox.list(ada, { limit: 20, before: null, state: null });
    expect(list).toMatchObject({
      unseen: 1,
      items: [{ message: 'Cleo and Bo liked your post', data: { actor_count: 2 } }],
    });
    await write('post_like', 'removed', { old: { user_id: Number(cleo), post_id: Number(post) } });
    await write('post_like', 'removed', { old: { user_id: Number(bo), post_id: Number(post) } });
    await batches.run();
    expect(batches.heard().find(({ to }) => to === 'user')).toMatchObject({
      userId: ada,
      seq: 2,
      frame: expect.stringContaining('"withdrawn"') as string,
    });
    expect(await batches.inbox.list(ada, { limit: 20, before: null, state: null })).toMatchObject({
      unseen: 0,
      items: [],
    });
  });
});

it('a statement of a name that another one has is no fault of an event', async () => {
  const client = await database.client();
  await client.query({ name: 'same', text: 'select 1' });
  const error: unknown = await client.query({ name: 'same', text: 'select 2' }).catch((reason: unknown) => reason);
  expect(messageOf(error)).toMatch(/^Prepared statements must be unique/);
  expect(blame(error)).toBe('connection');
});

it('a batch that takes back too much is halved, as one with an event that is to blame', () => {
  expect(blame(new BatchTooLarge())).toBe('event');
});
