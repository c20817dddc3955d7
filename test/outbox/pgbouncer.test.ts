/**
 * PgBouncer in transaction mode for the queries, a direct connection for the rest: everything works, nothing of Belfry's sessions is left
 * behind in the application's, and without the direct connection every program says so.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import jwt from 'jsonwebtoken';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { WebSocket } from 'ws';
import { startApp } from '../../src/app.js';
import { parseConfig } from '../../src/config.js';
import { createLogger } from '../../src/log.js';
import { connect } from '../../src/postgres/connect.js';
import { assertOwnSession } from '../../src/schema/session.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { startBelfry } from '../support/program.js';
import { addPost, addUsers, like, socialConfig, socialSql, testSecret } from '../support/social.js';
import { hasPgBouncer, startPgBouncer } from './pgbouncer.js';
import type { PgBouncer } from './pgbouncer.js';

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const folder = mkdtempSync(path.join(tmpdir(), 'belfry-pooled-'));
let database: TestDatabase;
let bouncer: PgBouncer;
afterAll(() => rmSync(folder, { recursive: true }));

async function belfry(
  args: string[],
  config: string,
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const file = path.join(folder, 'belfry.yaml');
  writeFileSync(file, config);
  const program = startBelfry([...args, '--config', file]);
  const { code } = await program.exit;
  return { code, stdout: program.stdout, stderr: program.stderr };
}

/** As a person's page does, with all that asks the database. */
async function visit(port: number, userId: string, post: string): Promise<{ liked: Promise<unknown>; close(): void }> {
  const token = jwt.sign({ sub: userId }, testSecret, { expiresIn: '1h' });
  const socket = new WebSocket(`ws://127.0.0.1:${String(port)}/ws`);
  const frames: Record<string, unknown>[] = [];
  const watchers = new Set<() => void>();
  socket.on('message', (data: Buffer) => {
    frames.push(JSON.parse(data.toString()) as Record<string, unknown>);
    for (const watcher of watchers) watcher();
  });
  const until = (find: (frame: Record<string, unknown>) => boolean): Promise<Record<string, unknown>> =>
    new Promise((resolve) => {
      const look = (): void => {
        const found = frames.find(find);
        if (found === undefined) return;
        watchers.delete(look);
        resolve(found);
      };
      watchers.add(look);
      look();
    });
  await new Promise((resolve) => socket.once('open', resolve));
  socket.send(JSON.stringify({ id: 1, op: 'auth', token }));
  await until(({ event }) => event === 'synced');
  socket.send(JSON.stringify({ id: 2, op: 'subscribe', channel: `post:${post}` }));
  socket.send(JSON.stringify({ id: 3, op: 'presence', users: [userId] }));
  socket.send(JSON.stringify({ id: 4, op: 'seen', through: 0 }));
  const answers = await Promise.all([2, 3, 4].map((id) => until((frame) => frame['id'] === id)));
  expect(answers.filter((answer) => !('ok' in answer))).toEqual([]);
  const listed = await fetch(`http://127.0.0.1:${String(port)}/api/notifications`, {
    headers: { authorization: `Bearer ${token}` },
  });
  expect(listed.status).toBe(200);
  return { liked: until(({ event }) => event === 'notification'), close: () => socket.terminate() };
}

/** All server connections, as an application that asks for nothing special gets them. */
async function expectUntouched(url: string, size: number): Promise<void> {
  const clients: pg.Client[] = [];
  try {
    for (let i = 0; i < size; i += 1) {
      const client = new pg.Client({ connectionString: url });
      client.on('error', () => undefined);
      await client.connect();
      clients.push(client);
      await client.query('begin');
      const { rows } = await client.query(`
        select current_setting('lock_timeout') as lock_timeout, current_setting('statement_timeout') as statement_timeout,
               current_setting('plan_cache_mode') as plans, current_setting('enable_seqscan') as seqscan,
               current_setting('search_path') as search_path,
               (select count(*)::int from pg_prepared_statements) as prepared,
               (select count(*)::int from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()) as locks`);
      const plain = { lock_timeout: '0', statement_timeout: '0', plans: 'auto', seqscan: 'on' };
      expect(rows).toEqual([{ ...plain, search_path: '"$user", public', prepared: 0, locks: 0 }]);
    }
  } finally {
    await Promise.all(clients.map((client) => client.end()));
  }
}

