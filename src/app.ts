/**
 * Belfry in one process: what is built, in which order it starts, and the reverse in which it stops.
 *
 *     broker ─▶ relay (outbox → rules → inbox → broker) ─▶ gateway (sockets, HTTP)
 *
 * The gateway stops first: unready, sessions sent away with 1012 while the relay still serves them; then the relay
 * finishes its batch and gives the lease back. A relay without a gateway answers what its operators ask (probes) until then.
 */

import { readFileSync } from 'node:fs';
import { createBroker } from './broker/create.js';
import type { Config } from './config.js';
import { Probes } from './gateway/http/probes.js';
import type { GatewayOptions } from './gateway/server.js';
import { Gateway } from './gateway/server.js';
import { PostgresChannels } from './inbox/channels.js';
import { PostgresInbox } from './inbox/inbox.js';
import type { Logger } from './log.js';
import { createMetrics } from './metrics.js';
import { explainConnectionError } from './postgres/connection-error.js';
import { createPool } from './postgres/connect.js';
import { assertSuitable, serverInfo } from './postgres/server.js';
import type { RelayObserver } from './relay/observer.js';
import { Relay } from './relay/relay.js';
import { loadColumnTypes } from './schema/columns.js';
import { assertMigrated } from './schema/migrate.js';
import { assertNothingHidden } from './schema/row-security.js';
import { adaptToPooler } from './schema/session.js';

export interface AppOptions {
  readonly role: 'all' | 'relay' | 'gateway';
  readonly log: Logger;
  readonly observer?: RelayObserver;
  /** Further static pages of the HTTP server. */
  readonly pages?: GatewayOptions['pages'];
  readonly extraRoutes?: GatewayOptions['extraRoutes'];
  /** Metrics of Node, too. Once per process: what watches Node for them stays when the app stops. */
  readonly processMetrics?: boolean;
}

export interface App {
  /** Where it listens, a relay alone beside the port of a gateway (probes.ts); null for a relay whose port is taken. */
  readonly port: number | null;
  /** Reads again what may change while it runs: the files of `server.tls`. Throws BelfryError; then nothing has changed. */
  reload(): Promise<void>;
  /** Drains and closes everything. Idempotent. */
  stop(): Promise<void>;
}

/** Connections of the gateway for recovery, lists and marks; a relay only asks whether Postgres answers. */
const poolConnections = { all: 8, gateway: 8, relay: 1 } as const;

/** The gateway asks nothing that takes longer; a socket to Postgres that went silent must not hold a session for ever. */
const queryTimeoutMs = 15_000;

/** A part that has not stopped by then (a connection that cannot say goodbye) is left behind. */
const stopLimitMs = 22_000;

interface Part {
  start(): Promise<unknown>;
  stop(): Promise<void>;
}

/** Resolves when sessions are accepted and the relay runs or stands by. Throws BelfryError; then nothing is left running. */
export async function startApp(config: Config, options: AppOptions): Promise<App> {
  const { role, log } = options;
  const pool = createPool(config.database.url, {
    applicationName: role === 'relay' ? 'belfry probes' : 'belfry gateway',
    max: poolConnections[role],
    queryTimeoutMs,
    onConnect: adaptToPooler,
  });
  const started: Part[] = [{ start: () => Promise.resolve(), stop: () => pool.end() }];
  let stopping: Promise<void> | null = null;
  const stop = (): Promise<void> => (stopping ??= stopAll(started));
  try {
    const client = await pool.connect().catch((error: unknown) => {
      throw explainConnectionError(error, config.database.url);
    });
    try {
      assertSuitable(await serverInfo(client));
      await assertMigrated(client);
      await assertNothingHidden(client, config);
    } finally {
      client.release();
    }

    const metrics = createMetrics({ processMetrics: options.processMetrics === true });
    const broker = await createBroker(config.broker, log);
    await begin(started, broker);
    let port: number | null = null;
    let reload = (): Promise<void> => Promise.resolve();
    const probes = role === 'relay' ? new Probes({ config, pool, log, metrics }) : null;
    if (probes !== null) {
      started.push({ start: () => Promise.resolve(), stop: () => probes.stop() });
      port = await probes.start();
      reload = () => probes.reload();
    }
    if (role !== 'gateway') {
      const relay = new Relay({
        config,
        broker,
        log,
        metrics: metrics.relay,
        ...(options.observer === undefined ? {} : { observer: options.observer }),
      });
      await begin(started, relay);
    }
    if (probes !== null) await begin(started, probes.readiness);
    if (role !== 'relay') {
      const types = await loadColumnTypes(pool, config);
      const gateway = new Gateway({
        config,
        broker,
        inbox: new PostgresInbox(pool, config, types),
        channels: new PostgresChannels(pool, config),
        pool,
        log,
        metrics,
        version,
        ...(options.pages === undefined ? {} : { pages: options.pages }),
        ...(options.extraRoutes === undefined ? {} : { extraRoutes: options.extraRoutes }),
      });
      started.push({ start: () => Promise.resolve(), stop: () => gateway.stop() });
      ({ port } = await gateway.start());
      reload = () => gateway.reload();
    }
    log.info({ role, port, broker: broker.kind }, 'ready');
    return { port, reload, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Of the package. */
export const version: string = (
  JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }
).version;

async function begin(started: Part[], part: Part): Promise<void> {
  started.push(part);
  await part.start();
}

/** In reverse; one that fails to stop does not keep the others from stopping. */
async function stopAll(started: readonly Part[]): Promise<void> {
  const errors: unknown[] = [];
  for (const part of [...started].reverse())
    await within(stopLimitMs, part.stop()).catch((error: unknown) => errors.push(error));
  if (errors.length > 0) throw errors[0];
}

async function within(ms: number, work: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<void>((resolve) => (timer = setTimeout(resolve, ms)));
  await Promise.race([work, over]).finally(() => clearTimeout(timer));
}
