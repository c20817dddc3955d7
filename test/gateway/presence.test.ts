/** What a session watches for presence, and for how long. Who sees whom is in channels.test.ts. */

import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { addUsers, follow } from '../support/social.js';
import { startRig, type Rig } from './support.js';

let rig: Rig;
beforeAll(async () => {
  rig = await startRig({
    yaml: `presence: { read: "select from public.follows where follower_id = :user and followed_id = :other" }`,
  });
});
afterEach(() => rig.hangUp());
afterAll(() => rig.stop());

const watching = (): number => rig.gateway.context.presence.watching.size;

it('nothing where it has gone before its question was answered', async () => {
  const [ada = '', bo = ''] = await addUsers(rig.db.pool, 'Ada', 'Bo');
  await follow(rig.db.pool, ada, bo);
  const holder = await rig.db.client();
  await holder.query('begin; lock table public.follows in access exclusive mode');
  const client = await rig.login(ada);
  const [session] = rig.gateway.context.sessions.all;
  client.send({ id: 1, op: 'presence', users: [ada, bo] });
  await expect.poll(() => session?.busy).toBe(true);
  await rig.hangUp();
  await holder.query('commit');
  await expect.poll(() => session?.busy).toBe(false);
  expect(watching()).toBe(0);
});
