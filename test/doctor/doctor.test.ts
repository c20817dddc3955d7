/** What the doctor finds: on a sound installation nothing, and for each thing that can be wrong its check, with a cure that works. */

import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { installCapture } from '../../src/capture/install.js';
import { parseConfig } from '../../src/config.js';
import type { Config } from '../../src/config.js';
import { diagnose } from '../../src/doctor/doctor.js';
import type { Check } from '../../src/doctor/doctor.js';
import { ensurePartitions } from '../../src/outbox/partitions.js';
import { startPooler } from '../outbox/pooler.js';
import { createTestDatabase, withDatabase, withPort, withUser } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { startBelfry } from '../support/program.js';

vi.setConfig({ testTimeout: 120_000 });

const secret = 'c94b2f0e7d518a63b1f4c2a9d07e6b35';
const tables = `
create table users (id bigint primary key, name text, active boolean);
create table posts (id bigint primary key, author bigint);
create table likes (id bigint primary key, user_id bigint, post_id bigint, created_at timestamptz default now(), kind text);
create table parts (id bigint, user_id bigint, day int) partition by range (day);
create table parts_1 partition of parts for values from (1) to (2);
create table blocks (a bigint, b bigint, ends bigint);
create index on parts (id);
create index on blocks (a);
create index on blocks (b);
`;

let database: TestDatabase;
let sound: Config;
const folder = mkdtempSync(join(tmpdir(), 'belfry-doctor-'));

function configText(changes: { readonly auth?: string; readonly more?: string; readonly url?: string } = {}): string {
  return `
version: 1
database: { url: "${changes.url ?? database.url}" }
auth: ${changes.auth ?? `{ secret: ${secret}, issuer: null, audience: app }`}
people: { table: public.users, name: name, active: "active" }
blocks: { table: public.blocks, from: a, to: b }
sources:
  - name: post_like
    type: like
    table: public.likes
    key: [id]
    actor: user_id
    object: { kind: post, id: post_id }
    recipient: { path: [{ from: post_id, table: public.posts, match: id, take: author }] }
    time: created_at
  - { name: part, type: part, table: public.parts, key: [id], actor: user_id, recipient: user_id }
${changes.more ?? ''}`;
}

const config = (changes: Parameters<typeof configText>[0] = {}): Config =>
  parseConfig(configText(changes), {}, { path: 'test.yaml' });

beforeAll(async () => {
  database = await createTestDatabase({ prepare: tables });
  sound = config();
  const client = await database.client();
  await installCapture(client, sound);
  await ensurePartitions(client, { today: true });
});

afterAll(async () => {
  rmSync(folder, { recursive: true });
  await database.drop();
});

async function levels(of: Config = sound): Promise<Record<string, string>> {
  const { checks } = await diagnose(of.database.url, of);
  return Object.fromEntries(checks.map(({ name, level }) => [name, level]));
}

async function check(name: string, of: Config = sound): Promise<Check> {
  const { checks } = await diagnose(of.database.url, of);
  const found = checks.find((one) => one.name === name);
  if (found === undefined) throw new Error(`no check ${name} in ${JSON.stringify(checks)}`);
  if (found.level === 'ok') expect(found.cure).toBeNull();
  else expect(found.cure).toMatch(/\w/);
  return found;
}

describe('a sound installation', () => {
  it('has nothing that fails, and warns only of what the test is (no relay, other tests beside it)', async () => {
    const { ok, checks } = await diagnose(sound.database.url, sound);
    expect(checks.filter(({ level }) => level === 'fail')).toEqual([]);
    expect(ok).toBe(true);
    const warned = checks.filter(({ level }) => level !== 'ok').map(({ name }) => name);
    expect(warned.filter((name) => !['relay', 'transactions', 'connections', 'notify_queue'].includes(name))).toEqual(
      [],
    );
    expect(checks.map(({ name }) => name)).toEqual(
      expect.arrayContaining([
        ...[
          'config',
          'database',
          'pooler',
          'version',
          'primary',
          'connections',
          'notify_queue',
          'wakeup',
          'transactions',
          'clock',
        ],
        ...[
          'schema',
          'mapping',
          'triggers',
          'partitions',
          'columns',
          'rights',
          'indexes',
          'relay',
          'dead_letters',
          'lost_events',
        ],
        ...['outbox_partitions', 'retention', 'listening', 'token_key', 'token_claims'],
      ]),
    );
  });
});

