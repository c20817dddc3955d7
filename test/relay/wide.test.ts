/** Events for more people than fit into a batch: jobs that survive everything, tell each once, and let others through. */

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { installCapture } from '../../src/capture/install.js';
import { createLogger } from '../../src/log.js';
import { MemoryBroker } from '../../src/broker/memory.js';
import { createMetrics } from '../../src/metrics.js';
import { Relay } from '../../src/relay/relay.js';
import { boundOf, ReplayPages } from '../../src/relay/replay/page.js';
import type { ReplayMode } from '../../src/relay/replay/plan.js';
import { countReplay } from '../../src/relay/replay/work.js';
import { loadColumnTypes } from '../../src/schema/columns.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { addPost, addUsers, like, socialSql } from '../support/social.js';
import { startBatches } from './batches.js';
import type { Batches } from './batches.js';
import { framesOf, moreSql, worldConfig } from './world.js';

const members = 1_200;
let database: TestDatabase;
let batches: Batches;
let sender: string;
let everyone: string[];
let conversation = 0;

beforeAll(async () => {
  database = await createTestDatabase({ prepare: `${socialSql};${moreSql}` });
  batches = await startBatches(database, worldConfig(database.url), 400);
  await installCapture(await database.client(), batches.config);
  everyone = await addUsers(database.pool, ...Array.from({ length: members }, (_, i) => `Member ${String(i)}`));
  [sender = ''] = everyone;
});

/** A conversation of everybody, so that cases share no history. */
beforeEach(async () => {
  conversation += 1;
  await database.pool.query('insert into members select $1, id from users', [conversation]);
  await batches.run();
  await batches.fanOut();
  batches.heard();
});

afterAll(async () => {
  await batches.stop();
  await database.drop();
});

async function send(): Promise<string> {
  const { rows } = await database.pool.query<{ id: string }>(
    `insert into messages (conversation_id, sender_id, body) values ($1, $2, 'hello') returning id`,
    [conversation, sender],
  );
  return rows[0]?.id ?? '';
}

/** How many people have how many notifications of this message, withdrawn ones apart. */
async function told(message: string): Promise<{ people: number; notifications: number }> {
  const { rows } = await database.pool.query<{ people: number; notifications: number }>(
    `select count(distinct user_id)::int as people, count(*)::int as notifications
       from belfry.notification where subject_kind = 'message' and subject_id = $1 and not withdrawn`,
    [message],
  );
  return rows[0] ?? { people: 0, notifications: 0 };
}

const openJobs = async (): Promise<number> =>
  (await database.pool.query('select 1 from belfry.fanout_job where done_at is null')).rowCount ?? 0;

describe('many messages to a conversation that is not quite as big', () => {
  // More rows than a page may have, twice: ten seconds of work on two free processors.
  it('are stored some at a time, each told once to everybody, in their order', { timeout: 120_000 }, async () => {
    const crowd = 900;
    const messages = 25;
    await database.pool.query('delete from members where conversation_id = $1 and user_id > $2', [
      conversation,
      everyone[crowd - 1],
    ]);
    await database.pool.query(
      `insert into messages (conversation_id, sender_id, body) select $1, $2, 'hello' from generate_series(1, $3)`,
      [conversation, sender, messages],
    );
    expect(await batches.run(2_000)).toBe(messages);
    expect(await openJobs()).toBe(0);
    const { rows: stored } = await database.pool.query<{ rows: number }>(
      `select count(*)::int as rows from belfry.notification n
        where n.object_id = $1 group by xmin order by 1 desc`,
      [conversation],
    );
    expect(stored[0]?.rows).toBeLessThanOrEqual(20_000);
    // And not one by one.
    expect(stored.length).toBeLessThanOrEqual(6);
    const { rows: people } = await database.pool.query(
      `select told, in_order, count(*)::int as people
         from (select count(distinct subject_id)::int as told,
                      array_agg(subject_id::bigint order by seq) = array_agg(subject_id::bigint order by subject_id::bigint) as in_order
                 from belfry.notification where object_id = $1 group by user_id) person
        group by told, in_order`,
      [conversation],
    );
    expect(people).toEqual([{ told: messages, in_order: true, people: crowd - 1 }]);

    // A replay reads them some at a time, too.
    const { client, config } = { client: await database.client(), config: batches.config };
    const types = await loadColumnTypes(client, config);
    const filter = { type: 'message', object: `conversation:${String(conversation)}` };
    const pages = new ReplayPages(client, config, types, filter, await boundOf(client), false);
    const counts: number[] = [];
    for (let after: string | null = '0'; after !== null;) {
      const page = await pages.read(after, 2_000);
      counts.push(page.count);
      after = page.next;
    }
    expect(counts.reduce((sum, count) => sum + count, 0)).toBe(messages);
    expect(Math.max(...counts) * crowd).toBeLessThanOrEqual(20_000);
    expect(counts.length).toBeLessThanOrEqual(6);

    // So are they taken back, which one statement may ask for.
    await database.pool.query('delete from messages where conversation_id = $1', [conversation]);
    expect(await batches.run(2_000)).toBe(messages);
    const { rows: taken } = await database.pool.query<{ rows: number; withdrawn: boolean }>(
      `select count(*)::int as rows, bool_and(withdrawn) as withdrawn from belfry.notification n
        where n.object_id = $1 group by xmin order by 1 desc`,
      [conversation],
    );
    expect(taken.every(({ withdrawn }) => withdrawn)).toBe(true);
    expect(taken[0]?.rows).toBeLessThanOrEqual(20_000);
    expect(taken.length).toBeLessThanOrEqual(6);
  });
});

