/**
 * Whatever happens to the outbox, the triggers or the columns under them: the backend's write succeeds in time, and once the
 * way is free again the relay makes good what was lost: counters, withdrawals, and notifications where the table says when
 * a row was created. What can't be made good is said.
 */
import { pino } from 'pino';
import { afterEach, beforeEach, expect, it, onTestFinished, vi } from 'vitest';
import { WebSocket } from 'ws';
import jwt from 'jsonwebtoken';
import { parse, stringify } from 'yaml';
import { startApp } from '../../src/app.js';
import type { App } from '../../src/app.js';
import { capturedSources } from '../../src/capture/desired.js';
import { installCapture } from '../../src/capture/install.js';
import { uninstall } from '../../src/capture/uninstall.js';
import { parseConfig } from '../../src/config.js';
import type { Config } from '../../src/config.js';
import { seedCounters } from '../../src/inbox/seed.js';
import { ensurePartitions } from '../../src/outbox/partitions.js';
import { countReplay } from '../../src/relay/replay/work.js';
import { restoreOutbox } from '../../src/schema/migrate.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import {
  addPost,
  addUsers,
  block,
  follow,
  like,
  socialConfig,
  socialSql,
  testSecret,
  unlike,
} from '../support/social.js';

/** CONTRACT: no write waits longer for Belfry. */
const BOUND_MS = 300;
/** A second like shows soon. */
const aggregation = { like: { window: '200ms', early: [10], groupFor: '12h', sample: 8 } };
/** A relay that is awake looks for losses every 10 s, one that sleeps every 30 s (choresEveryMs). */
const soon = { timeout: 45_000, interval: 50 };
/** Where a write that is not captured wakes it. */
const atOnce = { timeout: 15_000, interval: 50 };

let database: TestDatabase;
let config: Config;
let app: App | null = null;
let ada: string, bo: string, cleo: string, dora: string, post: string;
const logged: Record<string, unknown>[] = [];

beforeEach(async () => {
  logged.length = 0;
  database = await createTestDatabase({ prepare: socialSql });
  [ada = '', bo = '', cleo = '', dora = ''] = await addUsers(database.pool, 'Ada', 'Bo', 'Cleo', 'Dora');
  post = await addPost(database.pool, ada);
  return async () => {
    await app?.stop();
    app = null;
    await database.drop();
  };
});
afterEach(() => expect(logged.filter(({ msg }) => msg === 'event set aside as a dead letter')).toEqual([]));

/** What `belfry migrate` does. */
async function migrate(edit: (yaml: string) => string = (yaml) => yaml): Promise<void> {
  config = parseConfig(edit(socialConfig(database.url, { aggregation })), {}, { path: 'test.yaml' });
  const client = await database.client();
  await restoreOutbox(
    client,
    capturedSources(config).map(({ name }) => name),
  );
  await ensurePartitions(client, { today: true });
  await installCapture(client, config);
  await seedCounters(client, config, { info: () => undefined });
  await client.end();
}

async function start(): Promise<void> {
  const log = pino(
    { level: 'warn' },
    { write: (line: string) => logged.push(JSON.parse(line) as Record<string, unknown>) },
  );
  app = await startApp(config, { role: 'all', log });
}

async function stop(): Promise<void> {
  await app?.stop();
  app = null;
}

/** A term looks for losses when it begins; one that goes on does it every half a minute, which is longer than a test should take. */
async function restart(): Promise<void> {
  await stop();
  await start();
}

/** A person's open page: the names of the events that reached it. */
async function open(userId: string): Promise<string[]> {
  const events: string[] = [];
  const socket = new WebSocket(`ws://127.0.0.1:${String(app?.port)}/ws`);
  await new Promise((resolve) => socket.once('open', resolve));
  const synced = new Promise<void>((resolve) =>
    socket.on('message', (data: Buffer) => {
      const { event } = JSON.parse(data.toString()) as { event?: string };
      if (event !== undefined) events.push(event);
      if (event === 'synced') resolve();
    }),
  );
  socket.send(JSON.stringify({ id: 1, op: 'auth', token: jwt.sign({ sub: userId }, testSecret, { expiresIn: '1h' }) }));
  await synced;
  return events;
}

