/** `sslmode` in the URL, against a server of its own that speaks TLS: as libpq has it. */

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { parseConfig } from '../../src/config.js';
import { startEmbeddedPostgres } from '../../src/embedded/postgres.js';
import type { EmbeddedPostgres } from '../../src/embedded/postgres.js';
import { createLogger } from '../../src/log.js';
import { Listener } from '../../src/outbox/listener.js';
import { connect, createPool } from '../../src/postgres/connect.js';

const certificate = path.resolve('test/support/tls/cert.pem');
let server: EmbeddedPostgres;
let admin: pg.Client;

beforeAll(async () => {
  server = await startEmbeddedPostgres({
    dataDir: await mkdtemp(path.join(tmpdir(), 'belfry-tls-')),
    log: { info: () => undefined, warn: () => undefined },
    settings: { fsync: 'off' },
  });
  admin = await connect(server.url, { applicationName: 'test' });
  // Written by the server, since nobody else's key would be taken.
  for (const [file, source] of [
    ['server.crt', certificate],
    ['server.key', path.resolve('test/support/tls/key.pem')],
  ] as const) {
    await admin.query('drop table if exists line; create table line (nr serial, text text)');
    for (const text of (await readFile(source, 'utf8')).trim().split('\n'))
      await admin.query('insert into line (text) values ($1)', [text]);
    await admin.query(`copy (select text from line order by nr) to program 'umask 077; cat > ${file}'`);
  }
  await admin.query('alter system set ssl = on');
  await admin.query('select pg_reload_conf()');
  const isOn = async () => (await admin.query<{ ssl: string }>('show ssl')).rows[0]?.ssl;
  await vi.waitFor(async () => expect(await isOn()).toBe('on'), { timeout: 60_000, interval: 20 });
}, 120_000);

afterAll(async () => {
  await admin.end();
  await server.stop();
  await rm(server.dataDir, { recursive: true, force: true });
});

/** What the server says of a connection with this query string. */
async function encrypted(query: string, host = '127.0.0.1'): Promise<boolean | undefined> {
  const url = new URL(server.url);
  url.hostname = host;
  url.search = query;
  const pool = createPool(url.href, { applicationName: 'test', max: 1 });
  const client = await connect(url.href, { applicationName: 'test' });
  const ask = 'select ssl from pg_stat_ssl where pid = pg_backend_pid()';
  try {
    const one = (await client.query<{ ssl: boolean }>(ask)).rows[0]?.ssl;
    expect((await pool.query<{ ssl: boolean }>(ask)).rows[0]?.ssl).toBe(one);
    return one;
  } finally {
    await client.end();
    await pool.end();
  }
}

