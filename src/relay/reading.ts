/**
 * Where a leader's pages come from: read when their turn comes, or ahead while the page before them is stored.
 *
 * What must hold: at most one page is read ahead; what is prepared is judged by facts of the time at which it was read, so what was read
 * ahead is dropped when those have changed. Nothing is lost by that: only storing moves the cursor.
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

export class Reading {
  /** The last page left nothing behind, so the next read is likely to find nothing. */
  emptied = false;
  /** Nothing had come meanwhile the last time that a page left nothing behind. */
  private quiet = true;
  private ahead: Promise<PreparedPage | null> | null = null;
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
   * The next page after this cursor; null when nothing is unread. Throws what Postgres says of the page. After a page that emptied the
   * outbox a cheap look comes first, while little comes; after a ring, in a steady stream, and within a backlog, the read itself.
   */
  async next(cursor: Cursor): Promise<PreparedPage | null> {
    if (this.emptied && this.quiet && this.ahead === null && !(await this.pages.hasUnread(cursor))) return null;
    const { ahead } = this;
    this.ahead = null;
    // What was not there when it was read ahead may be there now.
    const prepared = (await ahead) ?? (await this.page(this.pages, cursor));
    if (this.emptied) this.quiet = prepared === null;
    return prepared;
  }

  /** A page by another reader; null when nothing is unread. */
  async page(pages: OutboxReader<ResolvedRow>, cursor: Cursor, ahead = false): Promise<PreparedPage | null> {
    const page = await pages.read(cursor);
    if (page === null) return null;
    this.readAtMs = nowMs();
    return { page, preparation: this.prepare(page.rows, ahead), readAtMs: this.readAtMs };
  }

  /** Begins to read what follows this cursor, for the next `next`. */
  readAhead(cursor: Cursor): void {
    this.ahead = this.page(this.pages, cursor, true);
    // Looked at by `next`; a failure in between is not unhandled.
    this.ahead.catch(() => undefined);
  }

  /** Drops what was read ahead: what it was read with has changed. */
  forgetAhead(): void {
    this.ahead = null;
  }
}
