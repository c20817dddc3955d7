/** What the tests of the outbox have in common: a writer that writes as the triggers do, and a relay that only reads. */
import type pg from 'pg';
import type { Cursor } from '../../src/outbox/cursor.js';
import { endOfDelta, unreadQuery } from '../../src/outbox/cursor.js';
import { Doorbell } from '../../src/outbox/doorbell.js';
import { OutboxReader, type PageColumns } from '../../src/outbox/reader.js';
import { connect } from '../../src/postgres/connect.js';

/** A row of the outbox as these tests write them: `n` tells one event from another. */
export interface TestRow extends PageColumns {
  readonly xid: string;
  readonly n: string;
  /** Milliseconds between the writer's `at` and the statement that read it, by the database's clock. */
  readonly age_ms: number;
}

export const testStatement = (page: string): string => `
  with page as materialized (${page}),
       meta as (select max(id)::text as page_last, count(*)::text as page_count, pg_current_snapshot()::text as page_target from page)
  select id::text, xid::text, new ->> 'n' as n, page_last, page_count, page_target,
         (extract(epoch from clock_timestamp() - at) * 1000)::float8 as age_ms
    from page cross join meta order by page.id`;

/** Writes an event without ringing. */
export async function insertEvent(client: pg.ClientBase | pg.Pool, n: number | string): Promise<string> {
  const { rows } = await client.query<{ id: string }>(
    `insert into belfry.outbox (source, op, new) values ('test', 'created', jsonb_build_object('n', $1::text)) returning id::text`,
    [String(n)],
  );
  return rows[0]?.id ?? '';
}

/** Writes an event as a trigger does: the row, then the bell. */
export async function writeEvent(client: pg.ClientBase | pg.Pool, n: number | string): Promise<void> {
  await client.query(
    `with written as (insert into belfry.outbox (source, op, new) values ('test', 'created', jsonb_build_object('n', $1::text)) returning id)
     select belfry.ring() from written`,
    [String(n)],
  );
}

/** A cursor from which nothing that was committed before is read. */
export async function cursorNow(client: pg.ClientBase | pg.Pool): Promise<Cursor> {
  const { rows } = await client.query<{ seen: string }>('select pg_current_snapshot()::text as seen');
  return { seen: rows[0]?.seen ?? '', target: null, afterId: '0', maxId: '0' };
}

/** Reads like the relay, and remembers what it read. */
export class Collector {
  readonly rows: TestRow[] = [];
  readonly #waiters = new Set<() => void>();
  cursor: Cursor;
  reads = 0;

  private constructor(
    readonly client: pg.Client,
    readonly reader: OutboxReader<TestRow>,
    cursor: Cursor,
  ) {
    this.cursor = cursor;
  }

  /** Begins at what is committed now. */
  static async open(
    url: string,
    limits: { readonly limit?: number; readonly smallLimit?: number; readonly rowLimit?: number } = {},
    statement = testStatement,
  ): Promise<Collector> {
    const client = await connect(url, { applicationName: 'belfry reader', session: OutboxReader.session });
    const reader = new OutboxReader<TestRow>({ client, statement, ...limits });
    return new Collector(client, reader, await cursorNow(client));
  }

  get numbers(): string[] {
    return this.rows.map((row) => row.n);
  }

  /** One page; null when there is none. */
  readonly readPage = async (): Promise<readonly TestRow[] | null> => {
    this.reads += 1;
    const page = await this.reader.read(this.cursor);
    if (page === null) {
      this.cursor = endOfDelta(this.cursor);
      return null;
    }
    this.cursor = page.next;
    this.rows.push(...page.rows);
    for (const waiter of this.#waiters) waiter();
    return page.rows;
  };

  /** Until nothing is unread; returns what came. */
  async drain(): Promise<TestRow[]> {
    const from = this.rows.length;
    while ((await this.readPage()) !== null);
    return this.rows.slice(from);
  }

  /** Resolves when so many events have been read since the beginning. */
  async until(count: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const check = () => {
        if (this.rows.length < count) return;
        this.#waiters.delete(check);
        resolve();
      };
      this.#waiters.add(check);
      check();
    });
  }

  readonly unread = (): string => unreadQuery(this.cursor);

  /** The relay's loop. Resolves after `doorbell.stop()`. */
  async run(doorbell: Doorbell, stopped: () => boolean): Promise<void> {
    while (!stopped()) {
      if ((await this.readPage()) === null) await doorbell.wait(this.readPage);
    }
  }
}

export interface Log {
  readonly lines: string[];
  info(details: object, message?: string): void;
  warn(details: object, message?: string): void;
}

/** A log that a test can look at. */
export function testLog(): Log {
  const lines: string[] = [];
  const add = (details: object, message?: string) => void lines.push(`${message ?? ''} ${JSON.stringify(details)}`);
  return { lines, info: add, warn: add };
}

/** A collector with a doorbell, running. */
export interface Relay {
  readonly collector: Collector;
  readonly doorbell: Doorbell;
  /** Resolves when it sleeps, at once if it does already. */
  asleep(): Promise<void>;
  stop(): Promise<void>;
}

export async function startRelay(
  url: string,
  options: { readonly mode?: 'notify' | 'poll'; readonly doorbellUrl?: string; readonly log?: Log } = {},
): Promise<Relay> {
  const collector = await Collector.open(url);
  const state = { asleep: false, stopped: false };
  const waiters = new Set<() => void>();
  const doorbell = new Doorbell({
    mode: options.mode ?? 'notify',
    url: options.doorbellUrl ?? url,
    unread: collector.unread,
    log: options.log ?? testLog(),
    observer: {
      doorbell: (now) => {
        state.asleep = now === 'asleep';
        if (state.asleep) for (const waiter of waiters) waiter();
      },
    },
  });
  await doorbell.start();
  const running = collector.run(doorbell, () => state.stopped);
  return {
    collector,
    doorbell,
    asleep: async () => {
      if (state.asleep) return;
      await new Promise<void>((resolve) => {
        const waiter = () => {
          waiters.delete(waiter);
          resolve();
        };
        waiters.add(waiter);
      });
    },
    stop: async () => {
      state.stopped = true;
      await doorbell.stop();
      await running;
      await collector.client.end();
    },
  };
}

/** Waits for a condition of the database, which gives no signal; at most `ms`. */
export async function eventually(check: () => Promise<boolean>, what: string, ms = 10_000): Promise<void> {
  const until = Date.now() + ms;
  while (!(await check())) {
    if (Date.now() > until) throw new Error(`not within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Numbers from 0 to 1, the same ones for the same seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
