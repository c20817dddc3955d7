/**
 * One replay: pages of old events through the same rules and the same store as live ones.
 *
 * What must hold:
 * - The leader stores (`ReplayHost`), between its own batches: so live and replayed events never change a notification at the same time, and
 *   what is stored is true then. A term that is over stores nothing.
 * - Repeating a page does no harm: what a person has is known by the event's key. So a crash costs at most a page done twice.
 * - Live traffic comes first. While there is some, everything is decided on the replay's own connections, and only what brings something is
 *   stored, in pieces so small that nobody notices.
 * - Memory does not grow with the number of events. Only a dry run must remember what it would have delivered: a hash of some 8 bytes for
 *   each notification.
 */

import { createHash } from 'node:crypto';
import type pg from 'pg';
import { MemoryBroker } from '../../broker/memory.js';
import type { Config } from '../../config.js';
import { messageOf, sqlState } from '../../errors.js';
import type { Batch } from '../../inbox/store.js';
import { connect } from '../../postgres/connect.js';
import { loadColumnTypes, personOf } from '../../schema/columns.js';
import { BatchProcessor } from '../batch.js';
import type { BatchConnections, BatchOutcome, Preparation } from '../batch.js';
import { WriterPlans, writerSession } from '../connections.js';
import { blame } from '../failures.js';
import type { OutboxFilter } from '../look/filter.js';
import { PrivacyLoader } from '../facts/privacy-facts.js';
import { assertColumns } from '../upkeep/incomplete.js';
import type { Plan } from '../plan/plan.js';
import type { PageEvent } from '../plan/resolved.js';
import { connectForTurns, storeFresh } from './host.js';
import type { ReplayHost } from './host.js';
import { ReplayPages, replaySession } from './page.js';
import type { Bound, ReplayedPage } from './page.js';
import { ReplayPlanner } from './plan.js';
import type { ReplayMode } from './plan.js';
import { WideCounter } from './wide.js';
import type { WideCounts } from './wide.js';

export interface ReplayCounts {
  /** Events. */
  processed: number;
  /** Notifications, one per event and recipient, as are all that follow. */
  delivered: number;
  suppressed: number;
  already: number;
  withdrawn: number;
  /** Events that could not be processed. */
  failed: number;
}

export const noCounts: Readonly<ReplayCounts> = {
  processed: 0,
  delivered: 0,
  suppressed: 0,
  already: 0,
  withdrawn: 0,
  failed: 0,
};

/** What a worker needs of a job that is under way: a replay, or a retry of dead letters. */
export interface JobRun {
  readonly counts: ReplayCounts;
  /** The last reason why an event failed. */
  readonly lastError: string | null;
  /** How many events after this id it is about; an upper bound where the filter asks for more than the row tells. */
  count(afterId: string): Promise<number>;
  /** Where to begin, so that only the newest `limit` events follow. */
  newest(limit: number): Promise<string>;
  /**
   * Does the page after this id; without a host it only counts. Returns where the next one begins, null after the last. Throws only errors
   * that no event is to blame for.
   */
  step(host: ReplayHost | null, afterId: string, limit: number): Promise<string | null>;
  /** To be called after the last page. */
  settle(host: ReplayHost): Promise<void>;
  close(): Promise<void>;
}

export interface ReplayTask {
  readonly mode: ReplayMode;
  readonly filter: OutboxFilter;
  readonly bound: Bound;
  /** Only count. */
  readonly dryRun: boolean;
}

/** Events stored in one transaction while there is live traffic. */
const busyPiece = 25;

interface ReadPage {
  readonly page: ReplayedPage;
  /** What `host.moved()` gave before the page was read. */
  readonly moved: number;
}

export class Replay implements JobRun {
  readonly counts: ReplayCounts = { ...noCounts };
  lastError: string | null = null;

  /** Hashes of what a dry run would have delivered so far; nothing is stored that would tell. */
  private readonly counted = new Set<number>();
  private ahead: { readonly afterId: string; readonly page: Promise<ReadPage> } | null = null;

  private constructor(
    private readonly config: Config,
    private readonly task: ReplayTask,
    private readonly pages: ReplayPages,
    private readonly planner: ReplayPlanner,
    private readonly inTurn: { readonly client: pg.Client; readonly planner: ReplayPlanner },
    private readonly judge: BatchProcessor,
    private readonly wide: WideCounter,
    private readonly connections: Pick<BatchConnections, 'writer' | 'plans'>,
    private readonly ended: () => Promise<void>,
  ) {}

