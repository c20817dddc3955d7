/** The repair of lost events beside a backlog, where what was read ahead was read with the count of before; and beside writers. */
import { pino } from 'pino';
import type pg from 'pg';
import { expect, it, onTestFinished } from 'vitest';
import { createBroker } from '../../src/broker/create.js';
import { installCapture } from '../../src/capture/install.js';
import { parseConfig } from '../../src/config.js';
import type { Config } from '../../src/config.js';
import { seedCounters } from '../../src/inbox/seed.js';
import { createMetrics } from '../../src/metrics.js';
import { unreadQuery } from '../../src/outbox/cursor.js';
import type { Cursor } from '../../src/outbox/cursor.js';
import { Doorbell } from '../../src/outbox/doorbell.js';
import { OutboxReader } from '../../src/outbox/reader.js';
import { connect } from '../../src/postgres.js';
import { writerSession } from '../../src/relay/connections.js';
import { Leading } from '../../src/relay/leading.js';
import { repairLost } from '../../src/relay/lost.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { addPost, addUsers, like, socialConfig, socialSql } from '../support/social.js';

const log = pino({ level: 'silent' });

interface Rig {
  readonly database: TestDatabase;
  readonly config: Config;
  readonly facts: pg.Client;
  /** Prepared, and not running. */
  leading(chores: (leading: Leading) => Promise<void>): Promise<Leading>;
}

async function rig(): Promise<Rig> {
  const database = await createTestDatabase({ prepare: socialSql });
  onTestFinished(() => database.drop());
  const config = parseConfig(socialConfig(database.url), {}, { path: 'test.yaml' });
  await installCapture(await database.client(), config);
  const open = async (name: string, session = {}): Promise<pg.Client> => {
    const client = await connect(database.url, { applicationName: name, session });
    onTestFinished(() => client.end());
    return client;
  };
  const facts = await open('facts');
  return {
    database,
    config,
    facts,
    async leading(chores) {
      const [reader, wide, writer, ahead] = [
        await open('reader', OutboxReader.session),
        await open('wide'),
        await open('writer', writerSession),
        await open('ahead', writerSession),
      ];
      const { rows } = await writer.query<Cursor & { term: string }>(
        'select term::text, seen::text, target::text, after_id::text as "afterId", max_id::text as "maxId" from belfry.relay',
      );
      const { term = '', ...cursor } = rows[0] ?? ({} as Cursor & { term: string });
      const doorbell = new Doorbell({ mode: 'poll', url: database.url, unread: () => unreadQuery(cursor), log });
      await doorbell.start();
      onTestFinished(() => doorbell.stop());
      const broker = await createBroker(config.broker, log);
      return await Leading.prepare(
        {
          ...{ config, broker, doorbell, log, reader, facts, wide, writer, ahead, chores },
          metrics: createMetrics().relay,
          observer: {},
          traces: { add: () => undefined },
        },
        { term, cursor, trusted: () => true, paused: () => false },
      );
    },
  };
}

it('a count anew between two pages of a backlog counts nothing twice', { timeout: 60_000 }, async () => {
  const { database, config, facts, leading: lead } = await rig();
  const [ada = ''] = await addUsers(database.pool, 'Ada');
  const post = await addPost(database.pool, ada);
  // Several pages.
  await database.pool.query(`insert into users (full_name) select 'Somebody' from generate_series(1, 7500)`);
  await database.pool.query('insert into likes (user_id, post_id) select id, $1 from users', [post]);
  let rounds = 0;
  const leading = await lead(async (now) => {
    rounds += 1;
    if (rounds === 2) {
      await database.pool.query(
        `insert into belfry.lost (source, sqlstate, since) values ('post_like', '55P03', null)`,
      );
      await repairLost({ config, log, facts, leading: now });
    }
    // The relay reads on until there is nothing left.
    const { rows: left } = await database.pool.query<{ events: number }>('select events::int from belfry.lag');
    if (rounds > 2 && left[0]?.events === 0) now.stop();
  });
  await leading.run();
  const counted = await database.pool.query(
    'select (select count(*)::int from likes) as likes, (select count from belfry.counter)::int as counter, (select events::int from belfry.lag) as unread',
  );
  expect(counted.rows).toEqual([{ likes: 7501, counter: 7501, unread: 0 }]);
});

it('a loss that commits while an earlier one with a higher id is repaired is repaired next', async () => {
  const { database, config, facts, leading: lead } = await rig();
  const [ada = '', bo = '', cleo = '', dora = ''] = await addUsers(database.pool, 'Ada', 'Bo', 'Cleo', 'Dora');
  const post = await addPost(database.pool, ada);
  await like(database.pool, bo, post);
  await seedCounters(facts, config, log);
  /** Left open. */
  const lose = async (userId: string): Promise<pg.Client> => {
    const client = await database.client();
    await client.query(`begin; set local belfry.capture = 'off'`);
    await like(client, userId, post);
    await client.query(`insert into belfry.lost (source, sqlstate) values ('post_like', '55P03')`);
    return client;
  };
  const slow = await lose(cleo);
  await (await lose(dora)).query('commit');
  const leading = await lead(() => Promise.resolve());
  const repair = () => repairLost({ config, log, facts, leading });
  const state = async () =>
    (
      await database.pool.query<{ lost: number; recaptured: number; count: number }>(
        `select (select count(*)::int from belfry.lost) as lost, (select count::int from belfry.counter) as count,
                (select sum(recaptured)::int from belfry.repair) as recaptured`,
      )
    ).rows[0];

  // Stuck once it has counted.
  const holder = await database.client();
  await holder.query('begin; select from belfry.counter for update');
  const repairing = repair();
  await expect
    .poll(
      async () =>
        (
          await database.pool.query(
            `select from pg_stat_activity where application_name = 'facts' and datname = current_database() and wait_event_type = 'Lock'`,
          )
        ).rowCount,
      { timeout: 20_000 },
    )
    .toBe(1);
  await slow.query('commit');
  await holder.query('rollback');
  await repairing;
  expect(await state()).toEqual({ lost: 1, recaptured: 1, count: 2 });
  await repair();
  expect(await state()).toEqual({ lost: 0, recaptured: 2, count: 3 });
});
