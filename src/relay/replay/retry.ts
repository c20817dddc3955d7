/**
 * Dead letters, tried again: one after the other, in the order in which they were written.
 *
 * What must hold:
 * - What the event never brought about happens now: counters move, channels hear of it. Whom it is for is judged by the row as it is now,
 *   since later events of the same row went ahead.
 * - A dead letter is gone in the transaction that stores what it came to, so a crash moves no counter twice.
 * - A wide event of which a step failed was stored before: only its recipients are told, its counters and channels were.
 * - One that fails again stays, with one attempt more and its new error; what waits for it stays behind it.
 */

import type pg from 'pg';
import { MemoryBroker } from '../../broker/memory.js';
import type { Config } from '../../config.js';
import { messageOf, sqlState } from '../../errors.js';
import { loadColumnTypes } from '../../schema/columns.js';
import type { ColumnTypes } from '../../schema/columns.js';
import { BatchProcessor } from '../batch.js';
import type { Preparation } from '../batch.js';
import { mappedSources } from '../connections.js';
import { blame } from '../failures.js';
import { conditionOf } from '../look/filter.js';
import { planPage } from '../plan/plan.js';
import { PrivacyLoader } from '../facts/privacy-facts.js';
import { resolveSql } from '../plan/resolve.js';
import { eventsOf } from '../plan/resolved.js';
import type { PageEvent, ResolvedRow } from '../plan/resolved.js';
import { assertColumns } from '../upkeep/incomplete.js';
import { assertMapped } from '../dead-letters/unmapped.js';
import type { JobFilter } from './jobs.js';
import { presentRows } from './page.js';
import { connectForTurns, storeFresh } from './host.js';
import type { ReplayHost } from './host.js';
import { ReplayPlanner } from './plan.js';
import { noCounts } from './replay.js';
import type { JobRun } from './replay.js';

/** A dead letter is tried again without being asked for after 30 s, 2 min, 8 min, …, at most every 6 h, until it was tried `attempts` times. */
export const retries = { attempts: 8, firstSeconds: 30, factor: 4, longestSeconds: 21_600 } as const;

/** Ids of dead letters that are due for that, at most `limit`. */
export async function dueRetries(client: pg.ClientBase, limit: number): Promise<string[]> {
  const { rows } = await client.query<{ id: string }>(
    `select event_id::text as id from belfry.dead_event
      where case when waits_for = '{}'
                 then attempts < $1 and failed_at < clock_timestamp() - interval '1 second' * least($2 * power($3, attempts - 1), $4)
                 else not exists (select from belfry.dead_event b where b.event_id = any (dead_event.waits_for)) end
        and not exists (select from belfry.replay_job where mode = 'retry' and state in ('waiting', 'running'))
      order by event_id limit $5`,
    [retries.attempts, retries.firstSeconds, retries.factor, retries.longestSeconds, limit],
  );
  return await withWaiting(
    client,
    rows.map(({ id }) => id),
  );
}

/** These dead letters and those that wait for them, in order. */
export async function withWaiting(client: pg.ClientBase, ids: readonly string[]): Promise<string[]> {
  const { rows } = await client.query<{ id: string }>(
    `with recursive w(id) as (
       select unnest($1::bigint[])
       union
       select d.event_id from w join belfry.dead_event d on w.id = any (d.waits_for)
     )
     select id::text from w order by w.id`,
    [ids],
  );
  return rows.map(({ id }) => id);
}

/** Ids of the dead letters that match a filter, in order. */
export async function deadLetters(client: pg.ClientBase, config: Config, filter: JobFilter): Promise<string[]> {
  const types = await loadColumnTypes(client, config);
  const { rows } = await client.query<{ id: string }>(
    `select o.id::text from ${deadEvents} where ${deadCondition(config, types, filter)} order by o.id`,
  );
  return rows.map(({ id }) => id);
}

/** Dead letters with the column names of the outbox, as conditions need them. */
const deadEvents = '(select event_id as id, event_at as at, source, op, new, old, waits_for from belfry.dead_event) o';

function deadCondition(config: Config, types: ColumnTypes, { ids, ...filter }: JobFilter): string {
  const chosen =
    ids === undefined ? 'true' : `o.id = any('{${ids.map((id) => String(BigInt(id))).join(',')}}'::bigint[])`;
  return `${chosen} and ${conditionOf(config, types, filter)}`;
}

export class DeadRetry implements JobRun {
  readonly counts = { ...noCounts };
  lastError: string | null = null;

  private constructor(
    private readonly config: Config,
    private readonly client: pg.Client,
    private readonly types: ColumnTypes,
    private readonly planner: ReplayPlanner,
    private readonly privacy: PrivacyLoader,
    private readonly processor: BatchProcessor,
    private readonly filter: JobFilter,
  ) {}