describe('the mapping', () => {
  // Each is undone by migrate or by hand; the last one of the block sees a sound installation again.
  const repair = async (): Promise<unknown> => installCapture(await database.client(), sound);

  it('a trigger that was dropped, and one that was switched off', async () => {
    await database.pool.query('drop trigger belfry_post_like_insert on likes');
    expect(await check('triggers')).toMatchObject({
      level: 'fail',
      detail: expect.stringContaining('post_like on "public"."likes"'),
    });
    await repair();
    await database.pool.query('alter table likes disable trigger belfry_post_like_delete');
    expect(await check('triggers')).toMatchObject({ level: 'fail', detail: expect.stringContaining('switched off') });
    await repair();
  });

  it('a partition that was made later', async () => {
    await database.pool.query('create table parts_2 partition of parts for values from (2) to (3)');
    expect(await check('partitions')).toMatchObject({ level: 'warn', detail: expect.stringContaining('parts_2') });
    expect((await levels())['triggers']).toBe('ok');
    await repair();
    expect((await levels())['partitions']).toBe('ok');
  });

  it('a column that changed its type, and one that is gone', async () => {
    await database.pool.query('alter table likes alter column post_id type numeric');
    expect(await check('columns')).toMatchObject({
      level: 'warn',
      detail: expect.stringContaining('post_id was bigint'),
    });
    await database.pool.query('alter table likes rename column post_id to article_id');
    expect(await check('columns')).toMatchObject({ level: 'fail', detail: expect.stringContaining('post_id') });
    expect(await check('mapping')).toMatchObject({
      level: 'fail',
      detail: expect.stringContaining('no column post_id'),
    });
    await database.pool.query(
      'alter table likes rename column article_id to post_id; alter table likes alter column post_id type bigint',
    );
    await repair();
  });

  it('what the way to the recipient, the SQL and the times name', async () => {
    const wrong = config({
      more: `
  - { name: x1, type: t, table: public.likes, key: [id], recipient: { path: [{ from: post_id, table: public.nowhere, match: id, take: author }] } }
  - { name: x2, type: t, table: public.likes, key: [id], recipient: { path: [{ from: post_id, table: public.posts, match: id, take: owner }] } }`,
    });
    const { detail } = await check('mapping', wrong);
    expect(detail).toContain('sources[2] (x1).recipient.path[0].table: there is no table public.nowhere');
    expect(detail).toContain('sources[3] (x2).recipient.path[0].take: table public.posts has no column owner');
    const sql = config({
      more: `
  - { name: x3, type: t, table: public.likes, key: [id], recipient: { query: "select nobody from public.posts where id = :post_id" } }
  - { name: x4, type: t, table: public.likes, key: [id], recipient: user_id, object: { kind: post, id: post_id }, visible: "select 1 from public.nothing where u = :user" }
  - { name: x5, type: t, table: public.likes, key: [id], recipient: { list: kind, at: "$[" } }
  - { name: x6, type: t, table: public.likes, key: [id], recipient: user_id, time: { column: created_at, zone: Atlantis/Capital } }
channels: { room: { read: "select 1 from public.rooms where id = :id" } }`,
    });
    const told = (await check('mapping', sql)).detail;
    for (const part of ['"nobody"', '"public.nothing"', '.recipient.at', 'Atlantis/Capital', 'channels.room.read'])
      expect(told).toContain(part);
  });

  it('ids that can never be those of the rows they are to lead to', async () => {
    await database.pool.query(
      'create table members (id uuid primary key, boss uuid); create table badges (id bigint primary key, member uuid)',
    );
    const wrong = config({
      more: `
  - { name: x1, type: t, table: public.likes, key: [id], recipient: { path: [{ from: post_id, table: public.members, match: id, take: boss }] } }
  - { name: x2, type: t, table: public.badges, key: [id], actor: member, recipient: { path: [{ from: id, table: public.likes, match: post_id, take: user_id }, { table: public.badges, match: member, take: id }] } }
  - { name: x3, type: t, table: public.badges, key: [id], actor: id, recipient: { path: [{ from: member, table: public.members, match: id, take: boss }] } }`,
    });
    const told = (await check('mapping', wrong)).detail;
    for (const part of [
      '(x1).recipient.path[0].match: public.likes.post_id is bigint and public.members.id uuid: they are never equal',
      '(x1).recipient.path[0].take: public.members.boss is uuid and public.users.id bigint',
      '(x2).actor: public.badges.member is uuid and public.users.id bigint',
      '(x2).recipient.path[1].match: public.likes.user_id is bigint and public.badges.member uuid',
      '(x3).recipient.path[0].take',
    ])
      expect(told).toContain(part);
    expect(told).not.toContain('(x2).recipient.path[0]');
    expect(told).not.toContain('(x3).actor');
    expect(told).not.toContain('(x3).recipient.path[0].match');
  });

  it('conditions that do not run, flags that are none and times that are none', async () => {
    const text = configText({
      more: `
  - { name: x1, type: t, table: public.likes, key: [id], recipient: user_id, when: "kind > 5" }
mutes: { table: public.blocks, from: a, to: b, until: ends, when: "a is on" }
threadMutes: { table: public.blocks, user: a, kind: post, id: b, until: ends }`,
    }).replace('name: name,', 'name: name, enabled: name,');
    const { level, detail } = await check('mapping', parseConfig(text, {}, { path: 'test.yaml' }));
    expect(level).toBe('fail');
    for (const path of ['sources[2] (x1).when', 'mutes.when', 'mutes.until', 'threadMutes.until', 'people.enabled'])
      expect(detail).toContain(`${path}: `);
  });

  it('a missing index, with the statement that makes it', async () => {
    await database.pool.query('alter table posts drop constraint posts_pkey; drop index blocks_b_idx');
    const { level, detail, cure } = await check('indexes');
    expect(level).toBe('warn');
    expect(detail).toContain('public.posts by id');
    expect(detail).toContain('public.blocks by b');
    const statements = (cure ?? '').match(/create index concurrently[^;]+/g) ?? [];
    expect(statements).toHaveLength(2);
    for (const statement of statements) await database.pool.query(statement);
    expect((await levels())['indexes']).toBe('ok');
  });

  it('is sound again', async () => {
    const now = await levels();
    for (const name of ['mapping', 'triggers', 'partitions', 'columns', 'indexes'])
      expect([name, now[name]]).toEqual([name, 'ok']);
  });

  it('a user without rights', async () => {
    const name = `belfry_test_${database.name.slice(-12)}`;
    await database.pool.query(`create role ${name} login password 'x'`);
    try {
      const url = withUser(database.url, name, 'x');
      const { detail, level } = await check('rights', config({ url }));
      expect(level).toBe('fail');
      expect(detail).toContain('may not read public.posts');
      expect(detail).toContain('may not create triggers on public.likes (owner ');
    } finally {
      await database.pool.query(`drop role ${name}`);
    }
  });
});

