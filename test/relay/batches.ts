/** Drives batches by hand: reads the outbox to its end, page by page, and keeps what would have been published. */

import type pg from 'pg';
import type { Broker, Publication } from '../../src/broker/broker.js';
import { parseConfig } from '../../src/config.js';
import type { Config } from '../../src/config.js';
import { PostgresInbox } from '../../src/inbox/inbox.js';
import { PostgresChannels } from '../../src/inbox/channels.js';
import type { CursorStep } from '../../src/inbox/store.js';
import { OutboxReader } from '../../src/outbox/reader.js';
import type { Page } from '../../src/outbox/reader.js';
import { advanceWithin } from '../../src/outbox/cursor.js';
import type { Cursor } from '../../src/outbox/cursor.js';
import { connect } from '../../src/postgres/connect.js';
import { BatchProcessor } from '../../src/relay/batch.js';
import type { Preparation } from '../../src/relay/batch.js';
import { FanOut } from '../../src/relay/wide/fan-out.js';
import type { OutboxFilter } from '../../src/relay/look/filter.js';
import { BatchTooLarge } from '../../src/relay/facts/group-facts.js';
import { PrivacyLoader } from '../../src/relay/facts/privacy-facts.js';
import { boundOf } from '../../src/relay/replay/page.js';
import type { ReplayMode } from '../../src/relay/replay/plan.js';
import { Replay } from '../../src/relay/replay/replay.js';
import type { ReplayHost } from '../../src/relay/replay/host.js';
import type { JobRun, ReplayCounts } from '../../src/relay/replay/replay.js';
import { DeadRetry } from '../../src/relay/replay/retry.js';
import { resolveSql } from '../../src/relay/plan/resolve.js';
import { eventsOf } from '../../src/relay/plan/resolved.js';
import type { ResolvedRow } from '../../src/relay/plan/resolved.js';
import { mappedSources, WriterPlans, writerSession } from '../../src/relay/connections.js';
import { loadColumnTypes } from '../../src/schema/columns.js';
import type { TestDatabase } from '../support/postgres.js';

/** A broker that keeps what it is given, and has a session of everybody. */
class Recorder implements Broker {
  readonly kind = 'memory';
  readonly heard: Publication[] = [];
  start(): Promise<void> {
    return Promise.resolve();
  }
  stop(): Promise<void> {
    return Promise.resolve();
  }
  subscribe(): void {
    // Nobody listens: the test looks at `heard`.
  }
  publish(publications: readonly Publication[]): void {
    this.heard.push(...publications);
  }
  mayHaveSessions(): boolean {
    return true;
  }
  mayHaveSubscribers(): boolean {
    return true;
  }
}

/** Called when a replay has read and decided, and its turn to store begins: what else may happen meanwhile. */
export type BeforeTurn = () => Promise<void>;

export interface Batches {
  readonly config: Config;
  readonly inbox: PostgresInbox;
  readonly channels: PostgresChannels;
  readonly writer: pg.Client;
  /** Everything published since the last call. */
  heard(): Publication[];
  /** What was logged as an error since the last call. */
  complaints(): Record<string, unknown>[];
  /** Reads and processes to the end; `ahead`: each page is prepared before the one before it is processed, as in a backlog. */
  run(pageSize?: number, ahead?: boolean): Promise<number>;
  flush(): Promise<void>;
  /** What `belfry replay` does with what the filter means, in one go; `busy`: beside live traffic. */
  replay(mode: ReplayMode, filter: OutboxFilter, busy?: boolean, before?: BeforeTurn): Promise<Readonly<ReplayCounts>>;
  /** What a retry of all dead letters does. */
  retry(before?: BeforeTurn): Promise<Readonly<ReplayCounts>>;
  /** Works off wide events to their end, or this many steps; returns how many recipients each took. */
  fanOut(steps?: number): Promise<number[]>;
  stop(): Promise<void>;
}

