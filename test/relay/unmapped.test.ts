/** `belfry migrate` with a newer config than the relay has read: what it captures for sources that the relay does not know is not lost. */

import type pg from 'pg';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { parse, stringify } from 'yaml';
import { startApp } from '../../src/app.js';
import type { App } from '../../src/app.js';
import { installCapture } from '../../src/capture/install.js';
import { parseConfig } from '../../src/config.js';
import type { Config } from '../../src/config.js';
import { createLogger } from '../../src/log.js';
import { readJob, requestJob } from '../../src/relay/replay/jobs.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { addPost, addUsers, follow, like, socialConfig, socialSql } from '../support/social.js';

const patience = { timeout: 40_000, interval: 20 };

let database: TestDatabase;
let client: pg.Client;
let newer: Config;
let older: Config;
let app: App | null = null;
let ada: string, bo: string, cleo: string, post: string;

beforeEach(async () => {
  database = await createTestDatabase({ prepare: socialSql });
  client = await database.client();
  const text = socialConfig(database.url);
  const { sources, ...rest } = parse(text) as { sources: { name: string }[] };
  newer = parseConfig(text, {}, { path: 'newer.yaml' });
  const fewer = { ...rest, sources: sources.filter(({ name }) => name !== 'user_follow') };
  older = parseConfig(stringify(fewer), {}, { path: 'older.yaml' });
  [ada = '', bo = '', cleo = ''] = await addUsers(database.pool, 'Ada', 'Bo', 'Cleo');
  post = await addPost(database.pool, ada);
});
afterEach(async () => {
  await stop();
  await database.drop();
});

async function start(config: Config): Promise<void> {
  app = await startApp(config, { role: 'relay', log: createLogger({ level: 'silent', name: 'test' }) });
}

async function stop(): Promise<void> {
  await app?.stop();
  app = null;
}

const dead = async (): Promise<unknown[]> =>
  (await client.query('select source, op, attempts, error from belfry.dead_event order by event_id')).rows;
const toldAda = async (): Promise<string[]> =>
  (
    await client.query<{ type: string }>(
      'select type from belfry.notification where user_id = $1 and not withdrawn order by type',
      [ada],
    )
  ).rows.map(({ type }) => type);
const allRead = () =>
  expect
    .poll(async () => (await client.query<{ n: string }>('select events as n from belfry.lag')).rows[0]?.n, patience)
    .toBe('0');

it('they are set aside, others go on, and a relay with the newer config delivers them by itself', async () => {
  await installCapture(client, older);
  await start(older);
  await installCapture(client, newer);
  const error = expect.stringMatching(/no source user_follow: restart it with the config that belfry migrate ran with/);
  const follows = (attempts: number): unknown => ({ source: 'user_follow', op: 'created', attempts, error });

  await client.query('begin');
  await follow(client, bo, ada);
  await like(client, bo, post);
  await follow(client, cleo, ada);
  await client.query('commit');
  await expect.poll(toldAda, patience).toEqual(['like']);
  await allRead();
  expect(await dead()).toEqual([follows(1), follows(1)]);

  const id = await requestJob(client, { mode: 'retry', filter: {}, rate: null, mapping: null });
  await expect.poll(async () => (await readJob(client, id))?.state, patience).toBe('done');
  expect(await dead()).toEqual([follows(2), follows(2)]);

  await stop();
  await client.query(`update belfry.dead_event set failed_at = failed_at - interval '1 hour'`);
  await start(newer);
  await expect.poll(toldAda, patience).toEqual(['follow', 'like']);
  await expect.poll(dead, patience).toEqual([]);
  const { rows } = await client.query<{ actors: string[] }>(
    `select actors from belfry.notification where type = 'follow' and user_id = $1`,
    [ada],
  );
  expect(rows[0]?.actors.toSorted()).toEqual([bo, cleo].toSorted());
});

it('what a source left that migrate has removed is passed over', async () => {
  await installCapture(client, newer);
  await follow(database.pool, bo, ada);
  await like(database.pool, bo, post);
  await installCapture(client, older);
  await start(older);
  await expect.poll(toldAda, patience).toEqual(['like']);
  await allRead();
  expect(await dead()).toEqual([]);
});
