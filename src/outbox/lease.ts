/**
 * Who leads: one row, belfry.relay, that is lease, cursor and term in one.
 *
 * What must hold:
 * - A term has one leader. Every write of a leader carries its term and fails when the row has a higher one (`fence`,
 *   belfry.store_batch), so a leader that was frozen wakes up and does no harm.
 * - Who may lead is decided by the database alone: by its clock, and by whether the leader's sessions are still there, so
 *   that a leader that was killed is followed within a second. The leader itself trusts the lease only until the start of its
 *   last successful attempt plus ttl, less a margin, by its own monotonic clock.
 * - A takeover raises the term and then terminates the sessions of the old leader, so that it holds no lock: neither the
 *   doorbell's nor a row's. They are named by pid and start time, so that nobody else's session is hit.
 * - If one of those sessions holds the row's lock, and the lease is over, it is terminated first: it could not renew any
 *   more, and its transaction is undone as if it had lost against the raised term.
 */
import { performance } from 'node:perf_hooks';
import type pg from 'pg';
import { BelfryError, messageOf, sqlState } from '../errors.js';
import type { Logger } from '../log.js';
import type { Cursor } from './cursor.js';
import { pause, withDeadline } from './deadline.js';

export interface LeaseOptions {
  /** Of its own, or nearly: a renewal must not wait for a connection. Make its sessions with `Lease.session`. */
  readonly pool: pg.Pool;
  /** host:pid:random, for people. */
  readonly leader: string;
  /** Backend pids of the sessions that a takeover must terminate: reader, writer, doorbell. Asked at every renewal. */
  readonly backends: () => readonly number[];
  readonly log: Pick<Logger, 'info' | 'warn'>;
  /** Default 8,000. */
  readonly ttlMs?: number;
  /** Monotonic milliseconds; tests put their own clock here. */
  readonly now?: () => number;
}

export interface Leadership {
  readonly term: string;
  readonly cursor: Cursor;
  readonly epoch: string;
  readonly paused: boolean;
  /** As they were stored by the last leader; null before the first (restore.ts). */
  readonly systemIdentifier: string | null;
  readonly timeline: string | null;
}

interface RelayRow {
  readonly term: string;
  readonly epoch: string;
  readonly paused: boolean;
  readonly seen: string;
  readonly target: string | null;
  readonly after_id: string;
  readonly max_id: string;
  readonly system_identifier: string | null;
  readonly timeline: string | null;
}

const marginMs = 1_000;
/** Leaves time for one more attempt after one that ran into its deadline. */
const renewEveryMs = 3_000;
const campaignEveryMs = 1_000;
const deadlineMs = 3_000;

/**
 * Whether the lease of row r is over: by time, or because none of its leader's sessions is there any more. When a session of another role
 * began is hidden from those who are not in pg_read_all_stats: it may be the leader's, which then has until the lease ends by time.
 */
const overSql = `(r.lease_until <= clock_timestamp() or (r.backends <> '[]' and not exists (
       select from jsonb_to_recordset(r.backends) as b (pid int, start timestamptz)
         join pg_stat_activity a on a.pid = b.pid and (a.backend_start = b.start or a.backend_start is null))))`;

/** pid and start of the given backends, as belfry.relay.backends holds them. */
const backendsSql = `(select coalesce(jsonb_agg(jsonb_build_object('pid', pid, 'start', backend_start)), '[]')
       from pg_stat_activity where pid = any($2::int[]))`;

export class Lease {
  /** Nobody waits longer than this for the row: a renewal must fail before the lease does. */
  static readonly session = { lock_timeout: '1000', statement_timeout: '2500' } as const;

  readonly #options: LeaseOptions;
  readonly #ttlMs: number;
  readonly #now: () => number;
  #term: string | null = null;
  #trustedUntil = -Infinity;

  constructor(options: LeaseOptions) {
    this.#options = options;
    this.#ttlMs = options.ttlMs ?? 8_000;
    this.#now = options.now ?? (() => performance.now());
  }

  /** The term in which this process leads; null when it does not. */
  get term(): string | null {
    return this.#term;
  }

  /** Whether this process may act as the leader now without asking again. */
  trusted(): boolean {
    return this.#term !== null && this.#now() < this.#trustedUntil;
  }

