/** Days and retention are beside the reading: events pass while they wait. */

import type pg from 'pg';
import pino from 'pino';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { MemoryBroker } from '../../src/broker/memory.js';
import { parseConfig } from '../../src/config.js';
import { createMetrics } from '../../src/metrics.js';
import { outboxDays } from '../../src/outbox/partitions.js';
import { Relay } from '../../src/relay/relay.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { addUsers, socialConfig, socialSql } from '../support/social.js';

const patience = { timeout: 20_000 };
let database: TestDatabase;
let client: pg.Client;

beforeAll(async () => {
  database = await createTestDatabase({ prepare: socialSql });
  client = await database.client();
});
afterAll(() => database.drop());

async function withRelay(work: () => Promise<void>): Promise<void> {
  const relay = new Relay({
    config: parseConfig(socialConfig(database.url), {}, { path: 'test.yaml' }),
    broker: new MemoryBroker(),
    log: pino({ level: 'silent' }),
    metrics: createMetrics().relay,
  });
  await relay.start();
  try {
    await work();
  } finally {
    await relay.stop();
  }
}

it('a week of days is made when a term begins', async () => {
  const days = async () => (await outboxDays(client)).filter(({ until }) => until !== null).length;
  // In the last minute of a day the next one counts as begun.
  await withRelay(() => expect.poll(days, patience).toBeGreaterThanOrEqual(6));
});

it('events are read while old ones wait to be deleted', async () => {
  await client.query(
    `insert into belfry.outbox (at, source, op) values (clock_timestamp() - interval '30 days', 'test', 'created')`,
  );
  await client.query('update belfry.relay set seen = pg_current_snapshot()');
  await client.query('begin; select from belfry.outbox_default for update');
  const [ada = ''] = await addUsers(database.pool, 'Ada');
  await withRelay(async () => {
    await database.pool.query(`select belfry.notify($1, 'system', 'hello')`, [ada]);
    const heard = () => database.pool.query('select from belfry.notification where user_id = $1', [ada]);
    await expect
      .poll(async () => (await heard()).rowCount, patience)
      .toBe(1)
      .finally(() => client.query('rollback'));
  });
});
