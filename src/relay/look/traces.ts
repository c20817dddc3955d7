/**
 * When batches were read, stored and pushed, for `belfry explain`.
 *
 * What must hold:
 * - No batch waits for it: entries gather in memory, at most `mostEntries` of them, and go out together about once a second, in a
 *   statement that does not wait for the disk. Where batches come faster, neighbours share an entry.
 * - An entry tells by the cursor after it which events it was about, so the entry before it must be there too: a term begins with one that
 *   stands for no batch, and so does what follows entries that could not be written.
 * - Nothing fails because of it. What a crash takes with it was not measured.
 */

import type pg from 'pg';
import { composites } from '../../postgres/arrays.js';
import { nowMs } from '../../clock.js';
import { Later } from '../../later.js';
import type { Logger } from '../../log.js';
import type { Cursor } from '../../outbox/cursor.js';

/** By `nowMs`. */
export interface BatchTimes {
  readonly readAtMs: number;
  readonly storedAtMs: number;
  readonly pushedAtMs: number;
}

interface Entry extends BatchTimes {
  readonly cursor: Cursor;
  /** 0: stands for no batch. */
  readonly batches: number;
}

/** Entries of one row. */
export const mostEntries = 256;

const everyMs = 1_000;

/** An interval that an int4 of microseconds can't hold was not measured any better. */
const longestUs = 2_000_000_000;

export interface BatchTracesOptions {
  readonly client: pg.ClientBase;
  readonly worker: string;
  /** Where the term began to read. */
  readonly cursor: Cursor;
  readonly log: Pick<Logger, 'debug'>;
}

export class BatchTraces {
  private entries: Entry[];
  private last: Cursor;
  private readonly later = new Later(everyMs, () => this.write());

  constructor(private readonly options: BatchTracesOptions) {
    this.last = options.cursor;
    this.entries = [nothing(options.cursor)];
  }

  /** A batch is through; `cursor` is the one after it. */
  add(cursor: Cursor, times: BatchTimes): void {
    const { entries } = this;
    this.last = cursor;
    const before = entries.length >= mostEntries ? entries.pop() : undefined;
    if (before === undefined) entries.push({ cursor, batches: 1, ...times });
    else entries.push({ ...times, cursor, batches: before.batches + 1, readAtMs: before.readAtMs });
    this.later.plan();
  }

  /** Writes what there is. Never throws. */
  async stop(): Promise<void> {
    await this.later.stop();
    if (this.entries.some(({ batches }) => batches > 0)) await this.write();
  }

  private async write(): Promise<void> {
    const { client, worker, log } = this.options;
    const { entries } = this;
    this.entries = [];
    const sentAtMs = nowMs();
    const ago = (ms: number): number => Math.min(longestUs, Math.max(0, Math.round((sentAtMs - ms) * 1_000)));
    try {
      await client.query('select belfry.trace_batches($1, $2)', [
        worker,
        composites(entries, ({ cursor, batches, readAtMs, storedAtMs, pushedAtMs }) => [
          ...[cursor.seen, cursor.target, cursor.afterId, batches],
          ...[ago(readAtMs), ago(storedAtMs), ago(pushedAtMs)],
        ]),
      ]);
    } catch (error) {
      // The connection is gone, or the disk is full: others will say so louder.
      log.debug({ err: error }, 'times of batches could not be written');
      this.entries = [nothing(this.last)];
    }
  }
}

function nothing(cursor: Cursor): Entry {
  const now = nowMs();
  return { cursor, batches: 0, readAtMs: now, storedAtMs: now, pushedAtMs: now };
}
