/** Replays: what a wrong mapping or a rule kept from people arrives once, and nothing else changes. */

import type pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { stringify, parse } from 'yaml';
import { installCapture } from '../../src/capture/install.js';
import { parseConfig } from '../../src/config.js';
import type { Config } from '../../src/config.js';
import { createLogger } from '../../src/log.js';
import { leaseApplication, workAlone } from '../../src/relay/replay/alone.js';
import { fingerprint, readJob, requestJob, saveJob, takeJob } from '../../src/relay/replay/jobs.js';
import type { Job, JobFilter } from '../../src/relay/replay/jobs.js';
import type { ReplayMode } from '../../src/relay/replay/plan.js';
import { countReplay } from '../../src/relay/replay/work.js';
import { connect } from '../../src/postgres/connect.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import {
  addComment,
  addPost,
  addUsers,
  block,
  follow,
  like,
  socialConfig,
  socialSql,
  unlike,
} from '../support/social.js';
import { startBatches } from './batches.js';
import type { Batches } from './batches.js';

let database: TestDatabase;
let client: pg.Client;
/** Reads as the live relay does, with the mapping as it should be, and with one in which the author of the comment is told of it. */
let right: Batches;
let wrong: Batches;
let ada: string, bo: string, cleo: string, others: string[], post: string;

beforeAll(async () => {
  database = await createTestDatabase({ prepare: socialSql });
  client = await database.client();
  const text = socialConfig(database.url);
  right = await startBatches(database, text);
  await installCapture(client, right.config);
  const mistaken = parse(text) as { sources: { name: string; recipient: unknown }[] };
  for (const source of mistaken.sources) if (source.name === 'post_comment') source.recipient = 'user_id';
  wrong = await startBatches(database, stringify(mistaken));
});

beforeEach(async () => {
  [ada = '', bo = '', cleo = '', ...others] = await addUsers(
    database.pool,
    'Ada',
    'Bo',
    'Cleo',
    ...Array.from({ length: 12 }, (_, i) => `Other ${String(i)}`),
  );
  post = await addPost(database.pool, ada);
  await right.run();
});

afterAll(async () => {
  await right.stop();
  await wrong.stop();
  await database.drop();
});

const log = createLogger({ level: 'silent', name: 'test' });

async function dryRun(
  filter: JobFilter,
  mode: ReplayMode = 'deliver',
  config: Config = right.config,
): Promise<Job['counts']> {
  return (await countReplay(database.url, config, { mode, filter }, () => undefined)).counts;
}

/** As `belfry replay` without a relay. */
async function replay(filter: JobFilter, mode: ReplayMode = 'deliver', config: Config = right.config): Promise<Job> {
  const id = await requestJob(client, { mode, filter, rate: null, mapping: fingerprint(config) });
  return work(id, config);
}

async function work(id: string, config: Config = right.config): Promise<Job> {
  const job = async (): Promise<Job> => {
    const found = await readJob(client, id);
    if (found === null) throw new Error('no job');
    return found;
  };
  await workAlone({
    config,
    log,
    signal: new AbortController().signal,
    wanted: async () => ['waiting', 'running'].includes((await job()).state),
  });
  return job();
}

const inbox = (userId = ada) => right.inbox.list(userId, { limit: 100, before: null, state: null });
const counts = { processed: 0, delivered: 0, suppressed: 0, already: 0, withdrawn: 0, failed: 0 };
const headOf = async (userId: string): Promise<number> =>
  (await right.inbox.heads([userId], [])).people.get(userId) ?? 0;

