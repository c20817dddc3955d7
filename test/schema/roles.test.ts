/** Least rights, tried by acting as the roles. */

import { randomBytes } from 'node:crypto';
import { copyFile, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import jwt from 'jsonwebtoken';
import { pino } from 'pino';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startApp } from '../../src/app.js';
import { installCapture } from '../../src/capture/install.js';
import { parseConfig } from '../../src/config.js';
import type { Config } from '../../src/config.js';
import { seedCounters } from '../../src/inbox/seed.js';
import { connect } from '../../src/postgres/connect.js';
import { countReplay } from '../../src/relay/replay/work.js';
import { migrate } from '../../src/schema/migrate.js';
import { dropRoles, roleStatements, runRoleStatements } from '../../src/schema/roles.js';
import { createTestDatabase, withUser } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { addPost, addUsers, like, socialConfig, socialSql, testSecret } from '../support/social.js';

const suffix = randomBytes(4).toString('hex');
const [relayUser, readerUser] = [`belfry_test_relay_${suffix}`, `belfry_test_reader_${suffix}`];

let database: TestDatabase;
let owner: pg.Client;
let config: Config;
const configOf = (url: string): Config => parseConfig(socialConfig(url), {}, { path: 'test.yaml' });

beforeAll(async () => {
  database = await createTestDatabase({ prepare: `${socialSql}; create table public.secrets (secret text)` });
  owner = await database.client();
  config = configOf(database.url);
  await installCapture(owner, config);
  await seedCounters(owner, config, { info: () => undefined });
  await runRoleStatements(owner, await roleStatements(owner, config));
  // Again, as after an upgrade.
  await runRoleStatements(owner, await roleStatements(owner, config));
  await owner.query(`create role ${relayUser} login password 'x' in role belfry_relay`);
  await owner.query(`create role ${readerUser} login password 'x' in role belfry_reader`);
});
afterAll(async () => {
  await owner.query(`drop role ${relayUser}; drop role ${readerUser}`);
  await dropRoles(owner, config);
  await database.drop();
});

