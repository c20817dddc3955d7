/** One question for many, which one of them may spoil: SQL of the config (`visible`, `active`) can fail on a single row. */

/**
 * Does the work for all; where it fails, for each half by itself, one after the other, until those of whom it can't be done stand alone,
 * of whom `failed` is told. Not halved is what `passing` says of the world rather than of a row; then `failed` is told of all. Rejects only
 * with what `failed` throws.
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