export async function startBatches(database: TestDatabase, configText: string, chunk?: number): Promise<Batches> {
  const config = parseConfig(configText, {}, { path: 'test.yaml' });
  const reader = await connect(database.url, { applicationName: 'reader', session: OutboxReader.session });
  const writer = await connect(database.url, { applicationName: 'writer', session: writerSession });
  const types = await loadColumnTypes(reader, config);
  const ahead = await connect(database.url, { applicationName: 'ahead', session: writerSession });
  const connections = {
    reader,
    writer,
    plans: new WriterPlans(writer),
    ahead,
    aheadPlans: new WriterPlans(ahead),
  };
  const privacy = await PrivacyLoader.create(reader, config, types);
  const broker = new Recorder();
  const complaints: Record<string, unknown>[] = [];
  const log = { error: (what: Record<string, unknown>) => void complaints.push(what) };
  const processor = new BatchProcessor(config, privacy, broker, log);
  const sources = mappedSources(config);
  const fan = new FanOut({
    processor,
    reader,
    sources: config.sources,
    types,
    ...(chunk === undefined ? {} : { chunk }),
  });
  const names = new Set(sources.map(({ name }) => name));
  const statement = resolveSql(sources, types);
  const term = async (): Promise<string> =>
    (await writer.query<{ term: string }>('select term::text from belfry.relay')).rows[0]?.term ?? '0';
  const cursorOf = async (): Promise<Cursor> => {
    const { rows } = await writer.query<Cursor>(
      'select seen::text, target::text, after_id::text as "afterId", max_id::text as "maxId" from belfry.relay',
    );
    if (rows[0] === undefined) throw new Error('no relay row');
    return rows[0];
  };
  let moved = 0;
  const work = async (run: JobRun, busy: boolean, before: BeforeTurn): Promise<Readonly<ReplayCounts>> => {
    const host: ReplayHost = {
      term: await term(),
      async process(prepare) {
        await before();
        const preparation = await prepare();
        if (preparation === null) return null;
        const outcome = await processor.process(connections, host.term, preparation, null);
        if ((outcome.wide ?? 0) > 0) fan.changed();
        return outcome;
      },
      moved: () => moved,
      busy: () => busy,
      publish: (publications) => broker.publish(publications),
    };
    try {
      for (let after: string | null = '0'; after !== null;) after = await run.step(host, after, 1_000);
      await run.settle(host);
      return run.counts;
    } finally {
      await run.close();
    }
  };
  return {
    config,
    inbox: new PostgresInbox(database.pool, config, types),
    channels: new PostgresChannels(database.pool, config),
    writer,
    heard: () => broker.heard.splice(0),
    complaints: () => complaints.splice(0),
    async run(pageSize = 5000, prepareAhead = false) {
      const pages = new OutboxReader<ResolvedRow>({ client: reader, statement, limit: pageSize });
      const read = async (
        cursor: Cursor,
        early: boolean,
      ): Promise<{ page: Page<ResolvedRow>; preparation: Preparation } | null> => {
        const page = await pages.read(cursor);
        if (page === null) return null;
        const preparation = processor.prepare(connections, eventsOf(page.rows, names), early);
        if (early) await preparation.groups?.facts.catch(() => undefined);
        return { page, preparation };
      };
      /** In halves where it is too large, as segments.ts does. */
      const store = async (page: Page<ResolvedRow>, preparation: Preparation, step: CursorStep): Promise<void> => {
        try {
          const outcome = await processor.process(connections, await term(), preparation, step);
          if ((outcome.wide ?? 0) > 0) fan.changed();
        } catch (error) {
          if (!(error instanceof BatchTooLarge)) throw error;
          const { events } = preparation;
          const middle = events.length >> 1;
          const between = advanceWithin(page.cursor, page, events[middle - 1]?.event.id ?? '');
          await store(page, processor.prepare(connections, events.slice(0, middle)), between);
          await store(page, processor.prepare(connections, events.slice(middle)), step);
        }
      };
      let events = 0;
      for (let next = await read(await cursorOf(), false); next !== null;) {
        const { page, preparation } = next;
        const early = prepareAhead ? await read(page.next, true) : null;
        moved += 1;
        await store(page, preparation, page.next);
        events += page.count;
        next = early ?? (await read(await cursorOf(), false));
      }
      return events;
    },
    async flush() {
      await processor.flushDue(connections, await term(), 1000);
    },
    async replay(mode, filter, busy = false, before = () => Promise.resolve()) {
      const bound = await boundOf(writer);
      const replay = await Replay.open(database.url, config, { mode, filter, bound, dryRun: false });
      return await work(replay, busy, before);
    },
    async retry(before = () => Promise.resolve()) {
      return await work(await DeadRetry.open(database.url, config, {}), false, before);
    },
    async fanOut(steps = Infinity) {
      const sizes: number[] = [];
      while (sizes.length < steps) {
        const state = await fan.step(connections, await term(), false);
        if (state === 'idle') break;
        if (state === 'waiting') await fan.fetched();
        else sizes.push(state.deliveries + state.verdicts.length);
      }
      return sizes;
    },
    async stop() {
      await reader.end();
      await writer.end();
      await ahead.end();
    },
  };
}
