/**
 * A real Postgres for the demo and the tests, from binaries that npm brought, run as a child of this process.
 *
 * What must hold:
 * - `dataDir` belongs to one living process. A second one is told so; what a killed one left behind is taken over.
 * - A database cluster is made elsewhere and renamed into place, so that a half-made one never has the final name.
 * - The server ends with this process: by `stop`, or through a watchdog that waits for a pipe to close, also after kill -9.
 *   Ctrl-C does not reach it, so that the application can finish first.
 * - As root it runs as `nobody`, because Postgres refuses to run as root (see account.ts).
 * - It listens on 127.0.0.1 only, at a port of its own, with a random password that only this user can read; no socket
 *   file, because those of another user's directory may be too long or not traversable.
 *
 * In `dataDir`: cluster/ (PGDATA), password, owner.json (the process that uses it), postgres.log (of the last start).
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chown, mkdir, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { BelfryError, messageOf } from '../errors.js';
import { type Account, chooseAccount, chooseDirectory } from './account.js';
import { type Binaries, findBinaries } from './binaries.js';
import { claim, type Claim } from './claim.js';
import { readPidFile, stopOrphan } from './orphan.js';

export interface EmbeddedPostgresOptions {
  /** Made if it is missing. */
  readonly dataDir: string;
  readonly log: EmbeddedLog;
  /** Settings of the server beside or instead of the defaults, e.g. { max_prepared_transactions: '10' }. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Fixed port; by default a free one is taken. */
  readonly port?: number;
}

export interface EmbeddedLog {
  info(message: string): void;
  warn(message: string): void;
}

export interface EmbeddedPostgres {
  /** Of the database `postgres`, as superuser, with the password in it. */
  readonly url: string;
  readonly port: number;
  /** Of the postmaster. */
  readonly pid: number;
  /** Where the data really is: under the temporary directory when `dataDir` can't be reached by the server's account. */
  readonly dataDir: string;
  /** Ends all sessions and the server (fast shutdown); does nothing the second time. */
  stop(): Promise<void>;
}

/** How long the server may take to accept connections, crash recovery included. */
const startTimeoutMs = 60_000;
/** How long a fast shutdown may take before it is made an immediate one. */
const stopTimeoutMs = 20_000;
/** A free port can be taken by another process before Postgres binds it. */
const portAttempts = 5;
/** A postmaster that was killed leaves backends that notice within seconds; until then its memory is in use. */
const memoryAttempts = 20;

const defaultSettings: Readonly<Record<string, string>> = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  max_connections: '200',
  shared_buffers: '128MB',
};

/** Throws BelfryError `unavailable` with one line that says what to do. */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const account = await chooseAccount();
  const dataDir = await chooseDirectory(path.resolve(options.dataDir), account, options.log);
  const binaries = await findBinaries(dataDir, account);
  const owned = await claim(dataDir);
  try {
    const cluster = path.join(dataDir, 'cluster');
    const password = await prepareCluster(cluster, binaries, account, options.log);
    if (await stopOrphan(cluster)) options.log.warn('Stopped a Postgres that a killed process had left behind.');
    const server = await startServer(cluster, binaries, account, options);
    return running(server, dataDir, password, owned);
  } catch (error) {
    await owned.release();
    throw error;
  }
}

function running(server: Server, dataDir: string, password: string, owned: Claim): EmbeddedPostgres {
  let stopping: Promise<void> | undefined;
  return {
    url: `postgres://postgres:${password}@127.0.0.1:${server.port}/postgres`,
    port: server.port,
    pid: server.pid,
    dataDir,
    stop: () => (stopping ??= server.stop().finally(() => owned.release())),
  };
}

// --- the cluster --------------------------------------------------------------------------------------------------------

/** Makes the cluster unless it is there; returns the superuser's password. */
async function prepareCluster(
  cluster: string,
  binaries: Binaries,
  account: Account,
  log: EmbeddedLog,
): Promise<string> {
  const dataDir = path.dirname(cluster);
  const passwordFile = path.join(dataDir, 'password');
  const version = await readText(path.join(cluster, 'PG_VERSION'));
  const password = await readText(passwordFile);
  const complete =
    version !== null && password !== null && (await readText(path.join(cluster, 'global', 'pg_control'))) !== null;
  if (complete) {
    if (version.trim() === binaries.majorVersion) return password.trim();
    throw new BelfryError(
      'unavailable',
      `${dataDir} was made by Postgres ${version.trim()}, this is ${binaries.majorVersion}: move that folder away, or choose another one.`,
    );
  }
  for (const name of await readdir(dataDir)) {
    if (name.startsWith('cluster-new-')) await rm(path.join(dataDir, name), { recursive: true, force: true });
  }
  const aside = path.join(dataDir, `cluster-broken-${Date.now()}`);
  if (await moved(cluster, aside)) log.warn(`${cluster} was incomplete: moved to ${aside}, starting afresh.`);
  return initCluster(cluster, passwordFile, binaries, account);
}

