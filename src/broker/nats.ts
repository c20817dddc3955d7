/**
 * Publications between processes over NATS (core, no JetStream: a publication is only a hint).
 *
 * What must hold: as redis.ts; of what the server does not take, too, the others are told to compare.
 */

import { randomUUID } from 'node:crypto';
import { connect } from '@nats-io/transport-node';
import type { NatsConnection } from '@nats-io/transport-node';
import { BelfryError, messageOf } from '../errors.js';
import type { Logger } from '../log.js';
import type { Broker, BrokerHandler, Publication } from './broker.js';
import { backAgain, brokerSubject, decode, encode } from './wire.js';

export class NatsBroker implements Broker {
  readonly kind = 'nats';
  private readonly origin = randomUUID();
  private connection: NatsConnection | null = null;
  private handler: BrokerHandler | null = null;
  private cutOff = false;

  constructor(
    private readonly url: string,
    private readonly log: Pick<Logger, 'warn' | 'info'>,
  ) {}

  async start(): Promise<void> {
    const { hostname, port, username, password } = new URL(this.url);
    try {
      this.connection = await connect({
        servers: `${hostname}:${port === '' ? '4222' : port}`,
        ...(username === '' ? {} : { user: decodeURIComponent(username), pass: decodeURIComponent(password) }),
        timeout: 5_000,
        maxReconnectAttempts: -1,
        reconnectTimeWait: 500,
        reconnectJitter: 2_000,
        pingInterval: 5_000,
        maxPingOut: 1,
      });
    } catch (error) {
      throw new BelfryError(
        'broker_unavailable',
        `NATS could not be reached: ${messageOf(error)}. Check broker or NATS_URL.`,
        { retry: true, cause: error },
      );
    }
    this.connection.subscribe(brokerSubject, {
      callback: (error, message) => {
        if (error !== null) return;
        const publications = decode(this.origin, message.string());
        if (publications !== null) this.handler?.receive(publications);
      },
    });
    void this.watch(this.connection);
  }

  async stop(): Promise<void> {
    const { connection } = this;
    this.connection = null;
    this.handler = null;
    await connection?.close();
  }

  subscribe(handler: BrokerHandler): void {
    this.handler = handler;
  }

  publish(publications: readonly Publication[]): void {
    if (publications.length === 0) return;
    this.handler?.receive(publications);
    const { connection } = this;
    // While it is cut off the library would queue without a bound; positions catch what is not sent.
    if (connection !== null && !this.cutOff) this.send(connection, publications);
  }

  /** Other processes may have them. */
  mayHaveSessions(): boolean {
    return true;
  }

  mayHaveSubscribers(): boolean {
    return true;
  }

  private send(connection: NatsConnection, publications: readonly Publication[]): void {
    if (connection.isClosed()) return;
    let lost: unknown = null;
    for (const message of encode(this.origin, publications)) {
      try {
        connection.publish(brokerSubject, message);
      } catch (error) {
        // A publication that alone is larger than the server's max_payload.
        lost = error;
      }
    }
    if (lost === null) return;
    this.log.warn({ error: messageOf(lost) }, 'messages to NATS are lost');
    if (publications !== backAgain) this.send(connection, backAgain);
  }

  private async watch(connection: NatsConnection): Promise<void> {
    for await (const status of connection.status()) {
      if (status.type === 'disconnect') {
        this.cutOff = true;
        this.log.warn('NATS is out of reach; trying again');
      } else if (status.type === 'reconnect') {
        this.cutOff = false;
        this.log.info('NATS is back');
        this.handler?.reconnected();
        this.send(connection, backAgain);
      }
    }
  }
}
