/** Many thousand interleavings of writers and a relay that keeps falling asleep; minutes. The small version is in test/outbox. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { interleave } from '../outbox/interleave.js';
import { createTestDatabase, type TestDatabase } from '../support/postgres.js';

let database: TestDatabase;
beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(() => database.drop());

test.each([1, 2, 5])(
  '%i writers: none lost, none twice, none that only the safety poll found',
  { timeout: 300_000 },
  async (writers) => {
    for (let seed = 1; seed <= 4; seed += 1) {
      const result = await interleave(database, { rounds: 2_000, writers, seed });
      expect(result.lost).toEqual([]);
      expect(result.twice).toEqual([]);
      expect(result.counters.safetyWakes).toBe(0);
      expect(result.slowestMs).toBeLessThan(1_000);
    }
  },
);
