/**
 * Wide events, as jobs in the database (belfry.fanout_job).
 *
 * What must hold: a job is opened in the transaction that stores the batch of its event, and moves on in the transaction that stores what
 * its step made. So a crash repeats nothing and leaves nothing out, and both are fenced by the term, since belfry.store_batch commits with
 * them. What was delivered in steps is also taken back in steps. When a row was edited, those for whom it still is keep what they have.
 */

import type pg from 'pg';
import { counterKey } from '../facts/group-facts.js';
import type { Plan } from '../plan/plan.js';
import type { DeliverStep, RetractStep, Step } from '../plan/steps.js';

/** A step that was taken out of a batch. */
export type WideStep = DeliverStep | (RetractStep & { readonly eventId: string });

export interface Diverted {
  readonly plan: Plan;
  readonly wide: readonly WideStep[];
}

export class WideEvents {
  /** Whether a row may have been wide ever; while none was, nobody needs to be asked. */
  private any = true;

  /** Whether `divert` may find any in this plan. */
  concerns(plan: Plan): boolean {
    return plan.steps.some((step) => isWide(step) || (this.any && mayBeWide(step)));
  }

  /** Takes the steps that are too wide for a batch out of its plan. One statement at most, and another where a held row may have got its owner. */
  async divert(client: pg.ClientBase, plan: Plan): Promise<Diverted> {
    const asked = this.any ? plan.steps.filter((step) => isWide(step) || mayBeWide(step)) : [];
    const known = asked.length === 0 ? new Set<string>() : await this.known(client, asked);
    const found = plan.steps.filter((step) => isWide(step) && !mayChange(step));
    const held = found.length === 0 ? new Set<string>() : await heldOf(client, found);
    const wide: WideStep[] = [];
    const steps = plan.steps.filter((step) => {
      const changes = mayChange(step) || held.has(keyOf(step));
      if (!changes || !(isWide(step) || known.has(keyOf(step)))) return true;
      wide.push(
        step.kind === 'retract' ? { ...step, eventId: step.keepBy ?? plan.lastEventId } : { ...step, ifHeld: false },
      );
      return false;
    });
    return wide.length === 0 ? { plan, wide } : { plan: { ...plan, steps }, wide };
  }

  /**
   * Opens a job for each step, with its row of `rows` or of the outbox. A retraction ends the delivery that is still under way; a row that
   * was held is held no longer. To be called in the transaction of the batch.
   */
  async open(
    client: pg.ClientBase,
    wide: readonly WideStep[],
    rows: ReadonlyMap<string, string> = new Map(),
  ): Promise<void> {
    this.any = true;
    for (const step of wide) {
      if (step.kind === 'retract')
        await client.query(
          `update belfry.fanout_job set done_at = clock_timestamp(), error = 'taken back'
            where source = $1 and key = $2 and kind = 'deliver' and done_at is null`,
          [step.source, step.key],
        );
      await client.query('delete from belfry.held where source = $1 and key = $2', [step.source, step.key]);
      const described = step.kind === 'deliver' ? { ...step, recipients: [] } : { keeps: step.keepBy !== undefined };
      await client.query(
        `insert into belfry.fanout_job (kind, source, key, event_id, step, row)
         values ($1, $2, $3, $4, $5, coalesce($6::jsonb, (select o.new from belfry.outbox o where o.id = $4), '{}'))`,
        [
          step.kind,
          step.source,
          step.key,
          step.eventId,
          JSON.stringify(described),
          (step.kind === 'deliver' ? rows.get(keyOf(step)) : undefined) ?? null,
        ],
      );
    }
  }

  private async known(client: pg.ClientBase, steps: readonly Step[]): Promise<ReadonlySet<string>> {
    const { keys, any } = await wideKeys(client, steps);
    this.any = any;
    return keys;
  }
}

/** Those of these rows (`counterKey`) that have or had a job, and whether there is any job at all. */
export async function wideKeys(
  client: pg.ClientBase,
  steps: readonly Step[],
): Promise<{ readonly keys: ReadonlySet<string>; readonly any: boolean }> {
  const { rows } = await client.query<{ source: string; key: string }>({
    name: 'belfry_wide_keys',
    text: `select j.source, j.key from unnest($1::text[], $2::text[]) u(source, key)
             join belfry.fanout_job j on j.source = u.source and j.key = u.key
           union all
           select '', '' where exists (select from belfry.fanout_job)`,
    values: [steps.map(({ source }) => source), steps.map(({ key }) => key)],
  });
  return { keys: new Set(rows.map(keyOf)), any: rows.length > 0 };
}

/** Those of these rows that wait for their owner. */
async function heldOf(client: pg.ClientBase, steps: readonly Step[]): Promise<Set<string>> {
  const { rows } = await client.query<{ source: string; key: string }>(
    `select h.source, h.key from unnest($1::text[], $2::text[]) u(source, key)
       join belfry.held h on h.source = u.source and h.key = u.key and h.until > clock_timestamp()`,
    [steps.map(({ source }) => source), steps.map(({ key }) => key)],
  );
  return new Set(rows.map(keyOf));
}

function isWide(step: Step): boolean {
  return step.wide === true;
}

/** Whether the step is about a row that was there before, and about everybody who has it. */
function mayBeWide(step: Step): boolean {
  return step.kind === 'retract' ? step.onlyUser === undefined : step.byUpdate || step.fresh;
}

/** An update of a wide row that changes nothing for its recipients stays with the batch, where it comes to nothing, unless it was held. */
function mayChange(step: Step): boolean {
  return step.kind === 'retract' || !step.ifHeld;
}

function keyOf({ source, key }: { readonly source: string; readonly key: string }): string {
  return counterKey(source, key);
}