  /** Opens three connections, which `close` ends. Throws what `connect` throws and what Postgres says of SQL in the config. */
  static async open(url: string, config: Config, task: ReplayTask): Promise<Replay> {
    const opened: pg.Client[] = [];
    const close = async (): Promise<void> => {
      await Promise.all(opened.map((client) => client.end().catch(() => undefined)));
    };
    const open = async (connecting: Promise<pg.Client>): Promise<pg.Client> => {
      const client = await connecting;
      opened.push(client);
      return client;
    };
    try {
      const applicationName = 'belfry replay';
      const reader = await open(connect(url, { applicationName, session: replaySession }));
      const writer = await open(connect(url, { applicationName, session: writerSession }));
      const turns = await open(connectForTurns(url, applicationName));
      const types = await loadColumnTypes(reader, config);
      const { source } = task.filter;
      assertColumns(
        config.sources.filter(({ name }) => source === undefined || name === source),
        types,
      );
      const privacy = await PrivacyLoader.create(reader, config, types);
      const { user } = task.filter;
      const filter = user === undefined ? task.filter : { ...task.filter, user: await personOf(reader, user, types) };
      const onlyUser = task.mode === 'rebuild' ? (filter.user ?? null) : null;
      const planning = { config, types, privacy, mode: task.mode, onlyUser };
      const planner = new ReplayPlanner({ ...planning, client: reader });
      const inTurn = { client: turns, planner: new ReplayPlanner({ ...planning, client: turns }) };
      const pages = new ReplayPages(reader, config, types, filter, task.bound, task.mode === 'deliver');
      const judge = new BatchProcessor(config, privacy, new MemoryBroker(), null);
      const connections = { reader, writer, plans: new WriterPlans(writer) };
      const wide = new WideCounter(judge, connections, config, types);
      return new Replay(config, { ...task, filter }, pages, planner, inTurn, judge, wide, connections, close);
    } catch (error) {
      await close();
      throw error;
    }
  }

  close(): Promise<void> {
    return this.ended();
  }

  count(afterId: string): Promise<number> {
    return this.pages.count(afterId);
  }

  newest(limit: number): Promise<string> {
    return this.pages.newest(limit);
  }

  /** Counts a rebuilt inbox anew, in a turn, since a batch beside it would store older counts. Its clients are told to fetch. */
  async settle(host: ReplayHost): Promise<void> {
    if (this.task.mode !== 'rebuild') return;
    const user = this.task.filter.user ?? null;
    if (user !== null) {
      const { preparation } = await this.planner.prepare([]);
      const also = (client: pg.ClientBase): Promise<void> => recount(client, user, this.config);
      await host.process(() => Promise.resolve({ ...preparation, also }));
    }
    host.publish([
      { to: 'control', kind: 'resync', reason: 'rebuilt', userIds: user === null ? null : [user] },
      ...(user === null ? [] : [{ to: 'badge' as const, userId: user }]),
    ]);
  }

  async step(host: ReplayHost | null, afterId: string, limit: number): Promise<string | null> {
    const ahead = this.ahead?.afterId === afterId ? this.ahead.page : null;
    this.ahead = null;
    const { page, moved } = await (ahead ?? this.readPage(host, afterId, limit));
    this.counts.processed += page.count;
    this.counts.already += page.already;
    const work = this.part(host, page.events, moved);
    if (page.next !== null && host?.busy() !== true) this.readAhead(host, page.next, limit);
    await work;
    return page.next;
  }

  /** Reads the next page while one is stored, and no more; not beside live traffic, where a replay rests between pages. */
  private readAhead(host: ReplayHost | null, afterId: string, limit: number): void {
    const page = this.readPage(host, afterId, limit);
    // The next step awaits it; until then a failure must not count as unhandled.
    page.catch(() => undefined);
    this.ahead = { afterId, page };
  }

  private async readPage(host: ReplayHost | null, afterId: string, limit: number): Promise<ReadPage> {
    const moved = host?.moved() ?? 0;
    return { page: await this.read(afterId, limit), moved };
  }

  private async read(afterId: string, limit: number): Promise<ReplayedPage> {
    try {
      return await this.pages.read(afterId, limit);
    } catch (error) {
      if (blame(error) !== 'event') throw error;
      // A value that does not fit fails the whole page: smaller pages are read until it stands alone.
      if (limit > 1) return await this.read(afterId, limit >> 1);
      this.failed(error);
      return { count: 0, events: [], already: 0, next: await this.pages.idAfter(afterId) };
    }
  }

  /** Halves a part that fails until the event that is to blame stands alone. */
  private async part(
    host: ReplayHost | null,
    events: readonly PageEvent[],
    moved: number,
    judged = false,
  ): Promise<void> {
    if (events.length === 0) return;
    try {
      await this.process(host, events, moved, judged);
    } catch (error) {
      if (blame(error) !== 'event') throw error;
      if (events.length === 1) return this.failed(error);
      const middle = events.length >> 1;
      await this.part(host, events.slice(0, middle), moved, judged);
      await this.part(host, events.slice(middle), moved, judged);
    }
  }

