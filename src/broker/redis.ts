/**
 * Publications between processes over Redis pub/sub.
 *
 * What must hold: this process's own gateway hears at once, without the way through Redis; a lost connection is made
 * anew for ever, and whoever was cut off is told to compare with the database; nothing is queued while it is down, and a bounded
 * number while it is slow: what was not published then, the others are told to compare, too; a link that falls silent is given up.
 */

import { randomUUID } from 'node:crypto';
import { createClient } from 'redis';
import { BelfryError, messageOf } from '../errors.js';
import type { Logger } from '../log.js';
import type { Broker, BrokerHandler, Publication } from './broker.js';
import { backAgain, brokerSubject, decode, encode } from './wire.js';

type Client = ReturnType<typeof createClient>;

/** Commands that wait to be written or answered, at most. */
const mostWaiting = 5_000;
/**
 * A link on which nothing moves for so long is given up; a good one answers a ping every 5 s. Since writing counts as moving, nothing is
 * published on a link that has not answered for `silenceMs`: until the kernel gave it up, all that would be lost.
 */
const stillMs = 15_000;
const silenceMs = 5_000;

export class RedisBroker implements Broker {
  readonly kind = 'redis';
  private readonly origin = randomUUID();
  private readonly publisher: Client;
  private readonly subscriber: Client;
  private handler: BrokerHandler | null = null;
  private started = false;
  /** Messages without an answer, and when there was one last, or none was waited for. */
  private unanswered = 0;
  private answeredAtMs = 0;
  /** Something was not published though the link did not break: the others are told once it answers. */
  private lost = false;

  constructor(
    url: string,
    private readonly log: Pick<Logger, 'warn' | 'info'>,
  ) {
    const options = {
      url,
      disableOfflineQueue: true,
      pingInterval: 5_000,
      commandsQueueMaxLength: mostWaiting,
      socket: { connectTimeout: 5_000, socketTimeout: stillMs, reconnectStrategy: backoffMs },
    };
    this.publisher = createClient(options);
    // A subscriber waits for its subscription to be renewed after a reconnect, which is a command of its own.
    this.subscriber = createClient({ ...options, disableOfflineQueue: false });
    const { publisher, subscriber } = this;
    for (const [link, client] of Object.entries({ publisher, subscriber })) {
      client.on('error', (error: unknown) =>
        this.log.warn({ link, error: messageOf(error) }, 'Redis is out of reach; trying again'),
      );
    }
    this.publisher.on('ready', () => {
      if (!this.started) return;
      this.lost = false;
      this.send(backAgain);
    });
    this.subscriber.on('ready', () => {
      if (!this.started) return;
      this.log.info('Redis is back');
      this.handler?.reconnected();
    });
  }

  async start(): Promise<void> {
    try {
      await withTimeout(Promise.all([this.publisher.connect(), this.subscriber.connect()]));
      await this.subscriber.subscribe(brokerSubject, (message) => this.receive(message));
      this.started = true;
    } catch (error) {
      await this.stop();
      throw new BelfryError(
        'broker_unavailable',
        `Redis could not be reached: ${messageOf(error)}. Check broker or REDIS_URL.`,
        { retry: true, cause: error },
      );
    }
  }

  async stop(): Promise<void> {
    this.handler = null;
    for (const client of [this.publisher, this.subscriber]) if (client.isOpen) client.destroy();
    await Promise.resolve();
  }

  subscribe(handler: BrokerHandler): void {
    this.handler = handler;
  }

  publish(publications: readonly Publication[]): void {
    if (publications.length === 0) return;
    this.handler?.receive(publications);
    if (!this.publisher.isReady) return;
    if (this.unanswered > 0 && performance.now() - this.answeredAtMs > silenceMs) this.lost = true;
    else this.send(publications);
  }

  /** Other processes may have them. */
  mayHaveSessions(): boolean {
    return true;
  }

  mayHaveSubscribers(): boolean {
    return true;
  }

  private send(publications: readonly Publication[]): void {
    for (const message of encode(this.origin, publications)) {
      if (this.unanswered++ === 0) this.answeredAtMs = performance.now();
      this.publisher.publish(brokerSubject, message).then(
        () => this.answered(),
        (error: unknown) => this.failed(error),
      );
    }
  }

  private answered(): void {
    this.unanswered--;
    this.answeredAtMs = performance.now();
    if (!this.lost) return;
    this.lost = false;
    this.send(backAgain);
  }

  private failed(error: unknown): void {
    this.unanswered--;
    // Thousands may fail at once.
    if (!this.lost) this.log.warn({ error: messageOf(error) }, 'messages to Redis are lost');
    this.lost = true;
  }

  private receive(message: string): void {
    const publications = decode(this.origin, message);
    if (publications !== null) this.handler?.receive(publications);
  }
}

/** Full jitter up to 5 s. */
function backoffMs(retries: number): number {
  return Math.random() * Math.min(5_000, 100 * 2 ** Math.min(retries, 10));
}

async function withTimeout<T>(work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<never>(
    (_, reject) => (timer = setTimeout(() => reject(new Error('no answer within 5 s')), 5_000)),
  );
  return await Promise.race([work, over]).finally(() => clearTimeout(timer));
}
