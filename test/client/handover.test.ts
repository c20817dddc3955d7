/** A rolling restart with some hundred clients; handover.long.ts is the same with 5,000. */

import { it } from 'vitest';
import { handover } from './handover.js';

it('clients of a process that drains come back to another, are let in at once, and hold exactly their inbox', async () => {
  await handover(200);
}, 600_000);
