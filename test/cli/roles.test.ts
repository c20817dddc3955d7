/** Commands by roles: belfry_relay is enough for all that operators do, belfry_reader for looking; who lacks one is told which. */

import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { installCapture } from '../../src/capture/install.js';
import { parseConfig } from '../../src/config.js';
import type { Config } from '../../src/config.js';
import { seedCounters } from '../../src/inbox/seed.js';
import { ensurePartitions } from '../../src/outbox/partitions.js';
import { dropRoles, roleStatements, runRoleStatements } from '../../src/schema/roles.js';
import { createTestDatabase, withUser } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { startBelfry } from '../support/program.js';
import { addPost, addUsers, like, socialConfig, socialSql } from '../support/social.js';

const suffix = randomBytes(4).toString('hex');
const users = { relay: `belfry_test_r_${suffix}`, reader: `belfry_test_d_${suffix}` };

let database: TestDatabase;
let owner: pg.Client;
let config: Config;
let folder: string;
let event: string;

beforeAll(async () => {
  database = await createTestDatabase({ prepare: socialSql });
  owner = await database.client();
  config = parseConfig(socialConfig(database.url), {}, { path: 'test.yaml' });
  await installCapture(owner, config);
  await seedCounters(owner, config, { info: () => undefined });
  await ensurePartitions(owner, { today: true });
  await runRoleStatements(owner, await roleStatements(owner, config));
  folder = await mkdtemp(path.join(tmpdir(), 'belfry-roles-'));
  for (const [role, user] of Object.entries(users)) {
    await owner.query(`create role ${user} login password 'x' in role belfry_${role}`);
    await writeFile(path.join(folder, `${role}.yaml`), socialConfig(withUser(database.url, user, 'x')));
  }
  const [ada = '', bo = ''] = await addUsers(owner, 'Ada', 'Bo');
  await like(owner, bo, await addPost(owner, ada));
  event = (await owner.query<{ id: string }>('select max(id)::text as id from belfry.outbox')).rows[0]?.id ?? '';
  await owner.query('update belfry.relay set seen = pg_current_snapshot()');
  await owner.query(
    `insert into belfry.dead_event (event_id, source, op, new, event_at, error)
     select n, source, op, new, at, 'poison' from belfry.outbox, generate_series(901, 902) n where id = $1`,
    [event],
  );
});
afterAll(async () => {
  await owner.query(`drop role ${users.relay}; drop role ${users.reader}`);
  await dropRoles(owner, config);
  await database.drop();
  await rm(folder, { recursive: true });
});

async function belfry(role: keyof typeof users, ...args: readonly string[]) {
  const program = startBelfry([...args, '--config', path.join(folder, `${role}.yaml`)]);
  const { code } = await program.exit;
  return { code, stderr: program.stderr, stdout: program.stdout };
}

it('roles --drop by who may not drop them takes nothing away', async () => {
  const [{ user, tables } = { user: '', tables: [] as string[] }] = (
    await owner.query<{ user: string; tables: string[] }>(
      `select 'belfry_test_o_${suffix}' as user, array_agg(format('%I.%I', schemaname, tablename)) as tables
         from pg_tables where schemaname in ('belfry', 'public')`,
    )
  ).rows;
  // An owner as most are: of the tables, and no maker of roles.
  const alter = (to: string): string =>
    `alter schema belfry owner to ${to}; ${tables.map((table) => `alter table ${table} owner to ${to}`).join(';')}`;
  await owner.query(`create role ${user} login password 'x'; ${alter(user)}`);
  try {
    await writeFile(path.join(folder, 'owner.yaml'), socialConfig(withUser(database.url, user, 'x')));
    const program = startBelfry(['roles', '--drop', '--config', path.join(folder, 'owner.yaml')]);
    expect((await program.exit).code).toBe(1);
    expect(program.stderr).toMatch(/may not drop belfry_relay and belfry_reader.* Nothing was changed\.\n$/);
    expect((await belfry('relay', 'outbox', 'list')).code).toBe(0);
  } finally {
    await owner.query(`${alter('current_user')}; drop owned by ${user}; drop role ${user}`);
  }
});

describe('belfry_relay', () => {
  it('is told by doctor that its rights suffice', { timeout: 60_000 }, async () => {
    const { stdout } = await belfry('relay', 'doctor', '--json');
    const { checks } = JSON.parse(stdout) as { checks: { name: string; level: string; detail: string }[] };
    const find = (wanted: string) => checks.find(({ name }) => name === wanted);
    expect(find('rights')).toMatchObject({ level: 'ok' });
    // The owner's connection and its own at least, though it may not see what the other does.
    expect(Number(/^\d+/.exec(find('connections')?.detail ?? '')?.[0])).toBeGreaterThan(1);
    expect(find('transactions')?.detail).toContain('pg_read_all_stats');
  });

  it.each([
    [['status', '--json']],
    [['outbox', 'list']],
    [['explain', '1']],
    [['replay', '--dry-run']],
    [['replay']],
    [['replay', '--list']],
    [['dead-letter', 'list']],
    [['dead-letter', 'show', '901']],
    [['dead-letter', 'retry', '901']],
    [['dead-letter', 'discard', '902', '--reason', 'a test']],
    [['pause']],
    [['resume']],
  ])('may: belfry %j', { timeout: 60_000 }, async ([...args]) => {
    const wanted = args.map((arg) => (arg === '1' ? event : arg));
    expect(await belfry('relay', ...wanted)).toMatchObject({ code: 0, stderr: '' });
  });
});

describe('belfry_reader', () => {
  it.each([[['status', '--json']], [['replay', '--list']]])('may: belfry %j', { timeout: 60_000 }, async (args) => {
    expect(await belfry('reader', ...args)).toMatchObject({ code: 0, stderr: '' });
  });

  it.each([
    [['outbox', 'list']],
    [['explain', '1']],
    [['replay', '--dry-run']],
    [['replay']],
    [['dead-letter', 'list']],
    [['dead-letter', 'discard', '901']],
    [['pause']],
  ])('is told who may: belfry %j', { timeout: 60_000 }, async (args) => {
    const { code, stderr, stdout } = await belfry('reader', ...args);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(/^belfry: .*belfry_relay.*\n$/);
  });
});
