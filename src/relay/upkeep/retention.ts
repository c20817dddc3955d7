/**
 * What a leader deletes because it is old, and the days of the outbox that it makes and drops. Both go on beside reading, now and then, on
 * a connection of their own, in pieces so small that nobody notices.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import type { Config } from '../../config.js';
import { messageOf } from '../../errors.js';
import { prune } from '../../inbox/prune.js';
import type { PrunePlace } from '../../inbox/prune.js';
import type { Logger } from '../../log.js';
import { dropOldPartitions, ensurePartitions } from '../../outbox/partitions.js';
import { connect } from '../../postgres/connect.js';

export interface RetentionOptions {
  readonly config: Config;
  readonly url: string;
  readonly log: Pick<Logger, 'info' | 'warn'>;
}

/** A round comes after a tenth of the shortest time that something is kept, and within these bounds. */
const everyMs = { least: 2_000, most: 300_000 } as const;

/** How often days of the outbox are made and dropped. */
const daysEveryMs = 3_600_000;

/** The rest between two pieces. */
const pauseMs = 20;

/** So no piece waits long for a row that somebody else has locked. */
const session = { lock_timeout: '1000', statement_timeout: '10000', enable_seqscan: 'off' } as const;

/** Likewise; a statement may look through all of the default partition. */
const daysSession = { ...session, statement_timeout: '600000' } as const;

export class Retention {
  private readonly stopping = new AbortController();
  private running: Promise<void> | null = null;
  private daysDueAt = 0;
  private readonly place: PrunePlace = { afterId: '0' };
  /** What was told last of days that are not as they should be. */
  private readonly told = new Map<string, string>();

  constructor(private readonly options: RetentionOptions) {}

  start(): void {
    this.running = this.run();
  }

  /** After the piece it is at. Idempotent. */
  async stop(): Promise<void> {
    this.stopping.abort();
    await this.running;
  }

  private async run(): Promise<void> {
    const { signal } = this.stopping;
    const { inboxMs, outboxMs, channelsMs } = this.options.config.retention;
    const wishMs = Math.min(inboxMs, outboxMs, channelsMs) / 10;
    const roundMs = Math.min(everyMs.most, Math.max(everyMs.least, wishMs));
    while (!signal.aborted) {
      if (performance.now() >= this.daysDueAt) await this.tried(() => this.days());
      await sleep(roundMs * (0.5 + Math.random() / 2), undefined, { signal }).catch(() => undefined);
      if (!signal.aborted) await this.tried(() => this.round());
    }
  }

  private async tried(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (!this.stopping.signal.aborted)
        this.options.log.warn({ error: messageOf(error) }, 'retention failed; it is tried again later');
    }
  }

  private async days(): Promise<void> {
    const { config, url } = this.options;
    const { signal } = this.stopping;
    this.daysDueAt = performance.now() + daysEveryMs;
    const client = await connect(url, { applicationName: 'belfry days', session: daysSession });
    let cancel: (() => void) | null = null;
    try {
      const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid');
      cancel = () => void cancelStatement(url, rows[0]?.pid).catch(() => undefined);
      signal.addEventListener('abort', cancel);
      const { left, busy } = await ensurePartitions(client, { today: false, signal });
      this.tell('days of the outbox could not be made', { left, busy });
      const old = await dropOldPartitions(client, { retentionMs: config.retention.outboxMs });
      this.tell('old days of the outbox were not dropped', { unread: old.unread, busy: old.busy });
    } finally {
      if (cancel !== null) signal.removeEventListener('abort', cancel);
      await client.end().catch(() => undefined);
    }
  }

  /** Once for the same days. */
  private tell(message: string, days: Readonly<Record<string, readonly string[]>>): void {
    const text = JSON.stringify(days);
    if (this.told.get(message) === text) return;
    this.told.set(message, text);
    if (Object.values(days).some((names) => names.length > 0)) this.options.log.warn(days, message);
  }

  private async round(): Promise<void> {
    const { config, url, log } = this.options;
    const client = await connect(url, { applicationName: 'belfry retention', session });
    try {
      const between = async (): Promise<boolean> => {
        await sleep(pauseMs, undefined, { signal: this.stopping.signal }).catch(() => undefined);
        return !this.stopping.signal.aborted;
      };
      const counts = await prune(client, config.retention, between, this.place);
      if (Object.values(counts).some((count) => count > 0)) log.info(counts, 'pruned');
    } finally {
      await client.end().catch(() => undefined);
    }
  }
}

/** Ends what a backend is at, which may take minutes, and not its session: that has something to put right. */
async function cancelStatement(url: string, pid: number | undefined): Promise<void> {
  const client = await connect(url, { applicationName: 'belfry days' });
  try {
    await client.query('select pg_cancel_backend($1)', [pid]);
  } finally {
    await client.end();
  }
}
