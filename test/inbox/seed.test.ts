/** Counts of what was there: by which config, and whatever limits the database has for its applications. */
import { pino } from 'pino';
import { expect, it, onTestFinished, vi } from 'vitest';
import { MemoryBroker } from '../../src/broker/memory.js';
import { installCapture } from '../../src/capture/install.js';
import { parseConfig } from '../../src/config.js';
import type { Config } from '../../src/config.js';
import { seedCounter, seedCounters } from '../../src/inbox/seed.js';
import { createMetrics } from '../../src/metrics.js';
import { connect } from '../../src/postgres/connect.js';
import { Relay } from '../../src/relay/relay.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { testSecret } from '../support/social.js';

vi.setConfig({ testTimeout: 120_000 });

const log = pino({ level: 'silent' });

function configOf(database: TestDatabase, when: string): Config {
  const source = (name: string, condition: string): string => `
  - { name: ${name}, type: ${name}, table: ${name}s, key: [id], actor: by_id, object: { kind: post, id: post }, recipient: owner, channels: ['post:{post}'],
      counter: { event: ${name}_update, field: ${name}s_count }, when: "${condition}" }`;
  const text = `
version: 1
database: { url: "${database.url}" }
auth: { secret: ${testSecret}, issuer: null, audience: null }
channels: { post: { read: public } }
sources:${source('like', when)}${source('note', 'true')}`;
  return parseConfig(text, {}, { path: 'test.yaml' });
}

const tables = ['like', 'note']
  .map((name) => `create table ${name}s (id int primary key, by_id int, post int, owner int, good boolean);`)
  .join('\n');

it('by another config than the one that was migrated: it is due when that comes back', async () => {
  const database = await createTestDatabase({
    prepare: `${tables} insert into likes select i, 2, 10, 1, i > 1 from generate_series(1, 3) i;`,
  });
  onTestFinished(() => database.drop());
  const client = await database.client();
  const [all, good] = [configOf(database, 'true'), configOf(database, 'good')];
  const counted = async () =>
    (await client.query<{ count: number }>(`select count::int from belfry.counter where source = 'like'`)).rows[0]
      ?.count;
  await seedCounters(client, all, log);
  expect(await counted()).toBe(3);
  await seedCounters(client, good, log);
  expect(await counted()).toBe(2);
  // The program is taken back to the config before, and repairs something.
  for (const source of all.sources) await seedCounter(client, source);
  expect(await counted()).toBe(3);
  expect(await seedCounters(client, good, log)).toEqual(['like']);
  expect(await counted()).toBe(2);
  expect(await seedCounters(client, good, log)).toEqual([]);
});

it('takes longer than the database allows its applications, and so does nothing else of the relay end by such limits', async () => {
  const database = await createTestDatabase({
    prepare: `${tables} insert into likes select i, 2, 10, 1, true from generate_series(1, 3) i;
      create function slow(x boolean) returns boolean immutable language plpgsql as $$ begin perform pg_sleep(0.3); return x; end $$;
      do $$ begin
        execute format('alter database %I set statement_timeout = %L', current_database(), '200ms');
        execute format('alter database %I set default_transaction_isolation = %L', current_database(), 'serializable');
        execute format('alter database %I set default_transaction_read_only = %L', current_database(), 'on');
        if current_setting('server_version_num')::int >= 170000 then
          execute format('alter database %I set transaction_timeout = %L', current_database(), '200ms');
        end if;
      end $$;`,
  });
  onTestFinished(() => database.drop());
  const config = configOf(database, 'public.slow(good)');
  const client = await connect(database.url, { applicationName: 'test' });
  onTestFinished(() => client.end());
  await installCapture(client, config);
  const counters = async () =>
    (
      await client.query<{ counter: string }>(`select source || ' ' || count as counter from belfry.counter order by 1`)
    ).rows.map(({ counter }) => counter);
  await seedCounters(client, config, log);
  expect(await counters()).toEqual(['like 3']);
  // Or by the relay, beside other sources.
  await client.query(`update belfry.source_state set due = true where source = 'like'; delete from belfry.counter`);
  const relay = new Relay({ config, broker: new MemoryBroker(), log, metrics: createMetrics().relay });
  await relay.start();
  onTestFinished(() => relay.stop());
  await client.query('insert into notes values (1, 2, 10, 1, true)');
  await expect.poll(counters, { timeout: 30_000 }).toEqual(['like 3', 'note 1']);
  const told = async () => (await client.query('select type from belfry.notification')).rows;
  await expect.poll(told, { timeout: 30_000 }).toEqual([{ type: 'note' }]);
});
