/**
 * One term of a leader: reads the outbox, decides, stores and publishes until the term ends.
 *
 *     read ─page─▶ process ─▶ flush windows that are due ─▶ read …
 *       └─empty─▶ wait at the doorbell, at most until the next window is due
 *
 * What must hold: the cursor only moves in the transaction that stores the batch; events are processed in the order of
 * the read; while a batch is stored the next page of a backlog is read already, nothing more than that.
 */

import type pg from 'pg';
import type { Broker, Publication } from '../broker/broker.js';
import type { Config } from '../config.js';
import { BelfryError, messageOf, sqlState } from '../errors.js';
import type { Logger } from '../log.js';
import type { RelayMetrics } from '../metrics.js';
import { advanceWithin } from '../outbox/cursor.js';
import type { Cursor } from '../outbox/cursor.js';
import type { Doorbell } from '../outbox/doorbell.js';
import { OutboxReader } from '../outbox/reader.js';
import type { Page } from '../outbox/reader.js';
import { loadColumnTypes } from '../schema/columns.js';
import { nextUnread, storeDead, storeTruncate } from './aside.js';
import { BatchProcessor } from './batch.js';
import type { BatchConnections, BatchOutcome, Preparation } from './batch.js';
import { mappedSources, WriterPlans } from './connections.js';
import { DeadKeys, setAside } from './dead-keys.js';
import { blame } from './failures.js';
import { FanOut } from './fan-out.js';
import { nextDueMs } from './group-facts.js';
import { eventTracesOf } from './observer.js';
import type { RelayObserver } from './observer.js';
import { PrivacyLoader } from './privacy-facts.js';
import { eventsOf, resolveSql } from './resolve.js';
import type { PageEvent, ResolvedRow } from './resolve.js';
import { processPage } from './segments.js';
import type { SegmentWork } from './segments.js';
import type { BatchTraces } from './traces.js';

/** How often a paused relay looks whether it may go on. */
const pausedMs = 250;

/** Events of a page: what a batch holds in memory, and one transaction. */
const pageSize = 2_000;

/** While recipients of a wide event are fetched the outbox is looked at this often. */
const fetchingPollMs = 5;

/** Windows flushed in one transaction. */
const flushLimit = 1_000;

/** In a backlog a due window may wait this long, since a further event of its group is likely to push it for nothing. */
const flushPatienceMs = 2_000;

/** A page that loses against others (deadlock, lock timeout) is tried this often before the term is given up. */
const contentionRetries = 5;

export interface Term {
  readonly term: string;
  /** Where the term before left off. */
  readonly cursor: Cursor;
  /** False once this process can no longer be sure that it leads. */
  trusted(): boolean;
  paused(): boolean;
}

/** A page that was read, and what could be prepared for it. */
interface PreparedPage {
  readonly page: Page<ResolvedRow>;
  readonly preparation: Preparation;
  readonly readAtMs: number;
}

/** Work of somebody else that waits for its turn. */
interface Turn {
  take(): Promise<void>;
  refuse(error: Error): void;
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
  /** Somebody rang, and there was nothing to read: it may be for another reason (a replay). */
  readonly rungForNothing?: () => void;
}

export class Leading {
  /** Where reading goes on. */
  cursor: Cursor;

  private readonly batchConnections: BatchConnections;
  private stopping = false;
  /** The last page left nothing behind, so the next read is likely to find nothing. */
  private emptied = false;
  /** Nothing had come meanwhile the last time that a page left nothing behind. */
  private quiet = true;
  private dueAtMs: number | null = null;
  private ahead: Promise<PreparedPage | null> | null = null;
  private readAtMs = -Infinity;
  private readonly turns: Turn[] = [];
  private deadKeys: DeadKeys | null = null;
  private ended = false;
  private changes = 0;

  private constructor(
    private readonly options: LeadingOptions,
    readonly term: Term,
    private readonly processor: BatchProcessor,
    private readonly statement: (pageSelect: string) => string,
    private readonly sources: ReadonlySet<string>,
    private readonly pages: OutboxReader<ResolvedRow>,
    private readonly fanOut: FanOut,
  ) {
    this.cursor = term.cursor;
    const { facts, writer, ahead } = options;
    this.batchConnections = {
      reader: facts,
      writer,
      plans: new WriterPlans(writer),
      ahead,
      aheadPlans: new WriterPlans(ahead),
    };
  }

