/** The embedded Postgres: what it survives, and what it says when it can't. */
import { execFile, spawn } from 'node:child_process';
import {
  chmod,
  chown,
  cp,
  link,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { type Account, chooseAccount, chooseDirectory } from '../../src/embedded/account.js';
import { type Binaries, findBinaries, findPackage } from '../../src/embedded/binaries.js';
import { isRunning, readPidFile } from '../../src/embedded/orphan.js';
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../../src/embedded/postgres.js';
import { connect } from '../../src/postgres/connect.js';
import { type Program, startScript } from '../support/program.js';

let base: string;
let dataDir: string;
let warnings: string[];
const servers: EmbeddedPostgres[] = [];
const programs: Program[] = [];
const log = { info: () => undefined, warn: (message: string) => void warnings.push(message) };

beforeEach(async () => {
  base = await mkdtemp(path.join(tmpdir(), 'belfry-embedded-'));
  await chmod(base, 0o755);
  dataDir = path.join(base, 'data');
  warnings = [];
});

afterEach(async () => {
  vi.unstubAllEnvs();
  for (const program of programs.splice(0)) await program.kill();
  for (const server of servers.splice(0)) await server.stop();
  await rm(base, { recursive: true, force: true });
});

async function start(options: { port?: number; settings?: Record<string, string> } = {}): Promise<EmbeddedPostgres> {
  const server = await startEmbeddedPostgres({ dataDir, log, ...options });
  servers.push(server);
  return server;
}

async function query(server: { url: string }, sql: string): Promise<unknown[]> {
  const client = await connect(server.url, { applicationName: 'test' });
  try {
    return (await client.query<Record<string, unknown>>(sql)).rows;
  } finally {
    await client.end();
  }
}

/** A process of its own that starts the server and holds it. */
async function startElsewhere(): Promise<{ program: Program; postgresPid: number; url: string }> {
  const program = startScript(`
    import { startEmbeddedPostgres } from './dist-test/embedded/postgres.js';
    const log = { info() {}, warn: console.error };
    const server = await startEmbeddedPostgres({ dataDir: ${JSON.stringify(dataDir)}, log });
    console.log('ready ' + server.pid + ' ' + server.url);
    process.on('SIGTERM', () => server.stop().then(() => process.exit(0)));
    setInterval(() => {}, 1000);
  `);
  programs.push(program);
  const [, pid = '', url = ''] = await program.waitFor(/ready (\d+) (\S+)\n/);
  return { program, postgresPid: Number(pid), url };
}

async function until(what: () => boolean | Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + 20_000; !(await what()); await sleep(20)) {
    if (Date.now() > deadline) throw new Error('waited in vain');
  }
}

describe('a plain life', () => {
  test('data outlives stop and start; only loopback, only with the password', async () => {
    const first = await start();
    expect(await query(first, `select current_setting('server_version_num')::int / 10000 as version`)).toEqual([
      { version: 18 },
    ]);
    await query(first, 'create table kept as select 42 as answer');
    const wrong = new URL(first.url);
    wrong.password = 'wrong';
    await expect(query({ url: wrong.href }, 'select 1')).rejects.toMatchObject({ code: 'database_denied' });
    await first.stop();
    await first.stop();
    expect(await isRunning(first.pid)).toBe(false);

    const second = await start({ settings: { max_prepared_transactions: '7' } });
    expect(await query(second, 'select answer from kept')).toEqual([{ answer: 42 }]);
    expect(
      await query(
        second,
        `select name, setting from pg_settings where name in ('listen_addresses', 'max_prepared_transactions', 'fsync') order by 1`,
      ),
    ).toEqual([
      { name: 'fsync', setting: 'on' },
      { name: 'listen_addresses', setting: '127.0.0.1' },
      { name: 'max_prepared_transactions', setting: '7' },
    ]);
    expect((await stat(path.join(dataDir, 'password'))).mode & 0o077).toBe(0);
    expect(warnings).toEqual([]);
  });

  test('a process that just ends takes the server with it', async () => {
    const program = startScript(`
      import { startEmbeddedPostgres } from './dist-test/embedded/postgres.js';
      const server = await startEmbeddedPostgres({ dataDir: ${JSON.stringify(dataDir)}, log: console });
      console.log('ready ' + server.pid);
      process.exit(3);
    `);
    programs.push(program);
    const [, pid = ''] = await program.waitFor(/ready (\d+)/);
    expect((await program.exit).code).toBe(3);
    await until(async () => !(await isRunning(Number(pid))));
  });
});

