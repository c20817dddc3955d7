/** deadLetters.later: wait. Later events of a row stay behind its dead letter, and go in their order once it has gone. */

import type pg from 'pg';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { startApp } from '../../src/app.js';
import type { App } from '../../src/app.js';
import { installCapture } from '../../src/capture/install.js';
import { parseConfig } from '../../src/config.js';
import type { Config } from '../../src/config.js';
import { PostgresChannels } from '../../src/inbox/channels.js';
import { createLogger } from '../../src/log.js';
import { readJob, requestJob } from '../../src/relay/replay/jobs.js';
import { dueRetries, withWaiting } from '../../src/relay/replay/retry.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { addPost, addUsers, like, socialConfig, socialSql, unlike } from '../support/social.js';

const patience = { timeout: 40_000, interval: 20 };

let database: TestDatabase;
let client: pg.Client;
let config: Config;
let app: App | null = null;
let ada: string, bo: string, cleo: string, post: string;

beforeAll(async () => {
  database = await createTestDatabase({ prepare: socialSql });
  client = await database.client();
  // Bo's likes can't be stored while he is poison.
  await client.query(`create table poison (actor_id text);
    create function poisoned() returns trigger language plpgsql as $$ begin
      if exists (select from public.poison p where p.actor_id = new.actor_id) then raise 'poison' using errcode = '22000'; end if;
      return new; end $$;
    create trigger poisoned before insert or update on belfry.notification_event for each row execute function poisoned()`);
});
beforeEach(async () => {
  [ada = '', bo = '', cleo = ''] = await addUsers(database.pool, 'Ada', 'Bo', 'Cleo');
  post = await addPost(database.pool, ada);
  await client.query('delete from poison; delete from belfry.dead_event');
  return async () => {
    await app?.stop();
    app = null;
  };
});
afterAll(() => database.drop());

async function start(later: 'follow' | 'wait'): Promise<void> {
  config = parseConfig(socialConfig(database.url, { deadLetters: { later } }), {}, { path: 'test.yaml' });
  await installCapture(client, config);
  app = await startApp(config, { role: 'relay', log: createLogger({ level: 'silent', name: 'test' }) });
}

interface Dead {
  readonly id: string;
  readonly op: string;
  readonly attempts: number;
  readonly waits_for: readonly string[];
}
const dead = async (): Promise<Dead[]> =>
  (await client.query<Dead>('select id::text, op, attempts, waits_for::text[] from belfry.dead_letter l order by l.id'))
    .rows;
const allRead = () =>
  expect
    .poll(async () => (await client.query<{ n: string }>('select events as n from belfry.lag')).rows[0]?.n, patience)
    .toBe('0');
const likes = async (): Promise<unknown> =>
  (await new PostgresChannels(database.pool, config).recover(`post:${post}`, null, null)).state;
const standing = async (): Promise<string[]> =>
  (
    await client.query<{ actor: string }>(
      'select actor_id as actor from belfry.notification_event where user_id = $1 and removed_at is null order by actor_id::int',
      [ada],
    )
  ).rows.map(({ actor }) => actor);

async function retry(ids: readonly string[]): Promise<void> {
  const id = await requestJob(client, {
    mode: 'retry',
    filter: { ids: await withWaiting(client, ids) },
    rate: null,
    mapping: null,
  });
  await expect.poll(async () => (await readJob(client, id))?.state, patience).toBe('done');
}

/** Bo likes, takes it back and likes again; Cleo likes. The first of Bo's is poison. */
async function poisonedRow(): Promise<void> {
  await client.query('insert into poison values ($1)', [bo]);
  await like(database.pool, bo, post);
  await allRead();
  await unlike(database.pool, bo, post);
  await like(database.pool, cleo, post);
  await allRead();
  await like(database.pool, bo, post);
  await allRead();
}