  /** Asks the database for what the statements are made of. Throws what Postgres says of SQL in the config. */
  static async prepare(options: LeadingOptions, term: Term): Promise<Leading> {
    const { config, reader, facts, writer, broker } = options;
    const types = await loadColumnTypes(facts, config);
    const privacy = await PrivacyLoader.create(facts, config, types);
    const sources = mappedSources(config);
    const statement = resolveSql(sources, types);
    const pages = new OutboxReader<ResolvedRow>({ client: reader, statement, limit: pageSize });
    const names = new Set(sources.map(({ name }) => name));
    const processor = new BatchProcessor(config, privacy, broker);
    const fanOut = new FanOut({ processor, reader: options.wide, sources: config.sources, types });
    const leading = new Leading(options, term, processor, statement, names, pages, fanOut);
    leading.dueAtMs = await nextDueMs(writer);
    leading.deadKeys = await DeadKeys.open(facts, config, sources);
    return leading;
  }

  /** Returns when the term ends or `stop` was called; throws what stopped it. */
  async run(): Promise<void> {
    try {
      await this.loop();
    } finally {
      this.ended = true;
      const over = new BelfryError('lease_lost', 'The term is over.', { retry: true });
      for (const turn of this.turns.splice(0)) turn.refuse(over);
    }
  }

