/**
 * What is done with measured numbers.
 *
 * Rates of a shared machine move by up to two times between runs, so a rate says little alone. Things are compared by
 * ratios of two measurements of the same round, and a ratio is the median over the rounds with its smallest and largest.
 */

export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  readonly n: number;
}

/** Median, smallest and largest; throws for an empty list, which would be a bench that measured nothing. */
export function spread(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  const first = sorted[0];
  const last = sorted.at(-1);
  if (first === undefined || last === undefined) throw new Error('spread of no values: nothing was measured');
  return { median: quantile(sorted, 0.5), min: first, max: last, n: sorted.length };
}

/** The value below which the fraction `q` of an ascending list lies, interpolated between neighbours. */
export function quantile(ascending: readonly number[], q: number): number {
  const at = (ascending.length - 1) * q;
  const below = ascending[Math.floor(at)];
  const above = ascending[Math.ceil(at)];
  if (below === undefined || above === undefined) throw new Error('quantile of no values: nothing was measured');
  return below + (above - below) * (at - Math.floor(at));
}

/** Round by round `of[i] / to[i]`; both lists hold one value per round. */
export function pairedRatios(of: readonly number[], to: readonly number[]): number[] {
  if (of.length !== to.length) throw new Error(`unpaired rounds: ${of.length} against ${to.length}`);
  return of.map((value, round) => value / (to[round] ?? Number.NaN));
}

/** The list turned left by `by`, so that no contestant always runs first. */
export function rotated<T>(list: readonly T[], by: number): T[] {
  const at = list.length === 0 ? 0 : by % list.length;
  return [...list.slice(at), ...list.slice(0, at)];
}

/** 18300 → "18.3 k", 950 → "950", 1234567 → "1.23 M". */
export function rate(perSecond: number): string {
  if (perSecond >= 999_500) return `${(perSecond / 1e6).toPrecision(3)} M`;
  if (perSecond >= 999.5) return `${(perSecond / 1000).toFixed(1)} k`;
  return perSecond >= 100 ? perSecond.toFixed(0) : perSecond.toFixed(1);
}

/** "18.3 k (16.0 k – 19.1 k)". */
export function rateSpread(values: readonly number[]): string {
  const { median, min, max } = spread(values);
  return `${rate(median)} (${rate(min)} – ${rate(max)})`;
}

/** "0.93 (0.90 – 0.97)". */
export function numberSpread(values: readonly number[], digits = 2): string {
  const { median, min, max } = spread(values);
  return `${median.toFixed(digits)} (${min.toFixed(digits)} – ${max.toFixed(digits)})`;
}

/** The paired ratios of two lists as text, "–" where there is nothing to compare with. */
export function ratioSpread(of: readonly number[], to: readonly number[]): string {
  return to.length === 0 ? '–' : numberSpread(pairedRatios(of, to));
}