describe('a message to a big conversation', () => {
  it('goes to every member but the sender, in steps, and to the channel at once', async () => {
    const message = await send();
    await batches.run();
    expect(batches.heard()).toMatchObject([
      {
        to: 'channel',
        channel: `conversation:${String(conversation)}`,
        event: 'message',
        data: { message: { id: message } },
      },
      { to: 'control' },
    ]);
    expect(await told(message)).toMatchObject({ people: 0 });
    const steps = await batches.fanOut();
    expect(steps.length).toBeGreaterThan(2);
    expect(Math.max(...steps)).toBeLessThanOrEqual(400);
    expect(await told(message)).toEqual({ people: members - 1, notifications: members - 1 });
    expect(framesOf(batches.heard(), everyone[7] ?? '')).toMatchObject([
      {
        event: 'notification',
        data: { type: 'message', message: 'Member 0 sent you a message', data: { alert: true } },
      },
    ]);
    expect(await openJobs()).toBe(0);
  });

  it('asks about privacy at each step', async () => {
    const message = await send();
    await batches.run();
    await batches.fanOut(1);
    const waiting = await database.pool.query<{ id: string }>(
      `select id::text from users where not exists (select from belfry.notification n where n.user_id = users.id::text and n.subject_id = $1)
        and id::text collate "C" > (select after from belfry.fanout_job where done_at is null) and id <> $2`,
      [message, sender],
    );
    const [blocker = '', muter = ''] = waiting.rows.map(({ id }) => id);
    await database.pool.query('insert into blocks values ($1, $2)', [blocker, sender]);
    await database.pool.query('insert into mutes values ($1, $2)', [muter, sender]);
    await batches.run();
    await batches.fanOut();
    expect(await told(message)).toMatchObject({ people: members - 3 });
    const { rows } = await database.pool.query(
      `select rule, u.id from belfry.verdict v cross join unnest(v.user_ids) u(id) where u.id = any($1) order by rule`,
      [[blocker, muter]],
    );
    expect(rows).toEqual([
      { rule: 'blocked', id: blocker },
      { rule: 'muted', id: muter },
    ]);
    await database.pool.query('delete from blocks');
    await database.pool.query('delete from mutes');
  });

  it('a crash in the middle repeats nothing and leaves nothing out', async () => {
    const message = await send();
    await batches.run();
    await batches.fanOut(2);
    const before = await told(message);
    expect(before.people).toBeGreaterThan(0);
    expect(before.people).toBeLessThan(members - 1);
    // Another process takes over, knowing only what is stored; and the first one, which froze, comes back too late.
    const other = await startBatches(database, worldConfig(database.url), 300);
    try {
      await other.fanOut();
      expect(await told(message)).toEqual({ people: members - 1, notifications: members - 1 });
      await batches.fanOut();
      expect(await told(message)).toEqual({ people: members - 1, notifications: members - 1 });
    } finally {
      await other.stop();
    }
  });

  it('a step whose term is over writes nothing, and the job stays where it was', async () => {
    const message = await send();
    await batches.run();
    await batches.fanOut(1);
    const after = async () =>
      (await database.pool.query('select after, handled from belfry.fanout_job where done_at is null')).rows;
    const before = await after();
    // Between the step's reading of the term and its storing another leader is elected.
    const client = await database.client();
    await client.query('begin');
    await client.query('update belfry.relay set term = term + 1');
    const step = batches.fanOut(1);
    // Awaited below; it may have failed before the commit is answered.
    step.catch(() => undefined);
    await expect
      .poll(
        async () =>
          (
            await database.pool.query(
              `select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`,
            )
          ).rowCount,
      )
      .toBe(1);
    await client.query('commit');
    await expect(step).rejects.toThrow(/leads now/);
    expect(await after()).toEqual(before);
    await batches.fanOut();
    expect(await told(message)).toEqual({ people: members - 1, notifications: members - 1 });
  });

  it('is taken back wide too, also while it is still being told', async () => {
    const message = await send();
    await batches.run();
    await batches.fanOut(1);
    await database.pool.query('delete from messages where id = $1', [message]);
    await batches.run();
    await batches.fanOut();
    expect(await told(message)).toMatchObject({ people: 0 });
    expect(await openJobs()).toBe(0);
    const whole = await send();
    await batches.run();
    await batches.fanOut();
    batches.heard();
    await database.pool.query('delete from messages where id = $1', [whole]);
    await batches.run();
    const steps = await batches.fanOut();
    expect(steps.length).toBeGreaterThan(2);
    expect(await told(whole)).toMatchObject({ people: 0 });
    expect(framesOf(batches.heard(), everyone[9] ?? '')).toMatchObject([
      { event: 'withdrawn', data: { type: 'message' } },
    ]);
  });

  it('an edit of its text is no job, and tells the channel alone', async () => {
    const message = await send();
    await batches.run();
    await batches.fanOut();
    batches.heard();
    await database.pool.query(`update messages set body = 'edited' where id = $1`, [message]);
    await batches.run();
    expect(await openJobs()).toBe(0);
    expect(batches.heard().filter(({ to }) => to !== 'control')).toMatchObject([{ to: 'channel', event: 'message' }]);
  });

  it('a small one is no job', async () => {
    await database.pool.query('delete from members where conversation_id = $1 and user_id > $2', [
      conversation,
      everyone[9],
    ]);
    const message = await send();
    await batches.run();
    expect(await told(message)).toEqual({ people: 9, notifications: 9 });
  });
});

