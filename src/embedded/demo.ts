/**
 * `belfry demo`: an embedded Postgres, a small social app with its own backend, Belfry beside it in the same process, and a
 * page to look at all three. It holds nothing that Belfry needs; it is put together here as an operator would.
 *
 * What must hold: the backend works as a role without any right on schema belfry; everything listens on the loopback address
 * only, since there is no login; whatever was started is stopped in reverse, also when the start fails half-way.
 */
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import type pg from 'pg';
import { installCapture } from '../capture/install.js';
import { type Config, parseConfig } from '../config.js';
import { BelfryError, messageOf } from '../errors.js';
import { seedCounters } from '../inbox/seed.js';
import type { Logger } from '../log.js';
import { ensurePartitions } from '../outbox/partitions.js';
import { connect, createPool } from '../postgres/connect.js';
import { migrate } from '../schema/migrate.js';
import { createBackend } from './backend.js';
import { createControl } from './control.js';
import { Keeper } from './keeper.js';
import { type Page, readPages } from './pages.js';
import { backendRole, type People, settlePeople } from './people.js';
import { startEmbeddedPostgres } from './postgres.js';
import { Simulator, simulatorConnections } from './simulator.js';
import { Watch } from './watch.js';

export interface DemoOptions {
  /** Of the page and the sockets; 0 takes any free one. */
  readonly port: number;
  /** Kept between runs. */
  readonly dataDir: string;
  /** Writes per second by the crowd, from the start. */
  readonly simulate: number;
  readonly log: Logger;
}

export interface Demo {
  /** Of the page. */
  readonly url: string;
  /** Of the social app's backend. */
  readonly backendUrl: string;
  /** Stops all of it in reverse; idempotent. */
  stop(): Promise<void>;
}

type Undo = () => Promise<unknown>;

