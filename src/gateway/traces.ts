/**
 * Which pushes of inboxes went to how many sockets, for `belfry explain`.
 *
 * What must hold: a push costs a few entries of arrays and no wait; they go out together about once a second, at most `mostEntries` of
 * them (what is more is counted, not kept), in a statement that does not wait for the disk. Nothing fails because of it, and where
 * Postgres is read-only nothing is kept.
 */

import type { Pool } from 'pg';
import { composites } from '../postgres/arrays.js';
import { Later } from '../later.js';
import type { Logger } from '../log.js';

interface Push {
  readonly userId: string;
  readonly seq: number;
  readonly sockets: number;
  readonly atMs: number;
}

/** Pushes of one row. */
export const mostEntries = 1_000;

const everyMs = 1_000;

export class PushTraces {
  private entries: Push[] = [];
  private leftOut = 0;
  private readonly later = new Later(everyMs, () => this.write());

  constructor(
    private readonly pool: Pool,
    /** Names this gateway while it runs. */
    private readonly gateway: string,
    private readonly log: Pick<Logger, 'debug'>,
  ) {}

  add(userId: string, seq: number, sockets: number): void {
    if (this.entries.length >= mostEntries) this.leftOut += 1;
    else this.entries.push({ userId, seq, sockets, atMs: performance.now() });
    this.later.plan();
  }

  /** Writes what there is. Never throws. */
  async stop(): Promise<void> {
    await this.later.stop();
    if (this.entries.length > 0) await this.write();
  }

  private async write(): Promise<void> {
    const { entries, leftOut } = this;
    this.entries = [];
    this.leftOut = 0;
    const nowMs = performance.now();
    try {
      await this.pool.query('select belfry.trace_pushes($1, $2, $3)', [
        this.gateway,
        leftOut,
        composites(entries, ({ userId, seq, sockets, atMs }) => [
          userId,
          seq,
          sockets,
          Math.min(2_000_000_000, Math.round((nowMs - atMs) * 1_000)),
        ]),
      ]);
    } catch (error) {
      // Postgres is away or read-only; whoever needs it says so louder.
      this.log.debug({ err: error }, 'times of pushes could not be written');
    }
  }
}
