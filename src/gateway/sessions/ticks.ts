/**
 * The gateway's coarse time: half seconds since this process began.
 *
 * A session holds several times for as long as it lives. As ticks they are small integers, which V8 keeps in the object itself;
 * milliseconds since 1970 would be 16 bytes more each.
 */

export const tickMs = 500;

/** How often the server pings, in seconds. */
export const pingSeconds = 25;

const begunMs = Date.now();

/** The tick that has begun at `ms` since 1970. */
export function ticksAt(ms: number): number {
  return Math.floor((ms - begunMs) / tickMs);
}

/** The first tick that begins at `ms` since 1970 or later. */
export function tickAfter(ms: number): number {
  return Math.ceil((ms - begunMs) / tickMs);
}
