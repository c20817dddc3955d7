/**
 * One term of a leader: reads the outbox, decides, stores and publishes until the term ends.
 *
 *     read ─page─▶ process ─▶ flush windows that are due ─▶ read …
 *       └─empty─▶ wait at the doorbell, at most until the next window is due
 *
 * What must hold: the cursor only moves in the transaction that stores the batch; events are processed in the order in which they were
 * read; at most one page is read ahead. In a backlog that page is read while the batch before it is still worked on. Otherwise it is read
 * right behind the statement that stores the batch, on the same connection, where that one may read it (resolve.ts, resolvesByKey).
 */

import type pg from 'pg';
import type { Broker, Publication } from '../broker/broker.js';
import type { Config, Source } from '../config.js';
import { messageOf } from '../errors.js';
import type { Logger } from '../log.js';
import type { RelayMetrics } from '../metrics.js';
import { endOfDelta } from '../outbox/cursor.js';
import type { Cursor } from '../outbox/cursor.js';
import type { Doorbell } from '../outbox/doorbell.js';
import { OutboxReader, pageRows, withoutLast } from '../outbox/reader.js';
import { loadColumnTypes } from '../schema/columns.js';
import { BatchProcessor } from './batch.js';
import type { BatchConnections, BatchOutcome, Preparation } from './batch.js';
import { readCarefully } from './careful.js';
import type { CarefulWork } from './careful.js';
import { mappedSources, WriterPlans } from './connections.js';
import { DeadKeys } from './dead-letters/dead-keys.js';
import { blame } from './failures.js';
import { FanOut } from './wide/fan-out.js';
import { BatchTooLarge, nextDueMs } from './facts/group-facts.js';
import type { RelayObserver } from './observer.js';
import { PageWork, withRetries } from './page-work.js';
import { PrivacyLoader } from './facts/privacy-facts.js';
import { Reading } from './reading.js';
import type { PreparedPage } from './reading.js';
import { resolvesByKey, resolveSql } from './plan/resolve.js';
import { eventsOf } from './plan/resolved.js';
import type { PageEvent, ResolvedRow } from './plan/resolved.js';
import type { BatchTraces } from './look/traces.js';
import { termIsOver, Turns } from './turns.js';

/** How often a paused relay looks whether it may go on. */
const pausedMs = 250;

/** Most events of a page: what a batch holds in memory, and one transaction. Fewer where they have many recipients (outbox/reader.ts). */
const pageSize = 2_000;

/** How often a sleeping leader looks after itself: lost events, new partitions. */
const choresEveryMs = 30_000;

/** How often the outbox is looked at while recipients of a wide event are being fetched. */
const fetchingPollMs = 5;

/** Windows flushed in one transaction. */
const flushLimit = 1_000;

/** In a backlog a due window may wait this long: a further event of its group, which pushes it anyway, is probably near. */
const flushPatienceMs = 2_000;

export interface Term {
  readonly term: string;
  /** Where the term before left off. */
  readonly cursor: Cursor;
  /** False once this process can no longer be sure that it leads. */
  trusted(): boolean;
  paused(): boolean;
}

/** What a term is made of. */
interface Parts {
  readonly processor: BatchProcessor;
  readonly connections: BatchConnections;
  /** Reads and resolves a page. */
  readonly statement: (pageSelect: string) => string;
  /** Whether `statement` reads the application's tables by unique keys alone. */
  readonly byKey: boolean;
  /** The mapped sources by name. */
  readonly sources: ReadonlyMap<string, Source>;
  /** Null where later events of a dead letter's key need not wait. */
  readonly deadKeys: DeadKeys | null;
  readonly fanOut: FanOut;
}

export interface LeadingOptions {
  readonly config: Config;
  readonly broker: Broker;
  readonly doorbell: Doorbell;
  readonly log: Logger;
  readonly metrics: RelayMetrics;
  readonly observer: RelayObserver;
  /** Reads pages; session OutboxReader.session. */
  readonly reader: pg.Client;
  /** Looks up people, blocks, mutes. */
  readonly facts: pg.Client;
  /** Fetches the recipients of wide events. */
  readonly wide: pg.Client;
  /** Writes; session writerSession. */
  readonly writer: pg.Client;
  /** Reads what the writer wrote while that one stores; session writerSession. */
  readonly ahead: pg.Client;
  /** Work between batches that must not run beside one (repair of lost events, new counters). */
  readonly chores: (leading: Leading) => Promise<void>;
  readonly traces: Pick<BatchTraces, 'add'>;
  /** Somebody rang, but there is nothing to read: the reason may be another one (a replay, a capture that failed). */
  readonly rungForNothing?: () => void;
}

export class Leading {
  /** Where reading goes on. */
  cursor: Cursor;

  private stopping = false;
  private dueAtMs: number | null = null;
  private readonly turns: Turns;
  private readonly reading: Reading;
  private readonly work: PageWork;
  private changes = 0;

