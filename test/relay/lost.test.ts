/** The repair of lost events beside a backlog: what was read ahead was read with the count of before. */
import { pino } from 'pino';
import { expect, it, onTestFinished } from 'vitest';
import { createBroker } from '../../src/broker/create.js';
import { installCapture } from '../../src/capture/install.js';
import { parseConfig } from '../../src/config.js';
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
import { addPost, addUsers, socialConfig, socialSql } from '../support/social.js';

it('a count anew between two pages of a backlog counts nothing twice', { timeout: 60_000 }, async () => {
  const database = await createTestDatabase({ prepare: socialSql });
  onTestFinished(() => database.drop());
  const config = parseConfig(socialConfig(database.url), {}, { path: 'test.yaml' });
  await installCapture(await database.client(), config);
  const [ada = ''] = await addUsers(database.pool, 'Ada');
  const post = await addPost(database.pool, ada);
  // Several pages.
  await database.pool.query(`insert into users (full_name) select 'Somebody' from generate_series(1, 7500)`);
  await database.pool.query('insert into likes (user_id, post_id) select id, $1 from users', [post]);

  const open = (name: string, session = {}) => connect(database.url, { applicationName: name, session });
  const [reader, facts, wide, writer, ahead] = [
    await open('reader', OutboxReader.session),
    await open('facts'),
    await open('wide'),
    await open('writer', writerSession),
    await open('ahead', writerSession),
  ];
  const { rows } = await writer.query<Cursor & { term: string }>(
    'select term::text, seen::text, target::text, after_id::text as "afterId", max_id::text as "maxId" from belfry.relay',
  );
  const { term = '', ...cursor } = rows[0] ?? ({} as Cursor & { term: string });
  const log = pino({ level: 'silent' });
  const doorbell = new Doorbell({ mode: 'poll', url: database.url, unread: () => unreadQuery(cursor), log });
  await doorbell.start();
  const broker = await createBroker(config.broker, log);
  let rounds = 0;
  const leading = await Leading.prepare(
    {
      ...{ config, broker, doorbell, log, reader, facts, wide, writer, ahead },
      metrics: createMetrics().relay,
      observer: {},
      traces: { add: () => undefined },
      chores: async (now) => {
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
      },
    },
    { term, cursor, trusted: () => true, paused: () => false },
  );
  await leading.run();
  await doorbell.stop();
  await Promise.all([reader, facts, wide, writer, ahead].map((client) => client.end()));
  const counted = await database.pool.query(
    'select (select count(*)::int from likes) as likes, (select count from belfry.counter)::int as counter, (select events::int from belfry.lag) as unread',
  );
  expect(counted.rows).toEqual([{ likes: 7501, counter: 7501, unread: 0 }]);
});