/** Throws BelfryError: `port_in_use`, `unavailable` (the data directory is in use, …), each with one line that says what to do. */
export async function startDemo(options: DemoOptions): Promise<Demo> {
  const undo: Undo[] = [];
  let stopping: Promise<void> | null = null;
  const stop = (): Promise<void> => (stopping ??= stopAll(undo, options.log));
  try {
    const { url, backendUrl } = await startParts(options, undo);
    return { url, backendUrl, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function stopAll(undo: Undo[], log: Logger): Promise<void> {
  for (const step of undo.reverse()) {
    await step().catch((error: unknown) =>
      log.warn({ error: messageOf(error) }, 'a part of the demo did not stop cleanly'),
    );
  }
}

async function startParts(options: DemoOptions, undo: Undo[]): Promise<{ url: string; backendUrl: string }> {
  const { log } = options;
  const port = await freePort(options.port);
  const pages = await readPages();

  const postgres = await startEmbeddedPostgres({ dataDir: options.dataDir, log });
  undo.push(() => postgres.stop());
  const secret = randomBytes(32).toString('hex');
  const config = await readConfig(postgres.url, secret, port);
  const people = await prepare(postgres.url, config, log);

  const pool = createPool(postgres.url, { applicationName: 'demo backend', max: 4, session: { role: backendRole } });
  const crowdPool = createPool(postgres.url, {
    applicationName: 'demo crowd',
    max: simulatorConnections,
    session: { role: backendRole },
  });
  undo.push(() => Promise.all([pool.end(), crowdPool.end()]));
  const simulator = new Simulator(crowdPool, people);

  // The page is told where the backend listens, and the backend which pages may call: the page's port comes first.
  const session = { cast: people.cast, crowd: people.crowd, backendPort: 0 };
  const page = (path: string): Page | null =>
    path === '/demo/session.json'
      ? { type: 'application/json', body: JSON.stringify(session), headers: { 'Cache-Control': 'no-store' } }
      : withHeaders(pages.get(path), session.backendPort);
  const watch: Watch = new Watch(people.cast, people.crowd, () => ({
    simulator: simulator.state,
    belfry: belfry.state,
  }));
  const belfry = new Keeper(config, { log, observer: watch, pages: page }, () => watch.changed());
  await watch.compareClocks(() => databaseNowMs(pool));
  await belfry.start();
  undo.push(() => belfry.stop());

  const origins = [`http://localhost:${port}`, `http://127.0.0.1:${port}`];
  const backend = createBackend({
    pool,
    feedOf: people.cast.map(({ id }) => id),
    origins,
    onWrite: (write) => watch.wrote(write),
  });
  const control = createControl({
    watch,
    simulator,
    cast: people.cast,
    secret,
    origins,
    leave: (ms) => belfry.leave(ms),
  });
  const server = createServer((request, response) => {
    if (request.url?.startsWith('/watch/') === true) control(request, response);
    else void backend(request, response);
  });
  session.backendPort = await listen(server, port + 1);
  undo.push(() => close(server, watch));

  simulator.setRate(options.simulate);
  undo.push(() => simulator.stop());
  return { url: `http://localhost:${port}/`, backendUrl: `http://localhost:${session.backendPort}/` };
}

/**
 * The port, or a free one for 0; one clear line before anything has been started. A number is needed from the start: what was
 * bound to port 0 can't be bound again at once (uWebSockets sets SO_REUSEADDR for numbers only), and Belfry comes and goes.
 */
async function freePort(wanted: number): Promise<number> {
  const probe = createServer();
  try {
    await bind(probe, wanted);
  } catch (error) {
    const inUse = error instanceof Error && 'code' in error && error.code === 'EADDRINUSE';
    const why = inUse ? `Port ${wanted} is in use` : `Port ${wanted} cannot be used (${messageOf(error)})`;
    throw new BelfryError('port_in_use', `${why}: choose another with --port.`);
  }
  const { port } = probe.address() as AddressInfo;
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

async function readConfig(databaseUrl: string, secret: string, port: number): Promise<Config> {
  const path = fileURLToPath(new URL('./social.yaml', import.meta.url));
  // Nothing of the person's environment: a DATABASE_URL that happens to be set is not the demo's.
  const env = { DATABASE_URL: databaseUrl, JWT_SECRET: secret };
  const config = parseConfig(await readFile(path, 'utf8'), env, { path });
  return { ...config, server: { ...config.server, port } };
}

/** The app's tables and people, then what `belfry migrate` does. */
async function prepare(databaseUrl: string, config: Config, log: Logger): Promise<People> {
  const client = await connect(databaseUrl, { applicationName: 'demo' });
  try {
    const people = await settlePeople(client);
    await migrate(client, { log });
    await ensurePartitions(client, { today: true });
    await installCapture(client, config, { log });
    await seedCounters(client, config, log);
    return people;
  } finally {
    await client.end();
  }
}

/** The page may load what is here and call the backend, nothing else. */
function withHeaders(page: Page | undefined, backendPort: number): Page | null {
  if (page === undefined) return null;
  const backend = `http://localhost:${backendPort} http://127.0.0.1:${backendPort}`;
  const policy = `default-src 'self'; connect-src 'self' ws: ${backend}; base-uri 'none'; frame-ancestors 'none'`;
  return { ...page, headers: { 'Cache-Control': 'no-cache', 'Content-Security-Policy': policy } };
}

async function databaseNowMs(pool: pg.Pool): Promise<number> {
  const { rows } = await pool.query<{ now: number }>(
    'select (extract(epoch from clock_timestamp()) * 1000)::float8 as now',
  );
  return rows[0]?.now ?? Date.now();
}

/** The wanted port if it is free, else any. */
async function listen(server: Server, wanted: number): Promise<number> {
  try {
    await bind(server, wanted);
  } catch {
    await bind(server, 0);
  }
  return (server.address() as AddressInfo).port;
}

async function bind(server: Server, port: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', () => {
      server.off('error', reject);
      resolve();
    });
  });
}

async function close(server: Server, watch: Watch): Promise<void> {
  watch.stop();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
}