  /** Tries once. Null when somebody else leads. Throws what pg throws. */
  async acquire(): Promise<Leadership | null> {
    const startedAt = this.#now();
    const { rows } = await this.#query<{ term: string; free: boolean; backends: unknown }>(
      // A leader that was killed leaves no session; one that merely lost them all is fenced by the higher term.
      `select term::text, ${overSql} as free, backends from belfry.relay r where name = 'main'`,
    );
    const standing = rows[0];
    if (standing === undefined) {
      throw new BelfryError('not_migrated', 'Table belfry.relay is empty: run belfry migrate.');
    }
    if (!standing.free) return null;
    const row = await this.#raise(standing.term, standing.backends);
    if (row === null) return null;
    this.#term = row.term;
    try {
      await this.#terminate(standing.backends);
    } catch (error) {
      // Else everybody, this process too, would take it for the leader until the lease ends.
      await this.resign().catch(() => undefined);
      throw error;
    }
    this.#trustedUntil = startedAt + this.#ttlMs - marginMs;
    this.#options.log.info({ term: row.term }, 'leading');
    return {
      term: row.term,
      cursor: { seen: row.seen, target: row.target, afterId: row.after_id, maxId: row.max_id },
      epoch: row.epoch,
      paused: row.paused,
      systemIdentifier: row.system_identifier,
      timeline: row.timeline,
    };
  }

  /** Tries every second, with jitter, until this process leads; null after the abort. Never throws. */
  async campaign(signal: AbortSignal): Promise<Leadership | null> {
    while (!signal.aborted) {
      try {
        const leadership = await this.acquire();
        if (leadership !== null) return leadership;
      } catch (error) {
        this.#options.log.warn({ why: messageOf(error) }, 'could not ask for the lease');
      }
      await pause(campaignEveryMs * (0.75 + Math.random() / 2), signal);
    }
    return null;
  }

  /** Extends the lease. Null when another term has begun: stop at once. Throws what pg throws; trust then runs out by itself. */
  async renew(): Promise<{ readonly paused: boolean; readonly asked: boolean } | null> {
    const startedAt = this.#now();
    const { rows } = await this.#query<{ paused: boolean; asked: boolean }>(
      `update belfry.relay
          set lease_until = clock_timestamp() + $3 * interval '1 millisecond', backends = ${backendsSql}
        where name = 'main' and term = $1
        returning paused, exists (select from belfry.replay_job where state = 'waiting') as asked`,
      [this.#term, this.#options.backends(), this.#ttlMs],
    );
    const row = rows[0];
    if (row === undefined) {
      this.#term = null;
      return null;
    }
    this.#trustedUntil = startedAt + this.#ttlMs - marginMs;
    return row;
  }

  /**
   * Renews every 3 s until the abort; tells each time whether the relay is paused, and whether a replay was `asked` for and waits. Resolves
   * when the lease is lost, with the reason; then nothing may be written.
   */
  async keep(signal: AbortSignal, onRenewed: (paused: boolean, asked: boolean) => void): Promise<'lost' | 'stopped'> {
    while (!signal.aborted) {
      await pause(Math.min(renewEveryMs, Math.max(0, this.#trustedUntil - this.#now())), signal);
      if (signal.aborted) break;
      try {
        const renewed = await this.renew();
        if (renewed === null) return 'lost';
        onRenewed(renewed.paused, renewed.asked);
      } catch (error) {
        this.#options.log.warn({ why: messageOf(error) }, 'could not renew the lease');
        if (!this.trusted()) return 'lost';
        await pause(200, signal);
      }
    }
    return 'stopped';
  }

  /** Gives the lease back, so that a standby takes over within a second. Does nothing where it is lost already. */
  async resign(): Promise<void> {
    const term = this.#term;
    if (term === null) return;
    this.#term = null;
    await this.#query(
      `update belfry.relay set lease_until = '-infinity', leader = null, backends = '[]' where name = 'main' and term = $1`,
      [term],
    );
  }

  /** Null when another one was faster. */
  async #raise(term: string, backends: unknown): Promise<RelayRow | null> {
    const raise = (): Promise<pg.QueryResult<RelayRow>> =>
      this.#query<RelayRow>(
        `update belfry.relay r
            set term = term + 1, leader = $3, lease_until = clock_timestamp() + $4 * interval '1 millisecond',
                backends = ${backendsSql}
          where name = 'main' and term = $1 and ${overSql}
        returning term::text, epoch, paused, seen::text, target::text, after_id::text, max_id::text, system_identifier, timeline`,
        [term, this.#options.backends(), this.#options.leader, this.#ttlMs],
      );
    try {
      return (await raise()).rows[0] ?? null;
    } catch (error) {
      // 55P03: the row is locked for longer than lock_timeout, most likely by the leader whose lease is over.
      if (sqlState(error) !== '55P03') throw error;
      await this.#terminate(backends);
      return (await raise()).rows[0] ?? null;
    }
  }

  /** Ends the sessions that the old leader left, if they are still the same ones. Those of a superuser it may not end: the fence has to do. */
  async #terminate(backends: unknown): Promise<void> {
    const { rows } = await this.#query<{ pid: number; start: string }>(
      `select a.pid, b.start::text
         from jsonb_to_recordset($1::jsonb) as b (pid int, start timestamptz)
         join pg_stat_activity a on a.pid = b.pid and a.backend_start = b.start
        where a.pid <> pg_backend_pid()`,
      [JSON.stringify(backends)],
    );
    const [ended, refused]: [number[], number[]] = [[], []];
    for (const { pid, start } of rows) {
      try {
        await this.#query(
          'select pg_terminate_backend(a.pid) from pg_stat_activity a where a.pid = $1 and a.backend_start = $2::timestamptz',
          [pid, start],
        );
        ended.push(pid);
      } catch (error) {
        if (sqlState(error) !== '42501') throw error;
        refused.push(pid);
      }
    }
    if (ended.length > 0) this.#options.log.warn({ pids: ended }, 'ended the sessions of the old leader');
    if (refused.length > 0)
      this.#options.log.warn(
        { pids: refused },
        'may not end these sessions of the old leader, which ran as another role: what they have locked waits until they end (a DBA can: select pg_terminate_backend(pid))',
      );
  }

  #query<Row extends pg.QueryResultRow>(text: string, values: readonly unknown[] = []): Promise<pg.QueryResult<Row>> {
    return withDeadline(this.#options.pool.query<Row>(text, [...values]), deadlineMs, 'lease');
  }
}

/**
 * The condition that every write of a leader on belfry.relay carries: `update belfry.relay set … where ${fence(term)}`. No row
 * means that another relay leads: the transaction must be rolled back.
 */
export function fence(term: string): string {
  return `name = 'main' and term = ${BigInt(term)}`;
}