  private constructor(
    private readonly options: LeadingOptions,
    readonly term: Term,
    private readonly parts: Parts,
  ) {
    this.cursor = term.cursor;
    this.turns = new Turns(() => options.doorbell.wake());
    const { processor, connections, deadKeys, fanOut, statement, sources } = parts;
    const pages = new OutboxReader<ResolvedRow>({
      ...{ client: options.reader, statement, limit: pageSize },
      // The writer's session joins by index alone, which suits only such a statement.
      ...(parts.byKey ? { smallClient: options.writer } : {}),
    });
    this.reading = new Reading(pages, (rows, ahead) => processor.prepare(connections, eventsOf(rows, sources), ahead));
    this.work = new PageWork({
      ...{ options, term: term.term, processor, connections, sources, deadKeys },
      sent: (page) => this.reading.readAhead(page.next, false),
      failed: () => this.reading.forgetAhead(),
      stored: (outcome) => this.stored(outcome),
      truncated: () => fanOut.changed(),
    });
  }

  /** Asks the database for what the statements are made of. Throws what Postgres says of SQL in the config. */
  static async prepare(options: LeadingOptions, term: Term): Promise<Leading> {
    const { config, facts, writer, ahead, broker } = options;
    const types = await loadColumnTypes(facts, config);
    const privacy = await PrivacyLoader.create(facts, config, types);
    const sources = mappedSources(config);
    const processor = new BatchProcessor(config, privacy, broker, options.log);
    const leading = new Leading(options, term, {
      processor,
      connections: {
        reader: facts,
        writer,
        plans: new WriterPlans(writer),
        ahead,
        aheadPlans: new WriterPlans(ahead),
      },
      statement: resolveSql(sources, types),
      byKey: resolvesByKey(sources, types),
      sources: new Map(sources.map((source) => [source.name, source])),
      deadKeys: await DeadKeys.open(facts, config, sources),
      fanOut: new FanOut({ processor, reader: options.wide, sources: config.sources, types }),
    });
    leading.dueAtMs = await nextDueMs(writer);
    return leading;
  }

  /** Returns when the term ends or `stop` was called; throws what stopped it. */
  async run(): Promise<void> {
    try {
      await this.loop();
    } finally {
      this.turns.end();
    }
  }

  private async loop(): Promise<void> {
    let { rings } = this.options.doorbell.counters;
    while (!this.stopping && this.term.trusted()) {
      await this.options.chores(this);
      if (this.term.paused()) {
        // A page that was prepared before the pause would be judged by facts of that time.
        this.reading.forgetAhead();
        // Not asleep at the doorbell: it would make every writer ring for a relay that reads nothing.
        await new Promise((resolve) => setTimeout(resolve, pausedMs));
        continue;
      }
      let prepared = await this.read();
      const heard = this.options.doorbell.counters.rings;
      if (prepared === null && heard > rings) this.options.rungForNothing?.();
      rings = heard;
      if (prepared === null && !(await this.turns.take()) && !this.parts.fanOut.pending)
        prepared = await this.waitForPage();
      // Paused while it waited. The page stays unread, since only storing moves the cursor.
      if (this.term.paused()) continue;
      const backlog = prepared !== null && prepared.page.count >= prepared.page.limit;
      if (prepared !== null) {
        if (backlog) this.reading.readAhead(prepared.page.next, true);
        await this.process(prepared);
      }
      await this.flush(backlog);
      await this.stepWide();
    }
  }

  /** Ends `run` after the batch it is at. */
  stop(): void {
    this.stopping = true;
    this.options.doorbell.wake();
  }

  /** For repairs, which write beside the batches. */
  publish(publications: readonly Publication[]): void {
    this.changes += 1;
    this.parts.processor.forget();
    this.options.broker.publish(publications);
  }

  /** Drops what was read ahead, since something that it was read with has changed. It is read again: the cursor did not move. */
  forgetAhead(): void {
    this.reading.forgetAhead();
  }

  /** Changes whenever anything but a replay changes what people have; what was read at another number may be outdated. */
  get moved(): number {
    return this.changes;
  }

  /** Whether there was something to read a moment ago. */
  get busy(): boolean {
    return this.reading.busy;
  }

  /** Processes events that stand in no outbox (repairs), in halves where they are too large; the cursor stays where it is. */
  async inject(events: readonly PageEvent[]): Promise<void> {
    const { processor, connections } = this.parts;
    this.changes += 1;
    try {
      await this.injectPrepared(processor.prepare(connections, events));
    } catch (error) {
      if (!(error instanceof BatchTooLarge)) throw error;
      if (this.stopping || !this.term.trusted()) throw termIsOver(error);
      const middle = events.length >> 1;
      await this.inject(events.slice(0, middle));
      await this.inject(events.slice(middle));
    }
  }

  /** Processes what a replay has prepared, in one go; the cursor stays where it is. Throws BatchTooLarge. */
  async injectPrepared(preparation: Preparation): Promise<BatchOutcome> {
    const { processor, connections, deadKeys } = this.parts;
    const outcome = await withRetries(() => processor.process(connections, this.term.term, preparation, null));
    this.stored(outcome);
    // A retry takes a dead letter away with it.
    if (preparation.also !== undefined) deadKeys?.changed();
    return outcome;
  }

