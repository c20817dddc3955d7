/**
 * What a leader does with a page: stores its parts in order (segments.ts), lets events wait for a dead letter of their row, sets aside
 * those that can't be processed, and tells metrics and log.
 *
 * What must hold: every part moves the cursor in the transaction that stores it; a part that loses against others (deadlock, lock
 * timeout) is tried again, and nothing else is.
 */

import type pg from 'pg';
import { nowMs } from '../clock.js';
import type { Source } from '../config.js';
import { messageOf, sqlState } from '../errors.js';
import { advanceWithin } from '../outbox/cursor.js';
import type { Cursor } from '../outbox/cursor.js';
import type { Page } from '../outbox/reader.js';
import { setAside, storeDead, storeTruncate } from './dead-letters/aside.js';
import type { BatchConnections, BatchOutcome, BatchProcessor, Preparation } from './batch.js';
import { waiting } from './dead-letters/dead-keys.js';
import type { DeadKeys } from './dead-letters/dead-keys.js';
import { blame } from './failures.js';
import type { LeadingOptions } from './leading.js';
import { eventTracesOf } from './observer.js';
import type { PreparedPage } from './reading.js';
import type { PageEvent, ResolvedRow } from './plan/resolved.js';
import { processPage } from './segments.js';
import type { SegmentWork } from './segments.js';
import { unmappedIn } from './dead-letters/unmapped.js';
import type { Unmapped } from './dead-letters/unmapped.js';
import { incompleteIn, recordIncomplete } from './upkeep/incomplete.js';
import type { Incomplete } from './upkeep/incomplete.js';

/** How often a part that loses against others (deadlock, lock timeout) is tried before the term is given up. */
const contentionRetries = 5;

export interface PageWorkOptions {
  readonly options: Pick<LeadingOptions, 'facts' | 'writer' | 'broker' | 'log' | 'metrics' | 'observer' | 'traces'>;
  readonly term: string;
  readonly processor: BatchProcessor;
  readonly connections: BatchConnections;
  /** Those that are mapped, by name. */
  readonly sources: ReadonlyMap<string, Source>;
  /** Null where later events of a dead letter's key need not wait. */
  readonly deadKeys: DeadKeys | null;
  /** The statement that stores the whole page was sent just now. */
  readonly sent: (page: Page<ResolvedRow>) => void;
  /** That statement failed: the page is not stored as a whole. */
  readonly failed: () => void;
  /** A part is stored: new windows may be due, and jobs for wide events may have been opened. */
  readonly stored: (outcome: BatchOutcome) => void;
  /** A table was truncated: jobs of wide events may be gone. */
  readonly truncated: () => void;
}

export class PageWork {
  /** Sources of which it was told that their events are set aside, or lack columns. */
  private readonly told = { aside: new Set<string>(), incomplete: new Set<string>() };

  constructor(private readonly work: PageWorkOptions) {}

  /** `ahead`: the next page may be read meanwhile. Throws only what no event is to blame for. */
  async process({ page, preparation, readAtMs }: PreparedPage, ahead = true): Promise<void> {
    const { events } = preparation;
    const started = performance.now();
    const outcomes: BatchOutcome[] = [];
    await processPage(
      this.segmentWork(outcomes, preparation, ahead ? page : null),
      events,
      (id) => advanceWithin(page.cursor, page, id),
      page.next,
    );
    const { metrics, observer, traces } = this.work.options;
    metrics.eventsRead.inc(page.count);
    metrics.batchSeconds.observe((performance.now() - started) / 1000);
    const pushedAtMs = nowMs();
    traces.add(page.next, { readAtMs, storedAtMs: outcomes.at(-1)?.storedAtMs ?? pushedAtMs, pushedAtMs });
    const oldest = events[0]?.event.at.getTime();
    if (oldest !== undefined) metrics.lagSeconds.set(Math.max(0, (Date.now() - oldest) / 1000));
    observer.batch?.({
      events: page.count,
      traces:
        observer.wantsTraces === true ? eventTracesOf(events, readAtMs, outcomes.at(-1)?.storedAtMs, nowMs()) : [],
    });
  }