describe('in a running relay', () => {
  it('likes pass between the steps, and the job ends', async () => {
    const broker = new MemoryBroker();
    const pushed: string[] = [];
    const liked = addPost(database.pool, everyone[1] ?? '');
    const post = await liked;
    broker.subscribe({
      receive: (publications) => {
        for (const publication of publications)
          if (publication.to === 'user')
            pushed.push((JSON.parse(publication.frame) as { data: { type: string } }).data.type);
      },
      reconnected: () => undefined,
      hasSessions: () => true,
      hasSubscribers: () => true,
    });
    const message = await send();
    const relay = new Relay({
      config: batches.config,
      broker,
      log: createLogger({ level: 'silent', name: 'test' }),
      metrics: createMetrics().relay,
    });
    await relay.start();
    try {
      await expect
        .poll(() => pushed.filter((type) => type === 'message').length, { timeout: 60_000, interval: 2 })
        .toBeGreaterThan(0);
      await like(database.pool, everyone[2] ?? '', post);
      await expect.poll(() => pushed.length, { timeout: 60_000 }).toBe(members);
      expect(await told(message)).toEqual({ people: members - 1, notifications: members - 1 });
      expect(pushed.indexOf('like')).toBeLessThan(members - 1);
      expect(pushed.indexOf('like')).toBeGreaterThan(0);
    } finally {
      await relay.stop();
    }
  });
});

