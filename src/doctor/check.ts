/** What the doctor says of one thing that can be wrong: how bad it is, what it is, and what to do. */

export type Level = 'ok' | 'warn' | 'fail';

export interface Check {
  /** A word or two, stable: for scripts that look for one. */
  readonly name: string;
  /** fail: something does not work or is not safe. warn: it works, but not as it should, or not for long. */
  readonly level: Level;
  /** What was found. */
  readonly detail: string;
  /** What to do; null when nothing needs doing. */
  readonly cure: string | null;
}

export function ok(name: string, detail: string): Check {
  return { name, level: 'ok', detail, cure: null };
}

export function warn(name: string, detail: string, cure: string): Check {
  return { name, level: 'warn', detail, cure };
}

export function fail(name: string, detail: string, cure: string): Check {
  return { name, level: 'fail', detail, cure };
}

/** A list for people: at most `most` of the things, and how many more there are. */
export function several(things: readonly string[], most = 5): string {
  const shown = things.slice(0, most).join('; ');
  return things.length <= most ? shown : `${shown}; and ${String(things.length - most)} more`;
}

/** A duration in the largest unit that fits. */
export function spoken(seconds: number): string {
  if (seconds < 120) return `${String(Math.round(seconds))} s`;
  if (seconds < 7_200) return `${String(Math.round(seconds / 60))} min`;
  return seconds < 172_800
    ? `${String(Math.round(seconds / 3_600))} h`
    : `${String(Math.round(seconds / 86_400))} days`;
}
