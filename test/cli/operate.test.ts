/** Commands that look at a database or change the relay's state, on a real one. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { startBelfry } from '../support/program.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { socialConfig } from '../support/social.js';

// Every step is a process of its own, and the machine may be busy.
vi.setConfig({ testTimeout: 120_000 });

let database: TestDatabase;
let empty: TestDatabase;
beforeAll(async () => {
  [database, empty] = await Promise.all([createTestDatabase(), createTestDatabase({ template: 'empty' })]);
});
afterAll(async () => {
  await Promise.all([database.drop(), empty.drop()]);
});

async function run(
  url: string,
  ...args: readonly string[]
): Promise<{ code: number | null; out: string; err: string }> {
  // In a folder without a belfry.yaml DATABASE_URL is enough.
  const program = startBelfry(args, { cwd: '/', env: { DATABASE_URL: url } });
  const { code } = await program.exit;
  return { code, out: program.stdout, err: program.stderr };
}

describe('pause and resume', () => {
  const isPaused = async (): Promise<boolean | undefined> =>
    (await database.pool.query<{ paused: boolean }>('select paused from belfry.relay')).rows[0]?.paused;

  it('set what the relay reads, and may be repeated', async () => {
    expect(await run(database.url, 'pause')).toEqual({ code: 0, out: 'paused\n', err: '' });
    expect(await isPaused()).toBe(true);
    expect(await run(database.url, 'pause')).toEqual({ code: 0, out: 'it was paused already\n', err: '' });
    expect(await run(database.url, 'resume')).toEqual({ code: 0, out: 'resumed\n', err: '' });
    expect(await isPaused()).toBe(false);
    expect(await run(database.url, 'resume')).toMatchObject({ code: 0, out: 'it was not paused\n' });
  });

  it('without schema belfry say what to do', async () => {
    const { code, err } = await run(empty.url, 'pause');
    expect(code).toBe(1);
    expect(err).toMatch(/^belfry: There is no schema belfry in this database: run `belfry migrate`\.\n$/);
  });
});

describe('dead letters', () => {
  beforeAll(async () => {
    await database.pool.query(`
      insert into belfry.dead_event (event_id, source, op, new, event_at, sqlstate, error)
      select id, 'post_like', 'created', '{"user_id": 9007199254740993, "n": 5, "of": [9007199254740993]}', '2026-01-15T12:00:00Z', '22P02', 'it does not fit'
      from generate_series(1, 5) id`);
  });

  it('are listed newest first, with integers beyond 2^53 as text', async () => {
    const { code, out } = await run(database.url, 'dead-letter', 'list', '--limit', '2', '--json');
    expect(code).toBe(0);
    const { items } = JSON.parse(out) as { items: Record<string, unknown>[] };
    expect(items.map((item) => item['id'])).toEqual(['5', '4']);
    expect(items[0]).toMatchObject({
      source: 'post_like',
      at: '2026-01-15T12:00:00.000Z',
      attempts: 1,
      error: 'it does not fit',
      new: { user_id: '9007199254740993', n: 5, of: ['9007199254740993'] },
      old: null,
    });
    expect((await run(database.url, 'dead-letter', 'list')).out).toMatch(
      /^id +source[\s\S]*\n5 +post_like.*it does not fit\n/,
    );
  });

  it('are shown one by one', async () => {
    expect(JSON.parse((await run(database.url, 'dead-letter', 'show', '3', '--json')).out)).toMatchObject({ id: '3' });
    expect(await run(database.url, 'dead-letter', 'show', '77')).toEqual({
      code: 1,
      out: '',
      err: 'belfry: There is no dead letter 77.\n',
    });
  });

  it('are discarded, and what was not there is told', async () => {
    expect(await run(database.url, 'dead-letter', 'discard', '1', '2')).toMatchObject({
      code: 0,
      out: 'discarded 1\ndiscarded 2\n',
    });
    const again = await run(database.url, 'dead-letter', 'discard', '3', '1');
    expect(again).toMatchObject({ code: 1, out: 'discarded 3\n', err: 'belfry: There is no dead letter 1.\n' });
    const { rows } = await database.pool.query<{ event_id: string }>(
      'select event_id from belfry.dead_event order by 1',
    );
    expect(rows.map((row) => row.event_id)).toEqual(['4', '5']);
  });
});

describe('start --from', () => {
  const folder = mkdtempSync(join(tmpdir(), 'belfry-operate-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  it('that could not count the tables anew has skipped nothing', async () => {
    await database.pool.query(
      `insert into belfry.outbox (source, op, new) values ('post_like', 'created', '{"user_id": 1, "post_id": 1}')`,
    );
    const config = join(folder, 'belfry.yaml');
    // This database has none of the tables.
    writeFileSync(config, socialConfig(database.url));
    const { code, err } = await run(database.url, 'start', '--from', 'now', '--yes', '--config', config);
    expect(code).toBe(1);
    expect(err).toContain('relation "public.likes" does not exist');
    const { rows } = await database.pool.query('select events::int from belfry.lag');
    expect(rows).toEqual([{ events: 1 }]);
  });

  it('waits after a restore until a relay has led, since what is unread is told by the numbers of the other cluster', async () => {
    const config = join(folder, 'belfry.yaml');
    writeFileSync(config, socialConfig(database.url));
    await database.pool.query(`update belfry.relay set system_identifier = '1'`);
    const before = await database.pool.query('select * from belfry.relay');
    const { code, err } = await run(database.url, 'start', '--from', 'now', '--yes', '--config', config);
    expect({ code, err }).toEqual({ code: 1, err: expect.stringContaining('The database was restored') as string });
    expect((await database.pool.query('select * from belfry.relay')).rows).toEqual(before.rows);
  });
});