describe('a wrong mapping', () => {
  it('ran for an hour of events: a dry run tells how many, a replay delivers exactly those, a second one none', async () => {
    await addComment(database.pool, post, others[0] ?? '', 'before');
    await right.run();
    for (const author of others.slice(0, 10)) await addComment(database.pool, post, author, 'missed');
    await wrong.run();
    expect((await inbox()).items).toHaveLength(1);

    const filter: JobFilter = { object: `post:${post}` };
    const expected = { ...counts, processed: 11, delivered: 10, already: 1 };
    const before = await headOf(ada);
    expect(await dryRun(filter)).toEqual(expected);
    expect(await headOf(ada)).toBe(before);
    expect((await inbox()).items).toHaveLength(1);

    expect(await replay(filter)).toMatchObject({ state: 'done', counts: expected });
    expect((await inbox()).items).toHaveLength(11);
    expect(await headOf(ada)).toBe(before + 10);

    expect(await dryRun(filter)).toEqual({ ...counts, processed: 11, already: 11 });
    expect(await replay(filter)).toMatchObject({ counts: { ...counts, processed: 11, already: 11 } });
    expect((await inbox()).items).toHaveLength(11);
    expect(await headOf(ada)).toBe(before + 10);
  });

  it('who was blocked in between is not heard, and explains itself', async () => {
    for (const author of [bo, cleo]) await addComment(database.pool, post, author);
    await wrong.run();
    await block(database.pool, ada, bo);
    await right.run();
    const filter: JobFilter = { object: `post:${post}` };
    const expected = { ...counts, processed: 2, delivered: 1, suppressed: 1 };
    expect(await dryRun(filter)).toEqual(expected);
    expect((await replay(filter)).counts).toEqual(expected);
    expect((await inbox()).items).toMatchObject([{ user_id: cleo }]);
    const { rows } = await client.query<{ rule: string }>(
      'select rule from belfry.verdict where user_ids = array[$1] order by id desc limit 1',
      [ada],
    );
    expect(rows).toEqual([{ rule: 'blocked' }]);
  });

  it('moves no counter and repeats no channel event', async () => {
    await like(database.pool, bo, post);
    await right.run();
    await addComment(database.pool, post, cleo);
    await wrong.run();
    const channel = await right.channels.recover(`post:${post}`, null, null);
    expect((await replay({ object: `post:${post}` })).counts).toMatchObject({ delivered: 1, already: 1 });
    expect(await right.channels.recover(`post:${post}`, null, null)).toEqual(channel);
  });
});

