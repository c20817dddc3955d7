/** Waiting with an end: for sockets that may have gone silent, and for retries that must not fall into step. */
import { setTimeout as sleep } from 'node:timers/promises';
import { BelfryError } from '../errors.js';

/**
 * What the promise gives, or `database_unreachable` (retry) when it gives nothing in time. The promise itself goes on; the
 * caller throws its connection away.
 */
export function withDeadline<T>(work: Promise<T>, ms: number, what: string): Promise<T> {
  // A plain timer: an AbortSignal for each makes an error object for each, and this runs a thousand times a second.
  return new Promise<T>((resolve, reject) => {
    const timer = setTimeout(() => {
      const message = `Postgres did not answer within ${ms} ms (${what}).`;
      reject(new BelfryError('database_unreachable', message, { retry: true }));
    }, ms);
    work.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

/** Full jitter: anything from 0 to min(capMs, baseMs · 2^attempt); `attempt` counts from 0. */
export function fullJitterMs(attempt: number, baseMs: number, capMs: number): number {
  return Math.random() * Math.min(capMs, baseMs * 2 ** Math.min(attempt, 30));
}

/** Sleeps, but not beyond the abort; never throws. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => undefined);
}
