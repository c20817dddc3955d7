/** An outbox that has been read is left alone, however its last page ended; and one bad event does not make others be read again and again. */

import { afterEach, expect, it, onTestFinished, vi } from 'vitest';
import { parse } from 'yaml';
import { installCapture } from '../../src/capture/install.js';
import { parseConfig } from '../../src/config.js';
import { OutboxReader } from '../../src/outbox/reader.js';
import type { Page } from '../../src/outbox/reader.js';
import { Sleeper } from '../../src/outbox/sleeper.js';
import { createTestDatabase } from '../support/postgres.js';
import { addPost, addUsers, socialConfig, socialSql } from '../support/social.js';
import { leadingRig } from './leading.js';
import { withRelay } from './with-relay.js';

afterEach(() => vi.restoreAllMocks());

// 50 events fill a small page (outbox/reader.ts).
it.each([49, 50])('%i events of one transaction', { timeout: 60_000 }, async (count) => {
  const database = await createTestDatabase({ prepare: socialSql });
  onTestFinished(() => database.drop());
  await installCapture(await database.client(), parseConfig(socialConfig(database.url), {}, { path: 'test.yaml' }));
  const [ada = '', ...fans] = await addUsers(
    database.pool,
    ...Array.from({ length: count + 1 }, (_, i) => `Fan ${String(i)}`),
  );
  const post = await addPost(database.pool, ada);
  const asleep = vi.fn();
  await withRelay(
    database.url,
    async () => {
      await expect.poll(() => asleep.mock.calls.length, { timeout: 20_000 }).toBeGreaterThan(0);
      await database.pool.query('insert into likes (user_id, post_id) select u, $2 from unnest($1::bigint[]) u', [
        fans,
        post,
      ]);
      const unread = async () =>
        (await database.pool.query<{ events: string }>('select events from belfry.lag')).rows[0]?.events;
      await expect.poll(unread, { timeout: 20_000 }).toBe('0');
      // The window of the group ends, and what that takes is done.
      await new Promise((resolve) => setTimeout(resolve, 6_000));
      const reads = vi.spyOn(OutboxReader.prototype, 'read');
      const locks = vi.spyOn(Sleeper.prototype, 'tryLock');
      await new Promise((resolve) => setTimeout(resolve, 1_500));
      expect(reads.mock.calls.length + locks.mock.calls.length).toBeLessThan(4);
    },
    { observer: { doorbell: (state) => (state === 'asleep' ? asleep() : undefined) } },
  );
});

it('while pages are read event by event nothing is read ahead', { timeout: 60_000 }, async () => {
  const { database, leading } = await leadingRig(socialSql, (url) => {
    const { sources } = parse(socialConfig(url)) as { sources: Record<string, unknown>[] };
    const query = 'select user_id from posts where id = :post_id and 1 / length(body) is not null';
    return socialConfig(url, { sources: [{ ...sources[0], recipient: { query } }] });
  });
  const { pool } = database;
  const [ada = '', ...fans] = await addUsers(pool, ...Array.from({ length: 101 }, (_, i) => `Fan ${String(i)}`));
  const [bad, post] = [await addPost(pool, ada, ''), await addPost(pool, ada)];
  for (const [who, what] of [
    [fans.slice(0, 1), bad],
    [fans.slice(1), post],
  ])
    await pool.query('insert into likes (user_id, post_id) select u, $2 from unnest($1::bigint[]) u', [who, what]);
  const leader = await leading(async () => undefined);
  const read = vi.spyOn(OutboxReader.prototype, 'read');
  const running = leader.run();
  const unread = async () => (await pool.query<{ events: string }>('select events from belfry.lag')).rows[0]?.events;
  await expect.poll(unread, { timeout: 40_000 }).toBe('0');
  leader.stop();
  await running;
  const pages = (
    await Promise.allSettled(read.mock.results.map(({ value }) => value as Promise<Page<never> | null>))
  ).flatMap((page) => (page.status === 'fulfilled' && page.value !== null ? [page.value.count] : []));
  expect((await pool.query('select from belfry.dead_event')).rowCount).toBe(1);
  // Each good event once, by itself.
  expect(pages.reduce((sum, count) => sum + count, 0)).toBe(99);
});
