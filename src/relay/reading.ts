/**
 * Where a leader's pages come from: read when their turn comes, or ahead, while the page before is stored.
 *
 * What must hold: at most one page is read ahead, and it is used only if it begins where the stored cursor stands. It is judged by facts of
 * the time at which it was read, so it is dropped when those have changed. Nothing is lost by that: only storing moves the cursor.
 */

import { nowMs } from '../clock.js';
import type { Cursor } from '../outbox/cursor.js';
import type { OutboxReader, Page } from '../outbox/reader.js';
import type { Preparation } from './batch.js';
import type { ResolvedRow } from './plan/resolved.js';

/** A page that was read, and what could be prepared for it. */
export interface PreparedPage {
  readonly page: Page<ResolvedRow>;
  readonly preparation: Preparation;
  readonly readAtMs: number;
}

/** How long after its last event live traffic counts as going on. */
const busyMs = 1_000;

/** A page that was read behind a batch, and had to wait longer than this since, is read again. */
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
   * The next page after this cursor. Null when nothing is unread, or nothing was when it was read ahead: what came since then is found by
   * the look that precedes a sleep. Throws what Postgres says of the page.
   */
  async next(cursor: Cursor): Promise<PreparedPage | null> {
    const { ahead } = this;
    this.ahead = null;
    const prepared = await (ahead?.cursor === cursor ? ahead.page : this.page(this.pages, cursor));
    // Other work came between: the facts of then do not know who is gone by now.
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
   * Begins to read the page after this cursor, for the coming call of `next`, unless that has begun already. `beside`: at the same time as
   * the batch before it is worked on, and not right behind its storing.
   */
  readAhead(cursor: Cursor, beside: boolean): void {
    if (this.ahead?.cursor === cursor) return;
    const page = this.page(this.pages, cursor, beside);
    // `next` awaits it; until then a failure must not count as unhandled.
    page.catch(() => undefined);
    this.ahead = { cursor, beside, page };
  }

  /** Drops what was read ahead: what it was read with has changed. */
  forgetAhead(): void {
    this.ahead = null;
  }
}