/** Who stands behind the notifications of Ada, by type: `like: 2 3`. */
async function adas(): Promise<string[]> {
  const { rows } = await database.pool.query<{ line: string }>(
    `select n.type || ': ' || string_agg(coalesce(e.actor_id, '?'), ' ' order by e.actor_id) as line
       from belfry.notification n join belfry.notification_event e on e.notification_id = n.id and e.removed_at is null
      where n.user_id = $1 and not n.withdrawn and n.due_at is null group by n.id, n.type order by n.type`,
    [ada],
  );
  return rows.map(({ line }) => line);
}

async function count(source: string): Promise<string | undefined> {
  const { rows } = await database.pool.query<{ count: string }>(
    'select count from belfry.counter where source = $1 and object_id = $2',
    [source, post],
  );
  return rows[0]?.count;
}

async function number(sql: string): Promise<number> {
  return (await database.pool.query<{ n: number }>(`select (${sql})::int as n`)).rows[0]?.n ?? 0;
}
const losses = () => number('select count(*) from belfry.lost');
const unread = () => number('select events from belfry.lag');

async function repairs(): Promise<unknown[]> {
  await expect.poll(losses, soon).toBe(0);
  await expect.poll(unread, soon).toBe(0);
  const { rows } = await database.pool.query(
    'select source, sqlstates, recaptured, retracted from belfry.repair order by source',
  );
  return rows;
}

async function inTime(write: () => Promise<unknown>): Promise<void> {
  const began = performance.now();
  await write();
  expect(performance.now() - began).toBeLessThan(BOUND_MS);
}

const comment = (userId: string) =>
  database.pool.query(`insert into comments (post_id, user_id, content) values ($1, $2, 'hi')`, [post, userId]);

it('a locked outbox: writes go on, and all of it is made good while people look on', { timeout: 90_000 }, async () => {
  // From before Belfry: counts, and notifies nobody, whatever is repaired.
  await like(database.pool, dora, post);
  await database.pool.query(`update likes set created_at = now() - interval '1 minute'`);
  await migrate();
  await start();
  const heard = await open(ada);
  await like(database.pool, bo, post);
  await expect.poll(adas, soon).toEqual([`like: ${bo}`]);
  const holder = await database.client();
  await holder.query('begin; lock table belfry.outbox in access exclusive mode');
  await inTime(() => like(database.pool, cleo, post));
  await inTime(() => unlike(database.pool, bo, post));
  await inTime(() => comment(cleo));
  await holder.query('rollback');
  await expect.poll(losses, atOnce).toBe(0);
  expect(await repairs()).toEqual([
    { source: 'post_comment', sqlstates: ['55P03'], recaptured: 1, retracted: 0 },
    { source: 'post_like', sqlstates: ['55P03'], recaptured: 1, retracted: 1 },
  ]);
  await expect.poll(adas, soon).toEqual([`comment: ${cleo}`, `like: ${cleo}`]);
  expect([await count('post_like'), await count('post_comment')]).toEqual(['2', '1']);
  await expect.poll(() => heard, soon).toContain('resync');
  expect(heard.filter((event) => event === 'notification').length).toBeGreaterThan(1);
  expect(logged).toContainEqual(
    expect.objectContaining({
      source: 'post_like',
      writes: 2,
      msg: expect.stringContaining('captured again') as string,
    }),
  );
  // And it is over: what comes now counts once.
  await like(database.pool, bo, post);
  await expect.poll(() => count('post_like'), soon).toBe('3');
});

