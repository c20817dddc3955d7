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
import { BelfryError, messageOf, sqlState } from './errors.js';
import { inOneWrite, inTurn } from './sending.js';
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

/** How long a connection may take to be made. */
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
  try {
    const config = { ...clientConfig(url, options), pipeline: pipelined };
    const client = new pg.Client(config);
    client.on('error', ignore);
    await client.connect();
    await endTransactionTimeout(client);
    return pipelined ? inOneWrite(client) : inTurn(client);
  } catch (error) {
    throw explainConnectionError(error, url);
  }
}

/**
 * A setting of the application's as well, for Postgres 17 and later; the others would refuse it in the startup packet. A pooler, which is known by the
 * pid that it invents, would keep it for somebody else.
 */
async function endTransactionTimeout(client: pg.Client): Promise<void> {
  const { processID } = client as unknown as { readonly processID: number | null };
  await client.query(
    `select set_config('transaction_timeout', '0', false)
      where current_setting('transaction_timeout', true) <> '0' and pg_backend_pid() = ${String(processID ?? 0)}`,
  );
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

/** What went wrong and what to do next, in one line and without the password. */
export function explainConnectionError(error: unknown, url: string): BelfryError {
  if (error instanceof BelfryError) return error;
  const { server, user, database } = describeUrl(url);
  const cause = { cause: error };
  switch (sqlState(error) ?? nodeCode(error)) {
    case '28P01':
      return new BelfryError(
        'database_denied',
        `Wrong password for user ${user} at ${server}: check DATABASE_URL.`,
        cause,
      );
    case '28000':
      if (/no encryption/.test(messageOf(error))) {
        return new BelfryError(
          'database_denied',
          `Postgres at ${server} wants TLS: add sslmode=require (or verify-full) to DATABASE_URL.`,
          cause,
        );
      }
      return new BelfryError(
        'database_denied',
        `Postgres at ${server} refused user ${user}: ${messageOf(error)}. Check DATABASE_URL and pg_hba.conf.`,
        cause,
      );
    case '3D000':
      return new BelfryError(
        'database_unreachable',
        `There is no database ${database} at ${server}: create it, or check DATABASE_URL.`,
        cause,
      );
    case '08P01':
      if (!/startup parameter/.test(messageOf(error))) break;
      return new BelfryError(
        'database_unsuitable',
        `A pooler answers at ${server} (${messageOf(error)}): connect to Postgres directly, or set ` +
          'ignore_startup_parameters = options in PgBouncer.',
        cause,
      );
    case '53300':
      return new BelfryError(
        'database_unreachable',
        `Postgres at ${server} has no connection left: raise max_connections.`,
        {
          ...cause,
          retry: true,
        },
      );
    // A setting that it does not know.
    case '42704':
      if (!/idle_session_timeout/.test(messageOf(error))) break;
      return new BelfryError(
        'database_unsuitable',
        `Postgres at ${server} is too old (${messageOf(error)}): Belfry needs 14 or newer.`,
        cause,
      );
    case '57P03':
      return new BelfryError(
        'database_unreachable',
        `Postgres at ${server} is starting up or shutting down: try again.`,
        {
          ...cause,
          retry: true,
        },
      );
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return new BelfryError('database_unreachable', `There is no host of the name in ${server}: check DATABASE_URL.`, {
        ...cause,
        retry: true,
      });
    case 'ERR_INVALID_URL':
      // Without the cause: it holds the whole address, password included.
      return new BelfryError(
        'config_invalid',
        'DATABASE_URL is no address of a Postgres: write postgres://user:password@host:port/database.',
      );
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'SELF_SIGNED_CERT_IN_CHAIN':
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
    case 'CERT_HAS_EXPIRED':
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return new BelfryError(
        'database_denied',
        `The certificate of Postgres at ${server} is not trusted (${messageOf(error)}): name the file of its CA in DATABASE_URL ` +
          '(sslrootcert=…), or use sslmode=require, which encrypts and checks nothing.',
        cause,
      );
    case 'ECONNREFUSED':
    case 'ENOENT':
      return new BelfryError(
        'database_unreachable',
        `Nothing listens at ${server}: start Postgres, or check DATABASE_URL.`,
        {
          ...cause,
          retry: true,
        },
      );
    default:
  }
  if (/does not support SSL/.test(messageOf(error))) {
    return new BelfryError(
      'database_unreachable',
      `Postgres at ${server} has no TLS: switch it on there, or take sslmode out of DATABASE_URL.`,
      cause,
    );
  }
  return new BelfryError('database_unreachable', `No connection to Postgres at ${server}: ${messageOf(error)}`, {
    ...cause,
    retry: true,
  });
}

function nodeCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

function describeUrl(url: string): { server: string; user: string; database: string } {
  const parsed = parseUrl(url);
  if (parsed === null) return { server: 'the address in DATABASE_URL', user: '(unknown)', database: '(unknown)' };
  const host =
    parsed.hostname !== '' ? decodeURIComponent(parsed.hostname) : (parsed.searchParams.get('host') ?? 'localhost');
  const user = decodeURIComponent(parsed.username);
  const database = decodeURIComponent(parsed.pathname.slice(1));
  return {
    server: `${host}:${parsed.port === '' ? '5432' : parsed.port}`,
    user: user === '' ? '(of this system)' : user,
    database: database === '' ? user : database,
  };
}

/** `name` as an SQL identifier, always quoted. */
export function quoteIdent(name: string): string {
  return pg.escapeIdentifier(name);
}

/** `text` as an SQL string literal. */
export function quoteLiteral(text: string): string {
  return pg.escapeLiteral(text);
}

export interface TableName {
  readonly schema: string;
  readonly name: string;
}

const tableNamePart = /^(?:"((?:[^"]|"")+)"|([\p{L}_][\p{L}\p{N}_$]*))/u;

