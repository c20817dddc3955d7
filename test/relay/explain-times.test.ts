/** What relay and gateway measured of an event: when it was read, stored and pushed, and how many sockets its push went to. */

import jwt from 'jsonwebtoken';
import type pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { startApp } from '../../src/app.js';
import type { App } from '../../src/app.js';
import { installCapture } from '../../src/capture/install.js';
import { parseConfig } from '../../src/config.js';
import type { Config } from '../../src/config.js';
import { PushTraces, mostEntries as mostPushes } from '../../src/gateway/traces.js';
import { createLogger } from '../../src/log.js';
import type { Cursor } from '../../src/outbox/cursor.js';
import { explainEvent } from '../../src/relay/look/explain.js';
import { pushesOf, timesOf } from '../../src/relay/look/explain-times.js';
import { BatchTraces, mostEntries } from '../../src/relay/look/traces.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { addPost, addUsers, like, socialConfig, socialSql, testSecret } from '../support/social.js';

const quiet = createLogger({ level: 'silent', name: 'test' });
let database: TestDatabase;
let client: pg.Client;
let config: Config;
let ada: string, bo: string, cleo: string;

beforeAll(async () => {
  database = await createTestDatabase({ prepare: socialSql });
  client = await database.client();
  config = parseConfig(socialConfig(database.url, 'server: { host: 127.0.0.1, port: 0 }'), {}, { path: 'test.yaml' });
  await installCapture(client, config);
  [ada = '', bo = '', cleo = ''] = await addUsers(database.pool, 'Ada', 'Bo', 'Cleo');
});
beforeEach(() => client.query('truncate belfry.batch_trace, belfry.push_trace'));
afterAll(() => database.drop());

const lastEvent = async (): Promise<string> =>
  (await client.query<{ id: string }>('select max(id)::text as id from belfry.outbox')).rows[0]?.id ?? '';
const snapshot = async (): Promise<string> =>
  (await client.query<{ seen: string }>('select pg_current_snapshot()::text as seen')).rows[0]?.seen ?? '';
const cursor = (seen: string): Cursor => ({ seen, target: null, afterId: '0', maxId: '0' });
const now = (): number => performance.timeOrigin + performance.now();

/** Resolves once it is live; what it hears goes to `heard`. */
function connect(app: App, userId: string, heard: () => void): Promise<WebSocket> {
  const socket = new WebSocket(`ws://127.0.0.1:${String(app.port)}/ws`);
  socket.on('open', () =>
    socket.send(
      JSON.stringify({ id: 1, op: 'auth', token: jwt.sign({ sub: userId }, testSecret, { expiresIn: '1h' }) }),
    ),
  );
  return new Promise((resolve, reject) => {
    socket.on('error', reject);
    socket.on('message', (data: Buffer) => {
      const { event } = JSON.parse(data.toString()) as { event?: string };
      if (event === 'synced') resolve(socket);
      if (event === 'notification') heard();
    });
  });
}

it('an event through the whole app: each step in its order, two sockets for her who has two, none for whom is offline', async () => {
  const app: App = await startApp(config, { role: 'all', log: createLogger({ level: 'silent', name: 'test' }) });
  const [post, hers] = [await addPost(database.pool, ada), await addPost(database.pool, cleo)];
  let heard = 0;
  let both: () => void = () => undefined;
  const arrived = new Promise<void>((resolve) => (both = resolve));
  const sockets = await Promise.all([1, 2].map(() => connect(app, ada, () => void (++heard === 2 && both()))));
  await like(database.pool, bo, hers);
  const toCleo = await lastEvent();
  await like(database.pool, bo, post);
  const toAda = await lastEvent();
  await arrived;
  for (const socket of sockets) socket.close();
  await app.stop();

  // What was measured is there at the latest when it has stopped; as if that were a while ago.
  await client.query(`update belfry.notification set pushed_at = pushed_at - interval '1 minute'`);
  for (const table of ['batch_trace', 'push_trace'])
    await client.query(`update belfry.${table} set at = at - interval '1 minute'`);
  await client.query(`update belfry.push_trace set since = since - interval '1 minute'`);
  await client.query(`update belfry.outbox set at = at - interval '1 minute'`);
  const explained = await explainEvent(client, config, toAda, null);
  expect(explained?.recipients).toMatchObject([{ user_id: ada, verdict: 'delivered', seq: 1, sockets: 2 }]);
  expect((await explainEvent(client, config, toCleo, null))?.recipients).toMatchObject([
    { user_id: cleo, verdict: 'delivered', seq: 1, sockets: 0 },
  ]);
  const { written = '', read, stored, pushed } = explained?.times ?? {};
  const steps = [written, read, stored, pushed].map((at) => at ?? 'not measured');
  expect(steps.toSorted()).toEqual(steps);
  expect(steps.at(-1)).toMatch(/^\d/);
  expect(explained?.times?.committed).toBeNull();
});