it(
  'a dropped outbox: belfry migrate makes it anew under a running relay, with what was unread',
  { timeout: 60_000 },
  async () => {
    await migrate();
    await start();
    await like(database.pool, bo, post);
    await expect.poll(adas, soon).toEqual([`like: ${bo}`]);
    const read = await number('select max(id) from belfry.outbox');
    await database.pool.query('update belfry.relay set paused = true');
    // One that stays unread: the pause has reached the relay.
    await expect
      .poll(
        async () => {
          await database.pool.query('delete from follows');
          await follow(database.pool, bo, ada);
          await new Promise((resolve) => setTimeout(resolve, 500));
          return unread();
        },
        { timeout: 30_000, interval: 10 },
      )
      .toBeGreaterThan(0);
    await database.pool.query('drop table belfry.outbox cascade');
    await inTime(() => like(database.pool, cleo, post));
    expect(await losses()).toBe(1);
    await database.pool.query('update belfry.relay set paused = false');
    await expect
      .poll(() => logged.map(({ msg }) => msg), soon)
      .toContainEqual(expect.stringContaining('run `belfry migrate`'));
    await migrate();
    await expect.poll(losses, soon).toBe(0);
    await expect.poll(adas, soon).toEqual([`follow: ${bo}`, `like: ${bo} ${cleo}`]);
    expect(await count('post_like')).toBe('2');
    // Ids are never used twice.
    expect(await number('select min(id) from belfry.outbox')).toBeGreaterThan(read);
  },
);

it('a renamed column that the relay reads: events wait, none is set aside', { timeout: 60_000 }, async () => {
  await migrate();
  await start();
  // Of a relay that leads already: one that begins later makes its statements without the column, and holds the events.
  await database.pool.query("select belfry.announce('Good morning')");
  await expect.poll(unread, soon).toBe(0);
  await database.pool.query('alter table posts rename column user_id to author_id');
  await inTime(() => like(database.pool, bo, post));
  await follow(database.pool, cleo, ada);
  await expect
    .poll(() => logged, soon)
    .toContainEqual(
      expect.objectContaining({
        problems: expect.arrayContaining([
          expect.stringMatching(/^sources\[\d\] \(post_like\)\.recipient\.path\[0\]\.take: .*user_id/),
        ]) as string[],
        msg: expect.stringContaining('correct the config or the tables') as string,
      }),
    );
  await stop();
  // On a busy machine the next term has begun by then, which holds what it can't resolve.
  expect([await unread(), await number('select count(*) from belfry.held')]).toEqual(
    (await unread()) > 0 ? [2, 0] : [0, 1],
  );
  expect(await number('select count(*) from belfry.dead_event')).toBe(0);
  await migrate((yaml) => yaml.replaceAll(/match: id\n(\s+)take: user_id/g, 'match: id\n$1take: author_id'));
  await start();
  await expect.poll(adas, soon).toEqual([`follow: ${cleo}`, `like: ${bo}`]);
  expect(await number('select count(*) from belfry.dead_event')).toBe(0);
});

it('a retyped column: the relay finds out by itself', { timeout: 60_000 }, async () => {
  await migrate();
  await start();
  await like(database.pool, bo, post);
  await expect.poll(adas, soon).toEqual([`like: ${bo}`]);
  await database.pool.query(`
    alter table likes drop constraint likes_post_id_fkey;
    alter table comments drop constraint comments_post_id_fkey;
    alter table posts alter id drop identity;
    alter table posts alter id type text;
    alter table likes alter post_id type text`);
  await inTime(() => like(database.pool, cleo, post));
  await expect.poll(unread, soon).toBe(0);
  await expect.poll(adas, soon).toEqual([`like: ${bo} ${cleo}`]);
  expect(await number('select count(*) from belfry.dead_event')).toBe(0);
});

