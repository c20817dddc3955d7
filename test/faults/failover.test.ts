/**
 * The primary dies under traffic and its standby is promoted: the relay finds it, begins a new epoch, and every row that was committed is
 * notified exactly once. Two clusters by initdb and pg_basebackup, so that it is a promotion and no restart.
 */

import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chown, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { startApp } from '../../src/app.js';
import type { App } from '../../src/app.js';
import { installCapture } from '../../src/capture/install.js';
import { parseConfig } from '../../src/config.js';
import { createLogger } from '../../src/log.js';
import { connect } from '../../src/postgres/connect.js';
import { migrate } from '../../src/schema/migrate.js';
import { freePort } from '../support/ports.js';
import { withPort } from '../support/postgres.js';
import { startProxy } from '../support/proxy.js';
import type { Proxy } from '../support/proxy.js';
import { addPost, addUsers, socialConfig, socialSql } from '../support/social.js';

vi.setConfig({ testTimeout: 240_000, hookTimeout: 240_000 });
const patience = { timeout: 120_000, interval: 50 };

const folder = process.env['BELFRY_TEST_PG_BIN'] ?? '/usr/lib/postgresql/15/bin';
const account = await accountOf();
const there = existsSync(path.join(folder, 'pg_basebackup')) && (process.getuid?.() !== 0 || account !== null);
const runs = it.skipIf(!there);
const title = (text: string) =>
  there ? text : `${text} (skipped: no pg_basebackup in ${folder}; BELFRY_TEST_PG_BIN names another)`;

const likes = 60;

interface Account {
  readonly uid: number;
  readonly gid: number;
}

/** Postgres refuses to run as root. */
async function accountOf(): Promise<Account | null> {
  const line = /^postgres:[^:]*:(\d+):(\d+):/m.exec(await readFile('/etc/passwd', 'utf8').catch(() => ''));
  return line === null ? null : { uid: Number(line[1]), gid: Number(line[2]) };
}

const as = (): Partial<Account> => (process.getuid?.() === 0 && account !== null ? account : {});

async function run(program: string, ...args: string[]): Promise<void> {
  const child = spawn(path.join(folder, program), args, { ...as(), cwd: '/', stdio: ['ignore', 'ignore', 'pipe'] });
  let told = '';
  child.stderr.on('data', (text: Buffer) => (told += text.toString()));
  const code = await new Promise((resolve) => child.once('close', resolve));
  if (code !== 0) throw new Error(`${program} ended with ${String(code)}: ${told}`);
}

const url = (port: number): string => `postgres://postgres@127.0.0.1:${String(port)}/postgres`;

class Cluster {
  private child: ChildProcess | null = null;
  constructor(
    readonly data: string,
    readonly port: number,
  ) {}

  async start(): Promise<void> {
    const settings = [
      'listen_addresses=127.0.0.1',
      'unix_socket_directories=',
      'fsync=off',
      'wal_level=replica',
      'shared_buffers=32MB',
    ];
    this.child = spawn(
      path.join(folder, 'postgres'),
      ['-D', this.data, '-p', String(this.port), ...settings.flatMap((setting) => ['-c', setting])],
      { ...as(), cwd: '/', stdio: 'ignore' },
    );
    await vi.waitFor(async () => await (await connect(url(this.port), { applicationName: 'test' })).end(), patience);
  }

  /** As a crash: nobody is waited for. */
  async crash(): Promise<void> {
    const { child } = this;
    this.child = null;
    if (child === null) return;
    const ended = new Promise((resolve) => child.once('close', resolve));
    child.kill('SIGQUIT');
    await ended;
  }
}

let root: string;
let primary: Cluster | null = null;
let standby: Cluster | null = null;
let proxy: Proxy | null = null;
let app: App | null = null;
const target = { host: '127.0.0.1', port: 0 };

