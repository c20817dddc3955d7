/** A relay by itself on a database with the tables of social.ts. */

import pino from 'pino';
import { MemoryBroker } from '../../src/broker/memory.js';
import { parseConfig } from '../../src/config.js';
import { createMetrics } from '../../src/metrics.js';
import { Relay } from '../../src/relay/relay.js';
import type { RelayOptions } from '../../src/relay/relay.js';
import { socialConfig } from '../support/social.js';

/** It runs while `work` does, however that ends. */
export async function withRelay(
  databaseUrl: string,
  work: () => Promise<void>,
  options: Partial<Pick<RelayOptions, 'metrics' | 'observer'>> = {},
): Promise<void> {
  const relay = new Relay({
    config: parseConfig(socialConfig(databaseUrl), {}, { path: 'test.yaml' }),
    broker: new MemoryBroker(),
    log: pino({ level: 'silent' }),
    metrics: createMetrics().relay,
    ...options,
  });
  await relay.start();
  try {
    await work();
  } finally {
    await relay.stop();
  }
}