/**
 * Reads `likes`, `public.likes` or `public."Likes"` as Postgres would: without quotes the name folds to lower case, without
 * a schema it is in `public`. Throws `config_invalid`.
 */
export function parseTableName(text: string): TableName {
  const parts: string[] = [];
  let rest = text.trim();
  for (;;) {
    const match = tableNamePart.exec(rest);
    if (match === null) break;
    parts.push(match[1]?.replaceAll('""', '"') ?? (match[2] ?? '').toLowerCase());
    rest = rest.slice(match[0].length);
    if (!rest.startsWith('.')) break;
    rest = rest.slice(1);
  }
  const [first, second] = parts;
  if (rest !== '' || first === undefined || parts.length > 2 || text.trim().endsWith('.')) {
    throw new BelfryError(
      'config_invalid',
      `${JSON.stringify(text)} is not a table name: write table, schema.table or schema."Table".`,
    );
  }
  return second === undefined ? { schema: 'public', name: first } : { schema: first, name: second };
}

/** A table as it stands in the config, quoted for SQL. Throws `config_invalid`. */
export function quoteTable(text: string): string {
  const { schema, name } = parseTableName(text);
  return `${quoteIdent(schema)}.${quoteIdent(name)}`;
}

export interface ServerInfo {
  /** server_version_num, e.g. 180004. */
  readonly version: number;
  readonly standby: boolean;
  /** Identity of the cluster, made by initdb; a dump restored elsewhere has another one. */
  readonly systemIdentifier: string;
  /** Eight hex digits that change with every promotion; null on a standby. */
  readonly timeline: string | null;
  readonly maxPreparedTransactions: number;
}

/** Oldest Postgres that Belfry runs on: 140000 is version 14. */
const minimumVersion = 140_000;

export async function serverInfo(client: pg.ClientBase | pg.Pool): Promise<ServerInfo> {
  const { rows } = await client.query<{
    version: number;
    standby: boolean;
    system_identifier: string;
    timeline: string | null;
    max_prepared_transactions: number;
  }>(`
    select current_setting('server_version_num')::int          as version,
           pg_is_in_recovery()                                 as standby,
           (select system_identifier from pg_control_system()) as system_identifier,
           case when not pg_is_in_recovery() then left(pg_walfile_name(pg_current_wal_lsn()), 8) end as timeline,
           current_setting('max_prepared_transactions')::int   as max_prepared_transactions`);
  const row = rows[0];
  if (row === undefined) throw new BelfryError('internal', 'Postgres answered without a row about itself.');
  return {
    version: row.version,
    standby: row.standby,
    systemIdentifier: row.system_identifier,
    timeline: row.timeline,
    maxPreparedTransactions: row.max_prepared_transactions,
  };
}

/** Throws `database_unsuitable` for a Postgres older than 14 and for a standby. */
export function assertSuitable(info: Pick<ServerInfo, 'version' | 'standby'>): void {
  if (info.version < minimumVersion) {
    const have = `${Math.floor(info.version / 10_000)}.${info.version % 10_000}`;
    throw new BelfryError('database_unsuitable', `This is Postgres ${have}; Belfry needs 14 or newer.`);
  }
  if (info.standby) {
    throw new BelfryError('database_unsuitable', 'This Postgres is a standby: point DATABASE_URL at the primary.', {
      retry: true,
    });
  }
}