beforeAll(async () => {
  if (!there) return;
  root = await mkdtemp(path.join(tmpdir(), 'belfry-failover-'));
  const owner = as();
  if (owner.uid !== undefined && owner.gid !== undefined) await chown(root, owner.uid, owner.gid);
  primary = new Cluster(path.join(root, 'primary'), await freePort());
  standby = new Cluster(path.join(root, 'standby'), await freePort());
  await run('initdb', '-D', primary.data, '-A', 'trust', '-U', 'postgres', '--no-sync');
  await primary.start();
  await run(
    'pg_basebackup',
    '-d',
    url(primary.port),
    '-D',
    standby.data,
    '-X',
    'stream',
    '-R',
    '--checkpoint=fast',
    '--no-sync',
  );
  await standby.start();
  target.port = primary.port;
  proxy = await startProxy(target);
});

afterAll(async () => {
  if (!there) return;
  await app?.stop().catch(() => undefined);
  await proxy?.close();
  await primary?.crash();
  await standby?.crash();
  await rm(root, { recursive: true, force: true });
});

runs(title('a promotion under traffic loses nothing and notifies nobody twice'), async () => {
  if (primary === null || standby === null || proxy === null) throw new Error('the clusters did not start');
  const [old, heir, way] = [primary, standby, proxy];
  const admin = await connect(url(old.port), { applicationName: 'test' });
  await admin.query(socialSql);
  const people = await addUsers(admin, 'Ada', ...Array.from({ length: likes }, (_, i) => `Person ${String(i)}`));
  const post = await addPost(admin, people[0] ?? '');
  const config = parseConfig(socialConfig(withPort(url(old.port), way.port)), {}, { path: 'test.yaml' });
  await migrate(admin);
  await installCapture(admin, config);
  // From here on what is committed is on the standby too.
  const streaming = async () =>
    (await admin.query(`select 1 from pg_stat_replication where state = 'streaming'`)).rowCount;
  await expect.poll(streaming, patience).toBe(1);
  await admin.query(`alter system set synchronous_standby_names = '*'`);
  await admin.query('select pg_reload_conf()');
  const isSynchronous = async () =>
    (await admin.query(`select 1 from pg_stat_replication where sync_state = 'sync'`)).rowCount;
  await expect.poll(isSynchronous, patience).toBe(1);

  app = await startApp(config, { role: 'all', log: createLogger({ level: 'fatal', name: 'test' }) });
  const epochOf = async (port: number): Promise<string> => {
    const client = await connect(url(port), { applicationName: 'test' });
    try {
      return (await client.query<{ epoch: string }>('select epoch from belfry.relay')).rows[0]?.epoch ?? '';
    } finally {
      await client.end();
    }
  };
  const before = await epochOf(old.port);

  let written = 0;
  let half = (): void => undefined;
  const halfWay = new Promise<void>((resolve) => (half = resolve));
  const writing = (async () => {
    for (const user of people.slice(1)) {
      for (;;) {
        // Whether a write that failed was committed is not known: the table decides.
        const client = await connect(withPort(url(old.port), way.port), { applicationName: 'test' }).catch(() => null);
        const done = await client
          ?.query('insert into public.likes (user_id, post_id) values ($1, $2) on conflict do nothing', [user, post])
          .then(() => true)
          .catch(() => false);
        await client?.end().catch(() => undefined);
        if (done === true) break;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      written += 1;
      if (written === likes / 2) half();
    }
  })();

  await halfWay;
  await old.crash();
  // First the standby as it is, which can only be read: nobody may take it for the primary.
  target.port = heir.port;
  way.reset();
  await run('pg_ctl', 'promote', '-D', heir.data);
  await writing;
  await admin.end().catch(() => undefined);

  const client = await connect(url(heir.port), { applicationName: 'test' });
  try {
    const unread = async () => (await client.query<{ n: string }>('select events as n from belfry.lag')).rows[0]?.n;
    await expect.poll(unread, patience).toBe('0');
    await expect.poll(() => epochOf(heir.port), patience).not.toBe(before);
    const { rows } = await client.query<Record<string, number>>(`
      select (select count(*)::int from public.likes)                                          as likes,
             (select count(*)::int from belfry.notification_event where removed_at is null)    as events,
             (select sum(event_count)::int from belfry.notification where not withdrawn)       as counted,
             (select count::int from belfry.counter where source = 'post_like')                as counter`);
    expect(rows).toEqual([{ likes, events: likes, counted: likes, counter: likes }]);
  } finally {
    await client.end();
  }
});
