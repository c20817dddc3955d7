/**
 * Does the database still fit the config? Looked at when a term begins, and every minute; the SQL of the config every ten.
 *
 * What must hold:
 * - A trigger that somebody took away is put back (capture/repair.ts) beside the relay, never in its way; what was missed meanwhile
 *   is repaired like lost events (lost.ts).
 * - What may not be repaired (a column that is gone, a function that was changed, no rights) is an alarm: told once in the log, and
 *   in a metric for as long as it lasts.
 * - When a table that the relay reads has changed its columns, or hides rows from it, the term ends: the next one asks anew.
 */

import type pg from 'pg';
import { repairCapture } from '../../capture/repair.js';
import { verifyCapture } from '../../capture/verify.js';
import type { HealthState, TriggerHealth } from '../../capture/verify.js';
import type { Config } from '../../config.js';
import { BelfryError, messageOf } from '../../errors.js';
import type { Logger } from '../../log.js';
import type { RelayMetrics } from '../../metrics.js';
import { connect } from '../../postgres/connect.js';
import { loadColumnTypes } from '../../schema/columns.js';
import { mappingProblems } from '../../schema/mapping.js';
import { hiddenRows } from '../../schema/row-security.js';
import type { Told } from './misfits.js';
import { onOwnConnection } from '../own-connection.js';

/** How long one attempt waits for a table that is locked. */
const lockBoundMs = 20_000;

/** A function or a view that the SQL of the config needs may go without a table that changes: seen this late. */
const mappingEveryMs = 600_000;

const alarms: readonly HealthState[] = ['missing', 'disabled', 'drifted', 'column gone', 'column retyped'];

export interface DriftOptions {
  readonly config: Config;
  readonly log: Logger;
  readonly metrics: Pick<RelayMetrics, 'captureProblems'>;
  readonly facts: pg.Client;
  readonly told: Told;
  /** Called when a repair is through, so that what was missed is looked for. */
  readonly repaired: () => void;
}

export class Drift {
  private fingerprint: string | null = null;
  private repairing: Promise<void> | null = null;
  private problems: readonly string[] = [];
  private mappingDueAt = -Infinity;

  constructor(private readonly options: DriftOptions) {}

  /** Throws BelfryError `unavailable` when the term must end. */
  async check(): Promise<void> {
    const { config, facts } = this.options;
    const { fingerprint } = await loadColumnTypes(facts, config);
    const changed = this.fingerprint !== null && this.fingerprint !== fingerprint;
    this.fingerprint = fingerprint;
    // What row-level security hides since is told by the term that then can't begin.
    if (changed || (await hiddenRows(facts, config)).length > 0) throw new TablesChanged();
    const health = (await verifyCapture(facts, config)).filter(({ state }) => state !== 'ok');
    this.tell(health, await this.mapping());
    await this.remember(health);
    const repairable = health.some(({ state, left }) => state === 'missing' || state === 'disabled' || left === true);
    if (this.repairing === null && repairable) {
      this.repairing = this.repair().finally(() => (this.repairing = null));
    }
  }

  /** Resolves when no repair runs any more. */
  async settled(): Promise<void> {
    await this.repairing;
  }

  /** What it asks of columns is known from the fingerprint; the SQL of the config is looked at more often only while something is wrong. */
  private async mapping(): Promise<readonly string[]> {
    const { config } = this.options;
    if (this.problems.length > 0 || performance.now() >= this.mappingDueAt) {
      try {
        this.problems = await onOwnConnection(config, (client) => mappingProblems(client, config));
        this.mappingDueAt = performance.now() + mappingEveryMs;
      } catch {
        // What was found last holds until a look succeeds, which the next check tries.
      }
    }
    return this.problems;
  }

  /** Once per change of what is wrong. */
  private tell(health: readonly TriggerHealth[], mapping: readonly string[]): void {
    const { log, metrics, told } = this.options;
    for (const state of alarms)
      metrics.captureProblems.set(
        { state: state.replace(' ', '_') },
        health.filter((one) => one.state === state).length,
      );
    metrics.captureProblems.set({ state: 'mapping' }, mapping.length);
    const problems = [
      ...health.map(({ source, table, detail }) => `${source} on ${table}: ${detail ?? ''}`),
      ...mapping,
    ];
    const now = [...new Set(problems)];
    if (now.length === 0) told.forget();
    if (!told.isNews('drift', now)) return;
    if (now.length === 0) log.info({}, 'triggers and columns are as the config says again');
    else log.error({ problems: now }, 'the database does not fit the config: run belfry doctor');
  }

  /** Moves the time until which each source was in order. */
  private async remember(health: readonly TriggerHealth[]): Promise<void> {
    const { config, facts } = this.options;
    const broken = new Set(health.filter(({ state }) => state !== 'column retyped').map(({ source }) => source));
    const sound = config.sources.map(({ name }) => name).filter((name) => !broken.has(name));
    await facts.query(
      `insert into belfry.capture_check as c (source, ok_at) select s, clock_timestamp() from unnest($1::text[]) s
       on conflict (source) do update set ok_at = excluded.ok_at`,
      [sound],
    );
  }

  private async repair(): Promise<void> {
    const { config, log, repaired } = this.options;
    let client: pg.Client | null = null;
    try {
      client = await connect(config.database.listenUrl, { applicationName: 'belfry drift' });
      const { changed, missed } = await repairCapture(client, config, { log, lockBoundMs });
      if (changed.length === 0) return;
      log.warn({ changed, missed }, 'triggers that were gone or switched off are back');
      repaired();
    } catch (error) {
      log.error(
        { error: messageOf(error) },
        'triggers could not be put back: run belfry migrate as the owner of the tables',
      );
    } finally {
      await client?.end().catch(() => undefined);
    }
  }
}

/** The columns that the relay's statements were made for are not those of the tables any more. */
export class TablesChanged extends BelfryError {
  constructor() {
    super('unavailable', 'a table of the config has changed its columns or keys', { retry: true });
  }
}
