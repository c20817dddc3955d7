/** One question for many, which one of them may spoil: SQL of the config (`visible`, `active`) can fail on a single row. */

import { isOutage } from './problem.js';

/**
 * Does the work for all; where it fails, and not for want of Postgres, for each half by itself, one after the other, until those of whom
 * it can't be done stand alone. `failed` is told of these, or of all where Postgres is away; never rejects.
 */
export async function inHalves<T>(
  all: readonly T[],
  work: (some: readonly T[]) => Promise<void>,
  failed: (some: readonly T[], error: unknown) => void,
): Promise<void> {
  try {
    await work(all);
  } catch (error) {
    if (all.length === 1 || isOutage(error)) return failed(all, error);
    const middle = all.length >> 1;
    await inHalves(all.slice(0, middle), work, failed);
    await inHalves(all.slice(middle), work, failed);
  }
}
