/** The crowd: it writes at about the rate it was told, at most, and what it writes stays bounded. */
import type pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { backendRole, type People, settlePeople } from '../../src/embedded/people.js';
import { Simulator, simulatorConnections } from '../../src/embedded/simulator.js';
import { createPool } from '../../src/postgres/connect.js';
import { createTestDatabase, type TestDatabase } from '../support/postgres.js';

let database: TestDatabase;
let people: People;
let pool: pg.Pool;

beforeAll(async () => {
  database = await createTestDatabase();
  people = await settlePeople(await database.client());
  pool = createPool(database.url, {
    applicationName: 'test',
    max: simulatorConnections,
    session: { role: backendRole },
  });
});

afterAll(async () => {
  await pool.end();
  await database.drop();
});

/** Until so many writes are committed; how long it took. */
async function written(simulator: Simulator, count: number): Promise<number> {
  const from = performance.now();
  const target = simulator.state.written + count;
  while (simulator.state.written < target) await new Promise((resolve) => setTimeout(resolve, 5));
  return performance.now() - from;
}

test('the rate is a ceiling, all kinds are written, and stop is stop', async () => {
  const simulator = new Simulator(pool, people);
  simulator.setRate(200);
  // 300 writes at 200/s take 1.5 s; the first twentieth of a second may come at once.
  expect(await written(simulator, 300)).toBeGreaterThan(1400);
  await simulator.stop();
  const { written: after, error } = simulator.state;
  expect(error).toBeNull();
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(simulator.state.written).toBe(after);
  const { rows } = await database.pool.query<{ likes: number; comments: number; follows: number; own: number }>(
    `select (select count(*)::int from likes l join users u on u.id = l.user_id where l.created_at > now() - interval '1 minute') as likes,
            (select count(*)::int from comments) as comments,
            (select count(*)::int from follows)  as follows,
            (select count(*)::int from follows where follower_id = any($1)) as own`,
    [people.cast.map(({ id }) => id)],
  );
  expect(rows[0]!.likes).toBeGreaterThan(0);
  expect(rows[0]!.comments).toBeGreaterThan(2);
  expect(rows[0]!.follows).toBeGreaterThan(0);
  // The three act for themselves.
  expect(rows[0]!.own).toBe(0);
});

test('a database that refuses is told, and the traffic comes back by itself', async () => {
  const simulator = new Simulator(pool, people);
  await database.pool.query(`revoke insert, delete on likes, comments, follows from ${backendRole}`);
  simulator.setRate(100);
  while (simulator.state.error === null) await new Promise((resolve) => setTimeout(resolve, 5));
  expect(simulator.state.error).toMatch(/permission denied/);
  await database.pool.query(`grant insert, delete on likes, comments, follows to ${backendRole}`);
  await written(simulator, 5);
  expect(simulator.state.error).toBeNull();
  await simulator.stop();
});
