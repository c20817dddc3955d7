/**
 * Once per run of vitest: a Postgres for all tests, with the template databases that tests are cloned from.
 *
 * BELFRY_TEST_DATABASE_URL names an existing server to use instead (a superuser's URL); nothing on it is touched but
 * databases whose names begin with belfry_test_.
 */
import { randomBytes } from 'node:crypto';
import { chmod, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TestProject } from 'vitest/node';
import { startEmbeddedPostgres } from '../../src/embedded/postgres.js';
import { isRunning, stopOrphan } from '../../src/embedded/orphan.js';
import { connect } from '../../src/postgres/connect.js';
import { quoteIdent } from '../../src/postgres/sql.js';
import { migrate } from '../../src/schema/migrate.js';
import { buildForTests } from './build.js';
import { withDatabase } from './postgres.js';

declare module 'vitest' {
  interface ProvidedContext {
    /** Database `postgres` of the server that all tests share, as superuser. */
    postgresUrl: string;
    /** Empty but for schema belfry. */
    belfryTemplate: string;
    emptyTemplate: string;
  }
}

const folderPrefix = 'belfry-test-';

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  await buildForTests();
  const existing = process.env['BELFRY_TEST_DATABASE_URL'];
  const server = existing === undefined ? await startServer() : { url: existing, stop: async () => undefined };
  const suffix = randomBytes(4).toString('hex');
  const templates = { belfry: `belfry_test_template_${suffix}`, empty: `belfry_test_empty_${suffix}` };
  try {
    await createTemplate(server.url, templates.empty, false);
    await createTemplate(server.url, templates.belfry, true);
  } catch (error) {
    await server.stop();
    throw error;
  }
  project.provide('postgresUrl', server.url);
  project.provide('belfryTemplate', templates.belfry);
  project.provide('emptyTemplate', templates.empty);
  return async () => {
    if (existing !== undefined) await dropTemplates(existing, Object.values(templates));
    await server.stop();
  };
}

async function startServer(): Promise<{ url: string; stop(): Promise<void> }> {
  await removeLeftovers();
  const wanted = await mkdtemp(path.join(tmpdir(), folderPrefix));
  // For the server's account, when this is root.
  await chmod(wanted, 0o755);
  const server = await startEmbeddedPostgres({
    dataDir: wanted,
    log: { info: () => undefined, warn: (message) => void process.stderr.write(`${message}\n`) },
    // Tests kill processes, not machines: what the kernel holds is safe without fsync.
    settings: { fsync: 'off', full_page_writes: 'off', max_wal_size: '4GB', max_prepared_transactions: '0' },
  });
  return {
    url: server.url,
    stop: async () => {
      await server.stop();
      await rm(server.dataDir, { recursive: true, force: true });
    },
  };
}

/** Folders of runs that were killed; each names the process that made it. */
async function removeLeftovers(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    if (!name.startsWith(folderPrefix)) continue;
    const folder = path.join(tmpdir(), name);
    const owner = await readFile(path.join(folder, 'owner.json'), 'utf8').catch(() => null);
    if (owner === null) continue;
    const { pid } = JSON.parse(owner) as { pid: number };
    if (await isRunning(pid)) continue;
    await stopOrphan(path.join(folder, 'cluster'));
    await rm(folder, { recursive: true, force: true }).catch(() => undefined);
  }
}

async function createTemplate(serverUrl: string, name: string, migrated: boolean): Promise<void> {
  const admin = await connect(serverUrl, { applicationName: 'belfry-test' });
  try {
    await admin.query(`create database ${quoteIdent(name)} template template0`);
    if (migrated) {
      const client = await connect(withDatabase(serverUrl, name), { applicationName: 'belfry-test' });
      try {
        await migrate(client);
      } finally {
        await client.end();
      }
    }
    await admin.query(`alter database ${quoteIdent(name)} with is_template true allow_connections false`);
  } finally {
    await admin.end();
  }
}

async function dropTemplates(serverUrl: string, names: readonly string[]): Promise<void> {
  const admin = await connect(serverUrl, { applicationName: 'belfry-test' });
  try {
    for (const name of names) {
      await admin.query(`alter database ${quoteIdent(name)} with is_template false`);
      await admin.query(`drop database ${quoteIdent(name)} with (force)`);
    }
  } finally {
    await admin.end();
  }
}