  private async loop(): Promise<void> {
    while (!this.stopping && this.term.trusted()) {
      await this.options.chores(this);
      if (this.term.paused()) {
        // What was prepared for it would be judged by people as they were before the pause.
        this.ahead = null;
        // Not at the doorbell: a sleeper that reads nothing would make every writer ring.
        await new Promise((resolve) => setTimeout(resolve, pausedMs));
        continue;
      }
      let prepared = await this.readIfAny();
      if (prepared === null) {
        this.emptied = true;
        const turn = this.turns.shift();
        if (turn !== undefined) await turn.take();
        else if (!this.fanOut.pending) {
          prepared = await this.waitForPage();
          if (prepared === null) this.options.rungForNothing?.();
        }
      }
      // Paused while it waited: what was read is left unread, since only storing moves the cursor.
      if (this.term.paused()) continue;
      const backlog = prepared !== null && prepared.page.count >= prepared.page.limit;
      if (prepared !== null) {
        this.emptied = !backlog;
        if (backlog) this.readAhead(prepared.page.next);
        await this.processPage(prepared);
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
    this.processor.forget();
    this.options.broker.publish(publications);
  }

  /** Drops what was read ahead, unprocessed: what it was read with has changed. The cursor did not move. */
  forgetAhead(): void {
    this.ahead = null;
  }

  /** Processes events that stand in no outbox (repairs); the cursor stays where it is. */
  async inject(events: readonly PageEvent[]): Promise<void> {
    this.changes += 1;
    await this.injectPrepared(this.processor.prepare(this.batchConnections, events));
  }

  /** Likewise, prepared by somebody else (replays). */
  async injectPrepared(preparation: Preparation): Promise<BatchOutcome> {
    const outcome = await this.withRetries(() =>
      this.processor.process(this.batchConnections, this.term.term, preparation, null),
    );
    if ((outcome.wide ?? 0) > 0) this.fanOut.changed();
    this.dueBy(outcome.dueAtMs);
    // Of a retry, which takes a dead letter away.
    if (preparation.also !== undefined) this.deadKeys?.changed();
    return outcome;
  }

  /** Dead letters may have been retried or discarded: later events of their keys need no longer wait. */
  deadLettersChanged(): void {
    this.deadKeys?.changed();
  }

  /**
   * Runs the work between two batches, once there is nothing to read: whatever changes inboxes must not run beside a batch. Rejects with
   * what the work throws, which also ends the term unless an event is to blame, and with `lease_lost` when the term ends first.
   */
  async whenIdle<T>(work: () => Promise<T>): Promise<T> {
    if (this.ended) throw new BelfryError('lease_lost', 'The term is over.', { retry: true });
    return await new Promise<T>((resolve, reject) => {
      this.turns.push({
        take: async () => {
          try {
            resolve(await work());
          } catch (error) {
            reject(error instanceof Error ? error : new Error(messageOf(error)));
            if (blame(error) !== 'event') throw error;
          }
        },
        refuse: reject,
      });
      this.options.doorbell.wake();
    });
  }

  /** Another number whenever anything but a replay changed what people have: what was read before that may hold no longer. */
  get moved(): number {
    return this.changes;
  }

  /** Whether there was something to read a moment ago. */
  get busy(): boolean {
    return now() - this.readAtMs < busyMs;
  }

  /** Events that stand in the outbox, resolved as they would be now; nothing is stored. */
  async resolve(pageSelect: string): Promise<PageEvent[]> {
    const { rows } = await this.options.facts.query<ResolvedRow>(this.statement(pageSelect));
    return eventsOf(rows, this.sources);
  }

  private async read(): Promise<PreparedPage | null> {
    const { ahead } = this;
    this.ahead = null;
    try {
      // What was not there when it was read ahead may be there now.
      return (await ahead) ?? (await this.readPage(this.pages, this.cursor));
    } catch (error) {
      if (blame(error) !== 'event') throw error;
      await this.readCarefully(error);
      return null;
    }
  }

  /**
   * After a page that emptied the outbox a cheap look comes first, while little comes; after a ring, in a steady stream,
   * and within a backlog, the read itself.
   */
  private async readIfAny(): Promise<PreparedPage | null> {
    if (this.emptied && this.quiet && this.ahead === null && !(await this.pages.hasUnread(this.cursor))) return null;
    const prepared = await this.read();
    if (this.emptied) this.quiet = prepared === null;
    return prepared;
  }

  private async readPage(
    pages: OutboxReader<ResolvedRow>,
    cursor: Cursor,
    ahead = false,
  ): Promise<PreparedPage | null> {
    const page = await pages.read(cursor);
    if (page === null) return null;
    const readAtMs = now();
    this.readAtMs = readAtMs;
    return {
      page,
      preparation: this.processor.prepare(this.batchConnections, eventsOf(page.rows, this.sources), ahead),
      readAtMs,
    };
  }

  private readAhead(cursor: Cursor): void {
    this.ahead = this.readPage(this.pages, cursor, true);
    // Looked at by the next read; a failure in between is not unhandled.
    this.ahead.catch(() => undefined);
  }

  private async waitForPage(): Promise<PreparedPage | null> {
    const untilDue = this.dueAtMs === null ? Infinity : Math.max(0, this.dueAtMs - Date.now());
    const prepared = await this.options.doorbell.wait(() => this.readIfAny(), Math.min(untilDue, choresEveryMs));
    this.emptied = prepared !== null;
    return prepared;
  }

  private async processPage({ page, preparation, readAtMs }: PreparedPage): Promise<void> {
    const { events } = preparation;
    this.changes += 1;
    const started = performance.now();
    const outcomes: BatchOutcome[] = [];
    await processPage(
      this.segmentWork(outcomes, preparation),
      events,
      (id) => advanceWithin(page.cursor, page, id),
      page.next,
    );
    this.cursor = page.next;
    const { metrics, observer } = this.options;
    metrics.eventsRead.inc(page.count);
    metrics.batchSeconds.observe((performance.now() - started) / 1000);
    const pushedAtMs = now();
    this.options.traces.add(page.next, {
      readAtMs,
      storedAtMs: outcomes.at(-1)?.storedAtMs ?? pushedAtMs,
      pushedAtMs,
    });
    const oldest = events[0]?.event.at.getTime();
    if (oldest !== undefined) metrics.lagSeconds.set(Math.max(0, (Date.now() - oldest) / 1000));
    observer.batch?.({
      events: page.count,
      traces: observer.wantsTraces === true ? eventTracesOf(events, readAtMs, outcomes.at(-1)?.storedAtMs, now()) : [],
    });
  }

  private segmentWork(outcomes: BatchOutcome[], whole: Preparation): SegmentWork {
    const { metrics, log } = this.options;
    return {
      process: async (events, cursor) => {
        const parted = (await this.deadKeys?.part(events)) ?? null;
        const waits = parted !== null && parted.wait.length > 0 ? parted.wait : null;
        let prepared = waits === null && events.length === whole.events.length ? whole : null;
        const outcome = await this.withRetries(() => {
          const preparation = prepared ?? this.processor.prepare(this.batchConnections, parted?.go ?? events);
          prepared = null;
          return this.processor.process(
            this.batchConnections,
            this.term.term,
            waits === null ? preparation : { ...preparation, also: (client) => setAside(client, waits) },
            cursor,
          );
        });
        parted?.stored();
        if (waits !== null) log.warn({ events: waits.length }, 'events wait for dead letters of their keys');
        outcomes.push(outcome);
        if ((outcome.wide ?? 0) > 0) this.fanOut.changed();
        this.dueBy(outcome.dueAtMs);
        metrics.batches.inc();
        metrics.publications.inc(outcome.publications.length);
        for (const { rule } of outcome.verdicts) metrics.suppressed.inc({ rule });
      },
      truncate: (source, cursor) => this.truncate(source, cursor),
      bury: (event, error, cursor) => this.bury(event.event.id, error, cursor),
    };
  }

  private async withRetries<T>(work: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await work();
      } catch (error) {
        if (blame(error) !== 'contention' || attempt > contentionRetries) throw error;
        await new Promise((resolve) => setTimeout(resolve, Math.random() * 20 * 2 ** attempt));
      }
    }
  }

