/** A leader over a database of its own that a test drives by hand: prepared, and not running unless the test runs it. */
import { pino } from 'pino';
import type pg from 'pg';
import { onTestFinished } from 'vitest';
import { createBroker } from '../../src/broker/create.js';
import { installCapture } from '../../src/capture/install.js';
import { parseConfig } from '../../src/config.js';
import type { Config } from '../../src/config.js';
import { createMetrics } from '../../src/metrics.js';
import { unreadQuery } from '../../src/outbox/cursor.js';
import type { Cursor } from '../../src/outbox/cursor.js';
import { Doorbell } from '../../src/outbox/doorbell.js';
import { OutboxReader } from '../../src/outbox/reader.js';
import { connect } from '../../src/postgres/connect.js';
import { writerSession } from '../../src/relay/connections.js';
import { Leading } from '../../src/relay/leading.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { socialConfig, socialSql } from '../support/social.js';

export const log = pino({ level: 'silent' });

/** Closed when the test is finished. */
export interface LeadingRig {
  readonly database: TestDatabase;
  readonly config: Config;
  readonly facts: pg.Client;
  /** Prepared, and not running. */
  leading(chores: (leading: Leading) => Promise<void>): Promise<Leading>;
}

/** Over the social app, or other tables with a config for them. */
export async function leadingRig(
  prepare = socialSql,
  configOf = (url: string) => socialConfig(url),
): Promise<LeadingRig> {
  const database = await createTestDatabase({ prepare });
  onTestFinished(() => database.drop());
  const config = parseConfig(configOf(database.url), {}, { path: 'test.yaml' });
  await installCapture(await database.client(), config);
  const open = async (name: string, session = {}, pipelined = false): Promise<pg.Client> => {
    const client = await connect(database.url, { applicationName: name, session, pipelined });
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
        await open('writer', writerSession, true),
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
