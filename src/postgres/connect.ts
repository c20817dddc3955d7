/**
 * Connections to Postgres, and what every connection of Belfry has in common.
 *
 * - No connection can crash the process: an error on an idle connection is swallowed here, and the next query on it fails.
 * - A peer that went silent is noticed by TCP keepalive on both sides, and a session that hangs in a transaction is ended by
 *   the server.
 * - The session settings travel in the startup packet, so that they hold from the first statement on and can never leak
 *   through a pooler into the application's own sessions (a pooler that does not know them refuses, with a clear message).
 * - bigint and xid8 stay text, as pg gives them.
 */
import { readFileSync } from 'node:fs';
import pg from 'pg';
import { explainConnectionError } from './connection-error.js';
import { inOneWrite, inTurn, letGo } from './sending.js';
import { OptionalTlsSocket, type ClientCertificate, type Optional } from './tls.js';

/** Named settings of a session, in the units of Postgres (a number alone is milliseconds or seconds as documented there). */
export type SessionSettings = Readonly<Record<string, string>>;

export interface ConnectOptions {
  /** Shown in pg_stat_activity; at most 63 bytes are kept. */
  readonly applicationName: string;
  /** Added to the defaults below, or replacing them. */
  readonly session?: SessionSettings;
  /** A query that has no answer by then fails, and its connection leaves the pool: a socket may have gone silent. Default: none. */
  readonly queryTimeoutMs?: number;
}

export interface ClientOptions extends ConnectOptions {
  /**
   * Statements are sent as they come, those of one turn in one write, and not held back until those before them are answered. They still run
   * one after the other, and one that fails does not touch the next. Default: false.
   */
  readonly pipelined?: boolean;
}

export interface PoolOptions extends ConnectOptions {
  /** Most connections at once. */
  readonly max: number;
  /** Runs on each new connection before it is used. */
  readonly onConnect?: (client: pg.ClientBase) => Promise<unknown>;
}

/** How long a connection may take to be made, and its first statement after that. */
const connectTimeoutMs = 10_000;

/**
 * jit: planning for it costs more than our small statements. The tcp_ settings let the server notice a dead client within
 * about 25 s instead of two hours. The last five keep away what role or database are set to for the application's sessions: a count
 * takes as long as it takes, a listener waits for days. What is to be bounded here says so.
 */
const defaultSession: SessionSettings = {
  jit: 'off',
  tcp_keepalives_idle: '10',
  tcp_keepalives_interval: '5',
  tcp_keepalives_count: '3',
  tcp_user_timeout: '25000',
  idle_in_transaction_session_timeout: '30000',
  statement_timeout: '0',
  lock_timeout: '0',
  idle_session_timeout: '0',
  default_transaction_isolation: 'read committed',
  default_transaction_read_only: 'off',
};

/** A pool whose connections are made when they are first needed; end it with `pool.end()`. */
export function createPool(url: string, options: PoolOptions): pg.Pool {
  const { max, onConnect } = options;
  const pool = new pg.Pool({
    ...clientConfig(url, options),
    max,
    idleTimeoutMillis: 30_000,
    // The pool waits for it, whatever its types say.
    // eslint-disable-next-line @typescript-eslint/no-misused-promises
    ...(onConnect === undefined ? {} : { onConnect: async (client: pg.ClientBase) => void (await onConnect(client)) }),
  });
  pool.on('error', ignore);
  pool.on('connect', (client) => client.on('error', ignore));
  return pool;
}

/** One connection of its own, made now. Throws what `explainConnectionError` gives. */
export async function connect(url: string, options: ClientOptions): Promise<pg.Client> {
  const { pipelined = false } = options;
  let client: pg.Client | null = null;
  try {
    const config = { ...clientConfig(url, options), pipeline: pipelined };
    client = new pg.Client(config);
    client.on('error', ignore);
    await client.connect();
    await endTransactionTimeout(client);
    return pipelined ? inOneWrite(client) : inTurn(client);
  } catch (error) {
    if (client !== null) void letGo(client);
    throw explainConnectionError(error, url);
  }
}

