/** A relay without a gateway: it can be asked how it is, and relays also where nobody can ask it. */

import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { Writable } from 'node:stream';
import { pino } from 'pino';
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest';
import { startApp } from '../../src/app.js';
import type { App } from '../../src/app.js';
import { parseConfig } from '../../src/config.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { socialConfig, socialSql } from '../support/social.js';
import { tokenFor } from '../gateway/support.js';

let database: TestDatabase;
beforeAll(async () => {
  database = await createTestDatabase({ prepare: socialSql });
});
afterAll(() => database.drop());

/** Resolves when it leads. */
async function startRelay(server: object): Promise<{ app: App; log: string[] }> {
  const auth = { secret: 'a-secret-for-tests-that-is-long-enough-0123456789', adminClaim: { role: 'admin' } };
  const config = parseConfig(
    socialConfig(database.url, { server: { host: '127.0.0.1', port: 0, ...server }, auth }),
    {},
    { path: 'test.yaml' },
  );
  const log: string[] = [];
  const into = new Writable({
    write(line: Buffer, _encoding, done) {
      log.push(line.toString());
      done();
    },
  });
  let lead = (): void => undefined;
  const leads = new Promise<void>((resolve) => (lead = resolve));
  const app = await startApp(config, {
    role: 'relay',
    log: pino({ level: 'warn' }, into),
    observer: { leader: (now) => void (now && lead()) },
    processMetrics: true,
  });
  onTestFinished(() => app.stop());
  await leads;
  return { app, log };
}

it('serves its own metrics and whether it is well, and nothing of a gateway', async () => {
  const { app } = await startRelay({});
  const ask = (path: string, headers: Record<string, string> = {}): Promise<Response> =>
    fetch(`http://127.0.0.1:${String(app.port)}${path}`, { headers });
  const metrics = await (await ask('/metrics')).text();
  expect(metrics).toMatch(/^belfry_relay_leader 1$/m);
  expect(metrics).toMatch(/^process_resident_memory_bytes \d+$/m);
  expect(metrics).toMatch(/^nodejs_eventloop_lag_p99_seconds [\d.]+$/m);
  expect((await ask('/healthz')).status).toBe(200);
  expect((await ask('/readyz')).status).toBe(200);
  for (const path of ['/api/ws/status', '/api/notifications', '/ws']) expect((await ask(path)).status).toBe(404);

  // As for a gateway: this machine, or an admin.
  const elsewhere = { 'x-forwarded-for': '192.0.2.1' };
  const as = (claims: object): Record<string, string> => ({
    ...elsewhere,
    authorization: `Bearer ${tokenFor('1', { ...claims })}`,
  });
  expect((await ask('/metrics', elsewhere)).status).toBe(401);
  expect((await ask('/metrics', as({}))).status).toBe(403);
  expect((await ask('/metrics', as({ role: 'admin' }))).status).toBe(200);

  await app.stop();
  await expect(ask('/healthz')).rejects.toThrow();
});

it('leaves the port of the config to a gateway', async () => {
  const gateway = createServer();
  await new Promise<void>((resolve) => gateway.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void gateway.close());
  const { port } = gateway.address() as AddressInfo;
  const { app } = await startRelay({ port });
  expect(app.port).toBe(port + 1);
});

it('relays also where its port is taken, and says what is missing', async () => {
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void taken.close());
  const { port } = taken.address() as AddressInfo;
  const { app, log } = await startRelay({ port: port - 1 });
  expect(app.port).toBeNull();
  expect(log.join('')).toMatch(new RegExp(`Port ${String(port)} is in use: .*PORT.*/metrics`));
});
