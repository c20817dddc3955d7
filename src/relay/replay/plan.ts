/**
 * What a replay asks for: the plan of live processing without what must not happen twice (counters, channel events, revocations,
 * blocks), and for a rebuild with what should not be there. Everything else is decided by the rules, as live.
 */

import type pg from 'pg';
import type { Config, Source } from '../../config.js';
import { suppressedBy } from '../../rules/privacy.js';
import type { PrivacyFacts } from '../../rules/privacy.js';
import { deliversOf, deliveryOf, deliveryQuestions, mostShares } from '../plan/questions.js';
import type { Preparation } from '../batch.js';
import { BatchTooLarge, counterKey } from '../facts/group-facts.js';
import { planPage } from '../plan/plan.js';
import type { Plan } from '../plan/plan.js';
import type { DeliverStep, RetractStep, Step } from '../plan/steps.js';
import type { PrivacyLoader } from '../facts/privacy-facts.js';
import type { PageEvent } from '../plan/resolved.js';
import type { ColumnTypes } from '../../schema/columns.js';
import { wideKeys } from '../wide/wide.js';
import { presentEvents, presentRowOf } from './page.js';

const notifySource = 'belfry.notify';

export type ReplayMode = 'deliver' | 'rebuild';

export interface PlannerOptions {
  readonly config: Config;
  readonly types: ColumnTypes;
  readonly privacy: PrivacyLoader;
  /** Asks about people, and about what stands in the inbox. */
  readonly client: pg.ClientBase;
  readonly mode: ReplayMode;
  /** A rebuild of one person's inbox leaves all others alone. */
  readonly onlyUser: string | null;
}

export class ReplayPlanner {
  private readonly sources: ReadonlyMap<string, Source>;

  constructor(private readonly options: PlannerOptions) {
    this.sources = new Map(options.config.sources.map((source) => [source.name, source]));
  }

  /**
   * Events as ReplayPages gives them; `announced`: how many of them are announcements that everybody has; `told`: what was told wide
   * and is not told again. Throws BatchTooLarge.
   */
  async prepare(items: readonly PageEvent[]): Promise<{
    readonly preparation: Preparation;
    readonly announced: number;
    readonly told: readonly DeliverStep[];
  }> {
    const { config, client, privacy: loader, mode } = this.options;
    const events = presentEvents(items, mode === 'rebuild');
    const live = planPage(events, { sources: this.sources, groups: (type) => Object.hasOwn(config.aggregation, type) });
    const wanted = live.steps.flatMap((step) => this.replayed(step));
    const told = await this.toldWide(wanted);
    const toldSteps = new Set<Step>(told);
    const steps = wanted.filter((step) => !toldSteps.has(step));
    const rows = await this.rowsOfWide(steps);
    const privacy = loader.load(client, deliveryQuestions(deliversOf({ ...live, steps })));
    // Awaited below or by the processor; until then a failure must not count as unhandled.
    privacy.catch(() => undefined);
    const undue =
      mode === 'rebuild'
        ? [
            ...(await this.undue(
              deliversOf(live).filter(({ wide, source }) => !wide && source !== notifySource),
              steps,
              await privacy,
            )),
            ...(await this.undueNotified(deliversOf({ ...live, steps }), await privacy)),
          ]
        : [];
    const missing = await this.missing(live.announcements);
    const plan: Plan = {
      ...live,
      steps: [...undue, ...steps],
      announcements: this.options.onlyUser === null ? missing : [],
      counters: new Map(),
      notes: [],
      broadcasts: [],
      revoked: [],
      revokedSessions: [],
      muted: [],
      threadsMuted: [],
      blocked: [],
      blocksChanged: new Set(),
      mayCountOtherwise: new Set(),
      sources: new Set(),
    };
    return {
      preparation: { events, plan, privacy, groups: null, replayed: true, rows },
      announced: live.announcements.length - missing.length,
      told,
    };
  }

  /** Rows of events that have or had a job, as they are now: recipients are looked up from them. */
  private async rowsOfWide(steps: readonly Step[]): Promise<ReadonlyMap<string, string>> {
    const { client, config, types } = this.options;
    const delivers = steps.flatMap((step) => (step.kind === 'deliver' ? [step] : []));
    const rows = new Map<string, string>();
    if (delivers.length === 0) return rows;
    const { keys } = await wideKeys(client, delivers);
    for (const step of delivers) {
      const key = counterKey(step.source, step.key);
      if ((step.wide || keys.has(key)) && !rows.has(key))
        rows.set(key, (await presentRowOf(client, config.sources, types, step)) ?? '{}');
    }
    return rows;
  }

