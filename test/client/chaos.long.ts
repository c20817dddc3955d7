/** Two hundred clients on bad networks, 500 events a second for a minute. */

import { afterAll, beforeAll, expect, it } from 'vitest';
import { chaos } from './chaos.js';
import { startRunning, type Running } from './running.js';

let running: Running;
beforeAll(async () => {
  running = await startRunning();
});
afterAll(() => running?.stop());

it('everybody holds exactly their inbox, nothing twice, nothing out of order, what is lost is announced', async () => {
  const result = await chaos(running, { people: 200, eventsPerSecond: 500, seconds: 60 });
  process.stdout.write(`${JSON.stringify(result)}\n`);
  expect(result.written).toBe(30_000);
  expect(result.reconnects).toBeGreaterThan(1000);
}, 600_000);