it(
  'a retyped column, and a term that ran out of trust: the next one has statements of its own',
  { timeout: 60_000 },
  async () => {
    await migrate();
    await start();
    await like(database.pool, bo, post);
    await expect.poll(adas, soon).toEqual([`like: ${bo}`]);
    await database.pool.query(
      'alter table blocks drop constraint blocks_blocker_id_fkey; alter table blocks alter blocker_id type numeric',
    );
    const term = () => number('select term from belfry.relay');
    const first = await term();
    // As if the process had been stopped, until that falls between two renewals of the lease.
    const now = performance.now.bind(performance);
    let stoppedMs = 0;
    const clock = vi.spyOn(performance, 'now').mockImplementation(() => now() + stoppedMs);
    onTestFinished(() => clock.mockRestore());
    await expect
      .poll(async () => {
        stoppedMs += 60_000;
        await database.pool.query('select belfry.ring()');
        return term();
      }, soon)
      .toBeGreaterThan(first);
    await like(database.pool, cleo, post);
    await expect.poll(unread, soon).toBe(0);
    expect(await number('select count(*) from belfry.dead_event')).toBe(0);
    await expect.poll(adas, soon).toEqual([`like: ${bo} ${cleo}`]);
  },
);

it(
  'a renamed column of a source: captured as null until config and triggers are corrected, then made good',
  { timeout: 60_000 },
  async () => {
    await migrate();
    await start();
    await like(database.pool, bo, post);
    await expect.poll(adas, soon).toEqual([`like: ${bo}`]);
    await database.pool.query('alter table likes rename column post_id to article_id');
    await inTime(() => database.pool.query('insert into likes (user_id, article_id) values ($1, $2)', [cleo, post]));
    await expect.poll(unread, soon).toBe(0);
    await stop();
    await migrate((yaml) =>
      yaml.replace(/(name: post_like[\s\S]*?)name: post_comment/, (part) => part.replaceAll('post_id', 'article_id')),
    );
    await start();
    expect(await repairs()).toMatchObject([{ source: 'post_like', sqlstates: ['42703'], retracted: 0 }]);
    await expect.poll(adas, soon).toEqual([`like: ${bo} ${cleo}`]);
    expect(await count('post_like')).toBe('2');
  },
);

it.each([
  ['that may not be null', ''],
  ['that may be null', 'alter table comments alter user_id drop not null'],
])(
  'the renamed column of an actor %s: nobody is told past a block or of oneself, and all of it comes when it is back',
  { timeout: 90_000 },
  async (_, prepare) => {
    if (prepare !== '') await database.pool.query(prepare);
    await migrate();
    await start();
    await block(database.pool, ada, bo);
    await expect.poll(unread, soon).toBe(0);
    await database.pool.query('alter table comments rename column user_id to author_id');
    for (const author of [bo, ada, cleo])
      await inTime(() =>
        database.pool.query(`insert into comments (post_id, author_id, content) values ($1, $2, 'hi')`, [post, author]),
      );
    await follow(database.pool, dora, ada);
    await expect.poll(adas, soon).toEqual([`follow: ${dora}`]);
    expect(logged).toContainEqual(
      expect.objectContaining({
        source: 'post_comment',
        columns: ['user_id'],
        msg: expect.stringContaining('lack') as string,
      }),
    );
    expect(await losses()).toBe(1);
    // Nothing can be repaired yet, and the loss is not forgotten: chores of a term that begins now, and a replay, leave it alone.
    await restart();
    await follow(database.pool, cleo, ada);
    await expect.poll(adas, soon).toEqual([`follow: ${cleo} ${dora}`]);
    expect(await losses()).toBe(1);
    const counted = countReplay(database.url, config, { mode: 'deliver', filter: {} }, () => undefined);
    await expect(counted).rejects.toThrow('has no column user_id, which source post_comment names');
    await database.pool.query('alter table comments rename column author_id to user_id');
    await restart();
    expect(await repairs()).toEqual([{ source: 'post_comment', sqlstates: ['42703'], recaptured: 3, retracted: 0 }]);
    await expect.poll(adas, soon).toEqual([`comment: ${cleo}`, `follow: ${cleo} ${dora}`]);
    expect(await count('post_comment')).toBe('3');
  },
);