describe('what people have', () => {
  /** Who follows the author of a comment is told of it too. */
  const toFollowers = (): Config => {
    const text = parse(socialConfig(database.url)) as { sources: { name: string; recipient: unknown }[] };
    for (const source of text.sources)
      if (source.name === 'post_comment')
        source.recipient = {
          query:
            'select user_id from posts where id = :post_id union select follower_id from follows where followed_id = :user_id',
        };
    return parseConfig(stringify(text), {}, { path: 'test.yaml' });
  };

  it('is known by the key of the event and the person: of several only those hear it who missed it', async () => {
    await follow(database.pool, cleo, bo);
    await addComment(database.pool, post, bo);
    await right.run();
    const filter: JobFilter = { object: `post:${post}` };
    const expected = { ...counts, processed: 1, delivered: 1, already: 1 };
    expect(await dryRun(filter, 'deliver', toFollowers())).toEqual(expected);
    expect((await replay(filter, 'deliver', toFollowers())).counts).toEqual(expected);
    expect((await inbox(cleo)).items).toHaveLength(1);
    expect((await inbox()).items).toHaveLength(1);
    expect((await replay(filter, 'deliver', toFollowers())).counts).toEqual({ ...counts, processed: 1, already: 2 });
  });

  it('that a rule of today would keep back is there, not suppressed anew', async () => {
    await addComment(database.pool, post, bo);
    await right.run();
    await client.query('update users set notifications_enabled = false where id = $1', [ada]);
    expect((await replay({ object: `post:${post}` })).counts).toEqual({ ...counts, processed: 1, already: 1 });
    const { rows } = await client.query('select 1 from belfry.verdict where $1 = any (user_ids)', [ada]);
    expect(rows).toEqual([]);
  });

  it('is counted by what created it: an edit is no news, and no count', async () => {
    const comment = await addComment(database.pool, post, bo);
    await client.query(`update comments set content = 'edited' where id = $1`, [comment]);
    await right.run();
    expect((await replay({ object: `post:${post}` })).counts).toEqual({ ...counts, processed: 2, already: 1 });
  });

  it('from belfry.notify and belfry.announce too, and no verdict says so again', async () => {
    const { rows } = await client.query<{ id: string }>(
      `select belfry.notify($1, 'system', 'hello')::text as id union all select belfry.announce('hello')::text`,
      [ada],
    );
    await right.run();
    const since = (
      await client.query<{ at: Date }>('select min(at) as at from belfry.outbox where id = any($1)', [
        rows.map(({ id }) => id),
      ])
    ).rows[0]?.at;
    const verdicts = async () => (await client.query(`select 1 from belfry.verdict where rule = 'duplicate'`)).rowCount;
    const before = await verdicts();
    const filter: JobFilter = since === undefined ? {} : { since };
    expect((await replay(filter)).counts).toEqual({ ...counts, processed: 2, already: 2 });
    expect(await verdicts()).toBe(before);
    await client.query('delete from belfry.announcement where event_id = $1', [rows[1]?.id]);
    expect((await replay(filter)).counts).toEqual({ ...counts, processed: 2, delivered: 1, already: 1 });
  });

  it('of a wide event is known by its job: it is not told again', async () => {
    const text = parse(socialConfig(database.url)) as { sources: { name: string; recipient: unknown }[] };
    for (const source of text.sources)
      if (source.name === 'post_comment')
        source.recipient = { query: `select id from users where full_name = 'Wide' and :post_id is not null` };
    await client.query(`insert into users (full_name) select 'Wide' from generate_series(1, 1001)`);
    const one = (await client.query<{ id: string }>(`select max(id)::text as id from users`)).rows[0]?.id ?? '';
    const wide = await startBatches(database, stringify(text));
    await addComment(database.pool, post, bo);
    await wide.run();
    await wide.fanOut();
    expect(await headOf(one)).toBe(1);
    expect((await replay({ object: `post:${post}` }, 'deliver', wide.config)).counts).toEqual({
      ...counts,
      processed: 1,
      already: 1001,
    });
    await wide.fanOut();
    expect(await headOf(one)).toBe(1);
    await wide.stop();
  });

  it('is not told of dead letters, which are retried', async () => {
    await addComment(database.pool, post, bo);
    await wrong.run();
    await client.query(
      `insert into belfry.dead_event (event_id, source, op, new, event_at, error) select id, source, op, new, at, 'poison' from belfry.outbox order by id desc limit 1`,
    );
    expect((await replay({ object: `post:${post}` })).counts).toEqual(counts);
    await client.query('delete from belfry.dead_event');
    expect((await replay({ object: `post:${post}` })).counts).toMatchObject({ delivered: 1 });
  });
});

describe('what happened since', () => {
  it('a row that is gone brings nothing, one that came back once', async () => {
    await like(database.pool, bo, post);
    await wrong.run();
    await client.query(`delete from belfry.notification_event where user_id = $1`, [ada]);
    await client.query(`delete from belfry.notification where user_id = $1`, [ada]);
    await unlike(database.pool, bo, post);
    await like(database.pool, cleo, post);
    await unlike(database.pool, cleo, post);
    await like(database.pool, cleo, post);
    await right.run();
    await client.query(`delete from belfry.notification_event where user_id = $1`, [ada]);
    await client.query(`delete from belfry.notification where user_id = $1`, [ada]);
    expect((await replay({ object: `post:${post}`, type: 'like' })).counts).toEqual({
      ...counts,
      processed: 5,
      delivered: 1,
    });
    expect((await inbox()).items).toMatchObject([{ user_id: cleo, data: { actor_count: 1, event_count: 1 } }]);
  });

  it('however the events fall into pages', async () => {
    await like(database.pool, cleo, post);
    await unlike(database.pool, cleo, post);
    await like(database.pool, cleo, post);
    await right.run();
    const head = await headOf(ada);
    // At five a second a page holds one.
    const { rows } = await client.query<{ id: string }>(
      `select belfry.replay(object => $1, source => 'post_like', rate => 5)::text as id`,
      [`post:${post}`],
    );
    expect(await work(rows[0]?.id ?? '')).toMatchObject({ state: 'done', counts: { processed: 3, delivered: 0 } });
    expect(await headOf(ada)).toBe(head);
    expect((await inbox()).items).toHaveLength(1);
  });

  it('a dry run counts a row once, whatever its pages', async () => {
    await like(database.pool, bo, post);
    await client.query(
      `insert into belfry.outbox (source, op, new)
       select source, op, new from (select * from belfry.outbox order by id desc limit 1) o, generate_series(1, 2000)`,
    );
    await client.query('update belfry.relay set seen = pg_current_snapshot()');
    const filter: JobFilter = { object: `post:${post}` };
    const expected = { processed: 2001, delivered: 1, already: 1 };
    expect(await dryRun(filter)).toMatchObject(expected);
    expect((await replay(filter)).counts).toMatchObject(expected);
  });

  it('what is unread is left to the relay', async () => {
    await addComment(database.pool, post, bo);
    expect((await replay({ object: `post:${post}` })).counts).toEqual(counts);
    await right.run();
    expect((await inbox()).items).toHaveLength(1);
  });

  it('what was withdrawn by a block comes again once that is lifted', async () => {
    await addComment(database.pool, post, bo);
    await right.run();
    await block(database.pool, ada, bo);
    await right.run();
    await client.query('delete from blocks where blocker_id = $1', [ada]);
    await right.run();
    expect((await inbox()).items).toHaveLength(0);
    expect((await replay({ object: `post:${post}` })).counts).toMatchObject({ delivered: 1 });
    expect((await inbox()).items).toHaveLength(1);
  });
});