  static async open(url: string, config: Config, filter: JobFilter): Promise<DeadRetry> {
    const client = await connectForTurns(url, 'belfry retry');
    try {
      const types = await loadColumnTypes(client, config);
      const privacy = await PrivacyLoader.create(client, config, types);
      const planner = new ReplayPlanner({ config, types, privacy, client, mode: 'rebuild', onlyUser: null });
      const processor = new BatchProcessor(config, privacy, new MemoryBroker(), null);
      return new DeadRetry(config, client, types, planner, privacy, processor, filter);
    } catch (error) {
      await client.end().catch(() => undefined);
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.client.end().catch(() => undefined);
  }

  async count(afterId: string): Promise<number> {
    const ids = await deadLetters(this.client, this.config, this.filter);
    return ids.filter((id) => BigInt(id) > BigInt(afterId)).length;
  }

  async newest(limit: number): Promise<string> {
    const ids = await deadLetters(this.client, this.config, this.filter);
    return String(BigInt(ids.at(-limit) ?? '1') - 1n);
  }

  settle(): Promise<void> {
    return Promise.resolve();
  }

  /** One dead letter at a time: each may well fail again. */
  async step(host: ReplayHost | null, afterId: string): Promise<string | null> {
    const { rows } = await this.client.query<{ id: string }>(
      `select o.id::text from ${deadEvents}
        where o.id > ${BigInt(afterId)} and ${deadCondition(this.config, this.types, this.filter)}
          and not exists (select from belfry.dead_event b where b.event_id = any (o.waits_for))
        order by o.id limit 1`,
    );
    const id = rows[0]?.id;
    if (id === undefined || host === null) return null;
    this.counts.processed += 1;
    try {
      const moved = host.moved();
      const preparation = await this.prepare(id);
      const outcome = await storeFresh(host, moved, preparation, () => this.prepare(id));
      this.counts.delivered += outcome.deliveries;
      this.counts.withdrawn += outcome.withdrawn;
      const already = outcome.verdicts.filter(({ rule }) => rule === 'duplicate').length;
      this.counts.already += already;
      this.counts.suppressed += outcome.verdicts.length - already;
    } catch (error) {
      if (blame(error) !== 'event') throw error;
      await this.failed(id, host.term, error);
    }
    return id;
  }

  private async prepare(id: string): Promise<Preparation> {
    const page = `(select d.event_id as id, coalesce(d.xid, (select x.xid from belfry.outbox x where x.id = d.event_id), '3'::xid8) as xid,
        d.event_at as at, d.source, d.op, d.new, d.old from belfry.dead_event d where d.event_id = ${BigInt(id)}) p`;
    const { config, types } = this;
    const sources = mappedSources(config);
    // As it was then, for counters and channels alone: its recipients of then do not matter, and may be what it failed on.
    const then = await this.resolve(`select * from ${page}`, { recipients: false });
    assertMapped(then);
    assertColumns(
      sources.filter(({ name }) => then.some(({ event }) => event.source === name)),
      types,
    );
    const now = await this.resolve(presentRows(page, config.sources, types), { recipients: true });
    const { preparation } = await this.planner.prepare(now);
    const live = planPage(then, {
      sources: new Map(sources.map((source) => [source.name, source])),
      groups: (type) => Object.hasOwn(config.aggregation, type),
    });
    const isThere = now.some((item) => item.kind === 'source' && item.event.after !== null);
    const wasStored = await this.hadJob(id);
    const plan = {
      ...live,
      steps: preparation.plan.steps,
      announcements: preparation.plan.announcements,
      counters: wasStored ? new Map() : live.counters,
      notes: isThere && !wasStored ? live.notes : [],
    };
    return {
      ...preparation,
      plan,
      privacy: this.privacy.load(this.client, this.processor.questionsOf(plan)),
      also: async (writer) => {
        await writer.query('delete from belfry.dead_event where event_id = $1', [id]);
      },
    };
  }

  /** Whether its batch was stored and left it to a job: nobody else makes one for an event that is a dead letter. */
  private async hadJob(id: string): Promise<boolean> {
    const { rowCount } = await this.client.query('select from belfry.fanout_job where event_id = $1 limit 1', [id]);
    return rowCount === 1;
  }

  private async resolve(page: string, asked: { readonly recipients: boolean }): Promise<PageEvent[]> {
    const sources = mappedSources(this.config);
    const { rows } = await this.client.query<ResolvedRow>(resolveSql(sources, this.types, asked)(page));
    return eventsOf(rows, new Set(sources.map(({ name }) => name)));
  }

  private async failed(id: string, term: string, error: unknown): Promise<void> {
    this.counts.failed += 1;
    this.lastError = messageOf(error);
    await this.client.query(
      `update belfry.dead_event
          set attempts = attempts + 1, failed_at = clock_timestamp(), sqlstate = $3, error = $4, waits_for = '{}'
        where event_id = $1 and exists (select from belfry.relay r where r.name = 'main' and r.term = $2)`,
      [id, term, sqlState(error) ?? null, messageOf(error)],
    );
  }
}
