/**
 * What a leader does about replays: a page whenever nothing else is to be done.
 *
 * What must hold: a replay that fails, or whose connections fail, does not end the leader's term; only an error of storing does.
 */

import type pg from 'pg';
import type { Config } from '../../config.js';
import { messageOf } from '../../errors.js';
import type { Logger } from '../../log.js';
import { connect } from '../../postgres/connect.js';
import { blame } from '../failures.js';
import type { ReplayHost } from './host.js';
import { fingerprint, nextJob, readJob, retryWaits, saveJob, takeJob } from './jobs.js';
import type { Job, JobFilter, JobState } from './jobs.js';
import { boundOf, pageEvents } from './page.js';
import type { ReplayMode } from './plan.js';
import { Replay } from './replay.js';
import type { JobRun, ReplayCounts } from './replay.js';
import { DeadRetry } from './retry.js';

export interface ReplayWorkOptions {
  readonly config: Config;
  readonly url: string;
  /** Reads and writes belfry.replay_job. */
  readonly client: pg.ClientBase;
  /** host:pid:random, for people. */
  readonly worker: string;
  readonly log: Pick<Logger, 'info' | 'warn'>;
}

interface Current {
  readonly job: Job;
  readonly replay: JobRun;
  readonly total: number | null;
  afterId: string;
  /** For the rate: when what was done so far would have been done at that rate. */
  dueAt: number;
  /** When its progress was last written. */
  savedAt: number;
}

/** A replay whose own connections fail is tried again after `ms`, `times` times in a row. */
const retry = { ms: 1_000, times: 10 } as const;

/** How often its progress is written, which also tells whether it is to stop. */
const saveMs = 200;

/**
 * Beside live traffic a replay rests after each page, for this share of the time that the page took. Without the rest, likes at 200 a second
 * took half as long again at the median, on two cores (`npm run bench -- replay`).
 */
const restShare = 0.75;

/** Pages a second where a rate is asked for. */
const pagesPerSecond = 5;

export class ReplayWork {
  private readonly mapping: string;
  private current: Current | null = null;
  private restAt = 0;
  private failures = 0;
  private stopping = false;
  private asked = false;
  private wake: (() => void) | null = null;
  private running: Promise<void> | null = null;
  private ended: unknown = null;

  constructor(private readonly options: ReplayWorkOptions) {
    this.mapping = fingerprint(options.config);
  }

  /** Works until `stop`, or until storing fails for a reason that ends the host's term as well. */
  start(host: ReplayHost): void {
    this.running = this.run(host);
  }

  /** The error of storing that ended it; null while it works. */
  get failure(): unknown {
    return this.ended;
  }

  /** Somebody may have asked for a replay. */
  ask(): void {
    this.asked = true;
    this.wake?.();
  }

  /** Ends after the page it is at; the next leader goes on. Idempotent. */
  async stop(): Promise<void> {
    this.stopping = true;
    this.wake?.();
    await this.running;
  }

  private async run(host: ReplayHost): Promise<void> {
    try {
      while (!this.stopping) {
        this.asked = false;
        if (await this.step(host)) continue;
        await this.sleep(this.current === null && this.failures === 0 ? Infinity : this.restAt - performance.now());
      }
    } catch (error) {
      this.ended = error;
      if (!this.stopping) this.options.log.warn({ error: messageOf(error) }, 'replays wait for the next leader');
    } finally {
      const { current } = this;
      // The next leader goes on here.
      if (current !== null) await this.save(current, host.term, 'running').catch(() => undefined);
      await this.drop();
    }
  }

  /** Does a page if one is due. Resolves to whether to go on at once. Throws only what the host's storing throws. */
  private async step(host: ReplayHost): Promise<boolean> {
    if (performance.now() < this.restAt) return false;
    const guarded = new GuardedHost(host);
    try {
      this.current ??= await this.look(guarded);
      if (this.current === null) return false;
      await this.page(this.current, guarded);
      this.failures = 0;
    } catch (error) {
      const id = this.current?.job.id ?? null;
      await this.drop();
      if (guarded.error !== null) throw guarded.error as Error;
      await this.failed(id, host.term, error);
    }
    return performance.now() >= this.restAt;
  }

