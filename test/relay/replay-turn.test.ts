/** What is processed live between the reading of a replay and its turn to store: what the replay stores holds then. */

import type pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { MemoryBroker } from '../../src/broker/memory.js';
import { installCapture } from '../../src/capture/install.js';
import { createLogger } from '../../src/log.js';
import { createMetrics } from '../../src/metrics.js';
import { Relay } from '../../src/relay/relay.js';
import { readJob, requestJob } from '../../src/relay/replay/jobs.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { addComment, addPost, addUsers, block, like, socialConfig, socialSql, unlike } from '../support/social.js';
import { startBatches } from './batches.js';
import type { Batches } from './batches.js';

let database: TestDatabase;
let client: pg.Client;
let batches: Batches;
let ada: string, bo: string, cleo: string, post: string;
let since: Date;

beforeAll(async () => {
  database = await createTestDatabase({ prepare: socialSql });
  client = await database.client();
  batches = await startBatches(database, socialConfig(database.url));
  await installCapture(client, batches.config);
});
beforeEach(async () => {
  [ada = '', bo = '', cleo = ''] = await addUsers(database.pool, 'Ada', 'Bo', 'Cleo');
  post = await addPost(database.pool, ada);
  await batches.run();
  since = (await client.query<{ now: Date }>('select clock_timestamp() as now')).rows[0]?.now ?? new Date();
});
afterAll(async () => {
  await batches.stop();
  await database.drop();
});

const inbox = async () => (await batches.inbox.list(ada, { limit: 100, before: null, state: null })).items;

/** What was processed is lost, as if the rules of then had kept it back. */
async function forget(): Promise<void> {
  await batches.run();
  await client.query('delete from belfry.notification_event where user_id = $1', [ada]);
  await client.query('delete from belfry.notification where user_id = $1', [ada]);
}

async function live(change: () => Promise<unknown>): Promise<void> {
  await change();
  await batches.run();
}

describe.each([
  ['beside live traffic', true],
  ['while nothing happens', false],
])('a replay %s', (_, busy) => {
  it('does not deliver what was undone', async () => {
    await like(database.pool, bo, post);
    await like(database.pool, cleo, post);
    await forget();
    const counts = await batches.replay(
      'deliver',
      { since },
      busy,
      once(() => live(() => unlike(database.pool, bo, post))),
    );
    expect(counts).toMatchObject({ processed: 2, delivered: 1 });
    expect(await inbox()).toMatchObject([{ user_id: cleo, data: { actor_count: 1 } }]);
  });

  it('does not deliver what comes from somebody who was blocked', async () => {
    await addComment(database.pool, post, bo);
    await addComment(database.pool, post, cleo);
    await forget();
    const counts = await batches.replay(
      'deliver',
      { since },
      busy,
      once(() => live(() => block(database.pool, ada, bo))),
    );
    expect(counts).toMatchObject({ delivered: 1, suppressed: 1 });
    expect(await inbox()).toMatchObject([{ user_id: cleo }]);
  });

  it('delivers what was edited meanwhile, once', async () => {
    const comment = await addComment(database.pool, post, bo);
    await forget();
    const edit = () => client.query(`update comments set content = 'edited' where id = $1`, [comment]);
    const counts = await batches.replay(
      'deliver',
      { since },
      busy,
      once(() => live(edit)),
    );
    expect(counts).toMatchObject({ delivered: 1 });
    expect(await inbox()).toHaveLength(1);
  });

  it('that rebuilds does not take back what was done again', async () => {
    await like(database.pool, bo, post);
    await batches.run();
    await client.query(`begin; set local belfry.capture = 'off'`);
    await unlike(client, bo, post);
    await client.query('commit');
    await batches.replay(
      'rebuild',
      { since },
      busy,
      once(() => live(() => like(database.pool, bo, post))),
    );
    expect(await inbox()).toMatchObject([{ user_id: bo }]);
  });
});

