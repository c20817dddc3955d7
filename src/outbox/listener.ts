/**
 * Hears the doorbell: a connection of its own that listens on channel `belfry`, by pg-listen, which stays behind this file.
 *
 * What must hold:
 * - LISTEN first, then `connected`, then a full read by whoever is told: what was committed before is read, what is
 *   committed after rings.
 * - The connection proves each few seconds that it hears, by a NOTIFY to a channel of its own with a deadline: a half-open
 *   socket gives neither `error` nor `end`. One that fails is thrown away with its socket.
 * - It is replaced endlessly, with full jitter. pg-listen's own retry (it gives up after 3 s) is switched off.
 * - It is a direct connection to a primary: behind a transaction-mode pooler LISTEN stays on a server connection that
 *   belongs to somebody else a moment later. At connect the probe runs while another session holds a transaction, so
 *   that such a pooler can't give it the same server connection by luck.
 */
import { randomBytes } from 'node:crypto';
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import pgListen, { type Subscriber } from 'pg-listen';
import { BelfryError, messageOf, sqlState } from '../errors.js';
import type { Logger } from '../log.js';
import { explainConnectionError } from '../postgres/connection-error.js';
import { clientConfig, connect } from '../postgres/connect.js';
import { fullJitterMs, pause, withDeadline } from './deadline.js';

export interface ListenerOptions {
  /** A direct connection's URL. */
  readonly url: string;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  readonly onRing: () => void;
  /** `connected` changed; when it became true, whoever reads must read everything once. */
  readonly onChange: (connected: boolean) => void;
}

export interface ListenerCounters {
  /** Probes that came back. */
  readonly probes: number;
  /** Connections that died or went silent. */
  readonly replacements: number;
}

const channel = 'belfry';
const probeEveryMs = 6_000;
const probeDeadlineMs = 3_000;
const connectDeadlineMs = 10_000;
const reconnectBaseMs = 100;
const reconnectCapMs = 10_000;

const poolerMessage =
  'The listening connection does not hear its own NOTIFY: it goes through a transaction-mode pooler. Set database.listenUrl ' +
  'to a direct connection, or database.wakeup to poll.';

export class Listener {
  readonly #options: ListenerOptions;
  readonly #stopping = new AbortController();
  readonly #counters = { probes: 0, replacements: 0 };
  #connection: Connection | null = null;
  #watching: Promise<void> = Promise.resolve();

  constructor(options: ListenerOptions) {
    this.#options = options;
  }

  /** Whether a ring would be heard, as far as anybody can know. */
  get connected(): boolean {
    return this.#connection !== null;
  }

  get counters(): ListenerCounters {
    return { ...this.#counters };
  }

  /** Throws `database_unsuitable` for a pooler or a standby, else what `connect` throws. Then it keeps itself alive. */
  async start(): Promise<void> {
    await this.#open();
    this.#watching = this.#watch();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    const connection = this.#connection;
    this.#connection = null;
    connection?.close();
    await this.#watching;
  }

  async #open(): Promise<void> {
    const connection = new Connection(this.#options.url, this.#options.onRing);
    try {
      await connection.open();
    } catch (error) {
      connection.close();
      throw error;
    }
    if (this.#stopping.signal.aborted) return connection.close();
    this.#connection = connection;
    this.#options.onChange(true);
  }

  /** Probes the connection, replaces it when it fails; until `stop`. */
  async #watch(): Promise<void> {
    const { signal } = this.#stopping;
    const { log, onChange } = this.#options;
    while (!signal.aborted) {
      const why = (await this.#connection?.keepProbing(signal, () => (this.#counters.probes += 1))) ?? 'no connection';
      if (signal.aborted) return;
      this.#connection?.close();
      this.#connection = null;
      this.#counters.replacements += 1;
      log.warn({ why }, 'listening connection lost; polling until it is back');
      onChange(false);
      await this.#reopen(signal);
    }
  }

  async #reopen(signal: AbortSignal): Promise<void> {
    for (let attempt = 0; !signal.aborted; attempt += 1) {
      await pause(fullJitterMs(attempt, reconnectBaseMs, reconnectCapMs), signal);
      if (signal.aborted) return;
      try {
        await this.#open();
        this.#options.log.info({ attempts: attempt + 1 }, 'listening connection is back');
        return;
      } catch (error) {
        this.#options.log.warn({ why: messageOf(error) }, 'listening connection could not be replaced yet');
      }
    }
  }
}

/** One life of a listening connection; never used again once it failed. */
class Connection {
  readonly #url: string;
  readonly #subscriber: Subscriber;
  readonly #probeChannel = `belfry_probe_${randomBytes(8).toString('hex')}`;
  readonly #failed = new AbortController();
  #socket: Duplex | null = null;
  #heard: ((token: string) => void) | null = null;

