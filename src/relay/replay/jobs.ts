/**
 * Replays as rows of belfry.replay_job: asked for by a command or in SQL, done by whoever leads, one at a time.
 *
 * What must hold: how far a replay is and what it came to is written into its row a moment after each page, and only by the term that leads.
 * So another leader goes on where the one before left off (what a crash kept from being written is repeated, which brings nobody anything
 * twice), and the row tells afterwards what was done.
 */

import { createHash } from 'node:crypto';
import type pg from 'pg';
import type { Config } from '../../config.js';
import type { OutboxFilter } from '../look/filter.js';
import type { Bound } from './page.js';
import type { ReplayCounts } from './replay.js';

export type JobMode = 'deliver' | 'rebuild' | 'retry';

export interface JobFilter extends OutboxFilter {
  /** Only the newest so many. */
  readonly limit?: number;
  /** Dead letters by id. */
  readonly ids?: readonly string[];
}

export interface JobRequest {
  readonly mode: JobMode;
  readonly filter: JobFilter;
  readonly rate: number | null;
  readonly mapping: string | null;
}

export type JobState = 'waiting' | 'running' | 'stopped' | 'done' | 'failed';

export interface Job extends JobRequest {
  readonly id: string;
  readonly state: JobState;
  readonly dryRun: boolean;
  readonly stop: boolean;
  readonly afterId: string;
  readonly total: number | null;
  readonly counts: Readonly<ReplayCounts>;
  readonly secondsLeft: number | null;
  readonly error: string | null;
}

/** A hash of everything in a config that decides who gets what. */
export function fingerprint(config: Config): string {
  const { sources, people, blocks, mutes, threadMutes, aggregation } = config;
  return createHash('sha256')
    .update(JSON.stringify([sources, people, blocks, mutes, threadMutes, aggregation]))
    .digest('hex')
    .slice(0, 16);
}

/** Asks for a job; a relay that sleeps wakes. Returns its id. */
export async function requestJob(client: pg.ClientBase, { mode, filter, rate, mapping }: JobRequest): Promise<string> {
  const { rows } = await client.query<{ id: string }>(
    'insert into belfry.replay_job (mode, filter, rate, mapping) values ($1, $2, $3, $4) returning id::text',
    [mode, JSON.stringify(filter), rate, mapping],
  );
  await client.query('select belfry.ring()');
  return rows[0]?.id ?? '';
}

/** Asks whoever works on the job to stop after the page; where nobody leads it is stopped at once. False when it is over already. */
export async function stopJob(client: pg.ClientBase, id: string): Promise<boolean> {
  const { rows } = await client.query<{ done: boolean }>('select belfry.stop_replay($1) as done', [id]);
  return rows[0]?.done === true;
}

interface JobRow extends ReplayCounts {
  readonly id: string;
  readonly mode: JobMode;
  readonly state: JobState;
  readonly filter: Omit<JobFilter, 'since' | 'until'> & { readonly since?: string; readonly until?: string };
  readonly rate: number | null;
  readonly mapping: string | null;
  readonly dry_run: boolean;
  readonly stop: boolean;
  readonly after_id: string;
  readonly total: number | null;
  readonly seconds_left: number | null;
  readonly error: string | null;
}

const columns = `j.id::text, j.mode, j.state, j.filter, j.rate, j.mapping, j.dry_run, j.stop, j.after_id::text, j.total::float8, j.error,
  j.processed::float8, j.delivered::float8, j.suppressed::float8, j.already::float8, j.withdrawn::float8, j.failed::float8,
  (select v.seconds_left::float8 from belfry.replays v where v.id = j.id) as seconds_left`;

export async function readJob(client: pg.ClientBase, id: string): Promise<Job | null> {
  const { rows } = await client.query<JobRow>(`select ${columns} from belfry.replay_job j where j.id = $1`, [id]);
  return rows[0] === undefined ? null : jobOf(rows[0]);
}

