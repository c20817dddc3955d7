/**
 * The connection in whose transaction the relay sleeps, and the lock K that it holds there.
 *
 * What must hold:
 * - The transaction is read committed, read only, and speaks the simple protocol: between its statements it holds no
 *   snapshot, no xid, and no lock but K, so it keeps nothing from being vacuumed, and no day of the outbox from being made or dropped.
 * - The server ends it when nothing came from here for `idleLimit`: a stopped process or a dead host frees K.
 * - No statement waits longer than its deadline: a socket that went silent is thrown away.
 * - A connection that died is replaced in the background, as often as it takes, with full jitter; meanwhile `alive` is false.
 */
import type pg from 'pg';
import { messageOf } from '../errors.js';
import type { Logger } from '../log.js';
import { connect } from '../postgres/connect.js';
import { letGo } from '../postgres/sending.js';
import { outboxSession, prepareUnread } from './cursor.js';
import { fullJitterMs, pause, withDeadline } from './deadline.js';

/** 'belfry' in ASCII; belfry.ring() tries the same key, shared. */
export const doorbellKey = '108187749872249';

/** The safety poll resets it each second; three missed ones mean that nobody is there. */
const idleLimit = '3s';
const deadlineMs = 3_000;
const reconnectBaseMs = 100;
const reconnectCapMs = 10_000;

const tryLockSql = `begin isolation level read committed read only; select pg_try_advisory_xact_lock(${doorbellKey}) as granted; savepoint look`;

/** Rolled back to where it held nothing but K: the transaction lasts as long as the relay sleeps, and so would its locks on the tables. */
const lookSql = (unread: string): string => `${unread}; rollback to look`;

/** What came of trying K. */
export interface Attempt {
  readonly granted: boolean;
  /** There was something to read, in a statement of its own after that. */
  readonly more: boolean;
}

export interface SleeperOptions {
  /** A direct connection's URL. */
  readonly url: string;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  /** The connection died, and with it K; a new one is on its way. */
  readonly onLost: () => void;
}

export class Sleeper {
  readonly #options: SleeperOptions;
  readonly #stopping = new AbortController();
  #client: pg.Client | null = null;
  #pid: number | null = null;
  #replacing: Promise<void> | null = null;
  #replacements = 0;

  constructor(options: SleeperOptions) {
    this.#options = options;
  }

  get alive(): boolean {
    return this.#client !== null;
  }

  /** Backend of the connection, for the lease; null while there is none. */
  get pid(): number | null {
    return this.#pid;
  }

  /** How many connections died. */
  get replacements(): number {
    return this.#replacements;
  }

  /** Throws what `connect` throws. */
  async start(): Promise<void> {
    await this.#open();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    const client = this.#client;
    this.#client = null;
    if (client !== null) await letGo(client);
    await this.#replacing;
  }

  /**
   * Begins the transaction, tries K in it, and looks whether anything is unread; one round trip. When K is not granted, or there is
   * something to read, no transaction is left. Null when the connection failed.
   */
  async tryLock(unread: string): Promise<Attempt | null> {
    const answer = await this.#run((client) => client.query(`${tryLockSql}; ${lookSql(unread)}`));
    if (answer === null) return null;
    const [, lock, , look] = answer as unknown as pg.QueryResult[];
    const granted = (lock?.rows[0] as { granted: boolean } | undefined)?.granted ?? false;
    const more = (look?.rows[0] as { more: boolean } | undefined)?.more ?? false;
    // Sent at once; whatever comes next on this connection comes after it.
    if (more || !granted) void this.release();
    return { granted, more };
  }

  /** Ends the transaction, and with it K. */
  async release(): Promise<void> {
    await this.#run((client) => client.query('commit'));
  }

  /** The safety poll, inside the transaction. True when there is something to read, or nobody can tell. */
  async unread(query: string): Promise<boolean> {
    const answer = await this.#run((client) => client.query(lookSql(query)));
    const [look] = (answer ?? []) as unknown as pg.QueryResult[];
    return (look?.rows[0] as { more: boolean } | undefined)?.more ?? true;
  }

  /** Null when the connection failed, which is then being replaced. */
  async #run<T>(work: (client: pg.Client) => Promise<T>): Promise<T | null> {
    const client = this.#client;
    if (client === null) return null;
    try {
      return await withDeadline(work(client), deadlineMs, 'doorbell');
    } catch (error) {
      this.#lost(client, messageOf(error));
      return null;
    }
  }

  async #open(): Promise<void> {
    const client = await connect(this.#options.url, {
      applicationName: 'belfry doorbell',
      session: { ...outboxSession, idle_in_transaction_session_timeout: idleLimit },
    });
    client.once('end', () => this.#lost(client, 'connection ended'));
    try {
      // Waits for whoever holds a lock on the outbox.
      await withDeadline(client.query(prepareUnread), deadlineMs, 'doorbell');
      const { rows } = await withDeadline(
        client.query<{ pid: number }>('select pg_backend_pid() as pid'),
        deadlineMs,
        'doorbell',
      );
      if (this.#stopping.signal.aborted) return await letGo(client);
      this.#pid = rows[0]?.pid ?? null;
      this.#client = client;
    } catch (error) {
      client.end().catch(() => undefined);
      throw error;
    }
  }

  #lost(client: pg.Client, why: string): void {
    if (this.#client !== client) return;
    this.#client = null;
    this.#pid = null;
    this.#replacements += 1;
    this.#options.log.warn({ why }, 'doorbell connection lost; polling until it is back');
    client.end().catch(() => undefined);
    this.#options.onLost();
    this.#replacing = this.#replace();
  }

  async #replace(): Promise<void> {
    const { signal } = this.#stopping;
    for (let attempt = 0; !signal.aborted; attempt += 1) {
      await pause(fullJitterMs(attempt, reconnectBaseMs, reconnectCapMs), signal);
      if (signal.aborted) return;
      try {
        await this.#open();
        this.#options.log.info({ attempts: attempt + 1 }, 'doorbell connection is back');
        return;
      } catch (error) {
        this.#options.log.warn({ why: messageOf(error) }, 'doorbell connection could not be replaced yet');
      }
    }
  }
}
