/** Databases that Belfry can't work with, as a person meets them: one line that says what to do, exit 1, nothing changed. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { quoteIdent } from '../../src/postgres/sql.js';
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

/** A config of the empty database with these keys; returns the file's name. */
function writeConfig(keys: Readonly<Record<string, unknown>>): string {
  const file = path.join(folder, `${Math.random()}.yaml`);
  writeFileSync(file, socialConfig(empty.url, keys));
  return file;
}

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

it('whatever else of the config the database does not have: all at once, each once with its place, exit 2', async () => {
  await empty.pool.query(`create function public.odd(bigint) returns boolean language sql as 'select $1 % 2 = 1'`);
  const table = 'public.likes';
  const hops = [{ from: 'nofrom', table: 'public.posts', match: 'id', take: 'notake' }];
  const file = writeConfig({
    people: { table: 'public.users', id: 'noid', enabled: 'noflag', active: 'nocolumn is null' },
    blocks: { table: 'public.blocks', from: 'noblocker', to: 'blocked_id', until: 'noend', when: 'nokind = 1' },
    mutes: { table: 'public.nomutes', from: 'a', to: 'b', when: 'true' },
    sources: [
      {
        name: 'a',
        type: 'like',
        table,
        key: ['user_id'],
        actor: 'user_id',
        recipient: { path: hops },
        when: 'odd(user_id)',
      },
      {
        ...{ name: 'b', type: 'like', table, key: ['nokey', 'user_id'], actor: 'noactor', recipient: 'noone' },
        ...{ object: { kind: 'post', id: 'noobject' }, visible: 'select 1 from public.nothing where u = :user' },
        ...{ channels: ['all', 'post:{nochannel}'], include: ['user_id', 'noinclude'], time: 'notime' },
      },
      {
        name: 'c',
        type: 'c',
        table,
        key: ['user_id'],
        recipient: { query: 'select nobody from posts where id = :noid' },
      },
      { name: 'd', type: 'd', table: 'public.notable', key: ['id'], time: 'at', when: 'true', recipient: 'id' },
      { name: 'e', type: 'e', table, key: ['user_id'], recipient: { list: 'nolist', at: '$[' }, when: 'selec' },
      { name: 'f', type: 'f', table, key: ['user_id'], recipient: { path: [{ ...hops[0], table: 'public.noposts' }] } },
    ],
    channels: { post: { read: 'select 1 from public.norooms', recheck: ['a'] } },
  });
  const program = startBelfry(['migrate', '--config', file]);
  expect(await program.exit, program.stderr).toMatchObject({ code: 2 });
  const [first, ...lines] = program.stderr.trimEnd().split('\n');
  expect(first).toBe(`belfry: ${file}:`);
  expect(lines.map((line) => line.trim()).sort()).toEqual(
    [
      'people.id: table public.users has no column noid',
      'people.enabled: table public.users has no column noflag',
      'people.active: column "nocolumn" does not exist',
      'blocks.from: table public.blocks has no column noblocker',
      'blocks.until: table public.blocks has no column noend',
      'blocks.when: column "nokind" does not exist',
      `mutes.table: there is no table public.nomutes in database ${empty.name}`,
      'sources[0] (a).recipient.path[0].from: table public.likes has no column nofrom',
      'sources[0] (a).recipient.path[0].take: table public.posts has no column notake',
      'sources[0] (a).when: function odd(bigint) does not exist (functions and types outside pg_catalog need their schema)',
      'sources[1] (b).key[0]: table public.likes has no column nokey',
      'sources[1] (b).actor: table public.likes has no column noactor',
      'sources[1] (b).object.id: table public.likes has no column noobject',
      'sources[1] (b).recipient: table public.likes has no column noone',
      'sources[1] (b).channels[1]: table public.likes has no column nochannel',
      'sources[1] (b).include[1]: table public.likes has no column noinclude',
      'sources[1] (b).time: table public.likes has no column notime',
      'sources[1] (b).visible: relation "public.nothing" does not exist',
      'sources[2] (c).recipient.query: table public.likes has no column noid',
      'sources[2] (c).recipient.query: column "nobody" does not exist',
      `sources[3] (d).table: there is no table public.notable in database ${empty.name}`,
      'sources[4] (e).recipient.list: table public.likes has no column nolist',
      'sources[4] (e).recipient.at: syntax error at end of jsonpath input',
      'sources[4] (e).when: column "selec" does not exist',
      'sources[5] (f).recipient.path[0].from: table public.likes has no column nofrom',
      'sources[5] (f).recipient.path[0].table: there is no table public.noposts',
      'channels.post.read: relation "public.norooms" does not exist',
    ].sort(),
  );
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
