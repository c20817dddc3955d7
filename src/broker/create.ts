/** The broker that the config names. */

import type { BrokerConfig } from '../config.js';
import type { Logger } from '../log.js';
import type { Broker } from './broker.js';
import { MemoryBroker } from './memory.js';

/** The client libraries of Redis and NATS are only loaded where they are used. */
export async function createBroker(config: BrokerConfig, log: Pick<Logger, 'info' | 'warn'>): Promise<Broker> {
  switch (config.kind) {
    case 'memory':
      return new MemoryBroker();
    case 'redis': {
      const { RedisBroker } = await import('./redis.js');
      return new RedisBroker(config.url, log);
    }
    case 'nats': {
      const { NatsBroker } = await import('./nats.js');
      return new NatsBroker(config.url, log);
    }
  }
}
