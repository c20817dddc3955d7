/** Work for many at once that a single one can make fail: SQL of the config (`visible`, `active`) may fail on one row. */

/**
 * Does the work for all; where it fails, for each half by itself, and so on, until those for whom it can't be done stand alone: `failed` is
 * called with each. An error that `passing` tells to be no row's fault (a lost connection) is not halved: `failed` is called with all.
 * Rejects only with what `failed` throws.
 */
export async function inHalves<T>(
  all: readonly T[],
  passing: (error: unknown) => boolean,
  work: (some: readonly T[]) => Promise<void>,
  failed: (some: readonly T[], error: unknown) => void | Promise<void>,
): Promise<void> {
  try {
    await work(all);
  } catch (error) {
    if (all.length <= 1 || passing(error)) return await failed(all, error);
    const middle = all.length >> 1;
    await inHalves(all.slice(0, middle), passing, work, failed);
    await inHalves(all.slice(middle), passing, work, failed);
  }
}
