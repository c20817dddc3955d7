/** Two hundred clients on bad networks for some seconds; chaos.long.ts is the same for a minute under full load. */

import { afterAll, beforeAll, expect, it } from 'vitest';
import { chaos } from './chaos.js';
import { startRunning, type Running } from './running.js';

let running: Running;
beforeAll(async () => {
  running = await startRunning();
});
afterAll(() => running?.stop());

it('everybody holds exactly their inbox, nothing twice, nothing out of order, what is lost is announced', async () => {
  const result = await chaos(running, { people: 200, eventsPerSecond: 150, seconds: 4 });
  expect(result.reconnects).toBeGreaterThan(50);
  for (const count of Object.values(result.mangled)) expect(count).toBeGreaterThan(0);
}, 300_000);