async function initCluster(
  cluster: string,
  passwordFile: string,
  binaries: Binaries,
  account: Account,
): Promise<string> {
  const password = randomBytes(24).toString('base64url');
  const fresh = `${cluster}-new-${process.pid}`;
  const handedOver = `${fresh}.password`;
  await mkdir(fresh, { mode: 0o700 });
  await writeFile(handedOver, password, { mode: 0o600 });
  if (account.uid !== undefined) {
    await chown(fresh, account.uid, account.gid);
    await chown(handedOver, account.uid, account.gid);
  }
  try {
    await run(
      binaries.initdb,
      binaries,
      account,
      [
        ['--pgdata', fresh],
        ['--username', 'postgres'],
        ['--pwfile', handedOver],
        ['--auth', 'scram-sha-256'],
        ['--encoding', 'UTF8'],
        ['--locale-provider', 'builtin'],
        ['--builtin-locale', 'C.UTF-8'],
        ['--locale', 'C'],
        // The password has 192 random bits: more rounds would not make it harder to guess, only each connection slower.
        ['-c', 'scram_iterations=1'],
      ].flat(),
    );
  } finally {
    await rm(handedOver, { force: true });
  }
  await writeFile(passwordFile, password, { mode: 0o600 });
  await rename(fresh, cluster);
  return password;
}

/** Runs a program to its end; throws with the last lines it wrote when it fails. */
async function run(program: string, binaries: Binaries, account: Account, args: string[]): Promise<void> {
  const child = spawn(program, args, { ...account, env: binaries.env, stdio: ['ignore', 'ignore', 'pipe'] });
  let errors = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (errors = (errors + text).slice(-4000)));
  const { code, error } = await ended(child);
  if (error !== undefined || code !== 0)
    throw cannotRun(program, error === undefined ? lastLines(errors) : messageOf(error));
}

// --- the server ---------------------------------------------------------------------------------------------------------

interface Server {
  readonly port: number;
  readonly pid: number;
  stop(): Promise<void>;
}

async function startServer(
  cluster: string,
  binaries: Binaries,
  account: Account,
  options: EmbeddedPostgresOptions,
): Promise<Server> {
  for (let attempt = 1; ; attempt++) {
    const port = options.port ?? (await freePort());
    const started = await tryStart(cluster, binaries, account, port, { ...defaultSettings, ...options.settings });
    if ('server' in started) return started.server;
    if (/Address already in use|could not create any TCP\/IP sockets/.test(started.why)) {
      if (options.port !== undefined)
        throw new BelfryError('port_in_use', `Port ${port} for the embedded Postgres is in use.`);
      if (attempt < portAttempts) continue;
    }
    if (/shared memory block .* still in use/.test(started.why) && attempt < memoryAttempts) {
      await sleep(250);
      continue;
    }
    throw cannotRun(binaries.postgres, started.why, logFileOf(cluster));
  }
}

async function tryStart(
  cluster: string,
  binaries: Binaries,
  account: Account,
  port: number,
  settings: Readonly<Record<string, string>>,
): Promise<{ server: Server } | { why: string }> {
  const logFile = logFileOf(cluster);
  const log = await open(logFile, 'w', 0o600);
  const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
  // detached: a process group of its own, so that Ctrl-C in the terminal does not end it before the application is done.
  const child = spawn(binaries.postgres, ['-D', cluster, '-p', String(port), ...flags], {
    ...account,
    env: binaries.env,
    detached: true,
    stdio: ['ignore', log.fd, log.fd],
  });
  const end = ended(child);
  await log.close();
  const runs = () => child.pid !== undefined && child.exitCode === null && child.signalCode === null;
  const deadline = Date.now() + startTimeoutMs;
  while (runs() && Date.now() < deadline) {
    const pidFile = await readPidFile(cluster);
    if (pidFile?.ready === true && pidFile.pid === child.pid) {
      return { server: guarded(child, child.pid, port, end) };
    }
    await sleep(10);
  }
  if (runs()) child.kill('SIGQUIT');
  const { error } = await end;
  if (error !== undefined) return { why: messageOf(error) };
  return { why: lastLines((await readText(logFile)) ?? '') || `it was not ready after ${startTimeoutMs / 1000} s` };
}

/** The started server with all that makes it end when this process ends. */
function guarded(child: ChildProcess, pid: number, port: number, end: Promise<unknown>): Server {
  // The shell reads its standard input, which this process holds open. A line means that the server has ended; the end of it
  // without a line means that this process has, in whatever way.
  const watchdog = spawn('/bin/sh', ['-c', 'read -r line || kill -INT "$0"', String(pid)], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
    cwd: '/',
  });
  watchdog.on('error', () => undefined);
  watchdog.stdin.on('error', () => undefined);
  watchdog.unref();
  const over = end.finally(() => watchdog.stdin.end('ended\n'));
  return {
    port,
    pid,
    async stop() {
      child.kill('SIGINT');
      const impatient = setTimeout(() => child.kill('SIGQUIT'), stopTimeoutMs);
      await over;
      clearTimeout(impatient);
    },
  };
}

function logFileOf(cluster: string): string {
  return path.join(path.dirname(cluster), 'postgres.log');
}

function ended(child: ChildProcess): Promise<{ code: number | null; error?: Error }> {
  return new Promise((resolve) => {
    child.once('error', (error) => resolve({ code: null, error }));
    child.once('exit', (code) => resolve({ code }));
  });
}

/** A port that is free now. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new BelfryError('internal', 'A TCP server has no port.');
  return address.port;
}

// --- small things -------------------------------------------------------------------------------------------------------

/** `log`: the file that says more. */
function cannotRun(program: string, why: string, log?: string): BelfryError {
  const more = log === undefined ? '' : ` More is in ${log}.`;
  return new BelfryError(
    'unavailable',
    `The embedded Postgres does not start (${path.basename(program)}: ${why}).${more} --data-dir takes another folder.`,
  );
}

function lastLines(text: string): string {
  return text.trim().split('\n').slice(-3).join(' | ');
}

async function readText(file: string): Promise<string | null> {
  try {
    return await readFile(file, 'utf8');
  } catch {
    return null;
  }
}

async function moved(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to);
    return true;
  } catch {
    return false;
  }
}
