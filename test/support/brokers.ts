/** The brokers that tests use where their servers run; what is not there is named as skipped. */

import { connect } from 'node:net';

async function answers(port: number): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

export interface BrokerServer {
  readonly kind: 'redis' | 'nats';
  readonly port: number;
  readonly url: string;
  readonly there: boolean;
  /** For titles: empty where it is there. */
  readonly skipped: string;
}

async function server(kind: BrokerServer['kind'], port: number): Promise<BrokerServer> {
  const there = await answers(port);
  const skipped = there ? '' : ` (skipped: no ${kind} on 127.0.0.1:${String(port)})`;
  return { kind, port, url: `${kind}://127.0.0.1:${String(port)}`, there, skipped };
}

/** One of `brokers`. */
export function ofKind(kind: BrokerServer['kind']): BrokerServer {
  const found = brokers.find((broker) => broker.kind === kind);
  if (found === undefined) throw new Error(`no broker ${kind}`);
  return found;
}

export const brokers: readonly BrokerServer[] = [await server('redis', 6379), await server('nats', 4222)];
