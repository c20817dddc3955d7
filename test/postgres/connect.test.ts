/** Connections: settings, names, and errors that say what to do next. */
import { connect as connectTo, createServer, type AddressInfo, type Server } from 'node:net';
import type { Writable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { BelfryError } from '../../src/errors.js';
import { explainConnectionError } from '../../src/postgres/connection-error.js';
import { connect, createPool } from '../../src/postgres/connect.js';
import { assertSuitable, serverInfo } from '../../src/postgres/server.js';
import { parseTableName, quoteIdent, quoteLiteral } from '../../src/postgres/sql.js';
import { letGo } from '../../src/postgres/sending.js';
import {
  asksForPasswords,
  createTestDatabase,
  type TestDatabase,
  withDatabase,
  withPort,
  withUser,
} from '../support/postgres.js';
import { startProxy } from '../support/proxy.js';

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.drop());

describe('a connection', () => {
  test.each([false, true])(
    'takes many statements at once: answers come in order, a failure is its own, and nothing warns; pipelined: %s',
    async (pipelined) => {
      const warnings: string[] = [];
      const heard = (warning: Error): void => void warnings.push(warning.message);
      process.on('warning', heard);
      const client = await connect(db.url, { applicationName: 'shared', pipelined });
      const results = await Promise.allSettled(
        ['1', '2', 'no_such_column', '4'].map((value) => client.query<{ value: number }>(`select ${value} as value`)),
      );
      await client.end();
      await expect(client.query('select 1')).rejects.toThrow('closed');
      process.off('warning', heard);
      expect(results.map((result) => (result.status === 'fulfilled' ? result.value.rows[0]?.value : 'failed'))).toEqual(
        [1, 2, 'failed', 4],
      );
      expect(warnings).toEqual([]);
    },
  );

  test.each([false, true])(
    'ends at once though an answer is awaited, which may never come; pipelined: %s',
    async (pipelined) => {
      const client = await connect(db.url, { applicationName: 'ends', pipelined });
      const answer = client.query('select pg_sleep(20)');
      const failed = expect(answer).rejects.toThrow('terminated');
      // Sent, and on its way.
      await new Promise((resolve) => setTimeout(resolve, 20));
      await client.end();
      await failed;
    },
  );

  test.each([false, true])('is let go where the network fell silent; pipelined: %s', async (pipelined) => {
    const proxy = await startProxy({ host: new URL(db.url).hostname, port: Number(new URL(db.url).port) });
    onTestFinished(() => proxy.close());
    const client = await connect(withPort(db.url, proxy.port), { applicationName: 'silent', pipelined });
    proxy.pause();
    const { stream } = (client as unknown as { connection: { stream: Writable } }).connection;
    const began = performance.now();
    await letGo(client);
    expect(stream.destroyed).toBe(true);
    // A second; TCP would take minutes.
    expect(performance.now() - began).toBeLessThan(10_000);
  });

  test('pipelined: what is asked in one turn goes out in one write, and nothing waits for an answer', async () => {
    const to = new URL(db.url);
    const written: string[] = [];
    const relay = createServer((here) => {
      const there = connectTo(Number(to.port), to.hostname);
      here.on('data', (data) => written.push(data.toString('latin1'))).pipe(there);
      there.pipe(here);
      there.on('error', () => here.destroy());
    });
    await new Promise<void>((resolve) => relay.listen(0, '127.0.0.1', resolve));
    const url = withPort(db.url, (relay.address() as AddressInfo).port);
    const client = await connect(url, { applicationName: 'pipelined', pipelined: true });
    const { stream } = (client as unknown as { connection: { stream: Writable } }).connection;
    written.length = 0;
    const slow = client.query('select pg_sleep(0.1)');
    // Held back until the end of the turn.
    expect(stream.writableCorked).toBe(1);
    setImmediate(() => written.push(`${String(stream.writableCorked)} held back`));
    const next = Promise.resolve().then(() =>
      client.query({ name: 'named', text: 'select $1::int as n', values: [1] }),
    );
    await Promise.all([slow, next]);
    expect(written.filter((text) => text.includes('pg_sleep') && text.includes('named'))).toHaveLength(1);
    expect(written.filter((text) => text === '0 held back')).toHaveLength(1);
    expect(written).toHaveLength(2);
    await client.end();
    await new Promise((resolve) => relay.close(resolve));
  });

  test('is given up, and closed, where the network fell silent just after it was made', async () => {
    const to = new URL(db.url);
    let closed: () => void = () => undefined;
    const isClosed = new Promise<void>((resolve) => (closed = resolve));
    const network = createServer((here) => {
      const there = connectTo(Number(to.port), to.hostname);
      here.on('data', (data) => void (data.includes('transaction_timeout') || there.write(data)));
      here.on('close', closed);
      there.pipe(here);
      for (const socket of [here, there])
        socket.on('error', () => undefined).on('close', () => [here, there].map((one) => one.destroy()));
    });
    onTestFinished(() => void network.close());
    await new Promise<void>((resolve) => network.listen(0, '127.0.0.1', resolve));
    const url = withPort(db.url, (network.address() as AddressInfo).port);
    // Ten seconds; TCP would take minutes.
    await expect(connect(url, { applicationName: 'silent' })).rejects.toMatchObject({
      code: 'database_unreachable',
      retry: true,
    });
    await isClosed;
  });

  test('has our settings, those of the caller and those of the URL', async () => {
    const url = `${db.url}?options=${encodeURIComponent('-c statement_timeout=1234')}`;
    const session = { jit: 'on', search_path: 'pg_catalog, public' };
    const client = await connect(url, { applicationName: 'who', session });
    const { rows } = await client.query(
      `select name, setting from pg_settings
       where name in ('jit', 'search_path', 'statement_timeout', 'application_name', 'idle_in_transaction_session_timeout') order by 1`,
    );
    await client.end();
    expect(rows).toEqual([
      { name: 'application_name', setting: 'who' },
      { name: 'idle_in_transaction_session_timeout', setting: '30000' },
      { name: 'jit', setting: 'on' },
      { name: 'search_path', setting: 'pg_catalog, public' },
      { name: 'statement_timeout', setting: '1234' },
    ]);
  });

  test('that dies, idle or in use, does not take the process with it', async () => {
    const { hostname, port } = new URL(db.url);
    const proxy = await startProxy({ host: hostname, port: Number(port) });
    const url = withPort(db.url, proxy.port);
    const client = await connect(url, { applicationName: 'dies' });
    const pool = createPool(url, { applicationName: 'dies', max: 2 });
    const held = await pool.connect();
    await pool.query('select 1');
    proxy.reset();
    await expect(client.query('select 1')).rejects.toThrow();
    await expect(held.query('select 1')).rejects.toThrow();
    held.release(true);
    await expect.poll(() => pool.totalCount).toBe(0);
    expect((await pool.query('select 1 as one')).rows).toEqual([{ one: 1 }]);
    await pool.end();
    await proxy.close();
  });

  test('gives bigint and xid8 as text', async () => {
    const { rows } = await db.pool.query(`select 9007199254740993::bigint as big, '5'::xid8 as xid`);
    expect(rows).toEqual([{ big: '9007199254740993', xid: '5' }]);
  });
});

