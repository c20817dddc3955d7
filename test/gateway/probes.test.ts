/** What a relay without a gateway answers while it starts, runs and stops. */

import { pino } from 'pino';
import { expect, it, onTestFinished } from 'vitest';
import { parseConfig } from '../../src/config.js';
import { Probes } from '../../src/gateway/http/probes.js';
import { createMetrics } from '../../src/metrics.js';
import { createTestDatabase } from '../support/postgres.js';
import { socialConfig } from '../support/social.js';

it('is alive from the beginning to the end, and ready only between', async () => {
  const db = await createTestDatabase();
  onTestFinished(() => db.drop());
  const config = parseConfig(socialConfig(db.url), {}, { path: 'test.yaml' });
  const probes = new Probes({ config, pool: db.pool, log: pino({ level: 'silent' }), metrics: createMetrics() });
  const port = await probes.start();
  onTestFinished(() => probes.stop());
  const ask = (path: string): Promise<Response> => fetch(`http://127.0.0.1:${String(port)}${path}`);
  const answers = async (): Promise<number[]> =>
    Promise.all(['/healthz', '/readyz', '/metrics'].map(async (path) => (await ask(path)).status));

  expect(await answers()).toEqual([200, 503, 200]);
  await probes.readiness.start();
  expect(await answers()).toEqual([200, 200, 200]);
  await probes.readiness.stop();
  expect(await answers()).toEqual([200, 503, 200]);
  expect((await ask('/readyz')).headers.get('connection')).toBe('close');
  await probes.stop();
  await expect(ask('/healthz')).rejects.toThrow();
});
