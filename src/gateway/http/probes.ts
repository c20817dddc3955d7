/**
 * What a process without a gateway answers: /healthz, /readyz and /metrics, so that a relay of its own is watched like any other.
 *
 * What must hold: they may be asked from before the relay starts until it has stopped, by whom a gateway would answer; a
 * port that can't be had never keeps a relay from relaying, and it takes none from a gateway that runs beside it by the same config.
 */

import type { Pool } from 'pg';
import type { Config } from '../../config/types.js';
import { messageOf } from '../../errors.js';
import type { Logger } from '../../log.js';
import type { Metrics } from '../../metrics.js';
import { Http } from './http.js';
import { Addresses, Connects } from '../limits.js';
import { Listeners } from '../listeners.js';
import { probeRoutes, type ProcessState } from './routes.js';
import { Tokens } from '../sessions/tokens.js';

export interface ProbesOptions {
  readonly config: Config;
  readonly pool: Pool;
  readonly log: Logger;
  readonly metrics: Metrics;
}

export class Probes {
  readonly #listeners: Listeners;
  #state: ProcessState = 'starting';
  /** Begins when the relay runs or stands by, and ends before it stops. */
  readonly readiness = {
    start: (): Promise<void> => this.become('ready'),
    stop: (): Promise<void> => this.become('draining'),
  };

  constructor(private readonly options: ProbesOptions) {
    const { config, pool, log, metrics } = options;
    const addresses = new Addresses();
    const connects = new Connects(config.limits);
    const http = new Http(
      {
        ...{ config, log, addresses },
        metrics: metrics.gateway,
        tokens: new Tokens(config.auth),
        pages: () => null,
        draining: () => this.#state === 'draining',
      },
      probeRoutes({ pool, registry: metrics.registry, state: () => this.#state }),
    );
    this.#listeners = new Listeners({ ...config.server, port: portBeside(config.server.port) }, ({ app }) => {
      if (config.server.trustProxy === 0) connects.guard(app, addresses, () => undefined);
      app.any('/*', (res, req) => http.handle(res, req));
    });
  }

  /** Where it listens; null where it can't, which is logged. */
  async start(): Promise<number | null> {
    try {
      return await this.#listeners.start();
    } catch (error) {
      const what = 'this process relays, but answers neither /metrics nor /healthz and /readyz';
      this.options.log.warn({ error: messageOf(error) }, what);
      return null;
    }
  }

  /** Reads the files of `server.tls` again, for new connections. Throws BelfryError. */
  async reload(): Promise<void> {
    await this.#listeners.renew();
  }

  stop(): Promise<void> {
    this.#listeners.stop();
    return Promise.resolve();
  }

  private become(state: ProcessState): Promise<void> {
    this.#state = state;
    return Promise.resolve();
  }
}

/** The one after the gateway's; 0: any that is free. */
function portBeside(port: number): number {
  return port === 0 || port === 65_535 ? 0 : port + 1;
}