const wrongPassword = 'a wrong password (nothing where the server takes any)';

describe('no connection', () => {
  const failure = (url: string) =>
    connect(url, { applicationName: 'test' }).then(
      () => expect.unreachable(),
      (error: unknown) => error as BelfryError,
    );

  test.each([
    [
      wrongPassword,
      () => withUser(db.url, 'postgres', 'secret-but-wrong'),
      'database_denied',
      /Wrong password for user postgres/,
    ],
    ['an unknown database', () => withDatabase(db.url, 'nowhere'), 'database_unreachable', /no database nowhere/],
    ['nobody there', () => withPort(db.url, 1), 'database_unreachable', /Nothing listens at 127\.0\.0\.1:1/],
    [
      'no such host',
      () => 'postgres://u:p@no-such-host.invalid/db',
      'database_unreachable',
      /no-such-host\.invalid:5432/,
    ],
    ['not an address', () => 'postgres://u:secret-but-wrong@:x/db', 'config_invalid', /DATABASE_URL is no address/],
  ])('%s', async (what, url, code, message) => {
    if (what === wrongPassword && !(await asksForPasswords(db.url))) return;
    const error = await failure(url());
    expect(error).toMatchObject({ name: 'BelfryError', code });
    expect(error.message).toMatch(message);
    expect(error.message).not.toContain('secret-but-wrong');
    expect(error.message).not.toContain('\n');
  });

  describe('a pooler', () => {
    let pooler: Server;
    beforeAll(async () => {
      // What PgBouncer answers to a startup packet with `options` (its error, word for word).
      const fields = 'SFATAL\0C08P01\0Munsupported startup parameter in options: jit\0\0';
      const body = Buffer.from(fields, 'latin1');
      const head = Buffer.alloc(5);
      head.write('E', 0);
      head.writeInt32BE(body.length + 4, 1);
      pooler = createServer((socket) => {
        socket.on('error', () => undefined);
        socket.once('data', () => socket.end(Buffer.concat([head, body])));
      });
      await new Promise<void>((resolve) => pooler.listen(0, '127.0.0.1', resolve));
    });
    afterAll(() => pooler.close());

    test('that refuses our settings', async () => {
      const address = pooler.address();
      const port = typeof address === 'object' && address !== null ? address.port : 0;
      const error = await failure(withPort(db.url, port));
      expect(error).toMatchObject({ code: 'database_unsuitable' });
      expect(error.message).toMatch(/A pooler answers .* ignore_startup_parameters = options/);
    });
  });

  test('an error that is explained already stays as it is', () => {
    const error = new BelfryError('internal', 'x');
    expect(explainConnectionError(error, db.url)).toBe(error);
  });

  test('a % that begins no escape is itself, as it is for pg', () => {
    const error = Object.assign(new Error('database "100%" does not exist'), { code: '3D000' });
    expect(explainConnectionError(error, 'postgres://user:word@localhost/100%').message).toBe(
      'There is no database 100% at localhost:5432: create it, or check DATABASE_URL.',
    );
  });
});