  private async sleep(ms: number): Promise<void> {
    if (this.asked || this.stopping || ms <= 0) return;
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.wake = resolve;
      if (ms !== Infinity) timer = setTimeout(resolve, ms);
    });
    clearTimeout(timer);
    this.wake = null;
  }

  private async look(host: ReplayHost): Promise<Current | null> {
    const { config, url, client, worker, log } = this.options;
    const job = await nextJob(client);
    if (job === null) return null;
    if (job.mapping !== null && job.mapping !== this.mapping) {
      await this.end(
        job,
        host.term,
        `The relay that leads (${worker}) has read another mapping than the replay was asked for with: restart it, then belfry replay --resume ${job.id}.`,
      );
      return await this.look(host);
    }
    const bound = await takeJob(client, job.id, host.term, worker);
    if (bound === null) return null;
    const { mode } = job;
    const replay =
      mode === 'retry'
        ? await DeadRetry.open(url, config, job.filter)
        : await Replay.open(url, config, { mode, filter: job.filter, bound, dryRun: job.dryRun });
    Object.assign(replay.counts, job.counts);
    replay.lastError = job.error;
    try {
      const afterId =
        job.afterId === '0' && job.filter.limit !== undefined ? await replay.newest(job.filter.limit) : job.afterId;
      const total = job.total ?? (await replay.count(afterId));
      log.info({ replay: job.id, mode, events: total }, 'replay begins');
      return { job, replay, total, afterId, dueAt: performance.now(), savedAt: performance.now() };
    } catch (error) {
      await replay.close();
      throw error;
    }
  }

  private async page(current: Current, host: ReplayHost): Promise<void> {
    const { job, replay } = current;
    const before = replay.counts.processed;
    const began = performance.now();
    const busy = host.busy();
    const most = busy ? pageEvents.busy : pageEvents.quiet;
    const limit = job.rate === null ? most : Math.min(most, Math.max(1, Math.ceil(job.rate / pagesPerSecond)));
    const next = await replay.step(job.dryRun ? null : host, current.afterId, limit);
    if (next !== null) current.afterId = next;
    const now = performance.now();
    this.restAt = busy ? now + (now - began) * restShare : now;
    if (job.rate !== null) {
      // What a pause or a slow page has cost is not made up for by going faster than that afterwards, but for a page's worth.
      const dueAt = Math.max(current.dueAt, began - 1_000 / pagesPerSecond);
      current.dueAt = dueAt + ((replay.counts.processed - before) / job.rate) * 1_000;
      this.restAt = Math.max(this.restAt, current.dueAt);
    }
    if (next === null) await this.finish(current, host, 'done');
    else if (performance.now() < current.savedAt + saveMs) return;
    else if ((await this.save(current, host.term, 'running')) !== false) await this.finish(current, host, 'stopped');
    // It goes on after them, from what was just saved.
    else if (job.mode !== 'retry' && (await retryWaits(this.options.client))) {
      await this.drop();
      this.restAt = 0;
    }
  }

  private async finish(current: Current, host: ReplayHost, state: JobState): Promise<void> {
    const { job, replay } = current;
    if (state === 'done' && !job.dryRun) await replay.settle(host);
    await this.save(current, host.term, state);
    await this.drop();
    this.restAt = 0;
    this.options.log.info({ replay: job.id, ...replay.counts }, `replay ${state}`);
  }

  private save(current: Current, term: string, state: JobState): Promise<boolean | null> {
    const { job, replay, afterId, total } = current;
    current.savedAt = performance.now();
    return saveJob(this.options.client, job.id, term, {
      afterId,
      counts: replay.counts,
      total,
      error: replay.lastError,
      state,
    });
  }

  /** `id` is null where it failed before it was taken up. */
  private async failed(id: string | null, term: string, error: unknown): Promise<void> {
    const { client, log } = this.options;
    this.failures += 1;
    this.restAt = performance.now() + retry.ms;
    log.warn({ error: messageOf(error), tries: this.failures }, 'a replay failed');
    if (this.failures < retry.times && blame(error) !== 'event') return;
    this.failures = 0;
    const job = await (id === null ? nextJob(client) : readJob(client, id)).catch(() => null);
    if (job !== null) await this.end(job, term, messageOf(error)).catch(() => undefined);
  }

  private async end(job: Job, term: string, error: string): Promise<void> {
    const { id, afterId, counts, total } = job;
    await saveJob(this.options.client, id, term, { afterId, counts, total, error, state: 'failed' });
  }

  private async drop(): Promise<void> {
    const { current } = this;
    this.current = null;
    await current?.replay.close();
  }
}

/** Remembers an error of storing that no event is to blame for. */
class GuardedHost implements ReplayHost {
  error: unknown = null;

  constructor(private readonly host: ReplayHost) {}

  get term(): string {
    return this.host.term;
  }

  busy(): boolean {
    return this.host.busy();
  }

  publish(...publications: Parameters<ReplayHost['publish']>): void {
    this.host.publish(...publications);
  }

  moved(): number {
    return this.host.moved();
  }

  async process(...args: Parameters<ReplayHost['process']>): ReturnType<ReplayHost['process']> {
    try {
      return await this.host.process(...args);
    } catch (error) {
      if (blame(error) !== 'event') this.error = error;
      throw error;
    }
  }
}

/** Counts what a replay would do now. Changes nothing. `error`: of the last event that could not be judged. */
export async function countReplay(
  url: string,
  config: Config,
  { mode, filter }: { readonly mode: ReplayMode; readonly filter: JobFilter },
  onProgress: (processed: number, total: number) => void,
): Promise<{ readonly counts: Readonly<ReplayCounts>; readonly error: string | null }> {
  const client = await connect(url, { applicationName: 'belfry replay' });
  const bound = await boundOf(client).finally(() => client.end());
  const replay = await Replay.open(url, config, { mode, filter, bound, dryRun: true });
  try {
    let afterId: string | null = filter.limit === undefined ? '0' : await replay.newest(filter.limit);
    const total = await replay.count(afterId);
    while (afterId !== null) {
      afterId = await replay.step(null, afterId, pageEvents.quiet);
      onProgress(replay.counts.processed, total);
    }
    return { counts: replay.counts, error: replay.lastError };
  } finally {
    await replay.close();
  }
}