async function as<T>(user: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = await connect(withUser(database.url, user, 'x'), { applicationName: 'belfry-test' });
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

const denied = (user: string, sql: string) =>
  as(user, (client) => expect(client.query(sql), sql).rejects.toMatchObject({ code: '42501' }));

describe('belfry_relay', () => {
  it('runs relay and gateway, makes the days of the outbox, and replays', async () => {
    const lines: string[] = [];
    const log = pino({ level: 'warn' }, { write: (line: string) => void lines.push(line) });
    const ours = configOf(withUser(database.url, relayUser, 'x'));
    const app = await startApp(ours, { role: 'all', log });
    try {
      const [ada = '', bo = ''] = await addUsers(database.pool, 'Ada', 'Bo');
      await like(database.pool, bo, await addPost(database.pool, ada));
      const count = async (sql: string) => (await owner.query<{ n: number }>(sql)).rows[0]?.n;
      await expect.poll(() => count('select count(*)::int as n from belfry.notification'), { timeout: 25_000 }).toBe(1);
      // The default and the days ahead: not today, beside writers, nor a day that begins within a minute.
      await expect
        .poll(() => count(`select count(*)::int as n from pg_inherits where inhparent = 'belfry.outbox'::regclass`), {
          timeout: 25_000,
        })
        .toBeGreaterThanOrEqual(7);
      expect(
        await countReplay(ours.database.url, ours, { mode: 'deliver', filter: {} }, () => undefined),
      ).toMatchObject({ counts: { already: 1 } });
      const told = await fetch(`http://127.0.0.1:${String(app.port)}/api/ws/test-notification`, {
        method: 'POST',
        headers: { authorization: `Bearer ${jwt.sign({ sub: ada }, testSecret, { expiresIn: '1h' })}` },
        body: '{"message":"hello"}',
      });
      expect(told.status).toBe(202);
    } finally {
      await app.stop();
    }
    expect(lines).toEqual([]);
  });

  it('makes days also where the default partition holds much', async () => {
    const outcome = await as(relayUser, async (client) => {
      await client.query(`select belfry.exclude_days('{2030-01-01,2030-01-02}')`);
      await client.query('select belfry.verify_excluded_days()');
      const { rows } = await client.query(`select belfry.make_partition('2030-01-01') as outcome`);
      await client.query('select belfry.admit_days()');
      return rows;
    });
    expect(outcome).toEqual([{ outcome: 'made' }]);
  });

  it('may call belfry.notify after an upgrade, without belfry roles being run again', async () => {
    const older = await createTestDatabase({ template: 'empty' });
    const folder = await mkdtemp(path.join(tmpdir(), 'belfry-older-'));
    try {
      for (const file of (await readdir('migrations')).filter((name) => name < '0015'))
        await copyFile(path.join('migrations', file), path.join(folder, file));
      const client = await older.client();
      await migrate(client, { folder });
      await client.query('grant usage on schema belfry to belfry_relay');
      await migrate(client);
      const { rows } = await client.query(
        `select has_function_privilege('belfry_relay', 'belfry.notify(text, text, text, jsonb, text, text)', 'execute') as may`,
      );
      expect(rows).toEqual([{ may: true }]);
    } finally {
      await older.drop();
      await rm(folder, { recursive: true });
    }
  });

  it.each([
    'select * from public.secrets',
    `update public.users set full_name = 'x'`,
    'drop table belfry.outbox_default',
    `update belfry.schema_migration set name = 'x'`,
    'create table belfry.mine ()',
  ])('may not: %s', (sql) => denied(relayUser, sql));
});

describe('belfry_reader', () => {
  it.each([
    'select * from belfry.lag',
    'select * from belfry.trigger_health',
    'select * from belfry.replays',
    'select leader, paused, term from belfry.relay',
    'select source, count(*) from belfry.outbox group by source',
    'select type, state, count(*) from belfry.notification group by 1, 2',
    'select rule, count(*) from belfry.verdict group by rule',
  ])('may: %s', async (sql) => void (await as(readerUser, (client) => client.query(sql))));

  it.each([
    'select new from belfry.outbox',
    'select message from belfry.notification',
    'select user_id from belfry.notification',
    'select user_ids from belfry.verdict',
    'select * from belfry.channel_event',
    'update belfry.relay set paused = true',
    'select * from public.users',
    'select belfry.replay()',
    `select belfry.make_partition('2020-01-01')`,
  ])('may not: %s', (sql) => denied(readerUser, sql));
});

it('nobody else may ask for a replay or make partitions', async () => {
  await owner.query(`create role belfry_test_nobody_${suffix} login password 'x'`);
  await denied(`belfry_test_nobody_${suffix}`, 'select belfry.replay()');
  await denied(`belfry_test_nobody_${suffix}`, `select belfry.drop_partition('outbox_20200101', '1 day')`);
  await denied(`belfry_test_nobody_${suffix}`, `select belfry.exclude_days('{2030-01-03}')`);
  await denied(`belfry_test_nobody_${suffix}`, 'select belfry.admit_days()');
  await owner.query(`drop role belfry_test_nobody_${suffix}`);
});

describe('taking the roles back', () => {
  it('leaves a role that another database uses, without its rights here', async () => {
    const other = await createTestDatabase({ prepare: socialSql });
    try {
      const client = await other.client();
      const theirs = configOf(other.url);
      await installCapture(client, theirs);
      await runRoleStatements(client, await roleStatements(client, theirs));
      const may = async () =>
        (
          await client.query<{ may: boolean }>(
            `select has_schema_privilege('belfry_relay', 'belfry', 'usage') or has_table_privilege('belfry_relay', 'public.likes', 'select') as may`,
          )
        ).rows[0]?.may;
      expect(await may()).toBe(true);
      const stay = await dropRoles(client, theirs);
      expect(stay).toHaveLength(2);
      expect(stay[0]).toMatch(/belfry_relay.*another database/);
      expect(await may()).toBe(false);
    } finally {
      await other.drop();
    }
  });
});
