/** The test rig itself: databases that are apart from each other, and a proxy that is silent when told to. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { connect } from '../../src/postgres/connect.js';
import { launchBrowser } from './browser.js';
import { createTestDatabase, locksAwaited, type TestDatabase, withPort } from './postgres.js';
import { startProxy } from './proxy.js';
import { addPost, addUsers, like, socialSql } from './social.js';

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase({ prepare: socialSql });
});
afterAll(() => db.drop());

test('a test database has schema belfry and the social app', async () => {
  const [ada = '', bob = ''] = await addUsers(db.pool, 'Ada', 'Bob');
  await like(db.pool, bob, await addPost(db.pool, ada));
  const { rows } = await db.pool.query(
    `select u.full_name as name, (select count(*)::int from belfry.outbox) as events from likes l join users u on u.id = l.user_id`,
  );
  expect(rows).toEqual([{ name: 'Bob', events: 0 }]);
});

test('an empty test database has nothing in it', async () => {
  const empty = await createTestDatabase({ template: 'empty' });
  const { rows } = await empty.pool.query(`select to_regnamespace('belfry') as belfry`);
  await empty.drop();
  expect(rows).toEqual([{ belfry: null }]);
});

test('a lock that somebody waits for in another database is not taken for one of this', async () => {
  const other = await createTestDatabase({ template: 'empty' });
  const [holder, waiter] = [await other.client(), await other.client()];
  await other.pool.query('create table held ()');
  await holder.query('begin; lock table held');
  const waiting = waiter.query('select from held');
  await expect.poll(() => locksAwaited(other.pool, 'relation'), { timeout: 10_000 }).toBe(1);
  expect(await locksAwaited(db.pool, 'relation')).toBe(0);
  await holder.query('rollback');
  await waiting;
  await other.drop();
});

test('the proxy passes, goes silent without closing, and passes what it held back', async () => {
  const { hostname, port } = new URL(db.url);
  const proxy = await startProxy({ host: hostname, port: Number(port) });
  const client = await connect(withPort(db.url, proxy.port), { applicationName: 'proxied' });
  let closed = false;
  client.on('end', () => (closed = true));
  expect((await client.query('select 1 as one')).rows).toEqual([{ one: 1 }]);

  proxy.pause();
  const answer = client.query('select 2 as two');
  const first = await Promise.race([answer, new Promise((resolve) => setTimeout(resolve, 200, 'silence'))]);
  expect(first).toBe('silence');
  expect(closed).toBe(false);
  proxy.resume();
  expect((await answer).rows).toEqual([{ two: 2 }]);

  proxy.delay(100);
  const before = performance.now();
  await client.query('select 3');
  expect(performance.now() - before).toBeGreaterThanOrEqual(190);
  proxy.delay(0);

  proxy.reset();
  await expect(client.query('select 4')).rejects.toThrow();
  expect(proxy.connections).toBe(0);
  await proxy.close();
});

test('a browser opens a page', async () => {
  const browser = await launchBrowser();
  const page = await browser.newPage();
  await page.setContent('<span>hello</span>');
  expect(await page.textContent('span')).toBe('hello');
  // Without any font the letters have no width.
  expect((await page.locator('span').boundingBox())?.width).toBeGreaterThan(10);
  await browser.close();
}, 60_000);
