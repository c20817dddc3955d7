/** Postgres clusters made with the tools of an installed Postgres (initdb, pg_dump, pg_basebackup): the embedded one ships none of them. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { chown, mkdir, mkdtemp, readdir, rm, chmod } from 'node:fs/promises';
import { existsSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { chooseAccount } from '../../src/embedded/account.js';
import { connect } from '../../src/postgres/connect.js';
import { freePort } from './ports.js';

const debian = '/usr/lib/postgresql';

/** Where the tools are, as Debian and Ubuntu install them; null where they are not. */
export const toolsFolder: string | null =
  (existsSync(debian) ? readdirSync(debian) : [])
    .sort((a, b) => Number(b) - Number(a))
    .map((version) => path.join(debian, version, 'bin'))
    .find((folder) =>
      ['initdb', 'postgres', 'pg_dump', 'pg_basebackup'].every((tool) => existsSync(path.join(folder, tool))),
    ) ?? null;

/** Runs a tool as the account of the servers. Rejects with what it wrote when it fails. */
export async function tool(name: string, ...args: readonly string[]): Promise<string> {
  return await toolIn('/', name, ...args);
}

/** Likewise, in a folder where it may leave what it writes beside. */
export async function toolIn(cwd: string, name: string, ...args: readonly string[]): Promise<string> {
  const account = await chooseAccount();
  const child = spawn(path.join(toolsFolder ?? '', name), args, {
    ...account,
    cwd,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => (output += text));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  if (code !== 0) throw new Error(`${name} ended with ${String(code)}: ${output}`);
  return output;
}

export interface Cluster {
  readonly dataDir: string;
  readonly port: number;
  url(database: string): string;
  stop(): Promise<void>;
}

export class Clusters {
  private readonly running = new Set<Cluster>();

  private constructor(readonly folder: string) {}

  static async open(): Promise<Clusters> {
    const folder = await mkdtemp(path.join(tmpdir(), 'belfry-clusters-'));
    await chmod(folder, 0o755);
    return new Clusters(folder);
  }

  /** A folder that the servers may write. */
  async directory(name: string, mode = 0o700): Promise<string> {
    const directory = path.join(this.folder, name);
    await mkdir(directory, { mode });
    const { uid, gid } = await chooseAccount();
    if (uid !== undefined) await chown(directory, uid, gid);
    return directory;
  }

  /** A new cluster, started. */
  async create(name: string, settings: Readonly<Record<string, string>> = {}): Promise<Cluster> {
    return await this.start(await this.init(name), settings);
  }

  /** The data directory of a new cluster. */
  async init(name: string): Promise<string> {
    const dataDir = await this.directory(name);
    await tool('initdb', '-D', dataDir, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync');
    return dataDir;
  }

  /** Resolves when it takes connections. */
  async start(dataDir: string, settings: Readonly<Record<string, string>> = {}): Promise<Cluster> {
    const port = await freePort();
    const all = { listen_addresses: '127.0.0.1', unix_socket_directories: '', fsync: 'off', ...settings };
    const child = spawn(
      path.join(toolsFolder ?? '', 'postgres'),
      ['-D', dataDir, '-p', String(port), ...Object.entries(all).flatMap(([key, value]) => ['-c', `${key}=${value}`])],
      { ...(await chooseAccount()), cwd: '/', stdio: ['ignore', 'ignore', 'pipe'] },
    );
    const url = (database: string): string => `postgres://postgres@127.0.0.1:${String(port)}/${database}`;
    const cluster: Cluster = {
      dataDir,
      port,
      url,
      stop: async () => {
        this.running.delete(cluster);
        await ended(child);
      },
    };
    this.running.add(cluster);
    await answers(child, url('postgres'));
    return cluster;
  }

  async remove(): Promise<void> {
    for (const cluster of [...this.running]) await cluster.stop();
    await rm(this.folder, { recursive: true, force: true });
  }
}

async function answers(child: ChildProcess, url: string): Promise<void> {
  let log = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (log += text));
  for (const untilMs = performance.now() + 60_000; ;) {
    if (child.exitCode !== null) throw new Error(`postgres ended: ${log}`);
    try {
      const client = await connect(url, { applicationName: 'belfry-test' });
      return await client.end();
    } catch (error) {
      if (performance.now() > untilMs) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

/** Fast shutdown. */
async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGINT');
  await exit;
}

/** Names of the files in a folder. */
export const filesIn = (folder: string): Promise<string[]> => readdir(folder);