  private async truncate(source: string, cursor: Cursor): Promise<void> {
    const { writer, log } = this.options;
    const epoch = await storeTruncate(writer, this.term.term, source, cursor);
    this.fanOut.changed();
    log.warn({ source, epoch }, 'a table was truncated: what came from it is withdrawn');
    this.publish([
      { to: 'control', kind: 'epoch', epoch },
      { to: 'control', kind: 'resync', reason: 'truncated', userIds: null },
    ]);
  }

  private async bury(eventId: string, error: unknown, cursor: Cursor | null): Promise<void> {
    const { facts, writer, log, metrics } = this.options;
    const source = await storeDead({ facts, writer }, this.term.term, eventId, error, cursor);
    await this.deadKeys?.add(eventId);
    metrics.deadLetters.inc();
    log.error(
      { event: eventId, source, sqlstate: sqlState(error), error: messageOf(error) },
      'event set aside as a dead letter',
    );
  }

  /**
   * The statement that reads and resolves a page failed, so no event of it is known yet. Reads one by one, burying the
   * one that fails, until the page that failed is through.
   */
  private async readCarefully(cause: unknown): Promise<void> {
    const { reader, log } = this.options;
    log.warn({ error: messageOf(cause) }, 'a page could not be resolved: reading event by event');
    const singles = new OutboxReader<ResolvedRow>({ client: reader, statement: this.statement, limit: 1 });
    for (let i = 0; i < pageSize && !this.stopping && this.term.trusted(); i++) {
      try {
        const single = await this.readPage(singles, this.cursor);
        if (single === null) return;
        await this.processPage(single);
      } catch (error) {
        if (blame(error) !== 'event') throw error;
        const next = await nextUnread(reader, this.cursor);
        if (next === null) return;
        await this.bury(next.id, error, next.cursor);
        this.cursor = next.cursor;
      }
    }
  }

  /** A step of a wide event. One that an event is to blame for ends its job, as a dead letter; everything else goes on. */
  private async stepWide(): Promise<void> {
    const { fanOut } = this;
    if (!fanOut.pending || this.stopping || !this.term.trusted()) return;
    try {
      const state = await this.withRetries(() => fanOut.step(this.batchConnections, this.term.term));
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
      await this.bury(eventId, error, null);
      await fanOut.giveUp(this.options.writer, messageOf(error));
    }
  }

  private async flush(backlog: boolean): Promise<void> {
    const patience = backlog ? flushPatienceMs : 0;
    if (this.dueAtMs === null || Date.now() < this.dueAtMs + patience) return;
    const { writer, metrics } = this.options;
    const outcome = await this.withRetries(() =>
      this.processor.flushDue(this.batchConnections, this.term.term, flushLimit),
    );
    metrics.publications.inc(outcome?.publications.length ?? 0);
    if (outcome?.full === true) return;
    this.dueAtMs = await nextDueMs(writer);
  }

  private dueBy(atMs: number | null): void {
    if (atMs !== null && (this.dueAtMs === null || atMs < this.dueAtMs)) this.dueAtMs = atMs;
  }
}

/** Live traffic counts as going on for so long after the last event. */
const busyMs = 1_000;

/** How often a sleeping leader looks after itself: lost events, new partitions. */
export const choresEveryMs = 30_000;

function now(): number {
  return performance.timeOrigin + performance.now();
}