it(
  'a renamed column of a key: what was deleted meanwhile is taken back when it is there again',
  { timeout: 90_000 },
  async () => {
    await migrate();
    await start();
    await like(database.pool, bo, post);
    await expect.poll(adas, soon).toEqual([`like: ${bo}`]);
    await database.pool.query('alter table likes rename column post_id to article_id');
    await inTime(() => database.pool.query('delete from likes'));
    await expect.poll(losses, soon).toBe(1);
    await database.pool.query('alter table likes rename column article_id to post_id');
    await restart();
    expect(await repairs()).toEqual([{ source: 'post_like', sqlstates: ['42703'], recaptured: 0, retracted: 1 }]);
    await expect.poll(adas, soon).toEqual([]);
    expect(await count('post_like')).toBe('0');
  },
);

it(
  'a null that the column of an actor may hold is a value: the event is told, of somebody',
  { timeout: 60_000 },
  async () => {
    await database.pool.query('alter table comments alter user_id drop not null');
    await migrate();
    await start();
    await database.pool.query(`insert into comments (post_id, content) values ($1, 'hi')`, [post]);
    await expect.poll(adas, soon).toEqual(['comment: ?']);
    expect(await losses()).toBe(0);
  },
);

it.each(['alter table likes disable trigger user', 'drop trigger belfry_post_like_insert on likes'])(
  'triggers that were gone for a while (%s): made good when they are back',
  { timeout: 60_000 },
  async (damage) => {
    await migrate();
    await start();
    await like(database.pool, bo, post);
    await expect.poll(adas, soon).toEqual([`like: ${bo}`]);
    await stop();
    await database.pool.query(damage);
    await like(database.pool, cleo, post);
    await migrate();
    await start();
    // One loss, marked once and repaired once.
    expect(await repairs()).toEqual([{ source: 'post_like', sqlstates: ['42704'], recaptured: 1, retracted: 0 }]);
    expect(await number('select sum(writes) from belfry.repair')).toBe(1);
    await expect.poll(adas, soon).toEqual([`like: ${bo} ${cleo}`]);
    expect(await count('post_like')).toBe('2');
    expect(await losses()).toBe(0);
  },
);

it('a truncate that is unread while counters are counted anew does not undo that', { timeout: 60_000 }, async () => {
  await migrate();
  await like(database.pool, bo, post);
  await start();
  await expect.poll(adas, soon).toEqual([`like: ${bo}`]);
  await stop();
  await database.pool.query('truncate likes');
  await like(database.pool, cleo, post);
  const holder = await database.client();
  await holder.query('begin; lock table belfry.outbox in access exclusive mode');
  await like(database.pool, dora, post);
  await holder.query('rollback');
  // It repairs before it reads.
  await start();
  expect(await repairs()).toMatchObject([{ source: 'post_like', recaptured: 1 }]);
  await expect.poll(adas, soon).toEqual([`like: ${cleo} ${dora}`]);
  expect(await count('post_like')).toBe('2');
  // And it goes on from there.
  await like(database.pool, bo, post);
  await expect.poll(() => count('post_like'), soon).toBe('3');
  await database.pool.query('truncate likes');
  await expect.poll(() => count('post_like'), soon).toBeUndefined();
});

/** People write on, which wakes the relay, until the counter is what the table says. */
async function countsAll(): Promise<void> {
  const right = async (): Promise<boolean> => {
    await unlike(database.pool, dora, post);
    await like(database.pool, dora, post);
    await expect.poll(unread, soon).toBe(0);
    return (await count('post_like')) === String(await number('select count(*) from likes'));
  };
  await expect.poll(right, soon).toBe(true);
}

