/** A hundred thousand likes of one post: what its owner is pushed, at a rate and all at once, and that nothing is lost of it. */

import { afterAll, beforeAll, expect, it } from 'vitest';
import { MemoryBroker } from '../../src/broker/memory.js';
import { installCapture } from '../../src/capture/install.js';
import { parseConfig } from '../../src/config.js';
import type { Config } from '../../src/config.js';
import { PostgresInbox } from '../../src/inbox/inbox.js';
import { createLogger } from '../../src/log.js';
import { createMetrics } from '../../src/metrics.js';
import { Relay } from '../../src/relay/relay.js';
import { loadColumnTypes } from '../../src/schema/columns.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { addPost, addUsers, socialConfig, socialSql } from '../support/social.js';

const likes = 100_000;
const seconds = 60;
const atOnce = 200;

let database: TestDatabase;
let config: Config;
let relay: Relay;
let owner: string;
/** How many frames each person got. */
const pushes = new Map<string, number>();

beforeAll(async () => {
  database = await createTestDatabase({ prepare: socialSql });
  config = parseConfig(socialConfig(database.url), {}, { path: 'test.yaml' });
  await installCapture(await database.client(), config);
  [owner = ''] = await addUsers(database.pool, 'Ada');
  await database.pool.query(`insert into users (full_name) select 'Fan ' || n from generate_series(1, $1) n`, [likes]);
  const broker = new MemoryBroker();
  broker.subscribe({
    receive: (publications) => {
      for (const { to, ...more } of publications)
        if (to === 'user' && 'userId' in more) pushes.set(more.userId, (pushes.get(more.userId) ?? 0) + 1);
    },
    reconnected: () => undefined,
    hasSessions: () => true,
    hasSubscribers: () => true,
  });
  const log = createLogger({ level: 'silent', name: 'test' });
  relay = new Relay({ config, broker, log, metrics: createMetrics().relay });
  await relay.start();
}, 180_000);

afterAll(async () => {
  await relay.stop();
  await database.drop();
});

/** After the last window: what the list shows of the post, and the pushes since the last call. */
async function outcome(post: string): Promise<{ actors: number; unseen: number; pushed: number }> {
  const settled = async (): Promise<unknown> =>
    (
      await database.pool.query(
        `select actor_count as actors, due_at is null as pushed from belfry.notification where object_id = $1`,
        [post],
      )
    ).rows[0];
  await expect.poll(settled, { timeout: 300_000, interval: 500 }).toEqual({ actors: likes, pushed: true });
  const inbox = new PostgresInbox(database.pool, config, await loadColumnTypes(database.pool, config));
  const { unseen, items } = await inbox.list(owner, { limit: 1, before: null, state: null });
  const [newest] = items as { data: { actor_count: number } }[];
  const pushed = pushes.get(owner) ?? 0;
  pushes.clear();
  await inbox.mark(owner, 'seen', { through: 1_000_000 }, null);
  return { actors: newest?.data.actor_count ?? 0, unseen, pushed };
}

it('in a minute cost their owner at most 25 pushes', { timeout: 600_000 }, async () => {
  const post = await addPost(database.pool, owner);
  const startMs = performance.now();
  for (let from = 0; from < likes; from += atOnce) {
    const dueMs = startMs + (from / likes) * seconds * 1_000;
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, dueMs - performance.now())));
    await database.pool.query(
      'insert into likes select id, $1 from users where id <> $2 order by id offset $3 limit $4',
      [post, owner, from, atOnce],
    );
  }
  const { actors, unseen, pushed } = await outcome(post);
  expect({ actors, unseen }).toEqual({ actors: likes, unseen: 1 });
  expect(pushed).toBeGreaterThan(1);
  expect(pushed).toBeLessThanOrEqual(25);
});

it('by one insert cost a handful', { timeout: 600_000 }, async () => {
  const post = await addPost(database.pool, owner);
  await database.pool.query('insert into likes select id, $1 from users where id <> $2', [post, owner]);
  const { actors, unseen, pushed } = await outcome(post);
  expect({ actors, unseen }).toEqual({ actors: likes, unseen: 1 });
  expect(pushed).toBeLessThanOrEqual(25);
});
