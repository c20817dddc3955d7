/**
 * Where a leader's pages come from: read when their turn comes, or ahead while the page before them is stored.
 *
 * What must hold: at most one page is read ahead, and only used where the page before it has ended; what is prepared is judged by facts of
 * the time at which it was read, so what was read ahead is dropped when those have changed. Nothing is lost by that: only storing moves the
 * cursor.
 */

import { nowMs } from '../clock.js';
import type { Cursor } from '../outbox/cursor.js';
import type { OutboxReader, Page } from '../outbox/reader.js';
import type { Preparation } from './batch.js';
import type { ResolvedRow } from './resolved.js';

/** A page that was read, and what could be prepared for it. */
export interface PreparedPage {
  readonly page: Page<ResolvedRow>;
  readonly preparation: Preparation;
  readonly readAtMs: number;
}

/** Live traffic counts as going on for so long after the last event. */
const busyMs = 1_000;

/** What was read behind the storing of a batch, and waited longer than this for something else than that, is read again. */
const mostAgeMs = 1_000;

export class Reading {
  private ahead: {
    readonly cursor: Cursor;
    readonly beside: boolean;
    readonly page: Promise<PreparedPage | null>;
  } | null = null;
  private readAtMs = -Infinity;

  constructor(
    private readonly pages: OutboxReader<ResolvedRow>,
    private readonly prepare: (rows: readonly ResolvedRow[], ahead: boolean) => Preparation,
  ) {}

  /** Whether there was something to read a moment ago. */
  get busy(): boolean {
    return nowMs() - this.readAtMs < busyMs;
  }

  /**
   * The next page after this cursor; null when nothing is unread, or was when it was read ahead: what came since is found by the look
   * that precedes a sleep. Throws what Postgres says of the page.
   */
  async next(cursor: Cursor): Promise<PreparedPage | null> {
    const { ahead } = this;
    this.ahead = null;
    const prepared = await (ahead?.cursor === cursor ? ahead.page : this.page(this.pages, cursor));
    // Something else was done meanwhile: who is gone by now is not known to what was asked before.
    const stale = prepared !== null && ahead?.beside === false && nowMs() - prepared.readAtMs > mostAgeMs;
    return stale ? await this.page(this.pages, cursor) : prepared;
  }

  /** A page by another reader; null when nothing is unread. */
  async page(pages: OutboxReader<ResolvedRow>, cursor: Cursor, ahead = false): Promise<PreparedPage | null> {
    const page = await pages.read(cursor);
    if (page === null) return null;
    this.readAtMs = nowMs();
    return { page, preparation: this.prepare(page.rows, ahead), readAtMs: this.readAtMs };
  }

  /**
   * Begins to read what follows this cursor, for the next `next`, unless that is being done already. `beside`: while what comes before it is
   * still to be stored, not after.
   */
  readAhead(cursor: Cursor, beside: boolean): void {
    if (this.ahead?.cursor === cursor) return;
    const page = this.page(this.pages, cursor, beside);
    // Looked at by `next`; a failure in between is not unhandled.
    page.catch(() => undefined);
    this.ahead = { cursor, beside, page };
  }

  /** Drops what was read ahead: what it was read with has changed. */
  forgetAhead(): void {
    this.ahead = null;
  }
}