  constructor(url: string, onRing: () => void) {
    this.#url = url;
    const plain = (text: string): string => text;
    const base = clientConfig(url, { applicationName: 'belfry listener' });
    const stream = typeof base.stream === 'function' ? (base.stream as () => Duplex) : () => new Socket();
    const config = {
      ...base,
      // The socket stays in our hands: a half-open one must be destroyed, which pg-listen can't.
      stream: () => (this.#socket = stream()),
    };
    this.#subscriber = pgListen.default(config, {
      paranoidChecking: false,
      retryLimit: 1,
      parse: plain,
      serialize: plain,
    });
    this.#subscriber.events.on('error', (error) => this.#fail(messageOf(error)));
    this.#subscriber.events.on('notification', (notification) => {
      if (notification.channel === channel) onRing();
      else if (notification.channel === this.#probeChannel) this.#heard?.(String(notification.payload));
    });
  }

  async open(): Promise<void> {
    try {
      await withDeadline(this.#subscriber.connect(), connectDeadlineMs, 'listener');
      await withDeadline(this.#listen(), connectDeadlineMs, 'listener');
    } catch (error) {
      if (sqlState(error) === '25006') {
        throw new BelfryError('database_unsuitable', 'This Postgres is a standby: point DATABASE_URL at the primary.', {
          retry: true,
          cause: error,
        });
      }
      throw explainConnectionError(error, this.#url);
    }
    const other = await connect(this.#url, { applicationName: 'belfry probe', queryTimeoutMs: connectDeadlineMs });
    try {
      await other.query('begin');
      await this.probe();
    } catch (error) {
      throw new BelfryError('database_unsuitable', poolerMessage, { cause: error });
    } finally {
      other.end().catch(() => undefined);
    }
  }

  async #listen(): Promise<void> {
    await this.#subscriber.listenTo(this.#probeChannel);
    await this.#subscriber.listenTo(channel);
  }

  /** Resolves when our own NOTIFY came back. Throws when it does not, in time. */
  async probe(): Promise<void> {
    const token = randomBytes(8).toString('hex');
    const heard = new Promise<void>((resolve) => {
      this.#heard = (came) => {
        if (came === token) resolve();
      };
    });
    try {
      const sent = this.#subscriber.notify(this.#probeChannel, token);
      await withDeadline(Promise.all([sent, heard]), probeDeadlineMs, 'probe of the listener');
    } finally {
      this.#heard = null;
    }
  }

  /** Resolves with the reason once the connection is of no use any more, or at the abort. */
  async keepProbing(signal: AbortSignal, onProbe: () => void): Promise<string> {
    const either = AbortSignal.any([signal, this.#failed.signal]);
    for (;;) {
      await pause(probeEveryMs, either);
      if (either.aborted) return String(this.#failed.signal.reason ?? 'stopped');
      try {
        await this.probe();
        onProbe();
      } catch (error) {
        // 54000: the queue is full. The server answered, so the connection lives, and another one would fare no better.
        if (sqlState(error) !== '54000') return messageOf(error);
      }
    }
  }

  /** Says goodbye where somebody listens, and lets go of the socket in any case. */
  close(): void {
    const socket = this.#socket;
    this.#subscriber.close().catch(() => undefined);
    setTimeout(() => socket?.destroy(), 500).unref();
  }

  #fail(why: string): void {
    this.#failed.abort(why);
  }
}
