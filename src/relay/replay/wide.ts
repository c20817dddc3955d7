/**
 * Counts what wide events come to in a replay. Jobs of their own deliver them, when the replay has long gone on; whom they will reach is
 * judged here in the same steps, so that a dry run and a replay give the same numbers.
 *
 * At most one step of recipients is in memory.
 */

import type { Config } from '../../config.js';
import type { ColumnTypes } from '../../schema/columns.js';
import type { BatchConnections, BatchProcessor } from '../batch.js';
import { nextRecipients, recipientsOfSources } from '../wide/fan-out.js';
import type { DeliverStep } from '../plan/steps.js';
import type { WideStep } from '../wide/wide.js';
import { presentRowOf } from './page.js';

/** Recipients judged at once, as many as a job tells at most. */
const stepRecipients = 5_000;

export interface WideCounts {
  readonly delivered: number;
  readonly suppressed: number;
  readonly already: number;
  readonly withdrawn: number;
}

export class WideCounter {
  private readonly recipients: ReadonlyMap<string, string>;
  /** Rows that were counted: a later event of the same row brings nobody anything. */
  private readonly counted = new Set<string>();

  constructor(
    private readonly processor: BatchProcessor,
    private readonly connections: Pick<BatchConnections, 'reader' | 'writer' | 'plans'>,
    private readonly config: Config,
    private readonly types: ColumnTypes,
  ) {
    this.recipients = recipientsOfSources(config.sources, types);
  }

  /** `told`: events that were told wide, and are not told again. What it says holds once `settled` is called, with the same steps. */
  async count(steps: readonly WideStep[], told: readonly DeliverStep[]): Promise<WideCounts> {
    const counts = { delivered: 0, suppressed: 0, already: 0, withdrawn: 0 };
    const counted = new Set<string>();
    for (const step of steps) {
      if (step.kind === 'retract') counts.withdrawn += await this.standing(step.source, step.key);
      else await this.countStep(step, counts, counted);
    }
    for (const { source, key } of told) counts.already += await this.standing(source, key);
    return counts;
  }

  /** These steps are done, and their part will not be halved: they are not counted again. */
  settled(steps: readonly WideStep[]): void {
    for (const step of steps) if (step.kind === 'deliver') this.counted.add(rowOf(step));
  }

  private async countStep(
    step: DeliverStep,
    counts: { -readonly [Key in keyof WideCounts]: number },
    counted: Set<string>,
  ): Promise<void> {
    const { reader } = this.connections;
    const sql = this.recipients.get(step.source);
    if (sql === undefined) return;
    const again = this.counted.has(rowOf(step)) || counted.has(rowOf(step));
    counted.add(rowOf(step));
    const values = (await presentRowOf(reader, this.config.sources, this.types, step)) ?? '{}';
    for (let after = '', full = true; full;) {
      const users = await nextRecipients(reader, sql, values, after, stepRecipients);
      const { added, verdicts } = await this.processor.judgeWide(this.connections, step, users);
      const already = verdicts.filter(({ rule }) => rule === 'duplicate').length;
      counts.delivered += again ? 0 : added.length;
      counts.already += already + (again ? added.length : 0);
      counts.suppressed += verdicts.length - already;
      after = users.at(-1) ?? after;
      full = users.length === stepRecipients;
    }
  }

  /** How many people have an event of this row. */
  private async standing(source: string, key: string): Promise<number> {
    const { rows } = await this.connections.writer.query<{ count: number }>(
      'select count(*)::int as count from belfry.notification_event where source = $1 and key = $2 and removed_at is null',
      [source, key],
    );
    return rows[0]?.count ?? 0;
  }
}

function rowOf({ source, key }: DeliverStep): string {
  return `${source}\0${key}`;
}
