/** A real PgBouncer in transaction mode in front of a database, where it is installed. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect as connectTo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { freePort } from '../support/ports.js';
import { withPort } from '../support/postgres.js';

const binary = ['/usr/sbin/pgbouncer', '/usr/bin/pgbouncer', '/usr/local/bin/pgbouncer'].find(existsSync) ?? null;

export const hasPgBouncer = binary !== null;

export interface PgBouncer {
  /** The same database through it. */
  readonly url: string;
  stop(): Promise<void>;
}

export async function startPgBouncer(
  databaseUrl: string,
  options: { readonly mode: 'transaction' | 'session'; readonly size: number; readonly ignore?: string },
): Promise<PgBouncer> {
  if (binary === null) throw new Error('PgBouncer is not installed');
  const server = new URL(databaseUrl);
  const folder = await mkdtemp(path.join(tmpdir(), 'belfry-pgbouncer-'));
  // It refuses to be root.
  await chmod(folder, 0o755);
  const port = await freePort();
  const file = path.join(folder, 'pgbouncer.ini');
  const password = server.password === '' ? '' : ` password=${decodeURIComponent(server.password)}`;
  const login = `user=${decodeURIComponent(server.username)}${password}`;
  await writeFile(
    file,
    `[databases]
* = host=127.0.0.1 port=${server.port} ${login}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${String(port)}
unix_socket_dir =
auth_type = any
pool_mode = ${options.mode}
default_pool_size = ${String(options.size)}
ignore_startup_parameters = ${options.ignore ?? 'options'}
`,
  );
  const asRoot = process.getuid?.() === 0 ? ['-u', 'nobody'] : [];
  const child = spawn(binary, [...asRoot, '-q', file], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  const url = withPort(databaseUrl, port);
  const stop = async (): Promise<void> => {
    child.kill('SIGKILL');
    await ended;
    await rm(folder, { recursive: true, force: true });
  };
  for (let attempt = 0; !(await answers(port)); attempt += 1) {
    if (attempt === 500 || child.exitCode !== null) {
      await stop();
      throw new Error(`PgBouncer does not start: ${said}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return { url, stop };
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connectTo(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
