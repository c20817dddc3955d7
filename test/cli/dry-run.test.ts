/** `belfry migrate --dry-run` prints all that `belfry migrate` would do: applied by psql, nothing is left for the relay to change under writers. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { ensurePartitions, outboxDays, partitionsSql } from '../../src/outbox/partitions.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { startBelfry } from '../support/program.js';
import { addPost, addUsers, like, socialConfig, socialSql } from '../support/social.js';

// Every step is a process of its own, and the machine may be busy.
vi.setConfig({ testTimeout: 120_000 });

const folder = mkdtempSync(path.join(tmpdir(), 'belfry-dry-run-'));
const file = path.join(folder, 'belfry.yaml');
let database: TestDatabase;

beforeAll(async () => {
  database = await createTestDatabase({ template: 'empty', prepare: socialSql });
  writeFileSync(file, socialConfig(database.url));
});
afterAll(async () => {
  await database.drop();
  rmSync(folder, { recursive: true });
});

async function migrate(...more: string[]): Promise<string> {
  const program = startBelfry(['migrate', ...more, '--config', file]);
  expect((await program.exit).code, program.stderr).toBe(0);
  return program.stdout;
}

it('a fresh database: the days of the outbox are there before the first event', async () => {
  const sql = await migrate('--dry-run');
  expect((await database.pool.query(`select to_regnamespace('belfry') as schema`)).rows).toEqual([{ schema: null }]);
  const client = await database.client();
  await client.query(sql);
  expect((await outboxDays(client)).filter(({ until }) => until !== null)).toHaveLength(8);
  const [ada = '', bo = ''] = await addUsers(database.pool, 'Ada', 'Bo');
  await like(database.pool, bo, await addPost(database.pool, ada));
  expect((await database.pool.query('select 1 from belfry.outbox_default')).rows).toEqual([]);
  // What the first relay does.
  expect(await ensurePartitions(client, { today: false })).toEqual({ made: [], left: [], busy: [] });
  expect(await partitionsSql(client)).toBe('');
  expect(await migrate()).toContain('everything was there already');
});

it('an outbox that was dropped: it comes back with its days', async () => {
  await database.pool.query('drop table belfry.outbox cascade');
  const client = await database.client();
  await client.query(await migrate('--dry-run'));
  expect((await outboxDays(client)).filter(({ until }) => until !== null)).toHaveLength(8);
});
