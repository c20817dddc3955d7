/** From an empty database to a frame on a terminal and back, by commands alone. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { testBuild } from '../support/build.js';
import { startBelfry } from '../support/program.js';
import type { Program } from '../support/program.js';
import { createTestDatabase, withPort } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { startProxy } from '../support/proxy.js';
import { addPost, addUsers, follow, like, socialConfig, socialSql } from '../support/social.js';

// Every step is a process of its own, and the machine may be busy.
vi.setConfig({ testTimeout: 120_000 });

const folder = mkdtempSync(join(tmpdir(), 'belfry-life-'));
const config = join(folder, 'belfry.yaml');
let database: TestDatabase;
const running: Program[] = [];

beforeAll(async () => {
  database = await createTestDatabase({ template: 'empty', prepare: socialSql });
  writeFileSync(config, socialConfig(database.url, 'server: { host: 127.0.0.1, port: 0 }'));
});
afterAll(async () => {
  for (const program of running) await program.kill();
  await database.drop();
  rmSync(folder, { recursive: true });
});

function belfry(...args: readonly string[]): Program {
  const program = startBelfry(args, { cwd: folder });
  running.push(program);
  return program;
}

async function run(...args: readonly string[]): Promise<{ code: number | null; out: string; err: string }> {
  const program = belfry(...args);
  const { code } = await program.exit;
  return { code, out: program.stdout, err: program.stderr };
}

async function status(): Promise<Record<string, unknown>> {
  const { code, out } = await run('status', '--json');
  expect(code).toBe(0);
  return JSON.parse(out) as Record<string, unknown>;
}

/** Everything in the database that Belfry could have put there. */
async function traces(): Promise<unknown> {
  const { rows } = await database.pool.query(`
    select (select count(*)::int from pg_namespace where nspname = 'belfry') as schemas,
           (select count(*)::int from pg_trigger where tgname like 'belfry%') as triggers`);
  return rows[0];
}

