/** A start that cannot stop (its database went silent) is over within the 30 s that orchestrators give. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { createTestDatabase, withPort } from '../support/postgres.js';
import { startBelfry } from '../support/program.js';
import { startProxy } from '../support/proxy.js';
import { socialConfig, socialSql } from '../support/social.js';

it('SIGTERM ends within 30 s whatever happens', { timeout: 120_000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'belfry-stop-'));
  const database = await createTestDatabase({ prepare: socialSql });
  const { hostname, port } = new URL(database.url);
  const proxy = await startProxy({ host: hostname, port: Number(port) });
  const file = join(folder, 'belfry.yaml');
  writeFileSync(file, socialConfig(withPort(database.url, proxy.port), 'server: { host: 127.0.0.1, port: 0 }'));
  const server = startBelfry(['start', '--config', file]);
  try {
    await server.waitFor(/"msg":"ready"/);
    proxy.pause();
    const beganMs = performance.now();
    server.child.kill('SIGTERM');
    await server.exit;
    expect(performance.now() - beganMs).toBeLessThan(30_000);
  } finally {
    await server.kill();
    await proxy.close();
    await database.drop();
    rmSync(folder, { recursive: true });
  }
});
