/** A dead letter as an operator meets it: an event whose recipients cannot be asked for, shown, explained, discarded and tried again. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, it, vi } from 'vitest';
import { startApp } from '../../src/app.js';
import type { App } from '../../src/app.js';
import { installCapture } from '../../src/capture/install.js';
import { loadConfig } from '../../src/config.js';
import { seedCounters } from '../../src/inbox/seed.js';
import { createLogger } from '../../src/log.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { startBelfry } from '../support/program.js';
import { addUsers, socialConfig, socialSql } from '../support/social.js';

// Every step is a process of its own, and the machine may be busy.
vi.setConfig({ testTimeout: 120_000 });

const folder = mkdtempSync(join(tmpdir(), 'belfry-dead-'));
const file = join(folder, 'belfry.yaml');
const patience = { timeout: 30_000, interval: 20 };

let database: TestDatabase;
let app: App;
let ada: string, bo: string;

beforeAll(async () => {
  database = await createTestDatabase({
    prepare: `${socialSql}; create table public.things (id bigserial primary key, n int not null, r bigint not null, label int);`,
  });
  const source = {
    name: 'thing',
    type: 'thing',
    table: 'things',
    key: ['id'],
    object: { kind: 'thing', id: 'id' },
    recipient: { query: 'select r.v from (select :r::bigint as v) r where 10 / (:n::int - 5) is not null' },
    include: ['label'],
    channels: ['all'],
    counter: { event: 'thing_update', field: 'things' },
  };
  writeFileSync(file, socialConfig(database.url, { sources: [source] }));
  const config = await loadConfig(file, {});
  const client = await database.client();
  await installCapture(client, config);
  await seedCounters(client, config, { info: () => undefined });
  app = await startApp(config, { role: 'relay', log: createLogger({ level: 'silent', name: 'test' }) });
});
beforeEach(async () => {
  [ada = '', bo = ''] = await addUsers(database.pool, 'Ada', 'Bo');
});
afterAll(async () => {
  await app.stop();
  await database.drop();
  rmSync(folder, { recursive: true });
});

async function run(...args: readonly string[]): Promise<{ code: number | null; out: string; err: string }> {
  const program = startBelfry(args, { cwd: folder });
  const { code } = await program.exit;
  return { code, out: program.stdout, err: program.stderr };
}

async function json(...args: readonly string[]): Promise<Record<string, unknown>> {
  const { code, out, err } = await run(...args, '--json');
  expect({ code, err }).toEqual({ code: 0, err: '' });
  return JSON.parse(out) as Record<string, unknown>;
}

/** Outbox id of what was written last, once it is a dead letter. */
async function dead(): Promise<string> {
  const { rows } = await database.pool.query<{ id: string }>('select max(id)::text as id from belfry.outbox');
  const id = rows[0]?.id ?? '';
  await expect
    .poll(
      async () => (await database.pool.query('select from belfry.dead_event where event_id = $1', [id])).rowCount,
      patience,
    )
    .toBe(1);
  return id;
}

const allRead = () =>
  expect
    .poll(
      async () => (await database.pool.query<{ n: string }>('select events as n from belfry.lag')).rows[0]?.n,
      patience,
    )
    .toBe('0');

/** Changes a row unheard, so that only a retry tells what it says now. */
async function unheard(sql: string, ...values: readonly string[]): Promise<void> {
  const client = await database.client();
  await client.query('set session_replication_role = replica');
  await client.query(sql, [...values]);
  await client.query('reset session_replication_role');
}

/** Who has how many notifications. */
async function inboxes(): Promise<Record<string, number>> {
  const { rows } = await database.pool.query<{ user_id: string; n: number }>(
    'select user_id, count(*)::int as n from belfry.notification where not withdrawn and user_id = any($1) group by user_id',
    [[ada, bo]],
  );
  return Object.fromEntries(rows.map(({ user_id, n }) => [user_id, n]));
}

/** The outbox id of a thing for Ada that cannot be asked for. */
async function poisoned(): Promise<string> {
  await database.pool.query('insert into things (n, r, label) values (5, $1, 3)', [ada]);
  return await dead();
}

