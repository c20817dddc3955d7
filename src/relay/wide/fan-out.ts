/**
 * Works off wide events (wide.ts), a step at a time between batches.
 *
 * What must hold: a step is one transaction of at most 5,000 recipients, and no more than take about 50 ms (20 ms beside live
 * traffic), since everybody else waits for it; at most one chunk of recipients is in memory; nobody waits while a chunk is fetched, on a
 * connection of its own. The job with the fewest recipients so far comes first, so that a huge one does not hold up others.
 */

import type pg from 'pg';
import type { Source } from '../../config.js';
import type { ColumnTypes } from '../../schema/columns.js';
import type { BatchConnections, BatchOutcome, BatchProcessor } from '../batch.js';
import type { DeliverStep, Step } from '../plan/steps.js';
import { recipientsSql } from '../plan/resolve.js';

/** Recipients of one transaction (DESIGN). */
const stepLimit = { least: 100, most: 5_000, first: 500 } as const;

/** How long a step may take, also while there is live traffic; its size follows from how long those before it took. */
const stepMs = { quiet: 50, busy: 20 } as const;

/** Recipients fetched at once. */
const defaultChunk = 20_000;

interface Job {
  readonly id: string;
  readonly kind: 'deliver' | 'retract';
  readonly source: string;
  readonly key: string;
  readonly eventId: string;
  readonly step: DeliverStep | Keeping;
  readonly row: string;
  readonly after: string;
}

/** Of a retraction: those who are recipients of the row as it is now keep what they have. */
interface Keeping {
  readonly kind?: undefined;
  readonly keeps?: boolean;
}

interface Chunk {
  readonly job: Job;
  readonly recipients: readonly string[];
  /** How many of them have been handled. */
  position: number;
  /** There are none after these. */
  readonly last: boolean;
}

export interface FanOutOptions {
  readonly processor: BatchProcessor;
  /** Fetches recipients; nothing else uses it. */
  readonly reader: pg.ClientBase;
  readonly sources: readonly Source[];
  readonly types: ColumnTypes;
  readonly chunk?: number;
}

/** `idle`: no job is open. `waiting`: recipients are being fetched. */
export type FanOutState = 'idle' | 'waiting' | BatchOutcome;

export class FanOut {
  private readonly recipients: ReadonlyMap<string, string>;
  private current: Chunk | null = null;
  private fetching: Promise<void> | null = null;
  private failure: { readonly error: Error } | null = null;
  private size: number = stepLimit.first;
  private isIdle = false;
  /** Counts changes: what was fetched before one is no longer true. */
  private changes = 0;

  constructor(private readonly options: FanOutOptions) {
    this.recipients = recipientsOfSources(options.sources, options.types);
  }

  /** False when it is certain that no job is open. */
  get pending(): boolean {
    return !this.isIdle;
  }

  /** The event that the next step is about. */
  get eventId(): string | null {
    return this.current?.job.eventId ?? null;
  }

  /** Jobs were opened or ended: looks again what there is. */
  changed(): void {
    this.changes += 1;
    this.isIdle = false;
    this.current = null;
  }

  /** Resolves when recipients have been fetched, or at once. */
  async fetched(): Promise<void> {
    await this.fetching;
  }

  /**
   * One transaction at most; `busy`: there is live traffic that waits for it. Throws what storing throws; then nothing was written, and
   * the step may be tried again.
   */
  async step(connections: BatchConnections, term: string, busy: boolean): Promise<FanOutState> {
    if (this.failure !== null) {
      const { error } = this.failure;
      this.failure = null;
      throw error;
    }
    const { current } = this;
    if (current === null) {
      if (this.isIdle) return 'idle';
      this.fetching ??= this.fetch().finally(() => {
        this.fetching = null;
      });
      return 'waiting';
    }
    const { job, recipients } = current;
    const users = recipients.slice(current.position, current.position + this.size);
    const through = current.position + users.length;
    const done = current.last && through === recipients.length;
    const started = performance.now();
    const outcome = await this.options.processor.processWide(connections, term, stepOf(job, users), users, (client) =>
      moveOn(client, job, users, done),
    );
    this.size = sizeAfter(this.size, performance.now() - started, busy ? stepMs.busy : stepMs.quiet);
    current.position = through;
    if (through === recipients.length) this.current = null;
    return outcome;
  }

  /** Gives the job up that failed, after its error has been set aside. */
  async giveUp(client: pg.ClientBase, error: string): Promise<void> {
    const { current } = this;
    if (current === null) return;
    await client.query('update belfry.fanout_job set done_at = clock_timestamp(), error = $2 where id = $1', [
      current.job.id,
      error,
    ]);
    this.changed();
  }