describe('the state of schema belfry', () => {
  it('dead letters, lost events, a pause', async () => {
    await database.pool.query(`
      insert into belfry.dead_event (event_id, source, op, event_at, error) values (1, 'post_like', 'created', now(), 'x');
      insert into belfry.lost (source, at, sqlstate) values ('post_like', now() - interval '1 hour', '53100');
      update belfry.relay set paused = true`);
    expect(await check('dead_letters')).toMatchObject({
      level: 'fail',
      cure: expect.stringContaining('belfry dead-letter'),
    });
    expect(await check('lost_events')).toMatchObject({ level: 'fail', detail: expect.stringContaining('53100') });
    expect(await check('relay')).toMatchObject({ level: 'warn', detail: expect.stringContaining('paused') });
    await database.pool.query(
      'delete from belfry.dead_event; delete from belfry.lost; update belfry.relay set paused = false',
    );
    expect(await levels()).toMatchObject({ dead_letters: 'ok', lost_events: 'ok' });
  });

  it('days of the outbox: old ones, and none for tomorrow', async () => {
    await database.pool.query(`
      create table belfry.outbox_20200101 (like belfry.outbox including all excluding identity);
      alter table belfry.outbox attach partition belfry.outbox_20200101 for values from ('2020-01-01 00:00+00') to ('2020-01-02 00:00+00')`);
    expect(await check('retention')).toMatchObject({
      level: 'warn',
      detail: expect.stringContaining('outbox_20200101'),
    });
    await database.pool.query(`drop table belfry.outbox_20200101;
      do $$ declare t text; begin
        for t in select inhrelid::regclass::text from pg_inherits
                  where inhparent = 'belfry.outbox'::regclass and inhrelid <> 'belfry.outbox_default'::regclass
        loop execute 'drop table ' || t; end loop; end $$`);
    expect(await check('outbox_partitions')).toMatchObject({ level: 'warn' });
    const client = await database.client();
    await ensurePartitions(client, { today: true });
    expect(await levels()).toMatchObject({ outbox_partitions: 'ok', retention: 'ok' });
  });

  it('no schema at all', async () => {
    const empty = await createTestDatabase({ template: 'empty', prepare: tables });
    try {
      expect(await levels(config({ url: empty.url }))).toMatchObject({
        schema: 'fail',
        triggers: 'fail',
        mapping: 'ok',
        indexes: 'ok',
      });
      const { ok, checks } = await diagnose(empty.url, null);
      expect(ok).toBe(false);
      expect(checks.find(({ name }) => name === 'config')).toMatchObject({ level: 'warn' });
    } finally {
      await empty.drop();
    }
  });
});