it(
  'uninstalled beside a running relay, and migrated again: what was written between counts',
  { timeout: 60_000 },
  async () => {
    await migrate();
    await like(database.pool, bo, post);
    await start();
    await countsAll();
    const client = await database.client();
    await uninstall(client, { keepData: true });
    await like(database.pool, cleo, post);
    await migrate();
    await countsAll();
    // And it goes on from there.
    await unlike(database.pool, cleo, post);
    await countsAll();
  },
);

it(
  'a source that was out of the config for a while counts what was written meanwhile',
  { timeout: 60_000 },
  async () => {
    await migrate();
    await like(database.pool, bo, post);
    await migrate((yaml) => stringify({ ...(parse(yaml) as object), sources: [] }));
    await like(database.pool, cleo, post);
    await migrate();
    await like(database.pool, dora, post);
    await start();
    await expect.poll(unread, soon).toBe(0);
    expect(await count('post_like')).toBe('3');
  },
);

it(
  'another when counts anew, by a relay that knows it; a count from before that was kept is taken as it is',
  { timeout: 60_000 },
  async () => {
    const everything = (yaml: string): string => yaml.replace(/ +when: deleted_at is null\n/, '');
    await migrate(everything);
    await database.pool.query('update belfry.source_state set mapping = null');
    await comment(bo);
    await comment(cleo);
    await start();
    await expect.poll(() => count('post_comment'), soon).toBe('2');
    await migrate(everything);
    expect(await number('select count(*) from belfry.source_state where due')).toBe(0);
    await database.pool.query('update comments set deleted_at = now() where user_id = $1', [bo]);
    // The relay that leads still runs on the config of before.
    await migrate();
    await expect.poll(unread, soon).toBe(0);
    expect(await number('select count(*) from belfry.source_state where due')).toBe(1);
    await stop();
    await start();
    await expect.poll(() => count('post_comment'), soon).toBe('1');
    await database.pool.query('delete from comments where user_id = $1', [bo]);
    await comment(dora);
    await expect.poll(() => count('post_comment'), soon).toBe('2');
    expect(await number('select count(*) from belfry.source_state where due')).toBe(0);
    // Where nobody leads, migrate counts.
    await stop();
    await migrate(everything);
    await database.pool.query('update comments set deleted_at = now()');
    await migrate();
    expect(await count('post_comment')).toBe('0');
  },
);

it('without a time column the loss is said, and nothing is invented', { timeout: 60_000 }, async () => {
  await database.pool.query('alter table likes drop column created_at');
  await migrate();
  await like(database.pool, bo, post);
  const holder = await database.client();
  await holder.query('begin; lock table belfry.outbox in access exclusive mode');
  await like(database.pool, cleo, post);
  await holder.query('rollback');
  await start();
  expect(await repairs()).toEqual([{ source: 'post_like', sqlstates: ['55P03'], recaptured: null, retracted: 0 }]);
  expect(await adas()).toEqual([`like: ${bo}`]);
  expect(await count('post_like')).toBe('2');
  expect(logged).toContainEqual(
    expect.objectContaining({ msg: expect.stringContaining('notifications of these writes are lost') as string }),
  );
});

it(
  'without a time column a replay tells of what was written while a column was gone',
  { timeout: 60_000 },
  async () => {
    await database.pool.query('alter table comments drop column created_at');
    await migrate();
    await start();
    await database.pool.query('alter table comments rename column user_id to author_id');
    await database.pool.query(`insert into comments (post_id, author_id, content) values ($1, $2, 'hi')`, [post, bo]);
    await expect.poll(losses, soon).toBe(1);
    await database.pool.query('alter table comments rename column author_id to user_id');
    await restart();
    expect(await repairs()).toEqual([{ source: 'post_comment', sqlstates: ['42703'], recaptured: null, retracted: 0 }]);
    expect(await adas()).toEqual([]);
    await database.pool.query("select belfry.replay('deliver', 'post_comment')");
    await expect.poll(adas, soon).toEqual([`comment: ${bo}`]);
    expect(await count('post_comment')).toBe('1');
  },
);
