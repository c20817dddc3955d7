/**
 * Triggers and columns that somebody else took away: the relay puts back what it may, makes anew what the table still tells, and
 * says the rest. Every case is a relay of its own, which looks when its term begins.
 */

import pino from 'pino';
import { afterAll, beforeAll, expect, it, onTestFinished, vi } from 'vitest';
import { MemoryBroker } from '../../src/broker/memory.js';
import { installCapture } from '../../src/capture/install.js';
import { repairCapture } from '../../src/capture/repair.js';
import { parseConfig } from '../../src/config.js';
import type { Config } from '../../src/config.js';
import { PostgresInbox } from '../../src/inbox/inbox.js';
import { createMetrics } from '../../src/metrics.js';
import { ensurePartitions } from '../../src/outbox/partitions.js';
import { connect } from '../../src/postgres/connect.js';
import { Drift } from '../../src/relay/upkeep/drift.js';
import { misfits, Told } from '../../src/relay/upkeep/misfits.js';
import { Relay } from '../../src/relay/relay.js';
import { loadColumnTypes } from '../../src/schema/columns.js';
import { letGo } from '../../src/postgres/sending.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { testSecret } from '../support/social.js';

vi.setConfig({ testTimeout: 480_000, hookTimeout: 240_000 });
const patience = { timeout: 200_000, interval: 20 };

const tables = `
create table people (id bigint primary key, name text);
create table posts (id bigint primary key, owner_id bigint);
create table likes (user_id bigint, post_id bigint, created_at timestamptz default now(), primary key (user_id, post_id));
create table follows (follower bigint, followed bigint, primary key (follower, followed));
create table parts (id bigint, user_id bigint, made timestamptz default now(), day int) partition by range (day);
create table parts_1 partition of parts for values from (1) to (2);
insert into people values (1, 'Ada'), (2, 'Bo'), (3, 'Cleo'), (4, 'Dora');
insert into posts values (10, 1);
`;

const sources = () => `
  - name: post_like
    type: like
    table: public.likes
    key: [user_id, post_id]
    actor: user_id
    object: { kind: post, id: post_id }
    recipient: { path: [{ from: post_id, table: public.posts, match: id, take: owner_id }] }
    channels: ['post:{post_id}']
    counter: { event: like_update, field: likes_count }
    time: created_at
  - { name: follow, type: follow, table: public.follows, key: [follower, followed], actor: follower, recipient: followed }
  - { name: part, type: part, table: public.parts, key: [id], actor: user_id, recipient: user_id, time: made }
`;

let database: TestDatabase;
let config: Config;
let inbox: PostgresInbox;

const configOf = (list: string): Config =>
  parseConfig(
    `version: 1
database: { url: "${database.url}" }
auth: { secret: ${testSecret}, issuer: null, audience: null }
people: { table: public.people, name: name }
channels: { post: { read: public } }
sources:${list}`,
    {},
    { path: 'test.yaml' },
  );

beforeAll(async () => {
  database = await createTestDatabase({ prepare: tables });
  config = configOf(sources());
  const client = await database.client();
  // As belfry migrate does: attached by the relay, today's partition could cost a write that runs just then its event.
  await ensurePartitions(client, { today: true });
  await installCapture(client, config);
  inbox = new PostgresInbox(database.pool, config, await loadColumnTypes(database.pool, config));
});
afterAll(() => database.drop());

interface Entry {
  readonly level: number;
  readonly msg: string;
  readonly problems?: string[];
  readonly source?: string;
  readonly recaptured?: number | null;
  readonly retracted?: number;
  readonly changed?: string[];
}

/** A relay that runs while `work` does; what it wrote into its log. */
async function withRelay(
  of: Config,
  work: (relay: {
    readonly log: Entry[];
    said(part: string, source?: string): Promise<Entry>;
    problems(state: string): Promise<number>;
    /** How many it has begun and ended. */
    terms(): number;
  }) => Promise<void>,
): Promise<void> {
  const log: Entry[] = [];
  const metrics = createMetrics();
  let terms = 0;
  const relay = new Relay({
    config: of,
    broker: new MemoryBroker(),
    log: pino({ level: 'info' }, { write: (line: string) => void log.push(JSON.parse(line) as Entry) }),
    metrics: metrics.relay,
    observer: { leader: (leads) => void (terms += leads ? 0 : 1) },
  });
  await relay.start();
  try {
    await work({
      log,
      terms: () => terms,
      async said(part, source) {
        const find = () => log.find((entry) => entry.msg.includes(part) && (source ?? entry.source) === entry.source);
        await expect.poll(find, { ...patience, message: `${part}: ${JSON.stringify(log)}` }).toBeDefined();
        return find() as Entry;
      },
      async problems(state) {
        const { values } = await metrics.relay.captureProblems.get();
        return values.find(({ labels }) => labels.state === state)?.value ?? 0;
      },
    });
  } finally {
    await relay.stop();
  }
}

const settled = async (): Promise<void> => {
  const unread = async () =>
    (await database.pool.query<{ n: string }>('select events as n from belfry.lag')).rows[0]?.n;
  await expect.poll(unread, patience).toBe('0');
};

