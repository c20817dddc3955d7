/**
 * Writers and a relay that keeps falling asleep, in many random interleavings: transactions of every kind that may skip the
 * bell, at random distances, so that they fall on every side of the relay's read, lock, read, sleep. Seeded; the scheduler
 * of the machine is not.
 */
import type pg from 'pg';
import type { DoorbellCounters } from '../../src/outbox/doorbell.js';
import { pause } from '../../src/outbox/deadline.js';
import type { TestDatabase } from '../support/postgres.js';
import { seeded, startRelay, writeEvent } from './rig.js';

export interface InterleaveResult {
  readonly lost: readonly string[];
  readonly twice: readonly string[];
  /** Longest time from the last commit of a round to all of it being read. */
  readonly slowestMs: number;
  readonly counters: DoorbellCounters;
}

/**
 * In rounds: each writer writes once, a random moment after the last round was read, while the relay is on its way to
 * sleep. Then nobody writes until all of it has been read: a wake-up that was missed is not covered by a later one.
 */
export async function interleave(
  database: TestDatabase,
  options: { readonly rounds: number; readonly writers: number; readonly seed: number },
): Promise<InterleaveResult> {
  const relay = await startRelay(database.url);
  const writers = await Promise.all(
    Array.from({ length: options.writers }, async (_, w) => ({
      w,
      random: seeded(options.seed * 1_000 + w),
      client: await database.pool.connect(),
    })),
  );
  const wanted: string[] = [];
  let slowestMs = 0;
  for (let round = 0; round < options.rounds; round += 1) {
    const written = await Promise.all(
      writers.map(async ({ w, random, client }) => {
        await pauseRandomly(random);
        return writeOne(client, random, `${options.seed}.${w}.${round}`);
      }),
    );
    const committedAt = performance.now();
    wanted.push(...written.flat());
    const given = new AbortController();
    await Promise.race([relay.collector.until(wanted.length), pause(3_000, given.signal)]);
    given.abort();
    slowestMs = Math.max(slowestMs, performance.now() - committedAt);
    if (relay.collector.rows.length < wanted.length) break;
  }
  for (const { client } of writers) client.release();
  const { counters } = relay.doorbell;
  await relay.stop();
  const read = relay.collector.numbers;
  const readSet = new Set(read);
  return {
    lost: wanted.filter((name) => !readSet.has(name)),
    twice: read.filter((name, i) => read.indexOf(name) !== i),
    slowestMs,
    counters,
  };
}

/** Gives the names of the events that were committed. */
async function writeOne(client: pg.ClientBase, random: () => number, name: string): Promise<string[]> {
  const kind = random();
  if (kind < 0.4) {
    await writeEvent(client, name);
    return [name];
  }
  await client.query('begin');
  if (kind < 0.55) {
    // A ring, or the lock that stands for one, that is undone.
    await client.query('savepoint s');
    await writeEvent(client, `${name}.undone`);
    if (random() < 0.5) await pauseRandomly(random);
    await client.query('rollback to s');
  }
  await writeEvent(client, name);
  if (kind > 0.7 && kind < 0.8) {
    await client.query('savepoint s');
    await writeEvent(client, `${name}.undone`);
    await client.query('rollback to s');
  }
  if (kind > 0.6) await pauseRandomly(random);
  const keep = kind < 0.95;
  await client.query(keep ? 'commit' : 'rollback');
  return keep ? [name] : [];
}

/** Mostly about as long as the relay needs to fall asleep. */
async function pauseRandomly(random: () => number): Promise<void> {
  const ms = random() * random() * 6;
  if (ms >= 1) await new Promise((resolve) => setTimeout(resolve, ms));
  else for (let turns = ms * 20; turns > 0; turns -= 1) await new Promise((resolve) => setImmediate(resolve));
}
