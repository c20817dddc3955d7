/**
 * What a replay asks for: the plan of live processing without what must not happen twice (counters, channel events, revocations,
 * blocks), and for a rebuild with what should not be there. Everything else is decided by the rules, as live.
 */

import type pg from 'pg';
import type { Config, Source } from '../../config.js';
import { suppressedBy } from '../../rules/privacy.js';
import type { PrivacyFacts } from '../../rules/privacy.js';
import { deliversOf, deliveryOf, deliveryQuestions, mostShares } from '../questions.js';
import type { Preparation } from '../batch.js';
import { BatchTooLarge, counterKey } from '../group-facts.js';
import { planPage } from '../plan.js';
import type { DeliverStep, Plan, RetractStep, Step } from '../plan.js';
import type { PrivacyLoader } from '../privacy-facts.js';
import type { PageEvent } from '../resolved.js';
import type { ColumnTypes } from '../../schema/columns.js';
import { wideKeys } from '../wide.js';
import { presentEvents, presentRowOf } from './page.js';

/** A row of a source, or a dedupe_key of belfry.notify. */
type Row = Pick<DeliverStep, 'source' | 'key'>;

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
    // Awaited below or by the processor; a failure in between is not unhandled.
    privacy.catch(() => undefined);
    const undue =
      mode === 'rebuild'
        ? await this.undue(
            deliversOf(live).filter(({ wide }) => !wide),
            steps,
            await privacy,
          )
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

  /** Rows of events that a job tells, or told once, as they are now: their recipients are asked with them. */
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

  /** A wide event is told by a job of its own; one that was told is only told again by a rebuild. */
  private async toldWide(steps: readonly Step[]): Promise<readonly DeliverStep[]> {
    const wide = steps.flatMap((step) => (step.kind === 'deliver' && step.wide ? [step] : []));
    if (wide.length === 0 || this.options.mode === 'rebuild') return [];
    const { rows } = await this.options.client.query<{ id: string }>(
      `select event_id::text as id from belfry.fanout_job where kind = 'deliver' and event_id = any($1::bigint[])`,
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
    const nameOf = ({ source, key }: Row, userId: string | null): string =>
      `${counterKey(source, key)}\0${userId ?? ''}`;
    for (const step of steps)
      if (step.kind === 'deliver') for (const userId of aboutWhom(step)) due.set(nameOf(step, userId), step);
    const asked = rows.flatMap((row) => aboutWhom(row).map((userId) => ({ row, userId })));
    const standing = await client.query<Row & { readonly user_id: string; readonly alone: boolean }>(
      `with w as (select distinct * from unnest($1::text[], $2::text[], $5::text[]) w(source, key, user_id))
       select s.source, s.key, s.user_id, s.alone
         from (select e.*, false as alone from w join belfry.notification_event e on e.source = w.source and e.key = w.key
                where w.user_id is null
               union all
               select e.*, true from w join belfry.notification_event e on e.source = w.source and e.key = w.key and e.user_id = w.user_id) s
        where s.removed_at is null and ($3::text is null or s.user_id = $3)
        limit $4`,
      [
        asked.map(({ row }) => row.source),
        asked.map(({ row }) => row.key),
        onlyUser,
        rows.length > 1 ? mostShares + 1 : null,
        asked.map(({ userId }) => userId),
      ],
    );
    if (rows.length > 1 && standing.rows.length > mostShares) throw new BatchTooLarge();
    return standing.rows.flatMap(({ source, key, user_id, alone }): RetractStep[] => {
      const step = due.get(nameOf({ source, key }, alone ? user_id : null));
      const stays =
        step?.recipients.includes(user_id) === true &&
        suppressedBy(source, deliveryOf(step, user_id), privacy) === null;
      return stays ? [] : [{ kind: 'retract', source, key, onlyUser: user_id }];
    });
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

/** Of whom alone a row tells that others may have, too; null: what everybody has of it is judged. */
function aboutWhom({ alone, recipients }: DeliverStep): readonly (string | null)[] {
  return alone && recipients.length > 0 ? recipients : [null];
}