  /** Sets an event aside as a dead letter with its error; moves the cursor unless it is null. */
  async bury(eventId: string, error: unknown, cursor: Cursor | null): Promise<void> {
    const { options, term, deadKeys } = this.work;
    const { facts, writer, log, metrics } = options;
    const before = await deadKeys?.before(eventId);
    const source = await storeDead({ facts, writer }, term, eventId, error, cursor, before);
    await deadKeys?.add(eventId);
    metrics.deadLetters.inc();
    log.error(
      { event: eventId, source, sqlstate: sqlState(error), error: messageOf(error) },
      'event set aside as a dead letter',
    );
  }

  private segmentWork(outcomes: BatchOutcome[], whole: Preparation, page: Page<ResolvedRow> | null): SegmentWork {
    const { options, term, processor, connections, sources, deadKeys, stored, sent, failed } = this.work;
    const { metrics, log, facts } = options;
    return {
      process: async (read, cursor) => {
        const unmapped = await unmappedIn(facts, read);
        const { events, incomplete } = await incompleteIn(facts, read, sources);
        const parted = (await deadKeys?.part(events)) ?? null;
        const waits = parted !== null && parted.wait.length > 0 ? parted.wait : null;
        const aside = [...waiting(waits ?? []), ...unmapped.flatMap((one) => one.aside)];
        const also = async (client: pg.ClientBase): Promise<void> => {
          if (aside.length > 0) await setAside(client, aside);
          if (incomplete.length > 0) await recordIncomplete(client, incomplete);
        };
        const plain = aside.length === 0 && incomplete.length === 0;
        let prepared = waits === null && events === read && events.length === whole.events.length ? whole : null;
        const onSent = page !== null && events.length === whole.events.length ? () => sent(page) : undefined;
        const outcome = await withRetries(async () => {
          const preparation = prepared ?? processor.prepare(connections, parted?.go ?? events);
          prepared = null;
          try {
            return await processor.process(
              connections,
              term,
              plain ? preparation : { ...preparation, also },
              cursor,
              onSent,
            );
          } catch (error) {
            failed();
            throw error;
          }
        });
        parted?.stored();
        if (waits !== null) log.warn({ events: waits.length }, 'events wait for dead letters of their keys');
        this.tellOf(unmapped);
        this.tellOfIncomplete(incomplete);
        outcomes.push(outcome);
        stored(outcome);
        metrics.batches.inc();
        metrics.publications.inc(outcome.publications.length);
        for (const { rule } of outcome.verdicts) metrics.suppressed.inc({ rule });
      },
      truncate: ({ event }, cursor) => this.truncate(event, cursor),
      bury: (event, error, cursor) => this.bury(event.event.id, error, cursor),
    };
  }

  /** Each source once a term: they may be many. */
  private tellOf(unmapped: readonly Unmapped[]): void {
    const { metrics, log } = this.work.options;
    for (const { source, aside } of unmapped) {
      metrics.deadLetters.inc(aside.length);
      if (!isNews(this.told.aside, source)) continue;
      log.error(
        { source },
        'events of a source that the config of this relay does not name are set aside as dead letters: restart it with the config that belfry migrate ran with',
      );
    }
  }

  /** Each source once a term. */
  private tellOfIncomplete(incomplete: readonly Incomplete[]): void {
    for (const { source, columns } of incomplete) {
      if (!isNews(this.told.incomplete, source)) continue;
      this.work.options.log.error(
        { source, columns },
        'events lack columns that the config names: nobody is told of them until config and tables fit, then they are captured again',
      );
    }
  }

  private async truncate(event: PageEvent['event'], cursor: Cursor): Promise<void> {
    const { options, term, processor, deadKeys, truncated } = this.work;
    const { source } = event;
    const { epoch, discarded } = await storeTruncate(options.writer, term, event, cursor);
    truncated();
    deadKeys?.changed();
    options.log.warn(
      { source, epoch, deadLetters: discarded },
      'a table was truncated: what came from it is withdrawn, its dead letters are discarded',
    );
    processor.forget();
    options.broker.publish([
      { to: 'control', kind: 'epoch', epoch },
      { to: 'control', kind: 'resync', reason: 'truncated', userIds: null },
    ]);
  }
}

/** Whether a source was not told of before, which from now on it was. */
function isNews(told: Set<string>, source: string): boolean {
  return told.size !== told.add(source).size;
}

/** Does the work again where it lost against others (deadlock, lock timeout). */
export async function withRetries<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (blame(error) !== 'contention' || attempt > contentionRetries) throw error;
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 20 * 2 ** attempt));
    }
  }
}