describe('another process', () => {
  test('that lives is named in one line, and goes on', async () => {
    const other = await startElsewhere();
    const refused = start();
    await expect(refused).rejects.toMatchObject({ code: 'unavailable' });
    await expect(refused).rejects.toThrow(`${dataDir} is in use by process ${other.program.pid}`);
    expect(await query(other, 'select 1 as one')).toEqual([{ one: 1 }]);
    other.program.child.kill('SIGTERM');
    expect((await other.program.exit).code).toBe(0);
    await start();
  });

  test('that was killed leaves no server behind, and its data is recovered', async () => {
    const other = await startElsewhere();
    await query(other, 'create table kept as select 1 as one');
    await other.program.kill();
    await until(async () => !(await isRunning(other.postgresPid)));
    expect(await query(await start(), 'select one from kept')).toEqual([{ one: 1 }]);
  });

  test('whose server was killed too leaves a stale pid file: recovered', async () => {
    const other = await startElsewhere();
    await query(other, 'create table kept as select 1 as one');
    process.kill(other.postgresPid, 'SIGKILL');
    await other.program.kill();
    expect(await readPidFile(path.join(dataDir, 'cluster'))).not.toBeNull();
    expect(await query(await start(), 'select one from kept')).toEqual([{ one: 1 }]);
  });

  test('that was killed while it wrote the pid file leaves an empty one: it starts all the same', async () => {
    await (await start()).stop();
    await writeFile(path.join(dataDir, 'cluster', 'postmaster.pid'), '');
    expect(await query(await start(), 'select 1 as one')).toEqual([{ one: 1 }]);
  });

  test('whose pid file is replaced loses nothing of it when that fails', async () => {
    const other = await startElsewhere();
    process.kill(other.postgresPid, 'SIGKILL');
    await other.program.kill();
    const pidFile = path.join(dataDir, 'cluster', 'postmaster.pid');
    const stale = await readFile(pidFile, 'utf8');
    // Another name of the same file: it would change with it.
    const kept = path.join(dataDir, 'kept.pid');
    await link(pidFile, kept);
    await start();
    expect(await readFile(kept, 'utf8')).toBe(stale);
  });

  test('that left its server running: the server is taken over', async () => {
    const first = await start();
    await query(first, 'create table kept as select 1 as one');
    await first.stop();
    const account = await chooseAccount();
    const binaries = await findBinaries(dataDir, account);
    const cluster = path.join(dataDir, 'cluster');
    const flags = ['-D', cluster, '-p', String(first.port), '-c', 'unix_socket_directories='];
    const orphan = spawn(binaries.postgres, flags, { ...account, env: binaries.env, stdio: 'ignore' });
    await until(async () => (await readPidFile(cluster))?.ready === true);

    const second = await start();
    expect(orphan.exitCode).toBe(0);
    expect(warnings).toEqual([expect.stringContaining('left behind')]);
    expect(await query(second, 'select one from kept')).toEqual([{ one: 1 }]);
  });

  test('that got the pid of a dead server is not touched', async () => {
    const first = await start();
    const cluster = path.join(dataDir, 'cluster');
    const stale = await readFile(path.join(cluster, 'postmaster.pid'), 'utf8');
    await first.stop();
    const account = await chooseAccount();
    const innocent = spawn('sleep', ['60'], { ...account, stdio: 'ignore' });
    try {
      const pidFile = path.join(cluster, 'postmaster.pid');
      await writeFile(pidFile, stale.replace(/^\d+/, String(innocent.pid)), { mode: 0o600 });
      if (account.uid !== undefined) await chown(pidFile, account.uid, account.gid);
      const second = await start();
      expect(await query(second, 'select 1 as one')).toEqual([{ one: 1 }]);
      expect(innocent.exitCode).toBeNull();
      expect(innocent.signalCode).toBeNull();
    } finally {
      innocent.kill();
    }
  });
});

