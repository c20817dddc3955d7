/**
 * Reading event by event, for a page that can't be read because a value of one of its events is in the way: the statement that failed does
 * not say of which.
 *
 * What must hold: only the event that fails is set aside. What is committed meanwhile may stand before it, and is read in its turn.
 */

import type pg from 'pg';
import { advance, endOfDelta, pageQuery } from '../outbox/cursor.js';
import type { Cursor } from '../outbox/cursor.js';
import { blame } from './failures.js';
import type { PreparedPage } from './reading.js';

export interface CarefulWork {
  /** Session OutboxReader.session. */
  readonly reader: pg.Client;
  /** False once the term is over or ends. */
  goesOn(): boolean;
  cursor(): Cursor;
  /** The next event alone, null when nothing is unread. Throws what Postgres says of it. */
  next(): Promise<PreparedPage | null>;
  /** Stores it, and moves the cursor. */
  process(single: PreparedPage): Promise<void>;
  /** Throws what Postgres says of this event. */
  resolve(eventId: string): Promise<unknown>;
  /** Sets it aside, and moves the cursor. */
  bury(eventId: string, error: unknown, cursor: Cursor): Promise<void>;
}

/** At most so many events, as a page has. Throws only what no event is to blame for. */
export async function readCarefully(work: CarefulWork, most: number): Promise<void> {
  let passed: string | null = null;
  for (let i = 0; i < most && work.goesOn(); i++) {
    try {
      const single = await work.next();
      if (single === null) return;
      await work.process(single);
    } catch (error) {
      if (blame(error) !== 'event') throw error;
      const next = await nextUnread(work.reader, work.cursor());
      if (next === null) return;
      // One that was committed before it since: nothing is wrong with that one, and it is read now.
      if (next.id !== passed && (await resolves(work, next.id))) passed = next.id;
      else await work.bury(next.id, error, next.cursor);
    }
  }
}

async function resolves(work: CarefulWork, eventId: string): Promise<boolean> {
  try {
    await work.resolve(eventId);
    return true;
  } catch (error) {
    if (blame(error) !== 'event') throw error;
    return false;
  }
}

/** The next unread event, unresolved, and the cursor behind it; null when nothing is unread. */
async function nextUnread(
  reader: pg.ClientBase,
  cursor: Cursor,
): Promise<{ readonly id: string; readonly cursor: Cursor } | null> {
  const query = pageQuery(cursor, 1);
  const { rows } = await reader.query<{ id: string; target: string }>(
    `with page as materialized (${query.text}) select id::text, pg_current_snapshot()::text as target from page`,
    [...query.values],
  );
  const row = rows[0];
  // The end of a delta says nothing about what was committed after it.
  if (row === undefined) return cursor.target === null ? null : await nextUnread(reader, endOfDelta(cursor));
  return { id: row.id, cursor: advance(cursor, { count: 1, limit: 1, lastId: row.id, snapshot: row.target }) };
}
