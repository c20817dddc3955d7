/** Everybody comes back at once, after an outage in which everybody has missed something. */

import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import type { TestDatabase } from '../support/postgres.js';
import { shakeHands, startRig, tokenFor, type Rig } from './support.js';

const people = 400;

let rig: Rig;
let blocker: Awaited<ReturnType<TestDatabase['client']>>;
let epoch: string;
/** How often a connection to Postgres was asked for. */
let asked = 0;

beforeAll(async () => {
  rig = await startRig({ yaml: 'limits: { handshakesPerSecond: 10000, connectionsPerAddress: 10000 }' });
  blocker = await rig.db.client();
  ({ epoch } = (await rig.login('0')).all[0]!.ok as { epoch: string });
  await rig.hangUp();
  for (let person = 1; person <= people; person++) await rig.notification(String(person), `for ${person}`);
  rig.db.pool.on('acquire', () => asked++);
});
afterAll(() => rig.stop());
afterEach(async () => {
  await blocker.query('rollback');
  await rig.hangUp();
});

/** No answer to who comes: their streams are locked. */
const block = (): Promise<unknown> => blocker.query('begin; lock table belfry.head in access exclusive mode');

const waiting = (count: number): Promise<void> =>
  expect.poll(() => rig.gateway.context.people.sessions, { timeout: 20_000, interval: 5 }).toBe(count);

it('each is told what they missed, with a few questions for all', async () => {
  await block();
  const back = Array.from({ length: people }, (_, i) =>
    rig.connect({
      query: `since=0&epoch=${epoch}`,
      ws: { headers: { authorization: `Bearer ${tokenFor(String(i + 1))}` } },
    }),
  );
  await waiting(people);
  asked = 0;
  await blocker.query('rollback');
  for (const [i, client] of (await Promise.all(back)).entries()) {
    expect((await client.push('hello')).data).toMatchObject({ user_id: String(i + 1), seq: 1, recovered: true });
    expect((await client.push('notification')).data).toMatchObject({ message: `for ${i + 1}` });
    await client.push('synced');
  }
  expect(asked).toBeLessThan(people / 10);
});

it('tabs of one person that have missed more or less than each other are each told theirs', async () => {
  for (const message of ['two', 'three']) rig.broker.publish([await rig.notification('1', message)]);
  await block();
  const back = [0, 2, 1, 3, 0, 9].map((since) =>
    rig.connect({
      query: `since=${since}&epoch=${epoch}`,
      ws: { headers: { authorization: `Bearer ${tokenFor('1')}` } },
    }),
  );
  await waiting(back.length);
  await blocker.query('rollback');
  const told = await Promise.all(
    back.map(async (pending) => {
      const client = await pending;
      const { recovered } = (await client.push('hello')).data as { recovered: boolean };
      const frames = await client.until((frame) => frame['event'] === 'synced');
      return [recovered, ...frames.slice(0, -1).map((frame) => frame['seq'])];
    }),
  );
  expect(told).toEqual([[true, 1, 2, 3], [true, 3], [true, 2, 3], [true], [true, 1, 2, 3], [false]]);
});

it('nothing is asked for those who have gone while they waited', async () => {
  await block();
  const gone = Array.from({ length: people }, (_, i) => shakeHands(rig.port, String(i + 1), `?since=0&epoch=${epoch}`));
  await waiting(people);
  // Some are being asked for already; the rest wait for their turn.
  for (const socket of gone) socket.destroy();
  await waiting(0);
  asked = 0;
  await blocker.query('rollback');
  const client = await rig.login('2', { since: 0, epoch });
  expect((await client.request({ op: 'ping' })).ok).toEqual({});
  // For the one who is there: where they stand, what they missed, and the channel of all; four more with those who have gone.
  expect(asked).toBeLessThanOrEqual(3);
});