describe('the batch of an event', () => {
  it('is the first whose cursor is past it, also where a page ends within a delta', async () => {
    const post = await addPost(database.pool, ada);
    const traces = new BatchTraces({ client, worker: 'test', cursor: cursor(await snapshot()), log: quiet });
    const seen = await snapshot();
    const ids: string[] = [];
    for (const user of [bo, cleo, ada]) {
      await like(database.pool, user, post);
      ids.push(await lastEvent());
    }
    const target = await snapshot();
    const at = now() - 100;
    traces.add(
      { seen, target, afterId: ids[1] ?? '', maxId: '0' },
      { readAtMs: at, storedAtMs: at + 1, pushedAtMs: at + 2 },
    );
    traces.add(cursor(target), { readAtMs: at + 10, storedAtMs: at + 11, pushedAtMs: at + 12 });
    await traces.stop();
    const reads: number[] = [];
    for (const id of ids) reads.push(Date.parse((await timesOf(client, id))?.read ?? ''));
    expect(reads[0]).toBe(reads[1]);
    expect(Math.round((reads[2] ?? 0) - (reads[1] ?? 0))).toBe(10);
  });

  it('is not known where what came before it was not measured', async () => {
    await like(database.pool, bo, await addPost(database.pool, ada));
    const id = await lastEvent();
    // Another relay had read it; this one begins after it.
    const traces = new BatchTraces({ client, worker: 'test', cursor: cursor(await snapshot()), log: quiet });
    traces.add(cursor(await snapshot()), { readAtMs: now(), storedAtMs: now(), pushedAtMs: now() });
    await traces.stop();
    expect(await timesOf(client, id)).toMatchObject({ read: null, stored: null, pushed: null, batches: null });
  });

  it('shares an entry with its neighbours where they come too fast', async () => {
    const traces = new BatchTraces({ client, worker: 'test', cursor: cursor(await snapshot()), log: quiet });
    for (let i = 0; i < mostEntries + 10; i++) {
      const at = now();
      traces.add(cursor(await snapshot()), { readAtMs: at, storedAtMs: at, pushedAtMs: at });
    }
    await traces.stop();
    const { rows } = await client.query(
      'select cardinality(batches) as entries, (select sum(b)::int from unnest(batches) b) as batches from belfry.batch_trace',
    );
    const sum = rows.reduce((n: number, { batches }: { batches: number }) => n + batches, 0);
    expect(sum).toBe(mostEntries + 10);
    for (const { entries } of rows as { entries: number }[]) expect(entries).toBeLessThanOrEqual(mostEntries);
  });
});

describe('sockets of a push', () => {
  it('are added up over gateways', async () => {
    for (const [gateway, sockets] of [
      ['one', 1],
      ['two', 3],
    ] as const) {
      const traces = new PushTraces(database.pool, gateway, quiet);
      traces.add(ada, 7, sockets);
      traces.add(bo, 7, 5);
      await traces.stop();
    }
    expect(await pushesOf(client, [{ userId: ada, seq: 7, at: new Date() }])).toEqual([{ sockets: 4 }]);
  });

  it('are not known, instead of none, where pushes were too many to be kept, or it is too early to tell', async () => {
    const ago = (seconds: number): Date => new Date(Date.now() - seconds * 1_000);
    const traces = new PushTraces(database.pool, 'one', quiet);
    traces.add(ada, 1, 1);
    await traces.stop();
    await client.query(`update belfry.push_trace set at = at - interval '90 s', since = at - interval '90 s'`);
    for (let seq = 1; seq <= mostPushes + 1; seq++) traces.add(ada, seq, 1);
    await traces.stop();
    await client.query(
      `update belfry.push_trace set at = at - interval '30 s', since = at - interval '31 s' where left_out > 0`,
    );
    const asked = [
      { userId: bo, seq: 1, at: ago(31) },
      { userId: bo, seq: 1, at: ago(20) },
      { userId: bo, seq: 1, at: ago(1) },
      { userId: bo, seq: 1, at: ago(3_600) },
    ];
    expect(await pushesOf(client, asked)).toEqual([
      { sockets: null },
      { sockets: 0 },
      { sockets: null },
      { sockets: null },
    ]);
  });
});