describe('the server', () => {
  it('a session that sits in a transaction, named by its pid', async () => {
    const idle = await database.client();
    await idle.query('begin');
    const { rows } = await idle.query<{ pid: number }>('select pg_backend_pid() as pid');
    const limits = { transactionS: 3600, idleTransactionS: 0 };
    const { checks } = await diagnose(database.url, sound, limits);
    expect(checks.find(({ name }) => name === 'transactions')).toMatchObject({
      level: 'warn',
      detail: expect.stringContaining(`pid ${String(rows[0]?.pid)} belfry-test`),
    });
    await idle.query('rollback');
  });

  it('a pooler in between', async () => {
    const pooler = await startPooler(database.url, 4);
    try {
      const pooled = withPort(database.url, pooler.port);
      const { checks } = await diagnose(pooled, config({ url: pooled }));
      const by = Object.fromEntries(checks.map((one) => [one.name, one]));
      expect(by['pooler']).toMatchObject({ level: 'warn', cure: expect.stringContaining('listenUrl') });
      expect(by['listening']).toMatchObject({ level: 'fail' });
    } finally {
      await pooler.close();
    }
  });
});

describe('what start needs besides', () => {
  const pem = (name: string): string => fileURLToPath(new URL(`../support/tls/${name}`, import.meta.url));
  const tls = (cert: string, key: string): string => `server: { tls: { cert: "${cert}", key: "${key}" } }`;
  const handlers = join(folder, 'handlers.mjs');
  writeFileSync(handlers, 'export default { typing: () => null };');

  it.each([
    ['no Redis', 'broker: redis://127.0.0.1:1', 'broker', 'Redis could not be reached'],
    ['no NATS', 'broker: nats://127.0.0.1:1', 'broker', 'NATS could not be reached'],
    ['no certificate', tls('/nowhere/cert.pem', pem('key.pem')), 'tls', '/nowhere/cert.pem'],
    ['a key that is not its own', tls(pem('cert.pem'), pem('renewed-key.pem')), 'tls', 'key values mismatch'],
    ['no module of handlers', 'extensions: /nowhere/handlers.mjs', 'extensions', '/nowhere/handlers.mjs'],
  ])('%s', async (_, more, name, detail) => {
    expect(await check(name, config({ more }))).toMatchObject({
      level: 'fail',
      detail: expect.stringContaining(detail),
    });
  });

  it('a listenUrl of another database', async () => {
    const listenUrl = withDatabase(database.url, 'postgres');
    const two = { ...sound, database: { ...sound.database, listenUrl } };
    expect(await check('one_database', two)).toMatchObject({
      level: 'fail',
      detail: expect.stringContaining('database.listenUrl to postgres'),
    });
  });

  it('is all there', async () => {
    const more = `${tls(pem('cert.pem'), pem('key.pem'))}\nextensions: ${handlers}`;
    expect(await levels(config({ more }))).toMatchObject({ tls: 'ok', extensions: 'ok' });
    const again = { ...sound, database: { ...sound.database, listenUrl: `${database.url}?application_name=x` } };
    expect(await levels(again)).toMatchObject({ one_database: 'ok' });
  });
});