  /** Dead letters may have been retried or discarded: later events of their keys need no longer wait. */
  deadLettersChanged(): void {
    this.parts.deadKeys?.changed();
  }

  /**
   * Runs the work between two batches, once there is nothing to read: whatever changes inboxes must not run beside a batch. Rejects with
   * what the work throws (unless an event is to blame, that ends the term too), and with `lease_lost` when the term ends first.
   */
  async whenIdle<T>(work: () => Promise<T>): Promise<T> {
    return await this.turns.wait(work);
  }

  /**
   * Resolves events of the outbox as they would be now, and stores nothing. Gives those from the first on that together have no more rows
   * than a page, but at least one.
   */
  async resolve(pageSelect: string): Promise<PageEvent[]> {
    const { rows } = await this.options.facts.query<ResolvedRow>(
      `${this.parts.statement(pageSelect)} limit ${String(pageRows + 1)}`,
    );
    return eventsOf(rows.length > pageRows ? withoutLast(rows) : rows, this.parts.sources);
  }

  private async read(): Promise<PreparedPage | null> {
    try {
      const prepared = await this.reading.next(this.cursor);
      // The delta ended with its page. The cursor leaves it, else the look before a sleep would take it for unread for ever.
      if (prepared === null) this.cursor = endOfDelta(this.cursor);
      return prepared;
    } catch (error) {
      if (blame(error) !== 'event') throw error;
      await this.readCarefully(error);
      return null;
    }
  }

  private async waitForPage(): Promise<PreparedPage | null> {
    const untilDue = this.dueAtMs === null ? Infinity : Math.max(0, this.dueAtMs - Date.now());
    return await this.options.doorbell.wait(() => this.read(), Math.min(untilDue, choresEveryMs));
  }

  private async process(prepared: PreparedPage, ahead = true): Promise<void> {
    this.changes += 1;
    await this.work.process(prepared, ahead);
    this.cursor = prepared.page.next;
  }

  private async readCarefully(cause: unknown): Promise<void> {
    const { reader, log } = this.options;
    log.warn({ error: messageOf(cause) }, 'a page could not be resolved: reading event by event');
    const singles = new OutboxReader<ResolvedRow>({ client: reader, statement: this.parts.statement, limit: 1 });
    const work: CarefulWork = {
      reader,
      goesOn: () => !this.stopping && this.term.trusted(),
      cursor: () => this.cursor,
      next: () => this.reading.page(singles, this.cursor),
      process: (single) => this.process(single, false),
      resolve: (id) => this.resolve(`select id, xid, at, source, op, new, old from belfry.outbox where id = ${id}`),
      bury: async (id, error, cursor) => {
        await this.work.bury(id, error, cursor);
        this.cursor = cursor;
      },
    };
    await readCarefully(work, pageSize);
  }

  /** Takes a step of a wide event. Where the event is to blame for a failure its job ends as a dead letter, and everything else goes on. */
  private async stepWide(): Promise<void> {
    const { fanOut, connections } = this.parts;
    if (!fanOut.pending || this.stopping || !this.term.trusted()) return;
    try {
      const state = await withRetries(() => fanOut.step(connections, this.term.term, this.busy));
      if (state === 'waiting') {
        let timer: NodeJS.Timeout | undefined;
        const soon = new Promise<void>((resolve) => (timer = setTimeout(resolve, fetchingPollMs)));
        await Promise.race([fanOut.fetched(), soon]).finally(() => clearTimeout(timer));
      } else if (state !== 'idle') {
        this.dueBy(state.dueAtMs);
        this.options.metrics.publications.inc(state.publications.length);
        for (const { rule } of state.verdicts) this.options.metrics.suppressed.inc({ rule });
      }
    } catch (error) {
      const { eventId } = fanOut;
      if (blame(error) !== 'event' || eventId === null) throw error;
      await this.work.bury(eventId, error, null);
      await fanOut.giveUp(this.options.writer, messageOf(error));
    }
  }

  private async flush(backlog: boolean): Promise<void> {
    const patience = backlog ? flushPatienceMs : 0;
    if (this.dueAtMs === null || Date.now() < this.dueAtMs + patience) return;
    const { writer, metrics } = this.options;
    const { processor, connections } = this.parts;
    const outcome = await withRetries(() => processor.flushDue(connections, this.term.term, flushLimit));
    metrics.publications.inc(outcome?.publications.length ?? 0);
    if (outcome?.full === true) return;
    this.dueAtMs = await nextDueMs(writer);
  }

  private stored(outcome: BatchOutcome): void {
    if ((outcome.wide ?? 0) > 0) this.parts.fanOut.changed();
    this.dueBy(outcome.dueAtMs);
  }

  private dueBy(atMs: number | null): void {
    if (atMs !== null && (this.dueAtMs === null || atMs < this.dueAtMs)) this.dueAtMs = atMs;
  }
}
