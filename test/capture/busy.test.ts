/**
 * Installing and removing triggers on tables that are written to all the time, with a transaction open that holds them: no write waits
 * longer than 300 ms beside what it waits without, and nobody queues behind Belfry for as long as that transaction lasts.
 */
import type pg from 'pg';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { installCapture } from '../../src/capture/install.js';
import { uninstall } from '../../src/capture/uninstall.js';
import type { Config } from '../../src/config.js';
import { seedCounters } from '../../src/inbox/seed.js';
import { ensurePartitions } from '../../src/outbox/partitions.js';
import { migrate } from '../../src/schema/migrate.js';
import { createTestDatabase, locksAwaited, type TestDatabase } from '../support/postgres.js';
import { captureConfig, source } from './support.js';

vi.setConfig({ testTimeout: 120_000 });

/** CONTRACT: none waits longer for Belfry. */
const boundMs = 300;
const writers = 8;
const names = ['events', 'others', 'parted'];
const tables = `
  create table public.events (id bigint generated always as identity, user_id bigint, note text);
  create table public.others (id bigint generated always as identity, user_id bigint, note text);
  create table public.parted (id bigint generated always as identity, user_id bigint, note text) partition by range (user_id);
  create table public.parted_a partition of public.parted for values from (0) to (4);
  create table public.parted_b partition of public.parted default;
`;

let database: TestDatabase;
let config: Config;
let client: pg.Client;

beforeEach(async () => {
  database = await createTestDatabase({ template: 'empty', prepare: tables });
  config = captureConfig(names.map((name) => source(name, `public.${name}`)).join(''));
  client = await database.client();
});
afterEach(() => database.drop());

/** People who write to all tables until they are told to stop. */
class Crowd {
  writes = 0;
  private over = false;
  private waits: number[] = [];
  private working: Promise<unknown> = Promise.resolve();

  async start(): Promise<void> {
    const clients = await Promise.all(Array.from({ length: writers }, () => database.client()));
    this.working = Promise.all(clients.map((one, i) => this.write(one, i)));
    await this.hear(writers * 20);
  }

  /** Resolves when so many more writes are through. */
  async hear(writes: number): Promise<void> {
    const until = this.writes + writes;
    while (this.writes < until) await new Promise((resolve) => setTimeout(resolve, 5));
  }

  /** The longest wait since it was asked last. */
  longest(): number {
    const longest = Math.max(0, ...this.waits);
    this.waits = [];
    return longest;
  }

  async stop(): Promise<void> {
    this.over = true;
    await this.working;
  }

  private async write(one: pg.Client, i: number): Promise<void> {
    for (let n = 0; !this.over; n += 1) {
      const began = performance.now();
      await one.query(`insert into public.${names[n % names.length] ?? ''} (user_id) values (${String(i)})`);
      this.waits.push(performance.now() - began);
      this.writes += 1;
    }
  }
}

/** What it says when it waits. */
function listener(): { log: { info: (details: object) => void; warn: () => void }; waits: Promise<void> } {
  let heard: () => void = () => undefined;
  const waits = new Promise<void>((resolve) => (heard = resolve));
  return { waits, log: { info: (details) => void ('holders' in details && heard()), warn: () => undefined } };
}

/** A transaction that stays open, and has done this. */
async function open(sql: string): Promise<pg.Client> {
  const holder = await database.client();
  await holder.query(`begin; ${sql}`);
  return holder;
}

const install = async (log: { info: (details: object) => void; warn: () => void }): Promise<void> => {
  await migrate(client);
  await ensurePartitions(client, { today: true });
  await installCapture(client, config, { log });
  await seedCounters(client, config, log);
};

// Again if the machine was too busy to be measured.
it(
  'migrate: writers go on beside a transaction that holds a table, and are captured when it ends',
  { retry: 2 },
  async () => {
    const crowd = new Crowd();
    await crowd.start();
    await crowd.hear(writers * 50);
    const without = crowd.longest();
    const holder = await open('insert into public.others (user_id) values (1)');
    const { log, waits } = listener();
    const installing = install(log);
    await waits;
    // Several tries of the lock while people write: as many as come through without it.
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    await crowd.hear(writers * 20);
    const beside = crowd.longest();
    await holder.query('commit');
    await installing;
    await crowd.hear(writers * 5);
    const after = crowd.longest();
    await crowd.stop();
    expect(Math.max(beside, after) - without).toBeLessThan(boundMs);
    const { rows } = await database.pool.query(
      'select count(distinct source)::int as sources, (select count(*)::int from belfry.lost) as lost from belfry.outbox',
    );
    expect(rows).toEqual([{ sources: 3, lost: 0 }]);
  },
);

it('uninstall: the same beside one that only reads, and one that has called the SQL API', { retry: 2 }, async () => {
  await install({ info: () => undefined, warn: () => undefined });
  const crowd = new Crowd();
  await crowd.start();
  await crowd.hear(writers * 50);
  const without = crowd.longest();
  const reader = await open('select from public.events');
  const caller = await open(`select belfry.notify('1', 'system', 'hello')`);
  const { log, waits } = listener();
  const removing = uninstall(client, { keepData: false, log });
  await waits;
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  await crowd.hear(writers * 20);
  await reader.query('commit');
  // Nobody's triggers are left: now it waits for the schema, in which others call the API.
  const triggers = `select count(*)::int as n from pg_trigger where tgname like 'belfry%'`;
  await expect
    .poll(async () => (await database.pool.query<{ n: number }>(triggers)).rows[0]?.n, { timeout: 60_000 })
    .toBe(0);
  const calls: number[] = [];
  const other = await database.client();
  for (let i = 0; i < 40; i += 1) {
    const began = performance.now();
    await other.query(`select belfry.notify('1', 'system', 'hello')`);
    calls.push(performance.now() - began);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await caller.query('commit');
  await removing;
  await crowd.hear(writers * 5);
  const beside = crowd.longest();
  await crowd.stop();
  expect(Math.max(beside, ...calls) - without).toBeLessThan(boundMs);
  expect((await database.pool.query(`select to_regnamespace('belfry') as schema`)).rows).toEqual([{ schema: null }]);
});

it(
  'a transaction that lasts an hour: migrate gives up after its bound, and nobody has queued behind it',
  { retry: 2 },
  async () => {
    const crowd = new Crowd();
    await crowd.start();
    const holder = await open('insert into public.events (user_id) values (1)');
    await migrate(client);
    const before = crowd.writes;
    await expect(installCapture(client, config, { lockBoundMs: 3_000 })).rejects.toMatchObject({ code: 'lock_busy' });
    expect(crowd.writes - before).toBeGreaterThan(writers * 10);
    expect(await locksAwaited(database.pool, 'relation')).toBe(0);
    await holder.query('rollback');
    await crowd.stop();
  },
);