/** The job to work on: the oldest that waits, or that a worker left. Retries go first: they are short, and live events may wait for them. */
export async function nextJob(client: pg.ClientBase): Promise<Job | null> {
  const { rows } = await client.query<JobRow>(
    `select ${columns} from belfry.replay_job j where j.state in ('waiting', 'running') order by j.mode <> 'retry', j.id limit 1`,
  );
  return rows[0] === undefined ? null : jobOf(rows[0]);
}

/** Whether dead letters are to be tried again. */
export async function retryWaits(client: pg.ClientBase): Promise<boolean> {
  const { rowCount } = await client.query(
    `select from belfry.replay_job where state in ('waiting', 'running') and mode = 'retry' limit 1`,
  );
  return rowCount === 1;
}

/** Takes the job on in this term; where it began before, its bound stays. Null when another relay leads. */
export async function takeJob(client: pg.ClientBase, id: string, term: string, worker: string): Promise<Bound | null> {
  const { rows } = await client.query<Bound>(
    `update belfry.replay_job j
        set state = 'running', worker = $3, started_at = coalesce(j.started_at, clock_timestamp()), finished_at = null,
            resumed_at = clock_timestamp(), resumed_with = j.processed,
            seen = coalesce(j.seen, r.seen),
            target = case when j.seen is null then r.target else j.target end,
            target_id = case when j.seen is null then r.after_id else j.target_id end
       from belfry.relay r
      where j.id = $1 and j.state in ('waiting', 'running') and r.name = 'main' and r.term = $2
      returning j.seen::text, j.target::text, j.target_id::text as "targetId"`,
    [id, term, worker],
  );
  return rows[0] ?? null;
}

export interface JobProgress {
  readonly afterId: string;
  readonly counts: Readonly<ReplayCounts>;
  readonly total: number | null;
  readonly error: string | null;
  readonly state: JobState;
}

/**
 * Writes how far a job is. Returns whether somebody asked to stop it; null when another relay leads, and then nothing was written. Progress
 * is committed without waiting for the disk, since other statements wait behind it on this connection.
 */
export async function saveJob(
  client: pg.ClientBase,
  id: string,
  term: string,
  { afterId, counts, total, error, state }: JobProgress,
): Promise<boolean | null> {
  const { rows } = await client.query<{ stop: boolean }>(
    `update belfry.replay_job j
        set after_id = $3, processed = $4, delivered = $5, suppressed = $6, already = $7, withdrawn = $8, failed = $9,
            total = $10, error = $11, state = $12::text,
            finished_at = case when $12::text in ('done', 'failed', 'stopped') then clock_timestamp() end
       from (select set_config('synchronous_commit', case $12::text when 'running' then 'off' else current_setting('synchronous_commit') end, true)) s
      where j.id = $1 and exists (select from belfry.relay r where r.name = 'main' and r.term = $2)
      returning j.stop`,
    [
      id,
      term,
      afterId,
      counts.processed,
      counts.delivered,
      counts.suppressed,
      counts.already,
      counts.withdrawn,
      counts.failed,
      total,
      error,
      state,
    ],
  );
  return rows[0]?.stop ?? null;
}

function jobOf(row: JobRow): Job {
  const { since, until, ...filter } = row.filter;
  const { processed, delivered, suppressed, already, withdrawn, failed } = row;
  return {
    id: row.id,
    mode: row.mode,
    state: row.state,
    filter: {
      ...filter,
      ...(since === undefined ? {} : { since: new Date(since) }),
      ...(until === undefined ? {} : { until: new Date(until) }),
    },
    rate: row.rate,
    mapping: row.mapping,
    dryRun: row.dry_run,
    stop: row.stop,
    afterId: row.after_id,
    total: row.total,
    counts: { processed, delivered, suppressed, already, withdrawn, failed },
    secondsLeft: row.seconds_left,
    error: row.error,
  };
}
