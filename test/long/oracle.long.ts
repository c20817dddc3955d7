/**
 * The whole of it against a model: people of a small social app act at random while relays, gateways and connections die, and whenever it
 * has become quiet every inbox, page, badge and counter must be what the model says (test/long/oracle/model.ts).
 *
 * BELFRY_TEST_SECONDS, 90 by default; BELFRY_TEST_SEED repeats the acts of a round, if not their timing.
 */

import { afterAll, beforeAll, expect, it } from 'vitest';
import { seeded } from '../outbox/rig.js';
import { brokers } from '../support/brokers.js';
import { createTestDatabase, type TestDatabase } from '../support/postgres.js';
import { Belfry, townSql } from './oracle/belfry.js';
import { round } from './oracle/round.js';

const seconds = Number(process.env['BELFRY_TEST_SECONDS'] ?? '90');
const seed = Number(process.env['BELFRY_TEST_SEED'] ?? Math.floor(Math.random() * 1_000_000));
const broker = brokers.find(({ there }) => there);
const skipped = broker === undefined ? ' (skipped: neither Redis nor NATS answers on this machine)' : '';

let database: TestDatabase;
let belfry: Belfry;

beforeAll(async () => {
  if (broker === undefined) return;
  database = await createTestDatabase({ prepare: townSql });
  belfry = await Belfry.start(database, broker.url);
}, 120_000);

afterAll(async () => {
  await belfry?.stop();
  await database?.drop();
}, 120_000);

it.skipIf(broker === undefined)(
  `everything is as the model says, for ${seconds} s from seed ${seed}${skipped}`,
  { timeout: (seconds + 120) * 1_000 },
  async () => {
    let rounds = 0;
    for (const end = Date.now() + seconds * 1_000; Date.now() < end; rounds += 1) {
      const log: string[] = [];
      try {
        await round(database, belfry, seeded(seed + rounds), log);
      } catch (error) {
        const told = error as Error;
        told.message += `\n\nOf this round: BELFRY_TEST_SEED=${seed + rounds}. It went:\n${log.join('\n')}`;
        throw told;
      }
    }
    process.stdout.write(`${rounds} rounds from seed ${seed}\n`);
    expect(rounds).toBeGreaterThan(0);
  },
);
