/** Databases that Belfry can't work with, as a person meets them: one line that says what to do, exit 1, nothing changed. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { quoteIdent } from '../../src/sql.js';
import { startPooler } from '../outbox/pooler.js';
import { startBelfry } from '../support/program.js';
import { asksForPasswords, createTestDatabase, withDatabase, withPort, withUser } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { socialConfig, socialSql } from '../support/social.js';

// Every step is a process of its own, and the machine may be busy.
vi.setConfig({ testTimeout: 120_000 });

const folder = mkdtempSync(path.join(tmpdir(), 'belfry-refused-'));
/** Roles belong to the server, which other tests use too. */
const stranger = `belfry_test_stranger_${process.pid}`;
let empty: TestDatabase;
let migrated: TestDatabase;

beforeAll(async () => {
  [empty, migrated] = await Promise.all([
    createTestDatabase({ template: 'empty', prepare: socialSql }),
    createTestDatabase({ prepare: socialSql }),
  ]);
  await empty.pool.query(`
    create role ${stranger} login password 'pass-of-a-stranger';
    grant create on database ${quoteIdent(empty.name)} to ${stranger};
    grant select on all tables in schema public to ${stranger}`);
});
afterAll(async () => {
  await empty.pool.query(`drop owned by ${stranger} cascade; drop role ${stranger}`);
  await Promise.all([empty.drop(), migrated.drop()]);
  rmSync(folder, { recursive: true });
});

async function refused(command: string, url: string): Promise<string> {
  const file = path.join(folder, `${Math.random()}.yaml`);
  writeFileSync(file, socialConfig(url));
  const program = startBelfry([command, '--config', file]);
  const { code } = await program.exit;
  expect({ code, lines: program.stderr.split('\n').length - 1 }, program.stdout + program.stderr).toEqual({
    code: 1,
    lines: 1,
  });
  return program.stderr;
}

it('a wrong password, for every command that needs the database (skipped where the server takes any)', async ({
  skip,
}) => {
  if (!(await asksForPasswords(empty.url))) skip();
  const url = withUser(empty.url, 'postgres', 'not-the-password');
  // Side by side, since each is a process.
  const answers = await Promise.all(['migrate', 'start', 'status'].map((command) => refused(command, url)));
  for (const answer of answers) {
    expect(answer).toMatch(/^belfry: Wrong password for user postgres at 127\.0\.0\.1:\d+: check DATABASE_URL\.\n$/);
    expect(answer).not.toContain('not-the-password');
  }
});

it('no such database', async () => {
  expect(await refused('migrate', withDatabase(empty.url, 'nowhere'))).toMatch(
    /^belfry: There is no database nowhere at .*: create it, or check DATABASE_URL\.\n$/,
  );
});

it('tables of somebody else: told before a schema is made that would belong to the wrong user', async () => {
  expect(await refused('migrate', withUser(empty.url, stranger, 'pass-of-a-stranger'))).toMatch(
    /may not create triggers on .*likes.*owner postgres.*run belfry migrate as the owner/,
  );
  const { rows } = await empty.pool.query(`select to_regnamespace('belfry') as schema`);
  expect(rows).toEqual([{ schema: null }]);
});

it.each([[['migrate']], [['migrate', '--dry-run']]])(
  'a condition that is no SQL, exit 2 before a schema is made: %j',
  async (args) => {
    const file = path.join(folder, 'condition.yaml');
    writeFileSync(file, socialConfig(empty.url).replace('when: deleted_at is null', 'when: nope is null'));
    const program = startBelfry([...args, '--config', file]);
    expect({ ...(await program.exit), out: program.stdout }, program.stderr).toMatchObject({ code: 2, out: '' });
    expect(program.stderr).toMatch(/\.when: column "nope" does not exist/);
    const { rows } = await empty.pool.query(`select to_regnamespace('belfry') as schema`);
    expect(rows).toEqual([{ schema: null }]);
  },
);

it('columns that are of no use where the config names them, exit 2 before a schema is made, all at once', async () => {
  await empty.pool.query(`
    alter table public.users add column wants smallint;
    alter table public.blocks add column ends text, add column kind text`);
  const file = path.join(folder, 'types.yaml');
  const people = { table: 'public.users', name: 'full_name', enabled: 'wants' };
  const blocks = { table: 'public.blocks', from: 'blocker_id', to: 'blocked_id', until: 'ends', when: 'kind = 5' };
  writeFileSync(file, socialConfig(empty.url, { people, blocks }));
  const program = startBelfry(['migrate', '--config', file]);
  expect(await program.exit, program.stderr).toMatchObject({ code: 2 });
  expect(program.stderr).toMatch(/people\.enabled: .* boolean, not type smallint/);
  expect(program.stderr).toMatch(/blocks\.until: operator does not exist: text > timestamp/);
  expect(program.stderr).toMatch(/blocks\.when: operator does not exist: text = integer/);
  const { rows } = await empty.pool.query(`select to_regnamespace('belfry') as schema`);
  expect(rows).toEqual([{ schema: null }]);
});

describe('database.url and database.listenUrl', () => {
  const write = (url: string, listenUrl: string): string => {
    const file = path.join(folder, `${Math.random()}.yaml`);
    writeFileSync(file, socialConfig(url, { database: { url, listenUrl } }));
    return file;
  };

  it.each([[['uninstall', '--yes']], [['migrate']], [['start']], [['replay']], [['dead-letter', 'retry', '--all']]])(
    'of two databases, as with another DATABASE_URL, exit 2 before anything is changed: belfry %j',
    async (args) => {
      const file = write(withDatabase(empty.url, 'nowhere'), migrated.url);
      const program = startBelfry([...args, '--config', file], { env: { DATABASE_URL: empty.url } });
      expect(await program.exit, program.stderr).toMatchObject({ code: 2 });
      expect(program.stderr).toMatch(
        new RegExp(
          `^belfry: database\\.url leads to database ${empty.name}, .*listenUrl to ${migrated.name}: .*DATABASE_URL.*\n$`,
        ),
      );
      const { rows } = await migrated.pool.query(
        `select (select count(*)::int from belfry.relay) as schema, (select count(*)::int from pg_trigger where tgname like 'belfry%') as triggers`,
      );
      expect(rows).toEqual([{ schema: 1, triggers: 0 }]);
    },
  );

  it('of one, the first through a transaction-mode pooler: they work', async () => {
    const pooler = await startPooler(migrated.url, 4);
    try {
      const program = startBelfry([
        'uninstall',
        '--keep-data',
        '--yes',
        '--config',
        write(withPort(migrated.url, pooler.port), migrated.url),
      ]);
      expect(await program.exit, program.stderr).toMatchObject({ code: 0 });
    } finally {
      await pooler.close();
    }
  });
});

it('a transaction-mode pooler: start says where LISTEN has to go', async () => {
  const pooler = await startPooler(migrated.url, 4);
  try {
    expect(await refused('start', withPort(migrated.url, pooler.port))).toMatch(/pooler.*database\.listenUrl/);
  } finally {
    await pooler.close();
  }
});
