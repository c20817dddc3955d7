/**
 * Watching a job of belfry.replay_job from a command: who leads does the work; where nobody does, this process leads for as long.
 * Ctrl-C stops the job after the page it is at, and so does whatever ends the command: what an operator was told has failed is not done
 * later by a relay.
 */

import type pg from 'pg';
import { logLevelOf } from '../config.js';
import type { Config } from '../config.js';
import { counted } from '../counted.js';
import { BelfryError } from '../errors.js';
import { createLogger } from '../log.js';
import { readJob, stopJob } from '../relay/replay/jobs.js';
import type { Job } from '../relay/replay/jobs.js';
import { note } from './common.js';
import { explain } from './report.js';

const lookMs = 100;

/** Plain lines this far apart; on a terminal one line that changes. */
const tellMs = { terminal: 250, plain: 5_000 } as const;

/** Returns the job when it is over. Throws when it failed or was stopped. */
export async function followJob(client: pg.ClientBase, config: Config, id: string, what: string): Promise<Job> {
  const stopping = new AbortController();
  const onSignal = (): void => {
    if (stopping.signal.aborted) process.exit(1);
    stopping.abort();
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  const progress = new Progress();
  const read = async (): Promise<Job> => {
    const job = await readJob(client, id);
    if (job === null) throw new BelfryError('not_found', `There is no replay ${id}.`);
    progress.tell(job);
    return job;
  };
  const isOpen = (job: Job): boolean => job.state === 'waiting' || job.state === 'running';
  try {
    for (let stopped = false; ;) {
      const job = await read();
      if (!isOpen(job)) return ended(job, what);
      if (stopping.signal.aborted && !stopped) {
        stopped = true;
        await stopJob(client, id);
        continue;
      }
      const relay = await relayState(client);
      if (relay.paused && !stopped) throw new BelfryError('unavailable', 'The relay is paused: belfry resume.');
      if (!relay.leads) {
        const log = createLogger({ level: logLevelOf(undefined, undefined, 'silent'), name: 'replay', to: 'stderr' });
        const { workAlone } = await import('../relay/replay/alone.js');
        await workAlone({ config, log, signal: stopping.signal, wanted: async () => isOpen(await read()) });
      }
      await new Promise((resolve) => setTimeout(resolve, lookMs));
    }
  } catch (error) {
    if (!(await stopJob(client, id).catch(() => false))) throw error;
    const code = error instanceof BelfryError ? error.code : 'unavailable';
    const message = `${explain(error).replace(/\.$/, '')}; then belfry replay --resume ${id} goes on.`;
    throw new BelfryError(code, message, { cause: error });
  } finally {
    progress.end();
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
  }
}

function ended(job: Job, what: string): Job {
  if (job.state === 'done') return job;
  const resume = `belfry replay --resume ${job.id} goes on`;
  if (job.state === 'stopped')
    throw new BelfryError(
      'unavailable',
      `${what} was stopped after ${counted(job.counts.processed, 'event')}: ${resume}.`,
    );
  throw new BelfryError('unavailable', `${what} failed: ${job.error ?? 'for no known reason'}`);
}

async function relayState(client: pg.ClientBase): Promise<{ readonly leads: boolean; readonly paused: boolean }> {
  const { rows } = await client.query<{ leads: boolean; paused: boolean }>(
    `select lease_until > clock_timestamp() as leads, paused from belfry.relay where name = 'main'`,
  );
  return rows[0] ?? { leads: false, paused: false };
}

/** How far a job is, on stderr: stdout is for what it came to. */
export class Progress {
  private readonly terminal = process.stderr.isTTY;
  private toldAt = performance.now();
  private width = 0;

  tell(job: Pick<Job, 'counts' | 'total' | 'secondsLeft'>): void {
    const { counts, total, secondsLeft } = job;
    if (performance.now() - this.toldAt < (this.terminal ? tellMs.terminal : tellMs.plain)) return;
    this.toldAt = performance.now();
    const of =
      total === null || total === 0
        ? ''
        : ` of ${total} (${Math.min(100, (100 * counts.processed) / total).toFixed(1)} %)`;
    const left = secondsLeft === null ? '' : `, about ${Math.ceil(secondsLeft)} s left`;
    const text = `${counts.processed}${of} processed, ${counts.delivered} delivered, ${counts.suppressed} suppressed, ${counts.already} already there${left}`;
    if (!this.terminal) return note(text);
    process.stderr.write(`\r${text.padEnd(this.width)}`);
    this.width = text.length;
  }

  end(): void {
    if (this.width > 0) process.stderr.write(`\r${' '.repeat(this.width)}\r`);
  }
}