describe('sslmode', () => {
  it.each([
    ['', false],
    ['?sslmode=disable', false],
    ['?sslmode=allow', false],
    ['?sslmode=prefer', true],
    [`?sslmode=prefer&sslrootcert=${certificate}`, true],
    ['?sslmode=require', true],
    [`?sslmode=verify-ca&sslrootcert=${certificate}`, true],
    [`?sslmode=verify-full&sslrootcert=${certificate}`, true],
    ['?sslmode=require&options=-c%20work_mem%3D1MB', true],
  ])('%s', async (query, yes) => {
    expect(await encrypted(query)).toBe(yes);
  });

  it.each([
    ['a certificate that no known CA has signed', '?sslmode=verify-full'],
    ['the same, against what Node trusts', '?sslmode=verify-full&sslrootcert=system'],
  ])('verify-full refuses %s', async (_, query) => {
    await expect(encrypted(query)).rejects.toMatchObject({
      code: 'database_denied',
      message: expect.stringContaining('sslrootcert') as string,
    });
  });

  it('verify-full looks at the name of the host, verify-ca does not', async () => {
    // The certificate is for localhost and 127.0.0.1.
    expect(await encrypted(`?sslmode=verify-ca&sslrootcert=${certificate}`, '127.0.0.1')).toBe(true);
    await expect(encrypted(`?sslmode=verify-full&sslrootcert=${certificate}`, '0.0.0.0')).rejects.toMatchObject({
      code: 'database_denied',
    });
    expect(await encrypted(`?sslmode=verify-ca&sslrootcert=${certificate}`, '0.0.0.0')).toBe(true);
  });

  describe('what pg_hba.conf insists on', () => {
    const rules = async (lines: string): Promise<void> => {
      await admin.query('drop table if exists rule; create table rule (nr serial, text text)');
      for (const text of lines.split('\n')) await admin.query('insert into rule (text) values ($1)', [text]);
      await admin.query(`copy (select text from rule order by nr) to program 'cat > pg_hba.conf'`);
      await admin.query('select pg_reload_conf()');
      const loaded = `select count(*)::int as n from pg_hba_file_rules where type like 'host_%'`;
      await expect
        .poll(async () => (await admin.query<{ n: number }>(loaded)).rows[0]?.n)
        .toBe(lines.split('\n').length);
    };
    // Reloaded by the postmaster, for connections that come after it.
    const soon = (query: string) =>
      expect.poll(() => encrypted(query).catch((error: Error) => error.message), { timeout: 30_000 });

    it('TLS: allow and prefer have it, disable is refused', async () => {
      await rules('hostssl all all 127.0.0.1/32 scram-sha-256');
      await soon('?sslmode=disable').toContain('wants TLS: add sslmode=require');
      expect([await encrypted('?sslmode=allow'), await encrypted('?sslmode=prefer')]).toEqual([true, true]);
    });

    it('none: allow and prefer do without, require is refused', async () => {
      await rules('hostnossl all all 127.0.0.1/32 scram-sha-256');
      await soon('?sslmode=require').toContain('refused user');
      expect([await encrypted('?sslmode=allow'), await encrypted('?sslmode=prefer')]).toEqual([false, false]);
    });

    it('a wrong password is told as one, whatever is tried', async () => {
      await rules('hostssl all all 127.0.0.1/32 scram-sha-256\nhostnossl all all 127.0.0.1/32 scram-sha-256');
      await soon('?sslmode=require').toBe(true);
      for (const mode of ['allow', 'prefer']) {
        const url = new URL(server.url);
        url.password = 'wrong';
        url.search = `?sslmode=${mode}`;
        await expect(connect(url.href, { applicationName: 'test' })).rejects.toMatchObject({ code: 'database_denied' });
      }
    });
  });

  it.each(['allow', 'prefer'])(
    '%s: large results and large queries go through whole, and the listener hears',
    async (mode) => {
      const url = new URL(server.url);
      url.search = `?sslmode=${mode}`;
      const client = await connect(url.href, { applicationName: 'test' });
      const large = 'x'.repeat(5_000_000);
      const { rows } = await client.query<{ same: boolean; text: string }>(
        'select $1::text = $2 as same, $1::text as text',
        [large, large],
      );
      expect([rows[0]?.same, rows[0]?.text === large]).toEqual([true, true]);
      let ring: () => void = () => undefined;
      const rang = new Promise<void>((resolve) => (ring = resolve));
      const log = createLogger({ level: 'silent', name: 'test' });
      const listener = new Listener({ url: url.href, log, onRing: () => ring(), onChange: () => undefined });
      await listener.start();
      onTestFinished(() => listener.stop());
      await client.query('notify belfry');
      await rang;
      await client.end();
    },
  );

  it.each(['allow', 'prefer'])('%s: nobody there is told as such', async (mode) => {
    await expect(
      connect(`postgres://u:p@127.0.0.1:1/d?sslmode=${mode}`, { applicationName: 'test' }),
    ).rejects.toMatchObject({
      code: 'database_unreachable',
      message: expect.stringContaining('Nothing listens') as string,
    });
  });

  it('a server that goes away ends the session', async () => {
    const url = new URL(server.url);
    url.search = '?sslmode=prefer';
    const client = await connect(url.href, { applicationName: 'test' });
    const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid');
    const ended = new Promise((resolve) => client.once('end', resolve));
    await admin.query('select pg_terminate_backend($1)', [rows[0]?.pid]);
    await ended;
  });

  it('a server without TLS says so, and prefer does without', async () => {
    await admin.query('alter system set ssl = off');
    await admin.query('select pg_reload_conf()');
    await expect
      .poll(() => encrypted('?sslmode=require').catch((error: Error) => error.message), { timeout: 30_000 })
      .toContain('has no TLS: switch it on there, or take sslmode out');
    expect([await encrypted('?sslmode=prefer'), await encrypted('?sslmode=allow')]).toEqual([false, false]);
  });

  it('that does not exist, or lacks its CA, is told with the config', () => {
    const parse = (query: string) => () =>
      parseConfig(
        `version: 1\ndatabase: { url: "postgres://h/d?${query}" }\nauth: { secret: ${'x'.repeat(40)} }\nsources: []`,
        {},
      );
    expect(parse('sslmode=verify')).toThrow(/database\.url.*sslmode that is none of disable, allow, prefer, require/s);
    expect(parse('sslmode=verify-ca')).toThrow(/sslmode=verify-ca without sslrootcert/);
    expect(parse('sslmode=require')).not.toThrow();
  });
});
