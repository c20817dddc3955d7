/** The listening connection: what it refuses, how it notices that it is deaf, how it comes back. */
import { writeFile } from 'node:fs/promises';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startEmbeddedPostgres, type EmbeddedPostgres } from '../../src/embedded/postgres.js';
import { Listener } from '../../src/outbox/listener.js';
import { connect } from '../../src/postgres/connect.js';
import { assertSuitable, serverInfo } from '../../src/postgres/server.js';
import { migrate } from '../../src/schema/migrate.js';
import { startProxy } from '../support/proxy.js';
import { createTestDatabase, type TestDatabase, withPort } from '../support/postgres.js';
import { startPooler } from './pooler.js';
import { eventually, startRelay, testLog, writeEvent } from './rig.js';

let database: TestDatabase;
beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(() => database.drop());

function listen(url: string) {
  const heard = { rings: 0, changes: [] as boolean[] };
  const log = testLog();
  const listener = new Listener({
    url,
    log,
    onRing: () => (heard.rings += 1),
    onChange: (connected) => heard.changes.push(connected),
  });
  return { listener, heard, log };
}

const ring = () => database.pool.query(`notify belfry`);

test('it hears the bell and nothing else, and is deaf after stop', async () => {
  const { listener, heard } = listen(database.url);
  await listener.start();
  expect(listener.connected).toBe(true);
  expect(heard).toEqual({ rings: 0, changes: [true] });
  await ring();
  await database.pool.query(`notify other; notify belfry_probe`);
  await ring();
  await eventually(async () => heard.rings === 2, 'two rings');
  await listener.stop();
  await listener.stop();
  expect(listener.connected).toBe(false);
  await eventually(async () => {
    const { rows } = await database.pool.query(
      `select from pg_stat_activity where application_name = 'belfry listener' and datname = current_database()`,
    );
    return rows.length === 0;
  }, 'connection gone');
});

test('killed three times, it comes back three times', async () => {
  const { listener, heard, log } = listen(database.url);
  await listener.start();
  for (let i = 1; i <= 3; i += 1) {
    await database.pool.query(
      `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'belfry listener' and datname = current_database()`,
    );
    await eventually(async () => listener.counters.replacements === i && listener.connected, `replacement ${i}`);
  }
  expect(heard.changes).toEqual([true, false, true, false, true, false, true]);
  await ring();
  await eventually(async () => heard.rings === 1, 'a ring');
  expect(log.lines.filter((line) => line.includes('connection is back'))).toHaveLength(3);
  await listener.stop();
});

describe('a half-open connection', () => {
  test('is noticed by the probe within 9 s, replaced, and nothing is lost', async () => {
    const port = Number(new URL(database.url).port);
    const proxy = await startProxy({ host: '127.0.0.1', port });
    const relay = await startRelay(database.url, { doorbellUrl: withPort(database.url, proxy.port) });
    await relay.asleep();
    proxy.pause();
    const pausedAt = Date.now();
    // Neither the ring nor the safety poll's answer can come through: the sleeper's deadline finds out, then it polls.
    await writeEvent(database.pool, 'in silence');
    await relay.collector.until(1);
    expect(Date.now() - pausedAt).toBeLessThan(5_500);
    // The listener has nothing else to go by than its probe.
    await eventually(async () => relay.doorbell.counters.replacements >= 2, 'both connections given up', 10_000);
    proxy.resume();
    const { sleeps } = relay.doorbell.counters;
    await eventually(async () => relay.doorbell.counters.sleeps > sleeps, 'asleep again', 20_000);
    await relay.asleep();
    const { rings } = relay.doorbell.counters;
    await writeEvent(database.pool, 'heard');
    await relay.collector.until(2);
    expect(relay.doorbell.counters.rings).toBe(rings + 1);
    await relay.stop();
    await proxy.close();
  });
});