describe('the life of an installation', () => {
  let ada: string;
  let bob: string;
  let post: string;

  it('begins with nothing: status says so and ends with 0', async () => {
    expect(await status()).toMatchObject({
      migrated: false,
      leader: null,
      paused: false,
      connections: null,
      triggers: { ok: false, installed: 0 },
    });
    const { code, out } = await run('status');
    expect(code).toBe(0);
    expect(out).toMatch(/run `belfry migrate`/);
    [ada = '', bob = ''] = await addUsers(database.pool, 'Ada', 'Bob');
    post = await addPost(database.pool, ada);
    await like(database.pool, bob, post);
  });

  it('starts only when migrated', async () => {
    const { code, err } = await run('start');
    expect(code).toBe(1);
    expect(err).toMatch(/^belfry: There is no schema belfry.*run `belfry migrate`\.\n$/);
  });

  it('a dry run changes nothing, and what it prints does the same', async () => {
    const before = await traces();
    const { code, out, err } = await run('migrate', '--dry-run');
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(await traces()).toEqual(before);
    const other = await createTestDatabase({ template: 'empty', prepare: socialSql });
    try {
      // As psql would: statement by statement is what a simple query with many statements comes to here.
      const client = await other.client();
      await client.query(out);
      const file = join(folder, 'other.yaml');
      writeFileSync(file, socialConfig(other.url));
      const after = await run('status', '--json', '--config', file);
      expect(JSON.parse(after.out)).toMatchObject({ migrated: true, triggers: { ok: true, missing: 0, problems: [] } });
      expect((await run('migrate', '--dry-run', '--config', file)).out).toMatch(
        /schema belfry: nothing to do[\s\S]*capture: nothing to do/,
      );
    } finally {
      await other.drop();
    }
  });

  it('migrate installs all of it when nobody reads what it says any more', async () => {
    const other = await createTestDatabase({ template: 'empty', prepare: socialSql });
    try {
      const file = join(folder, 'unread.yaml');
      writeFileSync(file, socialConfig(other.url));
      const migrate = belfry('migrate', '--config', file);
      migrate.child.stdout?.destroy();
      expect({ ...(await migrate.exit), err: migrate.stderr }).toEqual({ code: 0, signal: null, err: '' });
      expect(await run('migrate', '--config', file)).toEqual({
        code: 0,
        out: 'everything was there already\n',
        err: '',
      });
    } finally {
      await other.drop();
    }
  });

  it('migrate installs, counts what was there, and finds nothing to do again', async () => {
    const first = await run('migrate');
    expect(first).toMatchObject({ code: 0, err: '' });
    expect(first.out).toMatch(/migration applied: 0001_outbox[\s\S]*counted the rows[\s\S]*done/);
    expect(await run('migrate')).toEqual({ code: 0, out: 'everything was there already\n', err: '' });
    const { rows } = await database.pool.query<{ count: string }>(
      `select count from belfry.counter where source = 'post_like'`,
    );
    expect(rows).toEqual([{ count: '1' }]);
    expect(await status()).toMatchObject({
      migrated: true,
      leader: null,
      lag_events: 0,
      lag_seconds: 0,
      triggers: { ok: true, missing: 0 },
    });
  });

  it('the outbox shows what is written, and status how much is unread', async () => {
    await database.pool.query(`insert into public.comments (post_id, user_id, content) values ($1, $2, 'hi')`, [
      post,
      bob,
    ]);
    const { items } = JSON.parse((await run('outbox', 'list', '--json', '--user', ada)).out) as {
      items: Record<string, unknown>[];
    };
    expect(items).toHaveLength(1);
    expect(items[0]).toMatchObject({
      source: 'post_comment',
      type: 'comment',
      op: 'created',
      actor_id: bob,
      object: { kind: 'post', id: post },
    });
    expect(JSON.parse((await run('outbox', 'show', String(items[0]?.['id']), '--json')).out)).toEqual(items[0]);
    expect((await run('outbox', 'list', '--until', '2020-01-01')).out).toBe('there are none\n');
    const misspelt = await run('outbox', 'list', '--source', 'post_coment');
    expect(misspelt).toMatchObject({ code: 0, out: 'there are none\n' });
    expect(misspelt.err).toMatch(/^belfry: the config has no source post_coment; it has .*post_comment/);
    expect((await run('outbox', 'list', '--since', '1h', '--until', '2020-01-01')).code).toBe(2);
    expect(await run('outbox', 'show', '999')).toMatchObject({ code: 1, out: '' });
    const { lag_events, lag_seconds } = await status();
    expect(lag_events).toBe(1);
    expect(lag_seconds).toBeGreaterThan(0);
  });

  it('one is said as one', async () => {
    expect((await run('status')).out).toContain('unread       1 event, the oldest');
    // It asks first.
    expect((await run('start', '--from', 'now')).err).toMatch(/\(Skip 1 unread event, the oldest of/);
  });

  it('a mapping that does not fit the tables is told as a whole before anything changes', async () => {
    const file = join(folder, 'odd.yaml');
    writeFileSync(
      file,
      socialConfig(database.url)
        .replace('table: public.likes', 'table: public.nope')
        .replace('actor: follower_id', 'actor: nobody'),
    );
    const { code, err } = await run('migrate', '--config', file);
    expect(code).toBe(2);
    expect(err).toMatch(/sources\[0\].*public\.nope[\s\S]*sources\[2\].*nobody/);
  });

  it('a drifted trigger is told, and migrate repairs it', async () => {
    await database.pool.query('alter table public.likes disable trigger user');
    const { triggers } = (await status()) as {
      triggers: { ok: boolean; problems: { source: string; state: string }[] };
    };
    expect(triggers.ok).toBe(false);
    expect(new Set(triggers.problems.map(({ source, state }) => `${source} ${state}`))).toEqual(
      new Set(['post_like disabled']),
    );
    expect((await run('status')).out).toMatch(/post_like on "?public"?\."?likes"?: .*belfry migrate\n/);
    expect(await run('migrate')).toMatchObject({ code: 0 });
    expect(await status()).toMatchObject({ triggers: { ok: true } });
  });

  it('start runs, tail sees a frame, SIGTERM ends both well', async () => {
    const server = belfry('start');
    const [, port] = await server.waitFor(/"port":(\d+)[^\n]*"msg":"ready"/);
    for (const line of server.stdout.trim().split('\n')) expect(() => JSON.parse(line) as unknown).not.toThrow();
    const { out: token } = await run('token', '--sub', ada);
    const tail = belfry(
      'tail',
      '--token',
      token.trim(),
      '--url',
      `ws://127.0.0.1:${port}/ws`,
      '--channel',
      `post:${post}`,
    );
    await tail.waitFor(/"channel":"post:\d+".*"state"/);
    expect((await status())['leader']).toMatch(/:\d+:/);
    const [carl = ''] = await addUsers(database.pool, 'Carl');
    await like(database.pool, carl, post);
    await tail.waitFor(/"event":"notification".*Carl/);
    for (const line of tail.stdout.trim().split('\n')) expect(JSON.parse(line)).toBeTypeOf('object');

    tail.child.kill('SIGINT');
    expect(await tail.exit).toEqual({ code: 0, signal: null });
    server.child.kill('SIGTERM');
    expect(await server.exit).toEqual({ code: 0, signal: null });
    expect(server.stderr).toBe('');
    expect(await status()).toMatchObject({ leader: null, lag_events: 0 });
  });

  it('a replay tells one as one, and with --json in JSON that it stops', async () => {
    const replay = ['replay', '--source', 'post_comment'];
    const counted = ', 0 suppressed, 1 there already\n';
    expect((await run(...replay, '--dry-run')).out).toBe(`1 event: 0 notifications would be delivered${counted}`);
    expect((await run(...replay)).out).toBe(`1 event: 0 notifications delivered${counted}`);
    const { rows } = await database.pool.query<{ id: string }>('select belfry.replay() as id');
    const id = rows[0]?.id ?? '';
    const stopped = await run('replay', '--stop', id, '--json');
    expect({ ...stopped, out: JSON.parse(stopped.out) as unknown }).toEqual({ code: 0, out: { id }, err: '' });
  });

  it('tail ends with 1 and the code when the close is final, and reads a token from stdin', async () => {
    const server = belfry('start');
    const [, port] = await server.waitFor(/"port":(\d+)[^\n]*"msg":"ready"/);
    const url = `ws://127.0.0.1:${port}/ws`;
    const bad = await run('tail', '--token', 'nonsense', '--url', url);
    expect(bad.code).toBe(1);
    expect(bad.err).toMatch(/belfry: the server closed with 4401 [^\n]*\n$/);

    expect(await run('tail', '--token', '-', '--url', url)).toMatchObject({
      code: 2,
      err: expect.stringMatching(/^error: --token is empty: nothing came on stdin/) as string,
    });

    const { out: token } = await run('token', '--sub', bob);
    const unread = belfry('tail', '--token', token.trim(), '--url', url);
    await unread.waitFor(/"synced"/);
    unread.child.stdout?.destroy();
    const [cleo = ''] = await addUsers(database.pool, 'Cleo');
    await follow(database.pool, cleo, bob);
    expect(await unread.exit).toEqual({ code: 0, signal: null });
    const main = join(testBuild, 'cli', 'main.js');
    const tail = spawn(process.execPath, [main, 'tail', '--token', '-', '--url', url], { cwd: folder });
    const written = { out: '', err: '' };
    const synced = new Promise<void>((resolve) => {
      tail.stdout.setEncoding('utf8').on('data', (text: string) => {
        written.out += text;
        if (written.out.includes('"synced"')) resolve();
      });
    });
    tail.stderr.setEncoding('utf8').on('data', (text: string) => (written.err += text));
    tail.stdin.end(token);
    await synced;
    await database.pool.query(`select belfry.revoke($1)`, [bob]);
    const [code] = (await once(tail, 'close')) as [number | null];
    expect(code).toBe(1);
    expect(written.err).toMatch(/4403 \(revoked\)/);
    server.child.kill('SIGTERM');
    await server.exit;
  });

  it('a second Ctrl-C ends at once what cannot stop', async () => {
    const { hostname, port } = new URL(database.url);
    const proxy = await startProxy({ host: hostname, port: Number(port) });
    try {
      const file = join(folder, 'proxied.yaml');
      writeFileSync(file, socialConfig(withPort(database.url, proxy.port), 'server: { host: 127.0.0.1, port: 0 }'));
      const server = belfry('start', '--config', file);
      await server.waitFor(/"msg":"ready"/);
      // A database that does not answer keeps the relay from giving its lease back.
      proxy.pause();
      server.child.kill('SIGINT');
      await server.waitFor(/"msg":"stopping"/);
      const beganMs = performance.now();
      server.child.kill('SIGINT');
      expect(await server.exit).toEqual({ code: 1, signal: null });
      expect(performance.now() - beganMs).toBeLessThan(10_000);
      expect(server.stdout).not.toMatch(/"msg":"stopped"/);
    } finally {
      await proxy.close();
    }
  });

  it('uninstall asks, which it cannot here; with --yes it leaves nothing, or the data', async () => {
    const asked = await run('uninstall');
    expect(asked.code).toBe(2);
    expect(asked.err).toMatch(/--yes/);
    expect(await run('uninstall', '--yes', '--keep-data')).toMatchObject({ code: 0 });
    expect(await traces()).toEqual({ schemas: 1, triggers: 0 });
    const { code, out } = await run('uninstall', '--yes');
    expect(code).toBe(0);
    expect(out).toMatch(/removed schema belfry/);
    expect(await traces()).toEqual({ schemas: 0, triggers: 0 });
    expect(await status()).toMatchObject({ migrated: false });
  });
});
