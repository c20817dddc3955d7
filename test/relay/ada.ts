/**
 * Ada, who owns the post in every case, and those around her: rows in, frames and inbox out, on a real Postgres with real triggers.
 * People and post are new for each case, so that the cases of a file share a database and no history.
 */

import { afterAll, beforeAll, beforeEach } from 'vitest';
import { installCapture } from '../../src/capture/install.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { addPost, addUsers, socialConfig, socialSql } from '../support/social.js';
import { ageWindows } from '../support/windows.js';
import { startBatches } from './batches.js';
import type { Batches } from './batches.js';
import { framesOf } from './world.js';
import type { Frame } from './world.js';

/** Made before the first case of a file. */
export let database: TestDatabase;
export let batches: Batches;
/** Ids; others each case. */
export let ada: string;
export let bo: string;
export let cleo: string;
/** Twelve more. */
export let others: string[];
/** Ada's. */
export let post: string;

/** To be called at the top of a file. */
export function useAda(): void {
  beforeAll(async () => {
    database = await createTestDatabase({ prepare: socialSql });
    batches = await startBatches(database, socialConfig(database.url));
    await installCapture(await database.client(), batches.config);
  });
  beforeEach(async () => {
    [ada = '', bo = '', cleo = '', ...others] = await addUsers(
      database.pool,
      'Ada',
      'Bo',
      'Cleo',
      ...Array.from({ length: 12 }, (_, i) => `Other ${String(i)}`),
    );
    post = await addPost(database.pool, ada);
    await batches.run();
    batches.heard();
  });
  afterAll(async () => {
    await batches.stop();
    await database.drop();
  });
}

/** Processes what was written; the frames that Ada gets. */
export async function heardByAda(): Promise<Frame[]> {
  await batches.run();
  return framesOf(batches.heard(), ada);
}

export const inbox = (userId = ada): ReturnType<Batches['inbox']['list']> =>
  batches.inbox.list(userId, { limit: 100, before: null, state: null });

/** As if Ada's last push had been so long ago. */
export const age = (interval: string): Promise<void> => ageWindows(database.pool, interval, [ada]);
