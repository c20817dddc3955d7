/** As never-shown.test.ts, with histories that differ each time; a failure prints the seed. */

import fc from 'fast-check';
import { afterAll, beforeAll, describe, it } from 'vitest';
import { installCapture } from '../../src/capture/install.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { socialSql } from '../support/social.js';
import { startBatches } from './batches.js';
import type { Batches } from './batches.js';
import { historyOf, narrowings, play } from './never-shown.js';
import { moreSql, worldConfig } from './world.js';

let database: TestDatabase;
let batches: Batches;

beforeAll(async () => {
  database = await createTestDatabase({ prepare: `${socialSql};${moreSql}` });
  batches = await startBatches(database, worldConfig(database.url));
  await installCapture(await database.client(), batches.config);
});

afterAll(async () => {
  await batches.stop();
  await database.drop();
});

describe('nobody is shown what they must not see, before and after the relay heard of it', () => {
  it.each(narrowings)('%s', { timeout: 600_000 }, async (what) => {
    await fc.assert(
      fc.asyncProperty(historyOf(what), (history) => play(database, batches, history)),
      { numRuns: 60, endOnFailure: true },
    );
  });
});
