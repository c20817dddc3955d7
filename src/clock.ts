/** The present in ms since 1970, with fractions: fine enough to time what happens within a process, and comparable between processes. */
export function nowMs(): number {
  return performance.timeOrigin + performance.now();
}