describe('what it refuses', () => {
  test.each([1, 2, 4])('a transaction-mode pooler with %i server connections', async (size) => {
    const pooler = await startPooler(database.url, size);
    const { listener } = listen(withPort(database.url, pooler.port));
    await expect(listener.start()).rejects.toMatchObject({
      code: 'database_unsuitable',
      message: expect.stringContaining('database.listenUrl') as string,
    });
    expect(listener.connected).toBe(false);
    await listener.stop();
    await pooler.close();
  });

  test('no server at all', async () => {
    const { listener } = listen('postgres://postgres@127.0.0.1:1/postgres');
    await expect(listener.start()).rejects.toMatchObject({ code: 'database_unreachable', retry: true });
    await listener.stop();
  });
});

describe('a server of its own', () => {
  let dataDir: string;
  let server: EmbeddedPostgres;
  const log = { info: () => undefined, warn: () => undefined };
  // 64 pages of 8 kB, the least there is, instead of 8 GB.
  const settings = { max_notify_queue_pages: '64', fsync: 'off' };

  beforeAll(async () => {
    dataDir = await mkdtemp(path.join(tmpdir(), 'belfry-outbox-'));
    server = await startEmbeddedPostgres({ dataDir, log, settings });
    const client = await connect(server.url, { applicationName: 'belfry-test' });
    await migrate(client);
    await client.end();
  });
  afterAll(async () => {
    await server.stop();
    for (const folder of new Set([dataDir, server.dataDir])) await rm(folder, { recursive: true, force: true });
  });

  test('a full NOTIFY queue: no commit fails, events come by the safety poll, the bell is back when it is empty', async () => {
    const relay = await startRelay(server.url);
    const writer = await connect(server.url, { applicationName: 'belfry-test' });
    const stuck = await connect(server.url, { applicationName: 'belfry-test' });
    await stuck.query('listen somebody_else');
    await stuck.query('begin');
    await stuck.query('select 1');
    const usage = async () =>
      (await writer.query<{ usage: number }>('select pg_notification_queue_usage()::float8 as usage')).rows[0]?.usage ??
      0;
    const fill = async (until: number) => {
      while ((await usage()) < until) {
        try {
          await writer.query(`select pg_notify('somebody_else', $1)`, [`${Math.random()}`.padEnd(7_900, 'x')]);
        } catch {
          break;
        }
      }
    };
    await fill(0.5);
    await relay.asleep();
    await writeEvent(writer, 'half full');
    await relay.collector.until(1);
    expect(relay.doorbell.counters).toMatchObject({ rings: 0, safetyWakes: 1 });
    await fill(2);
    // Full: whoever notifies now fails at commit, and the bell must not be among them.
    await expect(writer.query(`select pg_notify('somebody_else', repeat('y', 7900))`)).rejects.toMatchObject({
      code: '54000',
    });
    await relay.asleep();
    await writeEvent(writer, 'full');
    await relay.collector.until(2);
    // A probe fails now, too; the connection is not to blame.
    await new Promise((resolve) => setTimeout(resolve, 5_500));
    expect(relay.doorbell.counters).toMatchObject({ rings: 0, replacements: 0 });
    await stuck.query('commit');
    await eventually(async () => (await usage()) < 0.1, 'the queue is empty');
    await relay.asleep();
    await writeEvent(writer, 'empty again');
    await relay.collector.until(3);
    expect(relay.doorbell.counters.rings).toBe(1);
    await relay.stop();
    await writer.end();
    await stuck.end();
  });

  test('a standby is refused', async () => {
    await server.stop();
    await writeFile(path.join(server.dataDir, 'cluster', 'standby.signal'), '');
    server = await startEmbeddedPostgres({ dataDir, log, settings: { ...settings, hot_standby: 'on' } });
    const { listener } = listen(server.url);
    await expect(listener.start()).rejects.toMatchObject({
      code: 'database_unsuitable',
      message: expect.stringContaining('standby') as string,
    });
    await listener.stop();
    // As `belfry start` and `belfry migrate` ask first.
    const client = await connect(server.url, { applicationName: 'belfry-test' });
    const info = await serverInfo(client);
    await client.end();
    expect(() => assertSuitable(info)).toThrow(/is a standby: point DATABASE_URL at the primary/);
  });
});