it('is shown with the row that outbox show has, ids as text', async () => {
  const id = await poisoned();
  await database.pool.query('update things set r = $1 where r = $2', [bo, ada]);
  const update = await dead();
  for (const event of [id, update]) {
    const { new: after, old: before } = await json('outbox', 'show', event);
    expect(after).toEqual({ id: expect.any(String) as string, n: '5', r: event === id ? ada : bo, label: 3 });
    expect(await json('dead-letter', 'show', event)).toMatchObject({ id: event, new: after, old: before });
    const { items } = (await json('dead-letter', 'list')) as { items: { id: string }[] };
    expect(items.find((item) => item.id === event)).toMatchObject({ new: after, old: before });
  }
});

it('is explained, though nobody can tell whom it is for', async () => {
  const id = await poisoned();
  expect(await json('explain', id)).toMatchObject({
    ...{ event: id, read: true, error: 'division by zero', recipients: [] },
    notes: ['It failed before anybody could tell whom it is for.'],
  });
  const aside = await run('explain', id);
  expect(aside).toMatchObject({ code: 0, err: '' });
  expect(aside.out).toContain('a dead letter: division by zero\nIt failed before anybody could tell whom it is for.\n');
  expect(aside.out).not.toContain('nobody\n');
  expect((await run('explain', id, '--user', ada)).out).not.toContain('nothing to do with');
});

it('and then discarded, with its row deleted meanwhile or not: counts are those of the table', async () => {
  const [kept, gone] = [await poisoned(), await poisoned()];
  const { rows } = await database.pool.query<{ id: string }>('select id::text from things order by id desc limit 2');
  const [last = '', before = ''] = rows.map(({ id }) => id);
  await database.pool.query('delete from things where id = $1', [last]);
  await allRead();
  expect((await run('dead-letter', 'discard', kept, gone)).code).toBe(0);
  const counts = async () =>
    (
      await database.pool.query<{ count: string }>(
        `select coalesce((select count from belfry.counter where source = 'thing' and object_id = w.id), 0) as count from unnest($1::text[]) w(id)`,
        [[last, before]],
      )
    ).rows.map(({ count }) => count);
  await expect.poll(counts, patience).toEqual(['0', '1']);
});

it('is explained likewise once it was discarded: who did it, and why', async () => {
  const id = await poisoned();
  expect((await run('dead-letter', 'discard', id, '--reason', 'test data')).code).toBe(0);
  expect(await json('explain', id)).toMatchObject({ event: id, recipients: [] });
  for (const how of [['--dry-run'], []]) {
    const replayed = await run('replay', '--since', '1h', ...how);
    expect(replayed).toMatchObject({ code: 1, out: expect.stringMatching(/^\d+ events?: /) as string });
    expect(replayed.err).toContain('could not be processed, the last one because: division by zero');
  }
  const discarded = await run('explain', id);
  expect(discarded).toMatchObject({ code: 0, err: '' });
  expect(discarded.out).toMatch(/\nA dead letter \(division by zero\) that \S+ discarded: test data\.\n/);
  expect(discarded.out).not.toMatch(/is for nobody|would deliver/);
});

it('is told by a retry as its row is now, whatever it failed by then', async () => {
  const id = await poisoned();
  expect(await run('dead-letter', 'retry', id)).toEqual({
    code: 1,
    out: '',
    err: `belfry: 1 of 1 failed again; ${id}: division by zero\n`,
  });
  await unheard('update things set n = 7, r = $1 where r = $2', bo, ada);
  expect(await run('dead-letter', 'retry', id)).toEqual({ code: 0, out: `processed ${id}\n`, err: '' });
  expect(await inboxes()).toEqual({ [bo]: 1 });
  expect(await json('explain', id)).toMatchObject({ recipients: [{ user_id: bo, verdict: 'delivered' }] });
});

it('is told once where the update that mended the row was told before', async () => {
  const id = await poisoned();
  await database.pool.query('update things set n = 7 where r = $1', [ada]);
  await allRead();
  expect(await inboxes()).toEqual({ [ada]: 1 });
  expect(await run('dead-letter', 'retry', id)).toEqual({ code: 0, out: `processed ${id}\n`, err: '' });
  expect(await inboxes()).toEqual({ [ada]: 1 });
});

it('brings nobody anything once its row is gone', async () => {
  const id = await poisoned();
  await unheard('delete from things where r = $1', ada);
  expect(await run('dead-letter', 'retry', id)).toEqual({ code: 0, out: `processed ${id}\n`, err: '' });
  expect(await inboxes()).toEqual({});
});