describe('what it finds', () => {
  test('a half-made cluster is moved aside', async () => {
    await mkdir(path.join(dataDir, 'cluster', 'base'), { recursive: true });
    await writeFile(path.join(dataDir, 'cluster', 'PG_VERSION'), '18\n');
    await mkdir(path.join(dataDir, 'cluster-new-1'));
    expect(await query(await start(), 'select 1 as one')).toEqual([{ one: 1 }]);
    expect(warnings).toEqual([expect.stringContaining('was incomplete')]);
    const names = await readdir(dataDir);
    expect(names.filter((name) => name.startsWith('cluster-broken-'))).toHaveLength(1);
    expect(names.filter((name) => name.startsWith('cluster-new-'))).toEqual([]);
  });

  test('a cluster of another version is left alone', async () => {
    await (await start()).stop();
    await writeFile(path.join(dataDir, 'cluster', 'PG_VERSION'), '17\n');
    await expect(start()).rejects.toThrow(/was made by Postgres 17, this is 18/);
    expect(await readdir(dataDir)).toContain('cluster');
  });

  test('an owner file that is no JSON counts as dead', async () => {
    await mkdir(dataDir, { recursive: true });
    await writeFile(path.join(dataDir, 'owner.json'), '{"pid":');
    await start();
  });

  test.runIf(process.platform === 'linux')('an owner that has ended but is still listed counts as dead', async () => {
    // The shell's child ends; what takes the shell's place never asks how.
    const parent = spawn('sh', ['-c', 'sleep 0.1 & echo $!; exec sleep 60'], { stdio: ['ignore', 'pipe', 'ignore'] });
    try {
      const pid = await new Promise<number>((resolve) => parent.stdout.once('data', (text) => resolve(Number(text))));
      const stat = async () => (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1]?.split(' ') ?? [];
      await until(async () => (await stat())[0] === 'Z');
      await mkdir(dataDir, { recursive: true });
      await writeFile(path.join(dataDir, 'owner.json'), JSON.stringify({ pid, start: (await stat())[19] }));
      await start();
    } finally {
      parent.kill();
    }
  });

  test('a port that is taken: another one by default, one clear line when it was asked for', async () => {
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
    const address = taken.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    try {
      await expect(start({ port })).rejects.toMatchObject({ code: 'port_in_use' });
      expect((await start()).port).not.toBe(port);
    } finally {
      taken.close();
    }
  });

  test('settings that Postgres refuses are told with its own words', async () => {
    await expect(start({ settings: { shared_buffers: 'much' } })).rejects.toThrow(
      /does not start .*shared_buffers.*postgres\.log/,
    );
    await start();
  });
});

describe('the programs', () => {
  test('run when npm did not make their links and node_modules is not ours to change', async () => {
    const root = await packageWithoutLinks();
    const binaries = await findBinaries(await madeDataDir(), {}, root);
    expect(await version(binaries)).toMatch(/^postgres \(PostgreSQL\) 18\./);
    await expect(promisify(execFile)(binaries.postgres, ['--version'], { env: {} })).rejects.toThrow(
      /shared libraries/,
    );
    expect(binaries.postgres.startsWith(root)).toBe(true);
    // And again, with what the first time left.
    expect(await version(await findBinaries(dataDir, {}, root))).toMatch(/ 18\./);
  });

  async function packageWithoutLinks(): Promise<string> {
    const root = path.join(base, 'private', 'package');
    const isLink = async (file: string) => (await lstat(file)).isSymbolicLink();
    await cp(await findPackage(), root, { recursive: true, filter: async (file) => !(await isLink(file)) });
    return root;
  }

  async function madeDataDir(): Promise<string> {
    await mkdir(dataDir, { recursive: true });
    return dataDir;
  }

  /** initdb and postgres need different libraries. */
  async function version(binaries: Binaries, account: Account = {}): Promise<string> {
    const options = { ...account, env: binaries.env };
    await promisify(execFile)(binaries.initdb, ['--version'], options);
    return (await promisify(execFile)(binaries.postgres, ['--version'], options)).stdout;
  }

  test.runIf(process.getuid?.() === 0)(
    'are copied when they lie where the account of the server can not go',
    async () => {
      const root = await packageWithoutLinks();
      await chmod(path.join(base, 'private'), 0o700);
      vi.stubEnv('TMPDIR', base);
      const account = await chooseAccount();
      const binaries = await findBinaries(await madeDataDir(), account, root);
      expect(await version(binaries, account)).toMatch(/ 18\./);
      expect(binaries.postgres.startsWith(root)).toBe(false);
      // Temporary directories are swept: what is missing comes back.
      await rm(binaries.initdb);
      expect((await findBinaries(dataDir, account, root)).initdb).toBe(binaries.initdb);
      expect(await version(binaries, account)).toMatch(/ 18\./);
    },
  );
});

describe.runIf(process.getuid?.() === 0)('as root', () => {
  test('the server runs as somebody else', async () => {
    const server = await start();
    const owner = (await stat(path.join(server.dataDir, 'cluster'))).uid;
    expect(owner).not.toBe(0);
    expect((await readFile(`/proc/${server.pid}/status`, 'utf8')).match(/^Uid:\t(\d+)/m)?.[1]).toBe(String(owner));
  });

  test('a folder below a private one moves to the temporary directory, and says so', async () => {
    await chmod(base, 0o700);
    const server = await start();
    expect(server.dataDir).not.toBe(dataDir);
    expect(warnings).toEqual([expect.stringContaining(`can't reach ${dataDir}: the data is in ${server.dataDir}`)]);
    await server.stop();
    const again = async () => chooseDirectory(dataDir, await chooseAccount(), log);
    expect(await again()).toBe(server.dataDir);
    await rename(dataDir, `${dataDir}-old`);
    expect(await again()).not.toBe(server.dataDir);
    await rm(await again(), { recursive: true });
    await rm(server.dataDir, { recursive: true });
  });
});