  /** The next chunk, if there is a job. An error of the application's own SQL belongs to the job that it was for. */
  private async fetch(): Promise<void> {
    const { reader, chunk = defaultChunk } = this.options;
    const { changes } = this;
    const still = (): boolean => changes === this.changes;
    let job: Job | null = null;
    try {
      job = await nextJob(reader);
      if (job === null) {
        if (still()) this.isIdle = true;
        return;
      }
      const recipients = await this.recipientsOf(job, chunk);
      if (still()) this.current = { job, recipients, position: 0, last: recipients.length < chunk };
    } catch (error) {
      if (!still()) return;
      this.failure = { error: error instanceof Error ? error : new Error(String(error)) };
      this.current = job === null ? null : { job, recipients: [], position: 0, last: false };
    }
  }

  private async recipientsOf(job: Job, limit: number): Promise<string[]> {
    const { reader } = this.options;
    const sql = this.recipients.get(job.source);
    if (job.kind === 'retract')
      return await nextHolders(
        reader,
        job,
        job.step.kind === undefined && job.step.keeps === true ? sql : undefined,
        limit,
      );
    if (sql === undefined) return [];
    return await nextRecipients(reader, sql, job.row, job.after, limit);
  }
}

/** By source: SQL for all recipients of a row (resolve.ts). */
export function recipientsOfSources(sources: readonly Source[], types: ColumnTypes): ReadonlyMap<string, string> {
  return new Map(
    sources.flatMap((source) => {
      const sql = recipientsSql(source, types);
      return sql === null ? [] : [[source.name, sql] as const];
    }),
  );
}

/** The recipients of a row after this one, ascending. */
export async function nextRecipients(
  client: pg.ClientBase,
  sql: string,
  row: string,
  after: string,
  limit: number,
): Promise<string[]> {
  const { rows } = await client.query<{ user_id: string }>(
    `select distinct r.user_id collate "C" as user_id from (${sql}) r
      where r.user_id <> '' and r.user_id collate "C" > $2 order by 1 limit $3`,
    [row, after, limit],
  );
  return rows.map(({ user_id }) => user_id);
}

/** Those after the job's last who have what the row brought, ascending; `keptBy`: SQL for those who keep it. */
async function nextHolders(
  client: pg.ClientBase,
  job: Job,
  keptBy: string | undefined,
  limit: number,
): Promise<string[]> {
  const kept =
    keptBy === undefined ? '' : `and not exists (select from (${keptBy}) r where r.user_id collate "C" = e.user_id)`;
  const { rows } = await client.query<{ user_id: string }>(
    `select e.user_id from belfry.notification_event e
      where $1::jsonb is not null and e.source = $2 and e.key = $3 and e.user_id > $4 and e.removed_at is null ${kept}
      order by e.user_id limit $5`,
    [job.row, job.source, job.key, job.after, limit],
  );
  return rows.map(({ user_id }) => user_id);
}

/** The open job with the fewest recipients so far; those of one row in their order. */
async function nextJob(client: pg.ClientBase): Promise<Job | null> {
  const { rows } = await client.query<Job>(
    `select j.id::text, j.kind, j.source, j.key, j.event_id::text as "eventId", j.step, j.row::text as row, j.after
       from belfry.fanout_job j
      where j.done_at is null
        and not exists (select from belfry.fanout_job e
                         where e.source = j.source and e.key = j.key and e.id < j.id and e.done_at is null)
      order by j.handled, j.id limit 1`,
  );
  return rows[0] ?? null;
}

async function moveOn(client: pg.ClientBase, job: Job, users: readonly string[], done: boolean): Promise<void> {
  await client.query(
    `update belfry.fanout_job
        set after = $2, handled = handled + $3, done_at = case when $4 then clock_timestamp() end
      where id = $1 and done_at is null`,
    [job.id, users.at(-1) ?? job.after, users.length, done],
  );
}

function stepOf(job: Job, users: readonly string[]): Step {
  if (job.step.kind === undefined) return { kind: 'retract', source: job.source, key: job.key };
  return { ...job.step, recipients: users, wide: false };
}

/** At most doubled, since the first steps may have been cheap. */
function sizeAfter(size: number, tookMs: number, mayTakeMs: number): number {
  const wanted = Math.round(size * Math.min(2, mayTakeMs / Math.max(1, tookMs)));
  return Math.max(stepLimit.least, Math.min(stepLimit.most, wanted));
}
