/** CONTRACT §5: the server pings every `ping_s`; a client that is silent for twice that is gone. Takes two minutes. */

import { afterAll, beforeAll, expect, it } from 'vitest';
import { Raw, startRig, until, type Rig } from './rig.js';

let rig: Rig;
beforeAll(async () => {
  rig = await startRig();
});
afterAll(() => rig.stop());

it('pings every ping_s, and gives up who is silent for twice that', async () => {
  const [user, deaf] = [await Raw.session(rig, await rig.user()), await Raw.session(rig, await rig.user())];
  const pingS = Number(user.auth.ok?.['ping_s']);
  const pings: number[] = [];
  user.socket.on('ping', () => pings.push(Date.now()));
  // Reads nothing, so answers no ping either.
  deaf.socket.pause();
  const began = Date.now();
  const count = async () =>
    ((await (await fetch(`${rig.http}/api/ws/status`)).json()) as { connections: number }).connections;
  await until('the deaf one is gone', async () => (await count()) === 1, (2 * pingS + 15) * 1000);
  expect(Date.now() - began).toBeGreaterThan(1.5 * pingS * 1000);
  await until('a second ping', () => pings.length >= 2, 2 * pingS * 1000);
  expect(Math.abs((pings[1] ?? 0) - (pings[0] ?? 0) - pingS * 1000)).toBeLessThan(6_000);
  expect((await user.ask({ op: 'ping' })).ok).toBeDefined();
  user.end();
}, 180_000);