  private async process(
    host: ReplayHost | null,
    events: readonly PageEvent[],
    moved: number,
    judged: boolean,
  ): Promise<void> {
    const { preparation, announced, told } = await this.planner.prepare(events);
    if (host !== null && (judged || !host.busy())) {
      const steps = await this.judge.wideSteps(this.connections, preparation.plan);
      const wide = await this.wide.count(steps, told);
      await this.store(host, moved, preparation, announced);
      this.wide.settled(steps);
      return this.add(wide);
    }
    const { batch, wide } = await this.judge.judge(this.connections, preparation);
    if (host === null) {
      this.countOnly(batch, announced);
      this.add(await this.wide.count(wide, told));
      return this.wide.settled(wide);
    }
    // What is taken back can't be told event by event.
    const takesBack = batch.removed.length > 0 || wide.some(({ kind }) => kind === 'retract');
    const news = [...newsIn(batch), ...wide.map(({ eventId }) => eventId)];
    const toStore = new Set(takesBack ? events.map(({ event }) => event.id) : news);
    this.counts.already += batch.verdicts.filter(({ eventId }) => !toStore.has(eventId)).length;
    const rest = events.filter(({ event }) => toStore.has(event.id));
    // Announcements and wide events that everybody has are not among the news; where all is stored, that counts them.
    if (!takesBack) {
      this.counts.already += announced;
      this.add(await this.wide.count([], told));
    }
    for (let from = 0; from < rest.length; from += busyPiece)
      await this.part(host, rest.slice(from, from + busyPiece), moved, true);
  }

  private add({ delivered, suppressed, already, withdrawn }: WideCounts): void {
    this.counts.delivered += delivered;
    this.counts.suppressed += suppressed;
    this.counts.already += already;
    this.counts.withdrawn += withdrawn;
  }

  private countOnly(batch: Batch, announced: number): void {
    for (const { source, key, userId } of batch.added) this.countOnce(`${source}\0${key}\0${userId}`);
    this.countVerdicts(batch.verdicts);
    this.counts.delivered += batch.announcements.length;
    this.counts.already += announced;
    this.counts.withdrawn += batch.removed.length;
  }

  private async store(host: ReplayHost, moved: number, preparation: Preparation, announced: number): Promise<void> {
    let stored = { preparation, announced };
    const isEmpty = ({ steps, announcements }: Plan): boolean => steps.length === 0 && announcements.length === 0;
    if (isEmpty(preparation.plan)) {
      this.counts.already += announced;
      return;
    }
    const ids = preparation.events.map(({ event }) => event.id);
    const outcome = await storeFresh(host, moved, preparation, async () => {
      stored = await this.inTurn.planner.prepare(await this.pages.again(this.inTurn.client, ids));
      return stored.preparation;
    });
    this.counts.delivered += outcome.deliveries + stored.preparation.plan.announcements.length;
    this.counts.already += stored.announced;
    this.counts.withdrawn += outcome.withdrawn;
    this.countVerdicts(outcome.verdicts);
  }

  private countVerdicts(verdicts: BatchOutcome['verdicts']): void {
    const already = verdicts.filter(({ rule }) => rule === 'duplicate').length;
    this.counts.already += already;
    this.counts.suppressed += verdicts.length - already;
  }

  private countOnce(notification: string): void {
    const hash = createHash('sha1').update(notification).digest().readUIntBE(0, 6);
    if (this.counted.has(hash)) this.counts.already += 1;
    else {
      this.counted.add(hash);
      this.counts.delivered += 1;
    }
  }

  private failed(error: unknown): void {
    this.counts.failed += 1;
    const state = sqlState(error);
    this.lastError = state === undefined ? messageOf(error) : `${messageOf(error)} (${state})`;
  }
}

/** Ids of events that bring something, or are suppressed for a reason that is kept. */
function newsIn(batch: Batch): string[] {
  const verdicts = batch.verdicts.filter(({ rule }) => rule !== 'duplicate');
  return [...batch.added, ...verdicts, ...batch.announcements].map(({ eventId }) => eventId);
}

/** Counts anew what a person's notifications count and show, from the events behind them. Nothing is pushed: clients fetch. */
async function recount(client: pg.ClientBase, userId: string, config: Config): Promise<void> {
  const samples = Object.entries(config.aggregation);
  await client.query(
    `update belfry.notification n
        set event_count = s.events, actor_count = s.people, actors = s.newest, withdrawn = s.events = 0, shown = s.events > 0
       from belfry.notification w
       left join unnest($2::text[], $3::int[]) r(type, sample) on r.type = w.type
      cross join lateral (
            select coalesce(sum(a.events), 0)::integer as events, count(a.actor_id)::integer as people,
                   coalesce((array_agg(a.actor_id order by a.at desc, a.event_id desc) filter (where a.actor_id is not null))[1:coalesce(r.sample, 1)], '{}') as newest
              from (select e.actor_id, count(*) as events, max(e.at) as at, max(e.event_id) as event_id
                      from belfry.notification_event e
                     where e.notification_id = w.id and e.removed_at is null
                     group by e.actor_id) a) s
      where w.user_id = $1 and n.id = w.id
        and (n.event_count, n.actor_count, n.actors, n.withdrawn) is distinct from (s.events, s.people, s.newest, s.events = 0)`,
    [userId, samples.map(([type]) => type), samples.map(([, rule]) => rule.sample)],
  );
}