/**
 * What role or database set for the application's sessions, taken back. In a statement, since Postgres before 17 would refuse it in the
 * startup packet; and not behind a pooler (known by the pid that it invents), which would keep it for somebody else.
 */
async function endTransactionTimeout(client: pg.Client): Promise<void> {
  const { processID } = client as unknown as { readonly processID: number | null };
  const text = `select set_config('transaction_timeout', '0', false)
                 where current_setting('transaction_timeout', true) <> '0' and pg_backend_pid() = ${String(processID ?? 0)}`;
  const query: pg.QueryConfig & { query_timeout: number } = { text, query_timeout: connectTimeoutMs };
  await client.query(query);
}

/** What all connections of Belfry are made with; for a library that makes its own client. */
export function clientConfig(url: string, options: ConnectOptions): pg.ClientConfig {
  const settings = Object.entries({ ...defaultSession, ...options.session });
  const ours = settings.map(([name, value]) => `-c ${name}=${value.replace(/[\\ ]/g, '\\$&')}`).join(' ');
  const { address, options: theirs } = withoutOptions(url);
  const { connectionString, optional } = withTlsOfLibpq(address);
  return {
    connectionString,
    ...(optional === null ? {} : { stream: () => new OptionalTlsSocket(optional.mode, optional.certificate) }),
    options: theirs === null ? ours : `${ours} ${theirs}`,
    application_name: options.applicationName,
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    connectionTimeoutMillis: connectTimeoutMs,
    ...(options.queryTimeoutMs === undefined ? {} : { query_timeout: options.queryTimeoutMs }),
  };
}

/** `options` in the URL would replace ours instead of adding to them: take them out of it. */
function withoutOptions(url: string): { address: string; options: string | null } {
  const parsed = parseUrl(url);
  const options = parsed?.searchParams.get('options') ?? null;
  if (parsed === null || options === null) return { address: url, options: null };
  parsed.searchParams.delete('options');
  return { address: parsed.href, options };
}

/**
 * `sslmode` as libpq has it, where pg would check certificates in every mode but disable (PG docs, "SSL Support"). allow and prefer are
 * left to the socket (tls.ts). `sslrootcert=system` is what Node trusts.
 */
function withTlsOfLibpq(address: string): { connectionString: string; optional: OptionalTls | null } {
  const parsed = parseUrl(address);
  const mode = parsed?.searchParams.get('sslmode') ?? null;
  if (parsed === null || mode === null || parsed.searchParams.has('uselibpqcompat'))
    return { connectionString: address, optional: null };
  const { searchParams } = parsed;
  let optional: OptionalTls | null = null;
  if (mode === 'allow' || mode === 'prefer') {
    const read = (name: string): string | undefined => {
      const file = searchParams.get(name);
      return file === null ? undefined : readFileSync(file, 'utf8');
    };
    const [cert, key] = [read('sslcert'), read('sslkey')];
    optional = {
      mode,
      certificate: { ...(cert === undefined ? {} : { cert }), ...(key === undefined ? {} : { key }) },
    };
    for (const name of ['sslrootcert', 'sslcert', 'sslkey']) searchParams.delete(name);
    searchParams.set('sslmode', 'disable');
  }
  if (searchParams.get('sslrootcert') === 'system') searchParams.delete('sslrootcert');
  searchParams.set('uselibpqcompat', 'true');
  return { connectionString: parsed.href, optional };
}

interface OptionalTls {
  readonly mode: Optional;
  readonly certificate: ClientCertificate;
}

/** Null for what pg can read but URL can't: a socket path or `key=value` pairs. */
function parseUrl(url: string): URL | null {
  return URL.canParse(url) ? new URL(url) : null;
}

function ignore(): void {
  // The query that runs on this connection, or the next one, fails with the same error.
}