it('waits behind it, and nobody else does; a retry of the first takes the others along, in order', async () => {
  await start('wait');
  await poisonedRow();
  const [first, second, third, ...more] = await dead();
  expect(more).toEqual([]);
  expect(first).toMatchObject({ op: 'created', attempts: 1, waits_for: [] });
  expect(second).toMatchObject({ op: 'removed', attempts: 0, waits_for: [first?.id] });
  expect(third).toMatchObject({ op: 'created', attempts: 0, waits_for: [second?.id] });
  expect(await standing()).toEqual([cleo]);
  expect(await likes()).toMatchObject({ likes_count: 1 });

  // It fails again: what waits is not touched.
  await retry([first?.id ?? '']);
  expect(await dead()).toMatchObject([{ attempts: 2 }, { attempts: 0 }, { attempts: 0 }]);

  await client.query('delete from poison');
  await retry([first?.id ?? '']);
  expect(await dead()).toEqual([]);
  expect(await standing()).toEqual([bo, cleo]);
  expect(await likes()).toMatchObject({ likes_count: 2 });
  // What comes now waits for nothing.
  await unlike(database.pool, bo, post);
  await allRead();
  expect(await dead()).toEqual([]);
  expect(await standing()).toEqual([cleo]);
  expect(await likes()).toMatchObject({ likes_count: 1 });
});

it('a relay that takes over knows what waits; what waited for one that was discarded is due by itself', async () => {
  await start('wait');
  await client.query('insert into poison values ($1)', [bo]);
  await like(database.pool, bo, post);
  await allRead();
  await app?.stop();
  await start('wait');
  await unlike(database.pool, bo, post);
  await allRead();
  const [first, second] = await dead();
  expect(second?.waits_for).toEqual([first?.id]);
  await app?.stop();
  app = null;
  expect(await dueRetries(client, 10)).toEqual([]);
  await client.query('delete from belfry.dead_event where event_id = $1', [first?.id]);
  expect(await dueRetries(client, 10)).toEqual([second?.id]);
});

it('within one page, with the poison in it', async () => {
  await start('wait');
  await client.query('insert into poison values ($1)', [bo]);
  await client.query('begin');
  await like(client, cleo, post);
  await like(client, bo, post);
  await client.query('commit');
  await allRead();
  await client.query('update belfry.relay set paused = true');
  await expect
    .poll(
      async () => (await client.query<{ n: number }>(`select count(*)::int as n from belfry.dead_event`)).rows[0]?.n,
      patience,
    )
    .toBe(1);
  await unlike(database.pool, bo, post);
  await unlike(database.pool, cleo, post);
  await like(database.pool, bo, post);
  await client.query('update belfry.relay set paused = false');
  await allRead();
  expect((await dead()).map(({ waits_for }) => waits_for.length)).toEqual([0, 1, 1]);
  expect(await standing()).toEqual([]);
});

it('a truncate of the table takes dead letters, what waits for them and what is held along', async () => {
  await start('wait');
  await client.query('alter table posts alter user_id drop not null');
  await client.query('insert into poison values ($1)', [bo]);
  await like(database.pool, bo, post);
  await allRead();
  await unlike(database.pool, bo, post);
  const { rows } = await client.query<{ id: string }>(`insert into posts (body) values ('nobody''s') returning id`);
  await like(database.pool, cleo, rows[0]?.id ?? '');
  await allRead();
  expect(await dead()).toHaveLength(2);
  const held = async () => (await client.query('select from belfry.held')).rowCount;
  expect(await held()).toBe(1);

  await client.query('delete from poison; truncate likes');
  await allRead();
  expect(await dead()).toEqual([]);
  expect(await held()).toBe(0);
  const discarded = await client.query('select source, op, reason from belfry.discarded_event order by event_id');
  const reason = 'the table was truncated';
  expect(discarded.rows).toEqual([
    { source: 'post_like', op: 'created', reason },
    { source: 'post_like', op: 'removed', reason },
  ]);
  // What comes now waits for nothing.
  await like(database.pool, bo, post);
  await allRead();
  expect(await dead()).toEqual([]);
  expect(await standing()).toEqual([bo]);
  expect(await likes()).toMatchObject({ likes_count: 1 });
});

it('by default they go on', async () => {
  await start('follow');
  await poisonedRow();
  // Both creations are poison, the removal between them found nothing to take back.
  expect(await dead()).toMatchObject([
    { op: 'created', attempts: 1, waits_for: [] },
    { op: 'created', attempts: 1, waits_for: [] },
  ]);
  expect(await standing()).toEqual([cleo]);
});
