/**
 * What a leader does now and then between batches: repairs what triggers lost, looks whether the triggers
 * are still there, and whether an owner who was not known is known now. Reading waits for them, so each is cheap when there is nothing to do;
 * none may end a term but the one that finds the tables changed, so errors are told.
 */

import type pg from 'pg';
import type { Config } from '../../config.js';
import { messageOf } from '../../errors.js';
import { seedDue } from '../../inbox/seed.js';
import type { Logger } from '../../log.js';
import type { RelayMetrics } from '../../metrics.js';
import { parseSnapshot } from '../../outbox/cursor.js';
import { Drift, TablesChanged } from './drift.js';
import { resolveHeld } from './held.js';
import type { Leading } from '../leading.js';
import { repairLost } from './lost.js';
import type { Told } from './misfits.js';
import { requestJob } from '../replay/jobs.js';
import { dueRetries } from '../replay/retry.js';

export interface ChoresOptions {
  readonly config: Config;
  readonly log: Logger;
  readonly facts: pg.Client;
  readonly writer: pg.Client;
  readonly metrics: RelayMetrics;
  readonly told: Told;
  /** Ends the relay's sleep: there is something to do at once. */
  readonly wake: () => void;
}

const everyMs = {
  drift: 60_000,
  look: 10_000,
} as const;

/** A count that failed rests so many times as long as it took. */
const countRetry = { leastMs: 60_000, rest: 20 } as const;

/** Dead letters that are tried again in one go. */
const retriesAtOnce = 100;

export class Chores {
  private readonly dueAt = { drift: 0, look: 0 };
  private readonly drift: Drift;
  private countAt = 0;

  constructor(private readonly options: ChoresOptions) {
    const { config, log, metrics, facts, told, wake } = options;
    this.drift = new Drift({
      config,
      log,
      metrics,
      facts,
      told,
      repaired: () => {
        this.dueAt.look = 0;
        wake();
      },
    });
  }

  /** Resolves when nothing of it is left running. */
  async settled(): Promise<void> {
    await this.drift.settled();
  }

  /** Somebody rang, and there was nothing to read: a capture may have failed. */
  lookNow(): void {
    this.dueAt.look = 0;
    this.options.wake();
  }

  /** Does what is due. */
  async run(leading: Leading): Promise<void> {
    const { config, log, facts } = this.options;
    await this.when('drift', () => this.drift.check());
    await this.when('look', async () => {
      const { due, lost, held, dead } = await this.look(leading);
      if (lost) await repairLost({ config, log, facts, leading });
      if (dead) await this.retryDead();
      if (held) await resolveHeld({ facts, leading });
      if (due) await this.count(leading);
    });
  }

  /**
   * One statement that says what there is to do, and measures what stands still: a relay that is paused, or can't store,
   * reads nothing that would tell.
   */
  private async look(leading: Leading): Promise<{ due: boolean; lost: boolean; held: boolean; dead: boolean }> {
    const { facts, metrics } = this.options;
    const { xmax } = parseSnapshot(leading.cursor.seen);
    const { rows } = await facts.query<{
      due: boolean;
      lost: boolean;
      held: boolean;
      dead: number;
      waiting: number;
      replays: number;
      lag: number | null;
    }>(
      `select exists (select from belfry.source_state where due) as due, exists (select from belfry.lost) as lost, exists (select from belfry.held) as held,
              (select count(*)::int from belfry.dead_event) as dead,
              (select count(*)::int from belfry.dead_event where waits_for <> '{}') as waiting,
              (select count(*)::int from belfry.replay_job where state in ('waiting', 'running')) as replays,
              extract(epoch from clock_timestamp() - (
                select at from belfry.outbox where xid >= $1::xid8 order by xid limit 1))::float8 as lag`,
      [xmax],
    );
    const { due = false, lost = false, held = false, dead = 0, waiting = 0, replays = 0, lag = null } = rows[0] ?? {};
    metrics.deadLettersNow.set(dead);
    metrics.deadLettersWaiting.set(waiting);
    leading.deadLettersChanged();
    metrics.replays.set(replays);
    metrics.lagSeconds.set(Math.max(0, lag ?? 0));
    return { due, lost, held, dead: dead > 0 };
  }

  /**
   * Sources that belfry migrate left to be counted, because this relay leads or began to. Reading waits for it, so one that failed is not tried
   * again before as long as it took has passed many times.
   */
  private async count(leading: Leading): Promise<void> {
    const { config, log, facts } = this.options;
    const began = performance.now();
    if (began < this.countAt) return;
    try {
      if ((await seedDue(facts, config, log)).length === 0) return;
    } catch (error) {
      const now = performance.now();
      this.countAt = now + Math.max(countRetry.leastMs, (now - began) * countRetry.rest);
      throw error;
    }
    // It was read with the counts before.
    leading.forgetAhead();
    leading.publish([{ to: 'control', kind: 'resync', reason: 'counted', userIds: null }]);
  }

  private async retryDead(): Promise<void> {
    const { facts } = this.options;
    const ids = await dueRetries(facts, retriesAtOnce);
    if (ids.length > 0) await requestJob(facts, { mode: 'retry', filter: { ids }, rate: null, mapping: null });
  }

  private async when(chore: keyof typeof everyMs, work: () => Promise<void>): Promise<void> {
    if (performance.now() < this.dueAt[chore]) return;
    this.dueAt[chore] = performance.now() + everyMs[chore];
    try {
      await work();
    } catch (error) {
      if (error instanceof TablesChanged) throw error;
      this.options.log.warn({ chore, error: messageOf(error) }, 'a chore failed; it is tried again later');
    }
  }
}
