/** TLS from files: sockets and HTTP, files that change while it runs, and what is said when they are no good. */

import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import https from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { fileURLToPath } from 'node:url';
import WebSocket from 'ws';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { startBelfry } from '../support/program.js';
import { createTestDatabase } from '../support/postgres.js';
import { socialConfig, socialSql } from '../support/social.js';
import { freePort } from '../support/ports.js';
import { Client, startRig, tokenFor, type Rig } from './support.js';

// The last one starts a process of its own.
vi.setConfig({ testTimeout: 60_000 });

const file = (name: string): string => fileURLToPath(new URL(`../support/tls/${name}`, import.meta.url));
const cert = file('cert.pem');
const key = file('key.pem');
const renewed = { cert: file('renewed-cert.pem'), key: file('renewed-key.pem') };

it('serves wss and https', async () => {
  const rig = await startRig({ change: (config) => ({ ...config, server: { ...config.server, tls: { cert, key } } }) });
  const ca = readFileSync(cert);
  const client = new Client(new WebSocket(`wss://localhost:${rig.port}/ws`, { ca }));
  await client.opened;
  expect((await client.request({ op: 'auth', token: tokenFor('1') })).ok).toMatchObject({ user_id: '1' });
  await client.push('synced');
  const status = await new Promise((resolve, reject) => {
    https
      .get(`https://localhost:${rig.port}/readyz`, { ca }, (response) => resolve(response.statusCode))
      .on('error', reject);
  });
  expect(status).toBe(200);
  const ended = client.closed;
  await rig.stop();
  expect((await ended).code).toBe(1012);
});

it('says which file is no good', async () => {
  const bad = startRig({
    change: (config) => ({ ...config, server: { ...config.server, tls: { cert: key, key: cert } } }),
  });
  await expect(bad).rejects.toMatchObject({
    code: 'config_invalid',
    message: expect.stringContaining('server.tls') as string,
  });
});

describe('files that change', () => {
  let folder: string;
  let files: { readonly cert: string; readonly key: string };
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'belfry-tls-'));
    files = { cert: join(folder, 'cert.pem'), key: join(folder, 'key.pem') };
    put({ cert, key });
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  function put(from: { readonly cert: string; readonly key: string }): void {
    copyFileSync(from.cert, files.cert);
    copyFileSync(from.key, files.key);
  }

  const start = async (): Promise<Rig> => {
    const port = await freePort();
    return startRig({ change: (config) => ({ ...config, server: { ...config.server, port, tls: files } }) });
  };

  const login = async (port: number, ca: string, userId: string): Promise<Client> => {
    const client = new Client(new WebSocket(`wss://localhost:${port}/ws`, { ca: readFileSync(ca) }));
    await client.opened;
    await client.request({ op: 'auth', token: tokenFor(userId) });
    await client.push('synced');
    return client;
  };

  it('are for new sockets; those that are open go on, and both hear what is published', async () => {
    const rig = await start();
    const old = await login(rig.port, cert, '1');
    put(renewed);
    await rig.gateway.reload();
    const young = await login(rig.port, renewed.cert, '2');
    await expect(login(rig.port, cert, '3')).rejects.toThrow();
    for (const client of [old, young]) await client.request({ op: 'subscribe', channel: 'post:1' });
    rig.broker.publish([await rig.event('post:1', 'said', { n: 1 })]);
    for (const client of [old, young]) expect((await client.push('said')).data).toEqual({ n: 1 });
    rig.broker.publish([await rig.notification('1')]);
    expect((await old.push('notification'))['seq']).toBe(1);

    // Again, with the middle one idle: its app is gone, the oldest still has a socket.
    young.socket.close();
    await young.closed;
    put({ cert, key });
    await rig.gateway.reload();
    await rig.gateway.reload();
    const youngest = await login(rig.port, cert, '2');
    rig.broker.publish([await rig.event('all', 'said', { n: 2 })]);
    for (const client of [old, youngest]) expect((await client.push('said')).data).toEqual({ n: 2 });
    const ends = [old.closed, youngest.closed];
    await rig.stop();
    for (const end of ends) expect((await end).code).toBe(1012);
  });

  it('and are no good change nothing', async () => {
    const rig = await start();
    const old = await login(rig.port, cert, '1');
    writeFileSync(files.key, 'no key');
    await expect(rig.gateway.reload()).rejects.toMatchObject({ code: 'config_invalid' });
    await login(rig.port, cert, '2');
    expect((await old.request({ op: 'ping' })).ok).toEqual({});
    await rig.stop();
  });

  it('are read again by SIGHUP', async () => {
    const db = await createTestDatabase({ prepare: socialSql });
    const port = await freePort();
    const server = JSON.stringify({ host: '127.0.0.1', port, tls: files });
    writeFileSync(join(folder, 'belfry.yaml'), socialConfig(db.url, `server: ${server}`));
    const program = startBelfry(['start'], { cwd: folder });
    try {
      await program.waitFor(/"ready"/);
      const client = await login(port, cert, '1');
      const before = await fingerprint(port);
      put(renewed);
      program.child.kill('SIGHUP');
      await program.waitFor(/TLS files were read again/);
      expect(await fingerprint(port)).not.toBe(before);
      writeFileSync(files.cert, 'no certificate');
      program.child.kill('SIGHUP');
      await program.waitFor(/TLS files could not be used/);
      expect((await client.request({ op: 'ping' })).ok).toEqual({});
      program.child.kill('SIGTERM');
      expect((await client.closed).code).toBe(1012);
      expect(await program.exit).toEqual({ code: 0, signal: null });
    } finally {
      await program.kill();
      await db.drop();
    }
  });

  it('and a SIGHUP does not end a start', async () => {
    const db = await createTestDatabase({ prepare: socialSql });
    const server = JSON.stringify({ host: '127.0.0.1', port: await freePort(), tls: files });
    // Without an issuer it warns, and that is the first that it writes.
    writeFileSync(join(folder, 'belfry.yaml'), socialConfig(db.url, `server: ${server}`));
    const program = startBelfry(['start'], { cwd: folder });
    try {
      await program.waitFor(/issuer is not set/);
      program.child.kill('SIGHUP');
      await program.waitFor(/TLS files were read again/);
      await program.waitFor(/"ready"/);
    } finally {
      await program.kill();
      await db.drop();
    }
  });
});

/** Of the certificate that new connections get. */
function fingerprint(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: 'localhost', rejectUnauthorized: false }, () => {
      resolve(socket.getPeerCertificate().fingerprint256);
      socket.destroy();
    });
    socket.once('error', reject);
  });
}
