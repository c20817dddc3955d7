/** What the page may ask of the demo itself: tokens for the three only, bounded numbers, nothing for strangers. */
import { createServer, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import jwt from 'jsonwebtoken';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nowMs } from '../../src/clock.js';
import { createControl } from '../../src/embedded/control.js';
import { Refusal } from '../../src/embedded/http.js';
import { settlePeople } from '../../src/embedded/people.js';
import { Simulator } from '../../src/embedded/simulator.js';
import { Watch } from '../../src/embedded/watch.js';
import { createTestDatabase, type TestDatabase } from '../support/postgres.js';

const secret = 'a secret of the test, long enough for HS256';
let database: TestDatabase;
let pool: pg.Pool;
let simulator: Simulator;
let watch: Watch;
let server: Server;
let base: string;
let away: number[] = [];

beforeAll(async () => {
  database = await createTestDatabase();
  ({ pool } = database);
  const people = await settlePeople(await database.client());
  simulator = new Simulator(pool, people);
  watch = new Watch(people.cast, people.crowd, () => ({}));
  const leave = (ms: number): void => {
    if (away.length > 0) throw new Refusal(409, 'Already away.');
    away = [ms];
  };
  const origins = ['http://localhost:10000'];
  server = createServer(createControl({ watch, simulator, cast: people.cast, secret, origins, leave }));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  base = `http://localhost:${(server.address() as AddressInfo).port}`;
});

afterAll(async () => {
  watch.stop();
  await simulator.stop();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await database.drop();
});

async function call(method: string, path: string, headers: Record<string, string> = {}) {
  const response = await fetch(base + path, { method, headers });
  return { status: response.status, body: await response.json().catch(() => null) };
}

test('a token for each of the three, with an end; for nobody else', async () => {
  const { body } = await call('GET', '/watch/token?person=2');
  const claims = jwt.verify(body.token, secret, { algorithms: ['HS256'] }) as jwt.JwtPayload;
  expect(claims.sub).toBe('2');
  expect(claims.exp! - claims.iat!).toBe(3600);
  for (const stranger of ['4', '', '2%20', '999999']) {
    expect(await call('GET', `/watch/token?person=${stranger}`)).toMatchObject({ status: 404 });
  }
});

test('the clock is this process’s', async () => {
  const { body } = await call('GET', '/watch/clock');
  expect(Math.abs(body.now - nowMs())).toBeLessThan(1000);
});

describe('numbers are bounded', () => {
  test.each(['-1', '2001', '1.5', '1e3', '', 'many'])('rate %j', async (rate) => {
    expect(await call('POST', `/watch/simulator?rate=${rate}`)).toMatchObject({ status: 400 });
    expect(simulator.state.rate).toBe(0);
  });

  test('a rate within them starts the crowd, 0 stops it', async () => {
    expect(await call('POST', '/watch/simulator?rate=5')).toMatchObject({ status: 200, body: { rate: 5 } });
    expect(await call('POST', '/watch/simulator?rate=0')).toMatchObject({ status: 200, body: { rate: 0 } });
  });

  test('an outage has an end, and there is one at a time', async () => {
    expect(await call('POST', '/watch/away?seconds=61')).toMatchObject({ status: 400 });
    expect(away).toEqual([]);
    expect(await call('POST', '/watch/away?seconds=10')).toMatchObject({ status: 202 });
    expect(away).toEqual([10_000]);
    expect(await call('POST', '/watch/away?seconds=10')).toMatchObject({ status: 409 });
  });
});

describe('strangers', () => {
  test('a page of a foreign origin gets no token', async () => {
    const headers = { origin: 'http://evil.example' };
    expect(await call('GET', '/watch/token?person=1', headers)).toMatchObject({ status: 403 });
    expect(await call('POST', '/watch/simulator?rate=5', headers)).toMatchObject({ status: 403 });
    expect(simulator.state.rate).toBe(0);
  });

  test('nor does a foreign name for this machine', async () => {
    const status = await new Promise((resolve, reject) => {
      const options = { headers: { host: 'evil.example' } };
      request(`${base}/watch/token?person=1`, options, (response) => resolve(response.statusCode))
        .on('error', reject)
        .end();
    });
    expect(status).toBe(403);
  });

  test('what is not there', async () => {
    expect(await call('GET', '/watch/nothing')).toMatchObject({ status: 404 });
    expect(await call('GET', '/watch/simulator?rate=5')).toMatchObject({ status: 404 });
  });
});