describe('rebuild', () => {
  it('takes back what a wrong mapping brought, brings what it did not, and keeps what was read', async () => {
    await addComment(database.pool, post, cleo, 'before');
    await like(database.pool, bo, post);
    await right.run();
    const [like1] = (await inbox()).items as { id: string; type: string }[];
    await right.inbox.mark(ada, 'read', { ids: [like1?.id ?? ''] }, null);
    // By the wrong mapping Cleo's comment would be her own news; here one that came to the wrong person.
    await addComment(database.pool, post, bo, 'missed');
    await wrong.run();
    await client.query(
      `update belfry.notification_event set user_id = $1 where user_id = $2 and source = 'post_comment'`,
      [others[0], ada],
    );
    await client.query(`update belfry.notification set user_id = $1 where user_id = $2 and type = 'comment'`, [
      others[0],
      ada,
    ]);
    const filter: JobFilter = { object: `post:${post}` };
    expect(await dryRun(filter, 'rebuild')).toEqual({
      ...counts,
      processed: 3,
      delivered: 2,
      already: 1,
      withdrawn: 1,
    });
    expect((await replay(filter, 'rebuild')).counts).toEqual({
      ...counts,
      processed: 3,
      delivered: 2,
      already: 1,
      withdrawn: 1,
    });
    expect((await inbox(others[0])).items).toEqual([]);
    expect((await inbox()).items).toMatchObject([
      { type: 'comment' },
      { type: 'comment' },
      { type: 'like', data: { state: 'read' } },
    ]);
  });

  it('of one person takes back what came to them by mistake, and no more', async () => {
    await addComment(database.pool, post, cleo);
    await addComment(database.pool, post, bo);
    await right.run();
    // Both came to Bo and to Cleo instead of Ada.
    for (const [source, user] of [
      [cleo, bo],
      [bo, cleo],
    ]) {
      await client.query(`update belfry.notification_event set user_id = $1 where user_id = $2 and actor_id = $3`, [
        user,
        ada,
        source,
      ]);
      await client.query(`update belfry.notification set user_id = $1 where user_id = $2 and actors = array[$3]`, [
        user,
        ada,
        source,
      ]);
    }
    expect((await replay({ user: bo }, 'rebuild')).counts).toMatchObject({ delivered: 0, withdrawn: 1 });
    const { rows } = await client.query(
      'select user_id, removed_at is null as stands from belfry.notification_event where user_id = any($1) order by actor_id <> $2',
      [[bo, cleo], cleo],
    );
    expect(rows).toEqual([
      { user_id: bo, stands: false },
      { user_id: cleo, stands: true },
    ]);
  });

  it('of one person leaves the others alone, and counts anew', async () => {
    await like(database.pool, bo, post);
    await like(database.pool, cleo, post);
    await right.run();
    await client.query('update belfry.notification set actor_count = 7, event_count = 9 where user_id = $1', [ada]);
    const job = await replay({ user: ada }, 'rebuild');
    expect(job.counts).toMatchObject({ delivered: 0, already: 2 });
    expect((await inbox()).items).toMatchObject([{ data: { actor_count: 2, event_count: 2 } }]);
  });

  it('leaves each their notification of a dedupe_key that several were given, whomever the filter means', async () => {
    const told = async (userId: string): Promise<Date> => {
      const { rows } = await client.query<{ id: string }>(
        `select belfry.notify($1, 'system', 'Welcome', dedupe_key => $2)::text as id`,
        [userId, `welcome-${post}`],
      );
      await right.run();
      const event = await client.query<{ at: Date }>('select at from belfry.outbox where id = $1', [rows[0]?.id]);
      return event.rows[0]?.at ?? new Date(0);
    };
    const first = await told(ada);
    const second = await told(bo);
    await told(bo);
    const before = [await headOf(ada), await headOf(bo)];
    const filters: readonly (readonly [JobFilter, number])[] = [
      [{ since: first, source: 'belfry.notify' }, 3],
      [{ since: second, source: 'belfry.notify' }, 2],
      [{ since: first, user: bo }, 2],
    ];
    for (const [filter, processed] of filters)
      expect((await replay(filter, 'rebuild')).counts).toMatchObject({ processed, delivered: 0, withdrawn: 0 });
    expect([await headOf(ada), await headOf(bo)]).toEqual(before);
    for (const user of [ada, bo]) expect((await inbox(user)).items).toMatchObject([{ message: 'Welcome' }]);
  });

  it('judges each event of a dedupe_key by whose name it bears', async () => {
    const told = async (actorId: string): Promise<void> => {
      await client.query(`select belfry.notify($1, 'system', 'Hello', actor_id => $2, dedupe_key => $3)`, [
        ...[ada, actorId, `hello-${post}`],
      ]);
      await right.run();
    };
    await told(bo);
    // Nobody is notified of what they did themselves.
    await told(ada);
    const before = await headOf(ada);
    expect((await replay({ source: 'belfry.notify', user: ada }, 'rebuild')).counts).toMatchObject({
      ...{ processed: 2, delivered: 0, withdrawn: 0, already: 1, suppressed: 1 },
    });
    expect((await inbox()).items).toMatchObject([{ message: 'Hello' }]);
    expect(await headOf(ada)).toBe(before);
  });

  it('takes back what somebody was notified of who wants it no more', async () => {
    for (const userId of [ada, bo])
      await client.query(`select belfry.notify($1, 'system', 'Sale', dedupe_key => $2)`, [userId, `sale-${post}`]);
    await right.run();
    await client.query('update users set notifications_enabled = false where id = $1', [bo]);
    const { counts: done } = await replay({ user: bo }, 'rebuild');
    expect(done).toMatchObject({ withdrawn: 1, suppressed: 1 });
    expect((await inbox(bo)).items).toEqual([]);
    expect((await inbox(ada)).items).toMatchObject([{ message: 'Sale' }]);
  });
});

