/**
 * Processes a page so that one bad event stops nobody else: a batch that fails is halved until the poison stands alone;
 * it goes to the dead letters with its error, and everything else goes on, in order. So is a batch that takes back more than one
 * transaction should (BatchTooLarge); a single event never is.
 *
 * The cursor moves with every part, so that a crash in between repeats nothing. A TRUNCATE is a part of its own: what
 * came before it is taken back, what comes after it stays.
 */

import type { Cursor } from '../outbox/cursor.js';
import { blame } from './failures.js';
import type { PageEvent } from './plan/resolved.js';

export interface SegmentWork {
  /** Stores and publishes these events and moves the cursor there. */
  process(events: readonly PageEvent[], cursor: Cursor): Promise<void>;
  /** Takes back everything a source brought, and moves the cursor there. */
  truncate(event: PageEvent, cursor: Cursor): Promise<void>;
  /** Sets the event aside and moves the cursor there. */
  bury(event: PageEvent, error: unknown, cursor: Cursor): Promise<void>;
}

/** `cursorAt(id)` is the cursor within the page, `end` the one after it. Throws only errors that no event is to blame for. */
export async function processPage(
  work: SegmentWork,
  events: readonly PageEvent[],
  cursorAt: (id: string) => Cursor,
  end: Cursor,
): Promise<void> {
  let from = 0;
  const cursorAfter = (to: number): Cursor => {
    const last = events[to - 1];
    return to === events.length || last === undefined ? end : cursorAt(last.event.id);
  };
  while (from < events.length) {
    const next = events.findIndex((item, i) => i >= from && isTruncate(item));
    const to = next === -1 ? events.length : next;
    if (to > from) await processPart(work, events, from, to, cursorAfter);
    const truncated = events[to];
    if (truncated !== undefined) await work.truncate(truncated, cursorAfter(to + 1));
    from = to + 1;
  }
}

async function processPart(
  work: SegmentWork,
  events: readonly PageEvent[],
  from: number,
  to: number,
  cursorAfter: (to: number) => Cursor,
): Promise<void> {
  try {
    await work.process(events.slice(from, to), cursorAfter(to));
  } catch (error) {
    if (blame(error) !== 'event') throw error;
    const [only] = events.slice(from, to);
    if (to - from === 1 && only !== undefined) return await work.bury(only, error, cursorAfter(to));
    const middle = from + ((to - from) >> 1);
    await processPart(work, events, from, middle, cursorAfter);
    await processPart(work, events, middle, to, cursorAfter);
  }
}

function isTruncate(item: PageEvent): boolean {
  return item.kind === 'other' && item.event.op === 'truncated';
}
