/** What Prometheus hears of a relay: of a leader what is so, of one that stands by nothing that was so once. */

import type pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createMetrics } from '../../src/metrics.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { socialSql } from '../support/social.js';
import { withRelay } from './with-relay.js';

const patience = { timeout: 12_000, interval: 20 };
let database: TestDatabase;
let client: pg.Client;
beforeAll(async () => {
  database = await createTestDatabase({ prepare: socialSql });
  client = await database.client();
});
afterAll(() => database.drop());

/** `shows`: the sum of a metric over its labels, as Prometheus gets it; `asleep`: its sleeps so far. */
async function watched(
  work: (relay: { shows(name: string): Promise<number>; asleep(): number }) => Promise<void>,
): Promise<void> {
  const metrics = createMetrics();
  let sleeps = 0;
  const shows = async (name: string): Promise<number> => {
    const text = await metrics.registry.getSingleMetricAsString(`belfry_relay_${name}`);
    const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
  };
  await withRelay(database.url, () => work({ shows, asleep: () => sleeps }), {
    metrics: metrics.relay,
    observer: { doorbell: (state) => void (sleeps += state === 'asleep' ? 1 : 0) },
  });
}

it('rings and sleeps are counted', async () => {
  await watched(async ({ shows, asleep }) => {
    await expect.poll(asleep, patience).toBeGreaterThan(0);
    expect(await shows('doorbell_rings_total')).toBe(0);
    await client.query(`select belfry.notify('1', 'system', 'hello')`);
    await expect.poll(() => shows('doorbell_rings_total'), patience).toBe(1);
    await expect.poll(asleep, patience).toBeGreaterThan(1);
    expect(await shows('doorbell_sleeps_total')).toBe(asleep());
  });
});

it('a relay that has lost its lease shows nothing that only a leader measures', async () => {
  // Paused, with something unread and a dead letter; and no trigger is there yet.
  await client.query(`
    update belfry.relay set paused = true;
    select belfry.notify('1', 'system', 'unread');
    insert into belfry.dead_event (event_id, source, op, event_at, error, attempts)
    values (1, 'post_like', 'created', now(), 'poison', 99)`);
  const gauges = ['lag_seconds', 'dead_letters', 'dead_letters_waiting', 'replays', 'capture_problems'];
  await watched(async ({ shows }) => {
    for (const name of ['leader', 'lag_seconds', 'dead_letters', 'capture_problems'])
      await expect.poll(() => shows(name), { ...patience, message: name }).toBeGreaterThan(0);
    await client.query(
      `update belfry.relay set term = term + 1, leader = 'another', lease_until = clock_timestamp() + interval '1 minute'`,
    );
    await expect.poll(() => shows('leader'), patience).toBe(0);
    expect(await Promise.all(gauges.map(shows))).toEqual(gauges.map(() => 0));
    await client.query('update belfry.relay set lease_until = clock_timestamp()');
  });
});
