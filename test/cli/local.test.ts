/** `status` and `tail` find the gateway of their own machine wherever the config places it, also behind a certificate for another name. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { localUrl } from '../../src/cli/local.js';
import { tokenFor } from '../gateway/support.js';
import { freePort } from '../support/ports.js';
import { startBelfry } from '../support/program.js';
import type { Program } from '../support/program.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { socialConfig, socialSql } from '../support/social.js';

// Every step is a process of its own, and the machine may be busy.
vi.setConfig({ testTimeout: 120_000 });

const tls = {
  cert: fileURLToPath(new URL('../support/tls/cert.pem', import.meta.url)),
  key: fileURLToPath(new URL('../support/tls/key.pem', import.meta.url)),
};

describe('a gateway with a certificate that nobody signed, on an address of its own', () => {
  // Elsewhere than on Linux 127.0.0.1 is the only one that is there without being made.
  const host = process.platform === 'linux' ? '127.0.0.2' : '127.0.0.1';
  const folder = mkdtempSync(join(tmpdir(), 'belfry-local-'));
  const running: Program[] = [];
  let database: TestDatabase;
  let url: string;

  beforeAll(async () => {
    database = await createTestDatabase({ prepare: socialSql });
    const port = await freePort();
    url = `wss://${host}:${String(port)}/ws`;
    writeFileSync(join(folder, 'belfry.yaml'), socialConfig(database.url, { server: { host, port, tls } }));
    await belfry('start').waitFor(/"msg":"ready"/);
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

  it('status counts its connections', async () => {
    const program = belfry('status', '--json');
    expect((await program.exit).code).toBe(0);
    expect(JSON.parse(program.stdout)).toMatchObject({ connections: 0, users: 0 });
  });

  it('tail connects, and takes channels one by one and several at once', async () => {
    const tail = belfry(...['tail', '--token', tokenFor('1'), '--channel', 'post:1', 'post:2', '--channel', 'post:3']);
    await tail.waitFor(/"event":"synced"/);
    for (const post of ['1', '2', '3']) await tail.waitFor(new RegExp(`"channel":"post:${post}"`));
    tail.child.kill('SIGINT');
    expect(await tail.exit).toEqual({ code: 0, signal: null });
  });

  it('where tail is told where to connect it checks who answers', async () => {
    const tail = belfry('tail', '--token', tokenFor('1'), '--url', url);
    await tail.waitFor(/not connected \(1006: .*self-signed certificate/);
    expect(tail.stdout).toBe('');
    tail.child.kill('SIGINT');
    await tail.exit;
  });
});

describe('where the gateway is', () => {
  const at = (host: string, secure = true): ReturnType<typeof localUrl> =>
    localUrl({ host, port: 10000, tls: secure ? tls : null });

  it.each(['0.0.0.0', '::', ''])('listening on all addresses (%j): here', (host) => {
    expect(at(host)).toEqual({ url: 'https://127.0.0.1:10000', rejectUnauthorized: false });
  });

  it.each([
    ['127.0.0.2', '127.0.0.2'],
    ['::1', '[::1]'],
    ['localhost', 'localhost'],
  ])('on %s: here too', (host, written) => {
    expect(at(host)).toEqual({ url: `https://${written}:10000`, rejectUnauthorized: false });
    expect(at(host, false).url).toBe(`http://${written}:10000`);
  });

  it('on an address that is not of this machine its certificate is checked: there is a network between', () => {
    expect(at('192.0.2.1')).toEqual({ url: 'https://192.0.2.1:10000', rejectUnauthorized: true });
  });
});