describe('a server', () => {
  test('says what it is', async () => {
    const info = await serverInfo(db.pool);
    expect(info).toMatchObject({ standby: false, timeline: expect.stringMatching(/^[0-9A-F]{8}$/) as string });
    expect(info.version).toBeGreaterThanOrEqual(140_000);
    expect(info.systemIdentifier).toMatch(/^\d{15,}$/);
    expect(info.maxPreparedTransactions).toBeGreaterThanOrEqual(0);
    assertSuitable(info);
  });

  test('that is too old or a standby is refused', () => {
    expect(() => assertSuitable({ version: 130_014, standby: false })).toThrow(
      'This is Postgres 13.14; Belfry needs 14 or newer.',
    );
    expect(() => assertSuitable({ version: 180_004, standby: true })).toThrow(
      /is a standby: point DATABASE_URL at the primary/,
    );
    expect(() => assertSuitable({ version: 140_000, standby: false })).not.toThrow();
  });
});

describe('names', () => {
  test.each([
    ['likes', { schema: 'public', name: 'likes' }],
    ['Likes', { schema: 'public', name: 'likes' }],
    ['app.likes', { schema: 'app', name: 'likes' }],
    ['public."Likes"', { schema: 'public', name: 'Likes' }],
    ['"My App"."a ""quoted"" one.two"', { schema: 'My App', name: 'a "quoted" one.two' }],
    ['"order"', { schema: 'public', name: 'order' }],
    ['größe.ñandú', { schema: 'größe', name: 'ñandú' }],
    ['Übung', { schema: 'public', name: 'Übung' }],
  ])('%s', (text, expected) => {
    expect(parseTableName(text)).toEqual(expected);
  });

  test.each(['', 'a.b.c', 'a.', '.a', 'a b', '"a', '""', 'a;drop', '1a', 'a."b"c'])('%j is none', (text) => {
    expect(() => parseTableName(text)).toThrow(/is not a table name/);
  });

  test('a name without quotes is the table that Postgres takes it for', async () => {
    await db.pool.query('create table ÜBUNG_Äb (id int)');
    const { rows } = await db.pool.query(`select relname as name from pg_class where relname ~ 'bung_'`);
    expect(rows).toEqual([{ name: parseTableName('ÜBUNG_Äb').name }]);
  });

  test('quoting survives a round trip through Postgres', async () => {
    const nasty = `it's a "test" \\ 100%`;
    const { rows } = await db.pool.query(`select ${quoteLiteral(nasty)} as ${quoteIdent(nasty)}`);
    expect(rows).toEqual([{ [nasty]: nasty }]);
  });
});
