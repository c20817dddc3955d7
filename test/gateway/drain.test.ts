/** The end of a gateway: nothing is cut off that could be said, nothing lives longer than the deadline. */

import net from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BelfryError } from '../../src/errors.js';
import { createTestDatabase, locksAwaited, type TestDatabase } from '../support/postgres.js';
import { socialSql } from '../support/social.js';
import { freePort } from '../support/ports.js';
import { startRig, tokenFor, type Rig } from './support.js';

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase({ prepare: socialSql });
});
afterAll(() => db.drop());

const start = (): Promise<Rig> =>
  startRig({
    db,
    yaml: 'limits: { connectionsPerUser: 1000, connectionsPerAddress: 1000, handshakesPerSecond: 1000 }',
  });

describe('stop', () => {
  it('is unready to the end, takes nobody new, closes all with 1012 spread over time', async () => {
    const rig = await start();
    const clients = await Promise.all(Array.from({ length: 100 }, (_, i) => rig.login(String(i))));
    const closedAtMs: number[] = [];
    for (const client of clients) void client.closed.then(() => closedAtMs.push(performance.now()));
    const stopped = rig.gateway.stop({ graceMs: 4000, deadlineMs: 10_000 });
    const statuses = new Set<number>();
    let refused = 0;
    let over = false;
    void stopped.then(() => (over = true));
    while (!over) {
      const ready = await rig.http('/readyz').catch(() => null);
      if (ready !== null) statuses.add(ready.status);
      await rig.connect().catch(() => refused++);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    expect([...statuses]).toEqual([503]);
    expect(refused).toBeGreaterThan(0);
    const ends = await Promise.all(clients.map((client) => client.closed));
    expect(new Set(ends.map(({ code }) => code))).toEqual(new Set([1012]));
    expect(Math.max(...closedAtMs) - Math.min(...closedAtMs)).toBeGreaterThan(100);
    await expect(rig.http('/readyz')).rejects.toThrow();
  });

  it('gives a proxy the time to see that it is unready, and every answer is the last on its connection', async () => {
    const rig = await startRig({
      db,
      change: (config) => ({ ...config, server: { ...config.server, trustProxy: 1 } }),
    });
    expect((await rig.http('/healthz')).headers.get('connection')).toBeNull();
    const began = performance.now();
    const stopped = rig.gateway.stop({ graceMs: 0, deadlineMs: 20_000 });
    const [ready, page] = [await rig.http('/readyz'), await rig.http('/nothing')];
    expect([ready.status, page.status]).toEqual([503, 404]);
    expect([ready, page].map(({ headers }) => headers.get('connection'))).toEqual(['close', 'close']);
    await stopped;
    expect(performance.now() - began).toBeGreaterThan(2400);
  });

  it('is idempotent, and ends within its deadline though a client does not read', async () => {
    const rig = await start();
    const client = await rig.login('1');
    client.socket.pause();
    const began = performance.now();
    await Promise.all([rig.gateway.stop({ graceMs: 1000, deadlineMs: 3000 }), rig.gateway.stop()]);
    expect(performance.now() - began).toBeLessThan(3000);
    await rig.gateway.stop();
  });

  it('hands over: what was missed on the old one is replayed by the new one', async () => {
    const [old, next] = [await start(), await start()];
    const client = await old.login('7');
    const { epoch } = client.all[0]!.ok as { epoch: string };
    old.broker.publish([await old.notification('7', 'before')]);
    await client.push('notification');
    const stopped = old.gateway.stop({ graceMs: 500, deadlineMs: 3000 });
    expect((await client.closed).code).toBe(1012);
    await old.notification('7', 'between');
    const again = await next.login('7', { since: 1, epoch });
    expect(again.all.map((frame) => frame['event'] ?? 'answer')).toEqual(['answer', 'notification', 'synced']);
    await stopped;
    await next.stop();
  });

  it('finishes an HTTP call that is being answered', async () => {
    const rig = await start();
    const blocker = await db.client();
    await blocker.query('begin; lock table belfry.preference in access exclusive mode');
    const call = rig.http('/api/notifications/preferences', { userId: '1' });
    // Awaited below; a failure in between is not unhandled.
    call.catch(() => undefined);
    await expect.poll(() => locksAwaited(db.pool, 'relation'), { timeout: 10_000 }).toBeGreaterThan(0);
    const stopped = rig.gateway.stop({ graceMs: 100, deadlineMs: 5000 });
    await new Promise((resolve) => setTimeout(resolve, 300));
    await blocker.query('commit');
    expect((await call).status).toBe(200);
    await stopped;
  });
});

describe('a call that was given up', () => {
  it('does not hold up the end', async () => {
    const rig = await start();
    const socket = net.connect(rig.port, '127.0.0.1');
    const headers = 'POST /api/notifications/seen HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n';
    socket.write(`${headers}authorization: Bearer ${tokenFor('1')}\r\n\r\n{"ids`);
    await new Promise((resolve) => setTimeout(resolve, 200));
    socket.destroy();
    const began = performance.now();
    await rig.gateway.stop({ graceMs: 0, deadlineMs: 8000 });
    expect(performance.now() - began).toBeLessThan(3000);
  });
});

describe('start', () => {
  it('does not share a port with another gateway without a word', async () => {
    const port = await freePort();
    const there = (): Promise<Rig> =>
      startRig({ db, change: (config) => ({ ...config, server: { ...config.server, port } }) });
    const rig = await there();
    await expect(there()).rejects.toMatchObject({ code: 'port_in_use' });
    await rig.stop();
  });

  it('says that the port is in use', async () => {
    const rig = await start();
    const second = startRig({ db, change: (config) => ({ ...config, server: { ...config.server, port: rig.port } }) });
    await expect(second).rejects.toThrowError(BelfryError);
    await expect(second).rejects.toMatchObject({
      code: 'port_in_use',
      message: expect.stringContaining(String(rig.port)) as string,
    });
    await rig.stop();
  });
});

describe('a new epoch', () => {
  const newEpoch = 'update belfry.relay set epoch = gen_random_uuid()::text returning epoch';

  it.each([
    [
      'once it is told',
      (rig: Rig, epoch: string) => void rig.broker.publish([{ to: 'control', kind: 'epoch', epoch }]),
    ],
    ['in a sweep, though no message told of it', (rig: Rig) => void rig.gateway.sweep.run()],
  ])('makes every session resume, %s', async (_when, notice) => {
    const rig = await start();
    const clients = [await rig.login('1'), await rig.login('2')];
    const { rows } = await db.pool.query<{ epoch: string }>(newEpoch);
    notice(rig, rows[0]!.epoch);
    for (const client of clients) expect(await client.closed).toEqual({ code: 1012, reason: 'restart' });
    const back = await rig.login('1');
    await rig.gateway.sweep.run();
    expect((await back.request({ op: 'ping' })).ok).toEqual({});
    await rig.stop();
  });

  it('is looked for again after a sweep that began before it', async () => {
    const rig = await start();
    const client = await rig.login('1');
    const holder = await db.client();
    await holder.query('begin; lock table belfry.announcement in access exclusive mode');
    // Its snapshot is older than what follows.
    const before = rig.gateway.sweep.run();
    await expect.poll(() => locksAwaited(db.pool, 'relation'), { timeout: 10_000 }).toBe(1);
    await db.pool.query(newEpoch);
    rig.broker.reconnected();
    await holder.query('commit');
    await holder.end();
    await before;
    expect((await client.closed).code).toBe(1012);
    await rig.stop();
  });

  it('a resync reaches those who are live, and those who join just then', async () => {
    const rig = await start();
    const [one, other] = [await rig.login('1'), await rig.login('2')];
    rig.broker.publish([{ to: 'control', kind: 'resync', reason: 'truncate', userIds: ['1'] }]);
    expect((await one.push('resync')).data).toEqual({ reason: 'truncate' });
    await other.request({ op: 'ping' });
    expect(other.frames.filter((frame) => frame['event'] === 'resync')).toEqual([]);
    await rig.stop();
  });
});