describe.skipIf(!hasPgBouncer)('PgBouncer in transaction mode (skipped where it is not installed)', () => {
  beforeAll(async () => {
    database = await createTestDatabase({ template: 'empty', prepare: socialSql });
    bouncer = await startPgBouncer(database.url, { mode: 'transaction', size: 2 });
  });
  afterAll(async () => {
    await bouncer.stop();
    await database.drop();
  });

  const pooled = (more: Record<string, unknown> = {}) =>
    socialConfig(bouncer.url, {
      database: { url: bouncer.url, listenUrl: database.url },
      // A question to the database for each subscription and look.
      channels: { post: { read: 'select 1 from posts p, users u where p.id = :id and u.id = :user' } },
      presence: { read: 'select 1 from users a, users b where a.id = :user and b.id = :other' },
      ...more,
    });

  it('with database.listenUrl: migrate, and people over two connections', async () => {
    expect(await belfry(['migrate'], pooled())).toMatchObject({ code: 0, stderr: '' });
    const people = await addUsers(database.pool, ...Array.from({ length: 12 }, (_, i) => `Person ${String(i)}`));
    const [fan = '', ...authors] = people;
    const posts = await Promise.all(authors.map((author) => addPost(database.pool, author)));
    const config = parseConfig(pooled(), {}, { path: 'test.yaml' });
    const app = await startApp(config, { role: 'all', log: createLogger({ level: 'error', name: 'test' }) });
    try {
      const pages = await Promise.all(authors.map((author, i) => visit(app.port ?? 0, author, posts[i] ?? '')));
      for (const post of posts) await like(database.pool, fan, post);
      await Promise.all(pages.map(({ liked }) => liked));
      for (const page of pages) page.close();
    } finally {
      await app.stop();
    }
    const { code, stdout } = await belfry(['doctor', '--json'], pooled());
    const { checks } = JSON.parse(stdout) as { checks: { name: string; level: string; detail: string }[] };
    expect(checks.find(({ name }) => name === 'pooler')).toMatchObject({ level: 'ok' });
    expect([code, checks.filter(({ level }) => level === 'fail')]).toEqual([0, []]);
  });

  it('with wakeup: poll, nothing but the pooler', async () => {
    const wide = await startPgBouncer(database.url, { mode: 'transaction', size: 5 });
    onTestFinished(() => wide.stop());
    const poll = socialConfig(wide.url, { database: { url: wide.url, wakeup: 'poll' } });
    const direct = socialConfig(database.url, { database: { url: database.url, wakeup: 'poll' } });
    expect(await belfry(['migrate'], direct)).toMatchObject({ code: 0 });
    const [fan = '', author = ''] = await addUsers(database.pool, 'Fan', 'Author');
    const post = await addPost(database.pool, author);
    const app = await startApp(parseConfig(poll, {}, { path: 'test.yaml' }), {
      role: 'all',
      log: createLogger({ level: 'error', name: 'test' }),
    });
    try {
      const page = await visit(app.port ?? 0, author, post);
      // More than the writer changes its plans for.
      const fans = await addUsers(database.pool, ...Array.from({ length: 300 }, (_, i) => `Fan ${String(i)}`));
      await database.pool.query('insert into likes (user_id, post_id) select unnest($1::bigint[]), $2', [
        [fan, ...fans],
        post,
      ]);
      await page.liked;
      page.close();
    } finally {
      await app.stop();
    }
    await expectUntouched(wide.url, 5);
  });

  it('nothing of it stays in the sessions of the application', async () => {
    await expectUntouched(bouncer.url, 2);
  });

  it('without database.listenUrl: start, migrate and uninstall say where to go, and change nothing', async () => {
    const yaml = socialConfig(bouncer.url);
    for (const command of [['start'], ['migrate'], ['uninstall', '--yes']]) {
      const { code, stderr } = await belfry(command, yaml);
      expect(code, command[0]).toBe(1);
      expect(stderr).toMatch(
        /^belfry: .*transaction mode.*database\.listenUrl|transaction-mode pooler.*database\.listenUrl/,
      );
    }
    const { stdout } = await belfry(['doctor', '--json'], yaml);
    const { checks } = JSON.parse(stdout) as { checks: { name: string; level: string; cure: string }[] };
    expect(checks.find(({ name }) => name === 'pooler')).toMatchObject({
      level: 'warn',
      cure: expect.stringContaining('listenUrl') as string,
    });
    const { rows } = await database.pool.query(
      `select count(*)::int as triggers from pg_trigger where tgname like 'belfry%'`,
    );
    expect(rows[0]).not.toEqual({ triggers: 0 });
    const locks = await database.pool.query(
      `select 1 from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())`,
    );
    expect(locks.rows).toEqual([]);
  });

  it('where it refuses startup parameters: told, with its own setting', async () => {
    const strict = await startPgBouncer(database.url, { mode: 'transaction', size: 2, ignore: 'extra_float_digits' });
    try {
      const { code, stderr } = await belfry(['status'], socialConfig(strict.url));
      expect([code, stderr]).toEqual([1, expect.stringContaining('ignore_startup_parameters = options')]);
    } finally {
      await strict.stop();
    }
  });

  it('a pooler in session mode keeps a session together, a pool of one does not', async () => {
    const [session, one] = await Promise.all([
      startPgBouncer(database.url, { mode: 'session', size: 4 }),
      startPgBouncer(database.url, { mode: 'transaction', size: 1 }),
    ]);
    const clients = await Promise.all(
      [session.url, one.url, database.url].map((url) => connect(url, { applicationName: 'test' })),
    );
    try {
      const [inSession, alone, direct] = clients as [pg.Client, pg.Client, pg.Client];
      await assertOwnSession(inSession, session.url);
      await assertOwnSession(direct, database.url);
      await expect(assertOwnSession(alone, one.url)).rejects.toMatchObject({ code: 'database_unsuitable' });
    } finally {
      await Promise.all(clients.map((client) => client.end()));
      await Promise.all([session.stop(), one.stop()]);
    }
  });
});
