/**
 * Reads the outbox page by page over one connection of its own, in autocommit: the snapshot of the statement that reads a
 * delta's first page is the delta's end.
 *
 * What must hold:
 * - One statement reads the page and resolves it, so rows, resolution and snapshot belong together.
 * - No transaction is open around it: its old snapshot would keep vacuum from removing rows.
 * - A page has at most `limit` events and `rowLimit` rows, so memory, and the transaction that stores it, are bounded whatever the backlog
 *   and however many people each event is for. Rows that are too many never travel: the page ends after the last event that came whole, and
 *   those that follow are asked for as few events, until there is room again.
 *
 * A page is asked for as small or large, each a statement of its own: the plan for fifty rows is not the plan for thousands.
 */
import type pg from 'pg';
import { advance, type Cursor, outboxSession, type PageFacts, pageQuery } from './cursor.js';

/** What the statement around a page must say about it on each of its rows. */
export interface PageColumns {
  /** Of the event. */
  readonly id: string;
  /** Highest id of the page. */
  readonly page_last: string;
  /** Number of events in it (the statement may give several rows for one). */
  readonly page_count: string;
  /** `pg_current_snapshot()` of the statement, as text. */
  readonly page_target: string;
}

export interface Page<Row> extends PageFacts {
  readonly rows: readonly Row[];
  /** The cursor that it was read from. */
  readonly cursor: Cursor;
  /** The cursor once all of it has been processed. */
  readonly next: Cursor;
}

export interface ReaderOptions {
  /** A direct connection made with `OutboxReader.session`; nobody else uses it. */
  readonly client: pg.Client;
  /**
   * Reads small pages; default `client`. Another one like it on which statements run in the order in which they are asked, so that a
   * page can be asked for together with what is done before it.
   */
  readonly smallClient?: pg.Client;
  /**
   * Puts the statement around the select of the page; must give no row for an empty page and PageColumns on every other, ends with
   * `order by` the event's id, and gets a limit.
   */
  readonly statement: (pageSelect: string) => string;
  /** Most events of a page; default 5,000. */
  readonly limit?: number;
  /** Most events of a small page; default 50. */
  readonly smallLimit?: number;
  /** Most rows of a page; default 20,000. Of an event that has more itself, so many and one come, and it stands alone. */
  readonly rowLimit?: number;
}

/** Most rows of a page, unless `rowLimit` says otherwise. */
export const pageRows = 20_000;

export class OutboxReader<Row extends PageColumns> {
  /** Settings of the session that the reader's statements are planned for. */
  static readonly session = outboxSession;

  readonly #client: pg.Client;
  readonly #smallClient: pg.Client;
  readonly #statement: (pageSelect: string) => string;
  readonly #limit: number;
  readonly #smallLimit: number;
  readonly #rowLimit: number;
  #lastCount = 0;
  /** How many times the limit is halved, because events had many rows. */
  #halvings = 0;

  constructor(options: ReaderOptions) {
    this.#client = options.client;
    this.#smallClient = options.smallClient ?? options.client;
    this.#statement = options.statement;
    this.#limit = options.limit ?? 5_000;
    this.#smallLimit = Math.min(options.smallLimit ?? 50, this.#limit);
    this.#rowLimit = options.rowLimit ?? pageRows;
  }

  /**
   * The next page, or null when nothing is unread. Null means: nothing was past this cursor when the statement began.
   * Throws what pg throws; the cursor is the caller's, so the same call may simply be made again.
   */
  async read(cursor: Cursor): Promise<Page<Row> | null> {
    // The same connection for all statements of this read: the other one may be busy by then.
    const client = this.#isSmall(cursor) ? this.#smallClient : this.#client;
    for (let at = cursor; ;) {
      const page = await this.#readPage(client, at);
      this.#lastCount = page.count;
      if (page.count > 0) return page;
      // The end of a delta says nothing about what was committed after it.
      if (at.target === null) return null;
      at = page.next;
    }
  }

  /** A delta that goes on is large; between deltas the last one is the best guess. */
  #isSmall(cursor: Cursor): boolean {
    return cursor.target === null && this.#lastCount < this.#smallLimit;
  }

  async #readPage(client: pg.Client, cursor: Cursor): Promise<Page<Row>> {
    const wanted = this.#isSmall(cursor) ? this.#smallLimit : this.#limit;
    const limit = Math.min(wanted, this.#limit >> this.#halvings);
    const page = pageQuery(cursor, limit);
    const { rows: found } = await client.query<Row>({
      name: page.name,
      text: `${this.#statement(page.text)} limit ${this.#rowLimit + 1}`,
      values: [...page.values],
    });
    const cut = found.length > this.#rowLimit;
    const rows = cut ? withoutLast(found) : found;
    const first = rows[0];
    const count = cut ? new Set(rows.map(({ id }) => id)).size : Number(first?.page_count ?? 0);
    this.#adapt(count, rows.length, cut, limit);
    const facts: PageFacts = {
      count,
      // What was cut off is still to come, as after a page that is full.
      limit: cut ? count : limit,
      lastId: (cut ? rows.at(-1)?.id : first?.page_last) ?? null,
      snapshot: first?.page_target ?? null,
    };
    return { ...facts, rows, cursor, next: advance(cursor, facts) };
  }

  #adapt(count: number, rows: number, cut: boolean, limit: number): void {
    if (cut) while (this.#limit >> this.#halvings > Math.max(1, count)) this.#halvings += 1;
    else if (this.#halvings > 0 && count >= limit && rows * 2 <= this.#rowLimit) this.#halvings -= 1;
  }
}

/** The rows without those of the last event, which may be incomplete; all rows where it is the only event. */
export function withoutLast<Row extends Pick<PageColumns, 'id'>>(rows: readonly Row[]): readonly Row[] {
  const last = rows.at(-1)?.id;
  const end = rows.findIndex(({ id }) => id === last);
  return end === 0 ? rows : rows.slice(0, end);
}