it('an inbox that was rebuilt is counted anew in a turn, with what came until then', async () => {
  await like(database.pool, bo, post);
  await batches.run();
  await client.query('update belfry.notification set event_count = 7, actor_count = 7 where user_id = $1', [ada]);
  // Nothing of it has to be stored, so there is no other turn.
  const counts = await batches.replay(
    'rebuild',
    { since, user: ada },
    true,
    once(() => live(() => like(database.pool, cleo, post))),
  );
  expect(counts).toMatchObject({ processed: 1, already: 1 });
  expect(await inbox()).toMatchObject([
    { data: { event_count: 2, actor_count: 2, actors: [{ id: cleo }, { id: bo }] } },
  ]);
});

it('a dead letter is not delivered that was undone while it was tried again', async () => {
  await like(database.pool, bo, post);
  await client.query(
    `insert into belfry.dead_event (event_id, source, op, new, old, event_at, sqlstate, error)
     select id, source, op, new, old, at, '22000', 'poison' from belfry.outbox order by id desc limit 1`,
  );
  await client.query('update belfry.relay set seen = pg_current_snapshot()');
  const counts = await batches.retry(once(() => live(() => unlike(database.pool, bo, post))));
  expect(counts).toMatchObject({ processed: 1, delivered: 0, failed: 0 });
  expect(await inbox()).toEqual([]);
});

it('a table that cannot be read in the turn is left until later, and the relay does not wait for it', async () => {
  await like(database.pool, bo, post);
  await forget();
  const blocker = await database.client();
  const alter = async (): Promise<void> => {
    await live(() => unlike(database.pool, bo, post));
    await blocker.query('begin; lock table likes in access exclusive mode');
  };
  await expect(batches.replay('deliver', { since }, true, once(alter))).rejects.toMatchObject({ code: '55P03' });
  await blocker.query('rollback');
});

it('a relay knows what it did since the page was read', async () => {
  await like(database.pool, bo, post);
  await forget();
  // Nobody may move the heads of streams: a live event is stuck, and the replay waits behind it for its turn.
  const holder = await database.client();
  await holder.query('begin; lock table belfry.head in share row exclusive mode');
  const log = createLogger({ level: 'silent', name: 'test' });
  const { config } = batches;
  const relay = new Relay({ config, broker: new MemoryBroker(), log, metrics: createMetrics().relay });
  await relay.start();
  try {
    await addComment(database.pool, post, cleo);
    await waiting('belfry writer');
    const id = await requestJob(client, {
      mode: 'deliver',
      filter: { since, source: 'post_like' },
      rate: null,
      mapping: null,
    });
    // It asked about people, which comes after reading.
    await expect
      .poll(
        async () =>
          (
            await client.query(
              `select from pg_stat_activity where application_name = 'belfry replay' and datname = current_database()
                  and state = 'idle' and query like '%as people,%'`,
            )
          ).rowCount,
        { timeout: 20_000 },
      )
      .toBeGreaterThan(0);
    await unlike(database.pool, bo, post);
    await holder.query('rollback');
    await expect.poll(async () => (await readJob(client, id))?.state, { timeout: 20_000 }).toBe('done');
    expect((await readJob(client, id))?.counts).toMatchObject({ processed: 1, delivered: 0 });
    expect(await inbox()).toMatchObject([{ type: 'comment' }]);
  } finally {
    await holder.query('rollback');
    await relay.stop();
  }
});

async function waiting(applicationName: string): Promise<void> {
  const count = async () =>
    (
      await client.query(
        `select from pg_stat_activity where application_name = $1 and datname = current_database() and wait_event_type = 'Lock'`,
        [applicationName],
      )
    ).rowCount;
  await expect.poll(count, { timeout: 20_000 }).toBeGreaterThan(0);
}

/** What happens before the first turn only. */
function once(happens: () => Promise<void>): () => Promise<void> {
  let happened = false;
  return async () => {
    if (happened) return;
    happened = true;
    await happens();
  };
}