describe('a job', () => {
  it('keeps the bound that it began with, and is written by the term that leads alone', async () => {
    const id = await requestJob(client, { mode: 'deliver', filter: {}, rate: null, mapping: null });
    const { rows } = await client.query<{ term: string }>(`select term::text from belfry.relay`);
    const term = rows[0]?.term ?? '';
    const bound = await takeJob(client, id, term, 'test');
    await addComment(database.pool, post, bo);
    await right.run();
    expect(await takeJob(client, id, term, 'test')).toEqual(bound);
    expect(await takeJob(client, id, String(BigInt(term) + 1n), 'test')).toBeNull();
    const progress = {
      afterId: '7',
      counts: { ...counts, processed: 7 },
      total: 7,
      error: null,
      state: 'done',
    } as const;
    expect(await saveJob(client, id, String(BigInt(term) - 1n), progress)).toBeNull();
    expect((await readJob(client, id))?.counts.processed).toBe(0);
    expect(await saveJob(client, id, term, progress)).toBe(false);
  });

  it('is stopped and goes on, at its rate, and tells who had it done', async () => {
    for (const author of others) await addComment(database.pool, post, author);
    await wrong.run();
    const { rows } = await client.query<{ id: string }>(
      `select belfry.replay(object => $1, source => 'post_comment', rate => 1)::text as id`,
      [`post:${post}`],
    );
    const id = rows[0]?.id ?? '';
    const working = work(id);
    await expect
      .poll(async () => (await readJob(client, id))?.counts.delivered, { timeout: 20_000 })
      .toBeGreaterThan(0);
    await client.query('select belfry.stop_replay($1)', [id]);
    const stopped = await working;
    expect(stopped.state).toBe('stopped');
    expect(stopped.counts.delivered).toBeLessThan(12);
    expect((await inbox()).items).toHaveLength(stopped.counts.delivered);
    await client.query('update belfry.replay_job set rate = null where id = $1', [id]);
    await client.query('select belfry.resume_replay($1)', [id]);
    expect(await work(id)).toMatchObject({ state: 'done', counts: { processed: 12, delivered: 12, already: 0 } });
    const { rows: view } = await client.query(
      'select state, percent::float8, total, requested_by from belfry.replays where id = $1',
      [id],
    );
    expect(view).toMatchObject([
      { state: 'done', percent: 100, total: '12', requested_by: expect.any(String) as string },
    ]);
  });

  it('keeps to its rate also after something held it up', async () => {
    // The second notification takes two seconds, in which eight events would have been due.
    await client.query(`create table told (at timestamptz); create function held_up() returns trigger language plpgsql as $$ begin
        insert into public.told values (clock_timestamp());
        if (select count(*) from public.told) = 2 then perform pg_sleep(2); end if;
        return new; end $$;
      create trigger held_up before insert on belfry.notification for each row execute function held_up()`);
    try {
      for (const author of others.slice(0, 10)) await addComment(database.pool, post, author);
      await wrong.run();
      const filter = { object: `post:${post}` };
      const job = await work(await requestJob(client, { mode: 'deliver', filter, rate: 4, mapping: null }));
      expect(job.counts).toMatchObject({ processed: 10, delivered: 10 });
      const { rows } = await client.query<{ seconds: number }>(
        'select extract(epoch from max(at) - (select at from told order by at offset 2 limit 1))::float8 as seconds from told',
      );
      // Seven more, a quarter of a second apart.
      expect(rows[0]?.seconds).toBeGreaterThan(1.25);
    } finally {
      await client.query('drop trigger held_up on belfry.notification; drop table told');
    }
  });

  it('reckons what is left from when it was taken up again', async () => {
    for (const author of others) await addComment(database.pool, post, author);
    await wrong.run();
    const id = await requestJob(client, {
      mode: 'deliver',
      filter: { object: `post:${post}` },
      rate: 2,
      mapping: null,
    });
    const working = work(id);
    const processed = async () => (await readJob(client, id))?.counts.processed;
    await expect.poll(processed, { timeout: 20_000 }).toBeGreaterThan(0);
    await client.query('select belfry.stop_replay($1)', [id]);
    const stopped = await working;
    await client.query(`update belfry.replay_job set started_at = started_at - interval '1 day' where id = $1`, [id]);
    await client.query('select belfry.resume_replay($1)', [id]);
    const again = work(id);
    await expect.poll(processed, { timeout: 20_000 }).toBeGreaterThan(stopped.counts.processed);
    const left = (await readJob(client, id))?.secondsLeft;
    await client.query('update belfry.replay_job set stop = true where id = $1', [id]);
    await again;
    expect(left).toBeLessThan(600);
  });

  it('lets a retry of dead letters go first, and goes on after it', async () => {
    for (const author of others) await addComment(database.pool, post, author);
    await wrong.run();
    const filter = { object: `post:${post}` };
    const id = await requestJob(client, { mode: 'deliver', filter, rate: 1, mapping: null });
    const working = work(id);
    const job = async (of: string) => await readJob(client, of);
    await expect.poll(async () => (await job(id))?.counts.processed, { timeout: 20_000 }).toBeGreaterThan(0);
    const retry = await requestJob(client, { mode: 'retry', filter: { ids: [] }, rate: null, mapping: null });
    await expect.poll(async () => (await job(retry))?.state, { timeout: 20_000 }).toBe('done');
    expect((await job(id))?.state).toBe('running');
    await client.query('update belfry.replay_job set rate = null where id = $1', [id]);
    await client.query('select belfry.stop_replay($1)', [id]);
    await working;
    await client.query('select belfry.resume_replay($1)', [id]);
    expect(await work(id)).toMatchObject({ state: 'done', counts: { processed: 12, delivered: 12, already: 0 } });
  });

  it('that a worker has left, with nobody to go on with it, is stopped at once and can be resumed', async () => {
    const id = await requestJob(client, { mode: 'deliver', filter: {}, rate: null, mapping: null });
    const { rows } = await client.query<{ term: string }>(`select term::text from belfry.relay`);
    await takeJob(client, id, rows[0]?.term ?? '', 'killed');
    await client.query('select belfry.stop_replay($1)', [id]);
    expect((await readJob(client, id))?.state).toBe('stopped');
    const { rows: resumed } = await client.query('select belfry.resume_replay($1) as done', [id]);
    expect(resumed).toEqual([{ done: true }]);
    await client.query('select belfry.stop_replay($1)', [id]);
  });

  it('asked for with another mapping than the worker has is refused', async () => {
    const id = await requestJob(client, {
      mode: 'deliver',
      filter: {},
      rate: null,
      mapping: fingerprint(wrong.config),
    });
    expect(await work(id)).toMatchObject({ state: 'failed', error: expect.stringContaining('restart it') as string });
  });

  it('is left to a relay that runs', async () => {
    const relay = await connect(database.url, { applicationName: leaseApplication });
    const id = await requestJob(client, { mode: 'deliver', filter: {}, rate: null, mapping: null });
    expect((await work(id)).state).toBe('waiting');
    await relay.end();
    await client.query('select belfry.stop_replay($1)', [id]);
  });

  it('is handed over to a relay that starts', async () => {
    for (const author of others) await addComment(database.pool, post, author);
    await wrong.run();
    const { rows } = await client.query<{ id: string }>(`select belfry.replay(object => $1, rate => 1)::text as id`, [
      `post:${post}`,
    ]);
    const id = rows[0]?.id ?? '';
    const working = work(id);
    await expect
      .poll(async () => (await readJob(client, id))?.counts.delivered, { timeout: 20_000 })
      .toBeGreaterThan(0);
    const relay = await connect(database.url, { applicationName: leaseApplication });
    expect(await working).toMatchObject({ state: 'running' });
    const { rows: lease } = await client.query<{ free: boolean }>(
      'select lease_until < clock_timestamp() as free from belfry.relay',
    );
    expect(lease).toEqual([{ free: true }]);
    await relay.end();
    await client.query('update belfry.replay_job set rate = null where id = $1', [id]);
    expect(await work(id)).toMatchObject({ state: 'done', counts: { processed: 12, delivered: 12 } });
  });

  it('sets one event aside that can not be processed, and does the others', async () => {
    await addComment(database.pool, post, bo);
    await wrong.run();
    await client.query(
      `create function belfry_test_poison() returns trigger language plpgsql as $$ begin
         if new.actor_id = '${bo}' then raise 'poison' using errcode = '22000'; end if; return new; end $$`,
    );
    await client.query(
      'create trigger poison before insert on belfry.notification_event for each row execute function belfry_test_poison()',
    );
    await addComment(database.pool, post, cleo);
    await addComment(database.pool, post, others[0] ?? '');
    await wrong.run();
    const job = await replay({ object: `post:${post}` });
    await client.query('drop trigger poison on belfry.notification_event; drop function belfry_test_poison');
    expect(job).toMatchObject({
      state: 'done',
      counts: { processed: 3, delivered: 2, failed: 1 },
      error: 'poison (22000)',
    });
  });
});