const inboxOf = async (user: string) =>
  (await inbox.list(user, { limit: 100, before: null, state: null })).items as {
    type: string;
    user_id: string;
    data: { actor_count: number };
  }[];

const counter = async (): Promise<number | undefined> =>
  (
    await database.pool.query<{ n: number }>(
      `select count::float8 as n from belfry.counter where source = 'post_like' and object_id = '10'`,
    )
  ).rows[0]?.n;

const checkedAt = async (source: string): Promise<Date | undefined> =>
  (await database.pool.query<{ ok_at: Date }>('select ok_at from belfry.capture_check where source = $1', [source]))
    .rows[0]?.ok_at;

it('a relay that finds all in order remembers when', async () => {
  await withRelay(config, async ({ log }) => {
    await expect.poll(() => checkedAt('post_like'), patience).toBeInstanceOf(Date);
    await database.pool.query('insert into likes (user_id, post_id) values (3, 10); insert into follows values (4, 2)');
    await settled();
    expect(log.filter(({ problems }) => problems !== undefined)).toEqual([]);
  });
  expect(await inboxOf('1')).toMatchObject([{ type: 'like', user_id: '3' }]);
});

it('a table that was made anew at boot: triggers are back, what the table tells arrives, what is gone is withdrawn, counters are right', async () => {
  // As an ORM does that synchronises by force. The rows of before come back but one, and two are new.
  await database.pool.query(`
    begin;
    drop table likes;
    create table likes (user_id bigint, post_id bigint, created_at timestamptz default now(), primary key (user_id, post_id));
    commit;
    insert into likes (user_id, post_id) values (2, 10), (4, 10), (1, 10)`);
  await withRelay(config, async ({ said }) => {
    expect((await said('are back')).changed).toHaveLength(4);
    expect(await said('captured again', 'post_like')).toMatchObject({ recaptured: 3, retracted: 1 });
    await settled();
    const { rows } = await database.pool.query('select source, writes, sqlstates from belfry.repair');
    expect(rows).toEqual([{ source: 'post_like', writes: 1, sqlstates: ['42704'] }]);
    // And from now on as before.
    await database.pool.query('delete from likes where user_id = 4');
    await settled();
  });
  expect(await inboxOf('1')).toMatchObject([{ type: 'like', user_id: '2', data: { actor_count: 1 } }]);
  expect(await counter()).toBe(2);
});

it('a second look finds nothing to repair, and notifies nobody twice', async () => {
  await withRelay(config, async ({ log }) => {
    const before = await checkedAt('post_like');
    await expect.poll(async () => (await checkedAt('post_like'))?.getTime(), patience).not.toBe(before?.getTime());
    await settled();
    expect(log.filter(({ msg }) => /are back|not captured/.test(msg))).toEqual([]);
  });
  expect(await inboxOf('1')).toHaveLength(1);
});

it('a trigger that was switched off, on a table without a time: told as lost, but what is gone is withdrawn', async () => {
  await database.pool.query(`
    alter table follows disable trigger all;
    insert into follows values (3, 1);
    delete from follows where follower = 4`);
  await withRelay(config, async ({ said }) => {
    expect(await said('notifications of these writes are lost', 'follow')).toMatchObject({
      recaptured: null,
      retracted: 1,
    });
    await settled();
  });
  expect(await inboxOf('2')).toEqual([]);
  expect((await inboxOf('1')).map(({ type }) => type)).toEqual(['like']);
});

it('a partition that was made later is captured, and what was written straight into it meanwhile arrives', async () => {
  await database.pool.query(`
    create table parts_2 partition of parts for values from (2) to (3);
    create table parts_3 partition of parts for values from (3) to (4);
    insert into parts_2 (id, user_id, day) values (1, 9, 2);
    alter table people add column bio text`);
  await database.pool.query(`insert into people values (9, 'Zoe')`);
  await withRelay(config, async ({ said }) => {
    // Nobody is notified of what they did themselves: the verdict says that the event came through.
    expect(await said('captured again', 'part')).toMatchObject({ recaptured: 1 });
    await settled();
    await database.pool.query('insert into parts_3 (id, user_id, day) values (2, 9, 3)');
    await settled();
  });
  const { rows } = await database.pool.query<{ new: { id: number } }>(
    `select new from belfry.outbox where source = 'part' order by id`,
  );
  expect(rows.map((row) => row.new.id)).toEqual([1, 2]);
});

it('a column on the way to the recipient is gone: an alarm, other sources go on, and the event waits for its owner', async () => {
  await withRelay(config, async ({ said, problems }) => {
    await database.pool.query('alter table posts rename column owner_id to author_id');
    await database.pool.query('insert into likes (user_id, post_id) values (4, 10)');
    await database.pool.query('insert into follows values (2, 3)');
    expect((await said('does not fit the config')).problems).toContain(
      'sources[0] (post_like).recipient.path[0].take: table public.posts has no column owner_id',
    );
    expect(await problems('mapping')).toBe(1);
    await settled();
  });
  expect(await inboxOf('3')).toMatchObject([{ type: 'follow', user_id: '2' }]);
  const dead = await database.pool.query('select 1 from belfry.dead_event');
  expect(dead.rows).toEqual([]);
  await database.pool.query('alter table posts rename column author_id to owner_id');
  await withRelay(config, async () => {
    await expect.poll(() => inboxOf('1'), patience).toMatchObject([{ type: 'like', user_id: '4' }]);
  });
  // Counted once, though it was looked at twice.
  expect(await counter()).toBe(3);
});

