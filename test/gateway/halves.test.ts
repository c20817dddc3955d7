/** One person of whom nothing can be asked, since the SQL of the config fails on a row of theirs, spoils nobody else's evening. */

import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import type { TestDatabase } from '../support/postgres.js';
import { startRig, tokenFor, type Rig } from './support.js';

const people = 20;
/** Whoever was liked by them cannot be counted. */
const dividedByZero = 4242;
const poisoned = '7';

let rig: Rig;
let blocker: Awaited<ReturnType<TestDatabase['client']>>;
let epoch: string;

beforeAll(async () => {
  rig = await startRig({
    sql: `insert into users (id, full_name) overriding system value values (${dividedByZero}, 'Zero')`,
    change: (config) => ({
      ...config,
      people: config.people === null ? null : { ...config.people, active: `1 / (id - ${dividedByZero}) is not null` },
    }),
  });
  blocker = await rig.db.client();
  ({ epoch } = (await rig.login('0')).all[0]!.ok as { epoch: string });
  await rig.hangUp();
  for (let person = 1; person <= people; person++) await rig.notification(String(person), `for ${person}`);
});
afterAll(() => rig.stop());
afterEach(async () => {
  await cure();
  await rig.hangUp();
});

const poison = (): Promise<unknown> =>
  rig.db.pool.query(`update belfry.notification set actors = array[$2], actor_count = 1 where user_id = $1`, [
    poisoned,
    String(dividedByZero),
  ]);
const cure = (): Promise<unknown> =>
  rig.db.pool.query(`update belfry.notification set actors = '{}', actor_count = 0 where user_id = $1`, [poisoned]);

const everybody = Array.from({ length: people }, (_, i) => String(i + 1));
const others = everybody.filter((userId) => userId !== poisoned);

it.each([undefined, 0])('who comes with it is let in, since: %s', async (since) => {
  await poison();
  await blocker.query('begin; lock table belfry.head in access exclusive mode');
  const query = since === undefined ? '' : `since=${since}&epoch=${epoch}`;
  const back = everybody.map((userId) =>
    rig.connect({ query, ws: { headers: { authorization: `Bearer ${tokenFor(userId)}` } } }),
  );
  await expect.poll(() => rig.gateway.context.people.sessions, { timeout: 20_000, interval: 5 }).toBe(people);
  await blocker.query('rollback');
  for (const [i, pending] of back.entries()) {
    const client = await pending;
    if (everybody[i] === poisoned) expect((await client.closed).code).toBe(1013);
    else {
      expect((await client.push('hello')).data).toMatchObject({ user_id: everybody[i], unseen: 1 });
      if (since === 0) await client.push('notification');
      await client.push('synced');
    }
  }
});

it('whose numbers change with it are told, and it is counted when that is possible again', async () => {
  const clients = new Map<string, Awaited<ReturnType<Rig['login']>>>();
  for (const userId of everybody) clients.set(userId, await rig.login(userId));
  await poison();
  const publications = [];
  for (const userId of everybody) publications.push(await rig.notification(userId), { to: 'badge', userId } as const);
  rig.broker.publish(publications);
  for (const userId of others)
    expect((await clients.get(userId)!.push('badge')).data).toEqual({ unseen: 2, unread: 2 });
  await cure();
  expect((await clients.get(poisoned)!.push('badge')).data).toEqual({ unseen: 2, unread: 2 });
});

it('what others missed with it is fetched for them, and for it when that is possible again', async () => {
  const clients = new Map<string, Awaited<ReturnType<Rig['login']>>>();
  for (const userId of everybody) clients.set(userId, await rig.login(userId));
  await poison();
  // The first is lost on the way, so that the second shows it.
  const second = [];
  for (const userId of everybody) {
    await rig.notification(userId, 'lost');
    second.push(await rig.notification(userId, 'found'));
  }
  await rig.db.pool.query(
    `update belfry.notification set actors = array[$2], actor_count = 1 where user_id = $1 and message = 'lost'`,
    [poisoned, String(dividedByZero)],
  );
  rig.broker.publish(second);
  for (const userId of others)
    for (const message of ['lost', 'found'])
      expect((await clients.get(userId)!.push('notification')).data).toMatchObject({ message });
  await cure();
  for (const message of ['lost', 'found'])
    expect((await clients.get(poisoned)!.push('notification')).data).toMatchObject({ message });
});

it('what fails for everybody is not asked again for each', async () => {
  const clients = [];
  for (const userId of others) clients.push(await rig.login(userId));
  for (const userId of others) await rig.notification(userId);
  await rig.db.pool.query('alter table users rename to others');
  const asked = (): Promise<number> => rig.metric('belfry_gateway_badge_queries_total');
  const before = await asked();
  rig.broker.publish(others.map((userId) => ({ to: 'badge', userId }) as const));
  // Tried again after a second, all together.
  await expect.poll(asked, { timeout: 5_000 }).toBeGreaterThan(before + 1);
  expect(await asked()).toBeLessThan(before + 4);
  await rig.db.pool.query('alter table others rename to users');
  for (const client of clients) await client.push('badge');
});
