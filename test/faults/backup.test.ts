/**
 * Backup and restore with the tools that DBAs use: a dump into a younger cluster, recovery to a point in time, a promoted standby,
 * pg_upgrade, and from Postgres 15 into the newest. The relay notices by itself, begins a new epoch, tells nothing again, loses nothing, and says so.
 */
import { appendFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { pino } from 'pino';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { startApp } from '../../src/app.js';
import { installCapture } from '../../src/capture/install.js';
import { parseConfig } from '../../src/config.js';
import type { Config } from '../../src/config.js';
import { seedCounters } from '../../src/inbox/seed.js';
import { ensurePartitions } from '../../src/outbox/partitions.js';
import { connect } from '../../src/postgres/connect.js';
import { explainEvent } from '../../src/relay/look/explain.js';
import { migrate } from '../../src/schema/migrate.js';
import { Clusters, filesIn, tool, toolIn, toolsFolder } from '../support/cluster.js';
import type { Cluster } from '../support/cluster.js';
import { createTestDatabase } from '../support/postgres.js';
import { addComment, addPost, addUsers, like, socialConfig, socialSql } from '../support/social.js';

const needs = toolsFolder === null ? ' (skipped: needs the tools of a Postgres in /usr/lib/postgresql)' : '';
const patience = { timeout: 60_000, interval: 50 };

let clusters: Clusters;
let primary: Cluster;
let archive: string;

/** The social app with Belfry; Bo has liked and Ada has been told, and his comment is still unread. */
interface App {
  readonly client: pg.Client;
  readonly ada: string;
  readonly bo: string;
  readonly post: string;
  readonly epoch: string;
}

async function prepare(cluster: Cluster, name: string): Promise<App> {
  const admin = await connect(cluster.url('postgres'), { applicationName: 'belfry-test' });
  await admin.query(`create database ${name}`);
  await admin.end();
  const client = await open(cluster.url(name));
  await client.query(socialSql);
  await migrate(client);
  await ensurePartitions(client, { today: true });
  const config = configOf(cluster.url(name));
  await installCapture(client, config);
  await seedCounters(client, config, { info: () => undefined });
  const [ada = '', bo = ''] = await addUsers(client, 'Ada', 'Bo');
  const post = await addPost(client, ada);
  await relay(cluster.url(name), async () => {
    await like(client, bo, post);
    await allRead(client);
  });
  await addComment(client, post, bo, 'unread');
  return { client, ada, bo, post, epoch: await epochOf(client) };
}

const configOf = (url: string): Config => parseConfig(socialConfig(url), {}, { path: 'test.yaml' });

async function open(url: string): Promise<pg.Client> {
  const client = await connect(url, { applicationName: 'belfry-test' });
  onTestFinished(() => client.end().catch(() => undefined));
  return client;
}

/** Runs a relay beside the work; returns what it logged as a warning or worse. */
async function relay(url: string, work: () => Promise<void>): Promise<Record<string, unknown>[]> {
  const lines: Record<string, unknown>[] = [];
  const log = pino(
    { level: 'warn' },
    { write: (line: string) => void lines.push(JSON.parse(line) as Record<string, unknown>) },
  );
  const app = await startApp(configOf(url), { role: 'relay', log });
  try {
    await work();
  } finally {
    await app.stop();
  }
  return lines;
}

const allRead = (client: pg.Client) =>
  expect
    .poll(async () => (await client.query<{ n: string }>('select events as n from belfry.lag')).rows[0]?.n, patience)
    .toBe('0');
const epochOf = async (client: pg.Client): Promise<string> =>
  (await client.query<{ epoch: string }>('select epoch from belfry.relay')).rows[0]?.epoch ?? '';
/** Each notification of a person: its type, and the position of its last push. */
const inbox = async (client: pg.Client, userId: string): Promise<string[]> =>
  (
    await client.query<{ item: string }>(
      `select type || ' ' || seq as item from belfry.notification where user_id = $1 order by seq`,
      [userId],
    )
  ).rows.map(({ item }) => item);

/** Counters that are not what their tables say. */
const wrongCounters = async (client: pg.Client): Promise<unknown[]> =>
  (
    await client.query(
      `with t as (
         select 'post_like' as source, post_id::text as object_id, count(*) from likes group by post_id
         union all select 'post_comment', post_id::text, count(*) from comments group by post_id
       )
       select source, object_id, t.count as "table", c.count as counter
         from t full join belfry.counter c using (source, object_id) where coalesce(t.count, 0) <> coalesce(c.count, 0)`,
    )
  ).rows;

const told = { msg: expect.stringContaining('this is not the database it was') as string };

/** What is unread comes, once; what was read does not come again; a new epoch; and then all goes on. */
async function goesOn(url: string, { ada, bo, epoch }: App, past: string): Promise<void> {
  const client = await open(url);
  const lines = await relay(url, async () => {
    await allRead(client);
    await addComment(client, await addPost(client, ada), bo, 'new');
    await allRead(client);
  });
  expect(lines).toMatchObject([{ ...told, past }]);
  expect(await epochOf(client)).not.toBe(epoch);
  expect(await inbox(client, ada)).toEqual(['like 1', 'comment 2', 'comment 3']);
  expect(await wrongCounters(client)).toEqual([]);
  // The second start finds the database that it knows.
  const now = await epochOf(client);
  expect(await relay(url, () => Promise.resolve())).toEqual([]);
  expect(await epochOf(client)).toBe(now);
}

describe.skipIf(toolsFolder === null)(`backup and restore${needs}`, { timeout: 180_000 }, () => {
  beforeAll(async () => {
    clusters = await Clusters.open();
    archive = await clusters.directory('archive', 0o755);
    primary = await clusters.create('primary', {
      archive_mode: 'on',
      archive_command: `cp %p ${archive}/%f`,
      track_commit_timestamp: 'on',
    });
  }, 120_000);
  afterAll(() => clusters.remove());

  it('pg_dump and pg_restore into a cluster that is younger: its transactions have lower numbers', async () => {
    const old = await open(primary.url('postgres'));
    await old.query('do $$ begin for i in 1..20000 loop perform pg_current_xact_id(); commit; end loop; end $$');
    const app = await prepare(primary, 'app');
    const dump = path.join(clusters.folder, 'archive', 'app.dump');
    const roles = path.join(clusters.folder, 'archive', 'roles.sql');
    await tool('pg_dump', '--format=custom', `--dbname=${primary.url('app')}`, `--file=${dump}`);
    await tool(
      'pg_dumpall',
      '--roles-only',
      '--no-role-passwords',
      `--dbname=${primary.url('app')}`,
      `--file=${roles}`,
    );
    const younger = await clusters.create('younger');
    // It says of the role of who does it that it is there already.
    await tool('psql', '--quiet', `--dbname=${younger.url('postgres')}`, `--file=${roles}`);
    await tool('psql', '--quiet', `--dbname=${younger.url('postgres')}`, '--command=create database app2');
    await tool('pg_restore', '--exit-on-error', `--dbname=${younger.url('app2')}`, dump);
    const next = async (client: pg.Client): Promise<number> =>
      Number(
        (await client.query<{ n: string }>('select pg_snapshot_xmax(pg_current_snapshot())::text as n')).rows[0]?.n,
      );
    await app.client.query('select pg_current_xact_id()');
    expect(await next(await open(younger.url('app2')))).toBeLessThan(await next(app.client));
    await goesOn(younger.url('app2'), app, 'restored');
    await younger.stop();
  });

  it('says when an event was committed, where Postgres keeps that', async () => {
    const { client } = await prepare(primary, 'times');
    const { rows } = await client.query<{ id: string }>(
      `select id::text from belfry.outbox where source = 'post_like'`,
    );
    const { times } = (await explainEvent(client, configOf(primary.url('times')), rows[0]?.id ?? '', null)) ?? {};
    const { written = '', committed = '', read = '' } = times ?? {};
    expect(committed).toMatch(/^\d/);
    expect([written, committed, read]).toEqual([written, committed ?? '', read ?? ''].toSorted());
  });

  it('recovery to a point in time: what came after it is undone, also for the relay', async () => {
    const app = await prepare(primary, 'pitr');
    const base = await clusters.directory('pitr');
    await tool(
      'pg_basebackup',
      `--dbname=${primary.url('pitr')}`,
      '-D',
      base,
      '--checkpoint=fast',
      '--wal-method=none',
      '--no-sync',
    );
    await app.client.query('select pg_current_xact_id()');
    const { rows } = await app.client.query<{ now: string }>('select clock_timestamp()::text as now');
    // After that point: one that is read and told, and is undone.
    const cleo = (await addUsers(app.client, 'Cleo'))[0] ?? '';
    await relay(primary.url('pitr'), async () => {
      await like(app.client, cleo, await addPost(app.client, app.ada));
      await allRead(app.client);
    });
    expect(await inbox(app.client, app.ada)).toHaveLength(3);
    await archived(app.client);
    await appendFile(
      path.join(base, 'postgresql.auto.conf'),
      `restore_command = 'cp ${archive}/%f %p'\nrecovery_target_time = '${rows[0]?.now}'\nrecovery_target_action = 'promote'\narchive_mode = off\n`,
    );
    await writeFile(path.join(base, 'recovery.signal'), '');
    const recovered = await clusters.start(base);
    await promoted(recovered.url('pitr'));
    await goesOn(recovered.url('pitr'), app, 'promoted');
    await recovered.stop();
  });

  it('a standby that is promoted', async () => {
    const app = await prepare(primary, 'standby');
    const base = await clusters.directory('standby');
    await tool(
      'pg_basebackup',
      `--dbname=${primary.url('standby')}`,
      '-D',
      base,
      '--checkpoint=fast',
      '-R',
      '--no-sync',
    );
    const standby = await clusters.start(base, { archive_mode: 'off' });
    await expect(relay(standby.url('standby'), () => Promise.resolve())).rejects.toMatchObject({
      code: 'database_unsuitable',
    });
    await primary.stop();
    const client = await open(standby.url('standby'));
    await client.query('select pg_promote()');
    await promoted(standby.url('standby'));
    await goesOn(standby.url('standby'), app, 'promoted');
    await standby.stop();
    primary = await clusters.start(primary.dataDir);
  });

  // Of one version into the same: the tools of a second one are not at hand. What it keeps and changes is the same.
  it('pg_upgrade: another cluster with the same rows, whose transactions go on', async () => {
    const old = await clusters.create('before');
    const app = await prepare(old, 'upgraded');
    await app.client.end();
    await old.stop();
    const dataDir = await clusters.init('after');
    const cwd = await clusters.directory('upgrade');
    const bin = toolsFolder ?? '';
    await toolIn(
      cwd,
      'pg_upgrade',
      '-b',
      bin,
      '-B',
      bin,
      '-d',
      old.dataDir,
      '-D',
      dataDir,
      '-U',
      'postgres',
      '-s',
      cwd,
    );
    const upgraded = await clusters.start(dataDir);
    await goesOn(upgraded.url('upgraded'), app, 'restored');
    await upgraded.stop();
  });

  it('from an older Postgres into the embedded one, as after an upgrade by dump and restore', async () => {
    const app = await prepare(primary, 'upgrade');
    const dump = path.join(clusters.folder, 'archive', 'upgrade.dump');
    await tool('pg_dump', '--format=custom', `--dbname=${primary.url('upgrade')}`, `--file=${dump}`);
    const database = await createTestDatabase({ template: 'empty' });
    onTestFinished(() => database.drop());
    const { rows } = await app.client.query<{ name: string }>(
      `select rolname as name from pg_roles where rolname like 'belfry%'`,
    );
    for (const { name } of rows) await database.pool.query(`create role ${name} nologin`).catch(() => undefined);
    await tool('pg_restore', '--exit-on-error', `--dbname=${database.url}`, dump);
    await goesOn(database.url, app, 'restored');
  });
});

/** Everything up to now is in the archive. */
async function archived(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ name: string }>('select pg_walfile_name(pg_switch_wal()) as name');
  await expect.poll(() => filesIn(archive), patience).toContain(rows[0]?.name);
}

async function promoted(url: string): Promise<void> {
  const client = await open(url);
  await expect
    .poll(async () => (await client.query<{ in: boolean }>('select pg_is_in_recovery() as in')).rows[0]?.in, patience)
    .toBe(false);
}