it('does not put back what a newer config was migrated without', async () => {
  const newer = configOf(sources().replace(/ {2}- \{ name: follow.*\n/, ''));
  const client = await database.client();
  await installCapture(client, newer);
  expect(await repairCapture(client, config)).toEqual({ changed: [], missed: [] });
  expect((await installCapture(client, config)).changed).toContain(
    'trigger belfry_follow_insert on "public"."follows"',
  );
});

it('migrate, which puts triggers back too, marks what was missed for the relay', async () => {
  await database.pool.query('drop trigger belfry_post_like_insert on likes');
  // Of somebody new: a row whose key an event named within the last second counts as known.
  await database.pool.query(
    `insert into people values (5, 'Eve'); insert into likes (user_id, post_id) values (5, 10)`,
  );
  await installCapture(await database.client(), config);
  await withRelay(config, async ({ said }) => {
    expect(await said('captured again', 'post_like')).toMatchObject({ recaptured: 1 });
    await settled();
  });
  expect(await inboxOf('1')).toMatchObject([{ data: { actor_count: 3 } }]);
  expect(await counter()).toBe(4);
});

it('SQL of the config that needs what is not there: told once, with its places, however many terms fail, until it is there', async () => {
  const follows = 'table: public.follows, key: [follower, followed], actor: follower';
  const broken = configOf(`${sources()}
  - { name: shy, type: shy, ${follows}, recipient: followed, object: { kind: p, id: followed }, visible: select 1 from public.views where who = :user }
  - { name: team, type: team, ${follows}, recipient: { query: select who from public.team where team = :followed } }`);
  await installCapture(await database.client(), broken);
  await withRelay(broken, async ({ log, said, terms }) => {
    const told = () => log.filter(({ problems }) => problems !== undefined);
    const moreTerms = async () => {
      const before = terms();
      await expect.poll(terms, patience).toBeGreaterThan(before + 2);
    };
    const [shy, team] = [
      'sources[3] (shy).visible: relation "public.views" does not exist',
      'sources[4] (team).recipient.query: relation "public.team" does not exist',
    ];
    await said('so nothing is delivered');
    await moreTerms();
    expect(told()).toMatchObject([{ level: 50, problems: [shy, team] }]);
    // Now a term begins, and ends where it reads.
    await database.pool.query('create table views (who bigint)');
    await expect.poll(() => told().length, patience).toBe(3);
    await moreTerms();
    expect(told().map(({ problems }) => problems)).toEqual([[shy, team], [team], [team]]);
    await database.pool.query('create table team (team bigint, who bigint); insert into team values (1, 2)');
    await said('as the config says again');
    await database.pool.query('insert into follows values (4, 1)');
    await settled();
    expect(told()).toHaveLength(3);
  });
  expect(await inboxOf('2')).toContainEqual(expect.objectContaining({ type: 'team', user_id: '4' }));
});

it('a table that is locked is no problem of the config', async () => {
  const of = configOf(`
  - { name: follow, type: follow, table: public.follows, key: [follower], recipient: followed, when: follower > 0 }
  - { name: other, type: other, table: public.follows, key: [follower], recipient: followed, when: nope }`);
  const error = await database.pool.query('select nope').catch((caught: unknown) => caught);
  expect(await misfits(error, of)).toEqual(['sources[1] (other).when: column "nope" does not exist']);
  const client = await database.client();
  await client.query('begin; lock table follows in access exclusive mode');
  try {
    expect(await misfits(error, of)).toEqual([]);
  } finally {
    await client.query('rollback');
  }
});

it('looks at the SQL of the config aside: what others ask on the shared connection meanwhile goes through and stays', async () => {
  const of = configOf(`
  - { name: follow, type: follow, table: public.follows, key: [follower], recipient: followed, when: follower > 0 }
  - { name: other, type: other, table: public.follows, key: [follower], recipient: followed, when: nope }`);
  const facts = await connect(database.url, { applicationName: 'facts' });
  onTestFinished(() => letGo(facts));
  await facts.query('create table progress (n int)');
  const drift = new Drift({
    config: of,
    log: pino({ level: 'silent' }),
    metrics: createMetrics().relay,
    told: new Told(),
    facts,
    repaired: () => undefined,
  });
  let looking = true;
  const looked = drift.check().finally(() => (looking = false));
  let steps = 0;
  while (looking) await facts.query('insert into progress values ($1)', [(steps += 1)]);
  await looked;
  await drift.settled();
  expect((await facts.query<{ n: number }>('select count(*)::int as n from progress')).rows).toEqual([{ n: steps }]);
});