  private replayed(step: Step): Step[] {
    const { onlyUser } = this.options;
    if (step.kind === 'retract') return [onlyUser === null ? step : { ...step, onlyUser }];
    // An owner that is still unknown was held when it happened, and only for so long.
    if (step.unresolved || step.ifHeld) return [];
    if (onlyUser === null) return [step];
    const recipients = step.recipients.filter((recipient) => recipient === onlyUser);
    return recipients.length === 0 ? [] : [{ ...step, recipients }];
  }

  /** A wide event is told by a job of its own; one that was told is only told again by a rebuild. A job that failed has not told all. */
  private async toldWide(steps: readonly Step[]): Promise<readonly DeliverStep[]> {
    const wide = steps.flatMap((step) => (step.kind === 'deliver' && step.wide ? [step] : []));
    if (wide.length === 0 || this.options.mode === 'rebuild') return [];
    const { rows } = await this.options.client.query<{ id: string }>(
      `select event_id::text as id from belfry.fanout_job
        where kind = 'deliver' and event_id = any($1::bigint[]) and (error is null or error in ('taken back', 'truncated'))`,
      [wide.map(({ eventId }) => eventId)],
    );
    const told = new Set(rows.map(({ id }) => id));
    return wide.filter(({ eventId }) => told.has(eventId));
  }

  /** What stands in inboxes for these rows, and by today's mapping and rules should not. Throws BatchTooLarge, but not of a single row. */
  private async undue(
    rows: readonly DeliverStep[],
    steps: readonly Step[],
    privacy: PrivacyFacts,
  ): Promise<RetractStep[]> {
    const { client, onlyUser } = this.options;
    const due = new Map<string, DeliverStep>();
    for (const step of steps) if (step.kind === 'deliver') due.set(counterKey(step.source, step.key), step);
    const standing = await client.query<{ source: string; key: string; user_id: string }>(
      `select e.source, e.key, e.user_id
         from unnest($1::text[], $2::text[]) w(source, key)
         join belfry.notification_event e on e.source = w.source and e.key = w.key
        where e.removed_at is null and ($3::text is null or e.user_id = $3)
        limit $4`,
      [rows.map(({ source }) => source), rows.map(({ key }) => key), onlyUser, rows.length > 1 ? mostShares + 1 : null],
    );
    if (rows.length > 1 && standing.rows.length > mostShares) throw new BatchTooLarge();
    return standing.rows.flatMap(({ source, key, user_id }): RetractStep[] => {
      const step = due.get(counterKey(source, key));
      const stays =
        step?.recipients.includes(user_id) === true &&
        suppressedBy(source, deliveryOf(step, user_id), privacy) === null;
      return stays ? [] : [{ kind: 'retract', source, key, onlyUser: user_id }];
    });
  }

  /**
   * Likewise of what belfry.notify told. Each event speaks for what it told itself: the same dedupe_key may have been given for others, and
   * for the same person in the name of somebody else.
   */
  private async undueNotified(steps: readonly DeliverStep[], privacy: PrivacyFacts): Promise<RetractStep[]> {
    const told = steps.flatMap((step) =>
      step.source === notifySource ? step.recipients.map((userId) => ({ step, userId })) : [],
    );
    const undue = told.filter(
      ({ step, userId }) => suppressedBy(step.source, deliveryOf(step, userId), privacy) !== null,
    );
    if (undue.length === 0) return [];
    const { rows } = await this.options.client.query<{ key: string; user_id: string }>(
      `select e.key, e.user_id
         from unnest($2::text[], $3::text[], $4::bigint[]) w(key, user_id, event_id)
         join belfry.notification_event e on e.source = $1 and e.key = w.key and e.user_id = w.user_id and e.event_id = w.event_id
        where e.removed_at is null`,
      [
        notifySource,
        undue.map(({ step }) => step.key),
        undue.map(({ userId }) => userId),
        undue.map(({ step }) => step.eventId),
      ],
    );
    return rows.map(({ key, user_id }) => ({ kind: 'retract', source: notifySource, key, onlyUser: user_id }));
  }

  /** Announcements that nobody has heard. */
  private async missing(announcements: Plan['announcements']): Promise<Plan['announcements']> {
    if (announcements.length === 0) return announcements;
    const { rows } = await this.options.client.query<{ id: string }>(
      'select event_id::text as id from belfry.announcement where event_id = any($1::bigint[])',
      [announcements.map(({ id }) => id)],
    );
    const told = new Set(rows.map(({ id }) => id));
    return announcements.filter(({ id }) => !told.has(id));
  }
}
