/**
 * The proxy configurations of examples/, run by nginx and HAProxy where they are installed: live through the proxy, over a
 * rolling restart without a failed call, and with addresses that clients cannot make up. Skipped by name elsewhere.
 */

import { execFileSync, spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { connect } from '../../src/client/index.js';
import { token, until, wideLimits } from '../client/running.js';
import { freePort } from '../support/ports.js';
import { projectRoot } from '../support/build.js';
import { createTestDatabase, type TestDatabase } from '../support/postgres.js';
import { startBelfry, type Program } from '../support/program.js';
import { addComment, addPost, addUsers, socialConfig, socialSql } from '../support/social.js';

interface Kind {
  readonly name: string;
  readonly command: string;
  readonly file: string;
  readonly args: (file: string, folder: string) => string[];
  /** Where its configuration for the test also says, at `/usable`, how many gateways it would send somebody to. */
  readonly usable?: { readonly before: string; readonly line: string };
}
const kinds: readonly Kind[] = [
  {
    name: 'nginx',
    command: 'nginx',
    file: 'nginx.conf',
    args: (file, folder) => ['-p', folder, '-c', file, '-g', 'daemon off;'],
  },
  {
    name: 'HAProxy',
    command: 'haproxy',
    file: 'haproxy.cfg',
    args: (file) => ['-db', '-f', file],
    usable: {
      before: '  default_backend belfry',
      line: '  http-request return status 200 content-type text/plain lf-string "%[nbsrv(belfry)]" if { path /usable }',
    },
  },
];

function installed(command: string): boolean {
  try {
    execFileSync(command, ['-v'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

const connectionsPerAddress = 6;
let database: TestDatabase;
let folder: string;
let configFile: string;

beforeAll(async () => {
  database = await createTestDatabase({ prepare: socialSql });
  folder = await mkdtemp(path.join(tmpdir(), 'belfry-proxies-'));
  configFile = path.join(folder, 'belfry.yaml');
  const server = { host: '127.0.0.1', port: 0, trustProxy: 1 };
  await writeFile(configFile, socialConfig(database.url, { server, limits: { ...wideLimits, connectionsPerAddress } }));
  const migrate = startBelfry(['migrate', '--config', configFile]);
  expect(await migrate.exit, migrate.stderr).toMatchObject({ code: 0 });
}, 600_000);
afterAll(async () => {
  await database.drop();
  await rm(folder, { recursive: true, force: true });
});

async function gateway(port: number): Promise<Program> {
  const program = startBelfry(['start', '--config', configFile], { env: { PORT: String(port) } });
  await until('ready', () => answers(`http://127.0.0.1:${port}/readyz`), 180_000);
  return program;
}

const answers = (url: string): Promise<boolean> =>
  fetch(url).then(
    ({ status }) => status === 200,
    () => false,
  );

for (const kind of kinds) {
  describe.skipIf(!installed(kind.command))(`${kind.name} (needs ${kind.command} installed)`, () => {
    let url: string;
    let ports: readonly [number, number];
    const running: { end(): Promise<unknown> }[] = [];

    beforeAll(async () => {
      const port = await freePort();
      ports = [await freePort(), await freePort()];
      url = `http://127.0.0.1:${port}`;
      const text = await readFile(path.join(projectRoot, 'examples/proxies', kind.file), 'utf8');
      const changed = text
        .replace(/(listen |bind :)8080/, (_, word: string) =>
          word === 'listen ' ? `listen 127.0.0.1:${port}` : `bind 127.0.0.1:${port}`,
        )
        .replace('127.0.0.1:10001', `127.0.0.1:${ports[0]}`)
        .replace('127.0.0.1:10002', `127.0.0.1:${ports[1]}`)
        .replace('worker_processes auto', 'worker_processes 1')
        .replace(kind.usable?.before ?? '', (before) => `${kind.usable?.line ?? ''}\n${before}`);
      const file = path.join(folder, kind.file);
      await writeFile(file, changed);
      const child = spawn(kind.command, kind.args(file, folder), { stdio: ['ignore', 'ignore', 'pipe'] });
      let stderr = '';
      child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
      const over = new Promise((resolve) => child.once('close', resolve));
      running.push({
        end: () => {
          child.kill('SIGTERM');
          return over;
        },
      });
      await until('it listens', async () => {
        if (child.exitCode !== null) throw new Error(stderr);
        return fetch(url).then(
          () => true,
          () => false,
        );
      });
    }, 600_000);
    afterAll(async () => {
      for (const { end } of running.reverse()) await end();
    });

    it('passes sockets and calls, and a rolling restart goes unnoticed but for one reconnect', async () => {
      const old = await gateway(ports[0]);
      running.push({ end: () => old.kill() });
      await until('it is found', () => answers(`${url}/readyz`), 180_000);
      const [ada = '', bo = ''] = await addUsers(database.pool, 'Ada', 'Bo');
      const post = await addPost(database.pool, ada);
      const client = connect({ url, token: () => token(ada), WebSocket });
      running.push({ end: async () => client.close() });
      const seqs: number[] = [];
      const ends: number[] = [];
      let gaps = 0;
      client.on('notification', (_, { seq }) => seqs.push(seq ?? 0));
      client.on('status', (status) => void (status.status === 'waiting' && ends.push(status.code)));
      client.on('gap', () => void gaps++);
      await until('online', () => client.status.status === 'online');
      await addComment(database.pool, post, bo);
      await until('the first', () => seqs.length === 1);

      const next = await gateway(ports[1]);
      running.push({ end: () => next.kill() });
      // As whoever restarts one after the other does; nginx finds out when it asks.
      if (kind.usable !== undefined)
        await until('both are in use', async () => (await (await fetch(`${url}/usable`)).text()) === '2', 180_000);
      const calls: number[] = [];
      const watching = { over: false };
      const watched = (async () => {
        while (!watching.over) calls.push((await fetch(`${url}/api/ws/status`)).status);
      })();
      old.child.kill('SIGTERM');
      await addComment(database.pool, post, bo);
      expect((await old.exit).code).toBe(0);
      await addComment(database.pool, post, bo);
      await until('all three', () => seqs.length === 3);
      watching.over = true;
      await watched;
      expect(seqs).toEqual([1, 2, 3]);
      expect(gaps).toBe(0);
      expect(ends[0]).toBe(1012);
      expect(new Set(calls)).toEqual(new Set([200]));
      expect((await client.seen({ through: 3 })).unseen).toBe(0);
      expect((await fetch(`${url}/metrics`)).status).toBe(404);
      client.close();
      // The next test counts connections.
      await until('nobody is connected', async () => {
        const { connections } = (await (await fetch(`${url}/api/ws/status`)).json()) as { connections: number };
        return connections === 0;
      });
    }, 600_000);

    it('tells whom a socket belongs to, whatever the client claims', async () => {
      const handshake = (claimed: string): Promise<number> =>
        new Promise((resolve, reject) => {
          const socket = new WebSocket(`${url.replace('http', 'ws')}/ws`, { headers: { 'x-forwarded-for': claimed } });
          running.push({ end: async () => socket.terminate() });
          socket.once('open', () => resolve(101));
          socket.once('unexpected-response', (_, { statusCode }) => resolve(statusCode ?? 0));
          socket.once('error', reject);
        });
      const statuses: number[] = [];
      for (let i = 0; i < connectionsPerAddress + 1; i++) statuses.push(await handshake(`203.0.113.${i}`));
      expect(statuses).toEqual([...Array.from({ length: connectionsPerAddress }, () => 101), 429]);
    }, 600_000);
  });
}