describe('replayed', () => {
  const now = async (): Promise<Date> =>
    (await database.pool.query<{ now: Date }>('select clock_timestamp() as now')).rows[0]?.now ?? new Date();
  const counts = { processed: 1, delivered: 0, suppressed: 0, already: 0, withdrawn: 0, failed: 0 };
  const dryRun = async (since: Date, mode: ReplayMode = 'deliver', user?: string): Promise<unknown> => {
    const filter = { since, ...(user === undefined ? {} : { user }) };
    return (await countReplay(database.url, batches.config, { mode, filter }, () => undefined)).counts;
  };

  /** As if it had never been told. */
  const forget = async (message: string): Promise<void> => {
    await database.pool.query(`delete from belfry.fanout_job where source = 'conversation_message' and key = $1`, [
      JSON.stringify([message]),
    ]);
    await database.pool.query(
      `delete from belfry.notification_event where source = 'conversation_message' and key = $1`,
      [JSON.stringify([message])],
    );
    await database.pool.query(`delete from belfry.notification where subject_kind = 'message' and subject_id = $1`, [
      message,
    ]);
  };

  it.each([
    ['while nothing else happens', false],
    ['beside live traffic', true],
  ])('%s, all are counted, told by a job, and not told again', async (_, busy) => {
    const since = await now();
    const message = await send();
    await batches.run();
    await forget(message);
    const [blocker = ''] = everyone.slice(5);
    await database.pool.query('insert into blocks values ($1, $2)', [blocker, sender]);
    await batches.run();
    // The sender is a member too.
    const expected = { ...counts, delivered: members - 2, suppressed: 2 };
    expect(await dryRun(since)).toEqual(expected);
    expect(await openJobs()).toBe(0);
    expect(await batches.replay('deliver', { since }, busy)).toEqual(expected);
    await batches.fanOut();
    expect(await told(message)).toEqual({ people: members - 2, notifications: members - 2 });

    const again = { ...counts, already: members - 2 };
    expect(await dryRun(since)).toEqual(again);
    expect(await batches.replay('deliver', { since }, busy)).toEqual(again);
    // A rebuild tells those who became able to hear it.
    await database.pool.query('delete from blocks');
    await batches.run();
    const rebuilt = { ...counts, delivered: 1, suppressed: 1, already: members - 2 };
    expect(await dryRun(since, 'rebuild')).toEqual(rebuilt);
    expect(await batches.replay('rebuild', { since }, busy)).toEqual(rebuilt);
    await batches.fanOut();
    expect(await told(message)).toEqual({ people: members - 1, notifications: members - 1 });
  });

  it('is told by its row as it is now: a column that was not captured then is there', async () => {
    const since = await now();
    const message = await send();
    await database.pool.query(
      `update belfry.outbox set new = new - 'conversation_id' where id = (select max(id) from belfry.outbox)`,
    );
    await batches.run();
    await batches.fanOut();
    expect(await told(message)).toMatchObject({ people: 0 });
    const expected = { ...counts, delivered: members - 1, suppressed: 1 };
    expect(await dryRun(since)).toEqual(expected);
    expect(await batches.replay('deliver', { since }, true)).toEqual(expected);
    await batches.fanOut();
    expect(await told(message)).toEqual({ people: members - 1, notifications: members - 1 });
  });

  it('one that is gone since is taken back by a rebuild, and counted', async () => {
    const since = await now();
    const message = await send();
    await batches.run();
    await batches.fanOut();
    await database.pool.query(
      `begin; set local belfry.capture = 'off'; delete from messages where id = ${message}; commit`,
    );
    const expected = { ...counts, withdrawn: members - 1 };
    expect(await dryRun(since, 'rebuild')).toEqual(expected);
    expect(await batches.replay('rebuild', { since }, true)).toEqual(expected);
    await batches.fanOut();
    expect(await told(message)).toMatchObject({ people: 0 });
  });

  it('for one person reaches that person and nobody else', async () => {
    const busy = true;
    const since = await now();
    const [missed, unheard] = [await send(), await send()];
    await batches.run();
    await batches.fanOut();
    const [user, stranger] = [everyone[5] ?? '', '0'];
    await database.pool.query(
      `with gone as (delete from belfry.notification where user_id = $1 and subject_id = $2 returning id)
       delete from belfry.notification_event e using gone where e.notification_id = gone.id`,
      [user, missed],
    );
    await forget(unheard);
    batches.heard();
    const expected = { ...counts, processed: 2, delivered: 2 };
    expect(await dryRun(since, 'deliver', user)).toEqual(expected);
    expect(await batches.replay('deliver', { since, user }, busy)).toEqual(expected);
    expect(batches.heard().flatMap((heard) => (heard.to === 'user' ? [heard.userId] : []))).toEqual([user, user]);
    expect(await openJobs()).toBe(0);
    expect(await told(missed)).toEqual({ people: members - 1, notifications: members - 1 });
    expect(await told(unheard)).toEqual({ people: 1, notifications: 1 });
    expect(await batches.replay('deliver', { since, user }, busy)).toEqual({ ...counts, processed: 2, already: 2 });
    expect(await batches.replay('deliver', { since, user: stranger }, busy)).toEqual({ ...counts, processed: 0 });
    // Who heard it alone does not hear it again with the others.
    await batches.replay('deliver', { since }, busy);
    await batches.fanOut();
    expect(await told(unheard)).toEqual({ people: members - 1, notifications: members - 1 });
  });

  it('for one person, a rebuild takes it back from that person alone', async () => {
    const since = await now();
    const message = await send();
    await batches.run();
    await batches.fanOut();
    const user = everyone[15] ?? '';
    // Turned off afterwards: that takes nothing back by itself.
    await batches.inbox.setPreferences(user, { message: 'off' });
    const expected = { ...counts, suppressed: 1, withdrawn: 1 };
    expect(await dryRun(since, 'rebuild', user)).toEqual(expected);
    expect(await batches.replay('rebuild', { since, user })).toEqual(expected);
    expect(await openJobs()).toBe(0);
    expect(await told(message)).toEqual({ people: members - 2, notifications: members - 2 });
    await batches.inbox.setPreferences(user, { message: 'on' });
  });

  it('one that would not be wide any more is taken back from those who left, and stays with all others', async () => {
    const since = await now();
    const message = await send();
    await batches.run();
    await batches.fanOut();
    await database.pool.query('delete from members where conversation_id = $1 and user_id > $2', [
      conversation,
      everyone[9],
    ]);
    batches.heard();
    await batches.replay('rebuild', { since });
    await batches.fanOut();
    expect(await told(message)).toEqual({ people: 9, notifications: 9 });
    expect(framesOf(batches.heard(), everyone[5] ?? '')).toEqual([]);
  });
});