describe('tokens', () => {
  it.each([
    ['a short secret', '{ secret: short, issuer: null, audience: null }', 'token_key', 'fail'],
    ['one letter again and again', `{ secret: ${'a'.repeat(40)}, issuer: null, audience: null }`, 'token_key', 'fail'],
    [
      'too short for its algorithm',
      `{ secret: ${secret}, algorithms: [HS512], issuer: null, audience: null }`,
      'token_key',
      'warn',
    ],
    [
      'an example',
      `{ secret: your-super-secret-key-change-me-please, issuer: null, audience: null }`,
      'token_key',
      'warn',
    ],
    ['claims that nobody decided on', `{ secret: ${secret} }`, 'token_claims', 'warn'],
    ['tokens in URLs', `{ secret: ${secret}, issuer: null, audience: null, queryToken: true }`, 'query_tokens', 'warn'],
    ['keys over plain http', `{ jwksUri: "http://192.0.2.1/keys", issuer: null, audience: null }`, 'token_key', 'fail'],
    ['keys that nobody serves', `{ jwksUri: "http://127.0.0.1:1/keys", issuer: null, audience: null }`, 'jwks', 'fail'],
  ])('%s', async (_, auth, name, level) => {
    expect(await check(name, config({ auth }))).toMatchObject({ level });
  });

  it('an RSA key that is too short', async () => {
    const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 1024 });
    const file = join(folder, 'short.pem');
    writeFileSync(file, publicKey.export({ type: 'spki', format: 'pem' }));
    const auth = `{ publicKey: "${file}", issuer: null, audience: null }`;
    expect(await check('token_key', config({ auth }))).toMatchObject({
      level: 'fail',
      detail: 'the RSA key has 1024 bits',
    });
  });

  describe('from a server of keys', () => {
    let server: Server;
    let body = '{"keys":[]}';
    beforeAll(async () => {
      server = createServer((_, answer) => answer.end(body));
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    });
    afterAll(() => new Promise((resolve) => server.close(resolve)));
    afterEach(() => {
      body = '{"keys":[]}';
    });

    it('with and without keys', async () => {
      const auth = `{ jwksUri: "http://127.0.0.1:${String((server.address() as AddressInfo).port)}/keys", issuer: null, audience: null }`;
      expect(await check('jwks', config({ auth }))).toMatchObject({
        level: 'fail',
        detail: expect.stringContaining('holds no keys'),
      });
      body = '{"keys":[{"kty":"RSA"}]}';
      expect(await check('jwks', config({ auth }))).toMatchObject({ level: 'ok' });
      body = 'nonsense';
      expect(await check('jwks', config({ auth }))).toMatchObject({ level: 'fail' });
    });
  });
});

describe('the command', () => {
  const run = async (file: string, ...args: string[]): Promise<{ code: number | null; out: string; err: string }> => {
    const program = startBelfry(['doctor', '--config', file, ...args], { cwd: folder });
    const { code } = await program.exit;
    return { code, out: program.stdout, err: program.stderr };
  };

  it('ends with 0 where nothing fails', async () => {
    const file = join(folder, 'sound.yaml');
    writeFileSync(file, configText());
    const { code, out, err } = await run(file, '--json');
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(JSON.parse(out)).toMatchObject({ ok: true });
  });

  it('ends with 1 where start would not', async () => {
    const file = join(folder, 'besides.yaml');
    writeFileSync(file, configText({ more: 'broker: redis://127.0.0.1:1\nextensions: ./gone.mjs' }));
    const { code, out, err } = await run(file, '--json');
    expect({ code, err }).toEqual({
      code: 1,
      err: expect.stringMatching(/^belfry: 2 of \d+ checks fail: broker, extensions\n$/),
    });
    expect(JSON.parse(out)).toMatchObject({ ok: false });
  });

  it('without a database still says what there is to say, and ends with 1', async () => {
    const file = join(folder, 'nowhere.yaml');
    writeFileSync(
      file,
      configText({
        url: 'postgres://nobody@127.0.0.1:1/none',
        auth: `{ secret: short, issuer: null, audience: null }`,
      }),
    );
    const { code, out, err } = await run(file, '--json');
    expect(code).toBe(1);
    const diagnosis = JSON.parse(out) as { ok: boolean; checks: Check[] };
    expect(diagnosis.ok).toBe(false);
    expect(diagnosis.checks.filter(({ level }) => level === 'fail').map(({ name }) => name)).toEqual([
      'database',
      'token_key',
    ]);
    expect(diagnosis.checks.find(({ name }) => name === 'database')).toMatchObject({
      detail: 'Nothing listens at 127.0.0.1:1',
      cure: 'start Postgres, or check DATABASE_URL.',
    });
    expect(err).toBe('belfry: 2 of 4 checks fail: database, token_key\n');
    expect((await run(file)).out).toMatch(/^fail {2}database: Nothing listens at 127\.0\.0\.1:1$/m);
  });

  it('with a config that is none ends with 2', async () => {
    const file = join(folder, 'broken.yaml');
    writeFileSync(file, 'version: 2');
    expect(await run(file, '--json')).toMatchObject({ code: 2, out: '' });
  });
});
