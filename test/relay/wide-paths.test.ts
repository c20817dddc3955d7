/** Paths that lead to more people than fit into a batch: jobs like those of a query, also when the way there is found late. */

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MemoryBroker } from '../../src/broker/memory.js';
import { createLogger } from '../../src/log.js';
import { createMetrics } from '../../src/metrics.js';
import { Relay } from '../../src/relay/relay.js';
import { requestJob } from '../../src/relay/replay/jobs.js';
import type { JobMode } from '../../src/relay/replay/jobs.js';
import { resolveSql } from '../../src/relay/plan/resolve.js';
import { loadColumnTypes } from '../../src/schema/columns.js';
import { startMapping } from '../mapping/rig.js';
import type { Mapping } from '../mapping/rig.js';

const members = 1_200;

let mapping: Mapping;

beforeAll(async () => {
  mapping = await startMapping(
    `
create table members (circle int, person int);
create index on members (circle);
create table albums (id int primary key, circle int);
create table posts (id int primary key, author int, circle int);
create table photos (id int primary key, author int, album int);
create table parties (id int primary key, host int, guests int[]);
create table fairs (id int primary key, host int, circle int);
create table fees (circle int, share int);
insert into fees values (1, 0);
insert into members select 1, i from generate_series(1, ${String(members)}) i;
insert into members select 2, i from generate_series(1, 5) i;
insert into members select 3, 1 from generate_series(1, ${String(members)}) i;`,
    `
  - { name: post, type: post, table: posts, key: [id], actor: author, object: { kind: circle, id: circle }, recipient: { path: [{ from: circle, table: members, match: circle, take: person }] } }
  - { name: photo, type: photo, table: photos, key: [id], actor: author, object: { kind: album, id: album },
      recipient: { path: [{ from: album, table: albums, match: id, take: circle }, { table: members, match: circle, take: person }] } }
  - { name: party, type: party, table: parties, key: [id], actor: host, recipient: { list: guests } }
  - { name: fair, type: fair, table: fairs, key: [id], actor: host, object: { kind: circle, id: circle }, channels: ["circle:{circle}"], include: [id],
      counter: { event: fair_update, field: fairs_count }, recipient: { path: [{ from: circle, table: members, match: circle, take: person }] },
      visible: "select from fees where circle = :object_id and 100 / share > 0 and :user <> ''" }`,
  );
});
afterAll(() => mapping.stop());

/** How many people have a notification of this type and object; what is still to be told by jobs. */
async function told(type: string, object: number): Promise<{ people: number; jobs: number }> {
  const [row] = await mapping.sql(
    `select (select count(distinct user_id)::int from belfry.notification where type = $1 and object_id = $2 and not withdrawn) as people,
            (select count(*)::int from belfry.fanout_job where done_at is null) as jobs`,
    [type, String(object)],
  );
  return row as { people: number; jobs: number };
}

/** While `work` runs so does a relay. */
async function withRelay(work: () => Promise<void>): Promise<void> {
  const relay = new Relay({
    config: mapping.batches.config,
    broker: new MemoryBroker(),
    log: createLogger({ level: 'silent', name: 'test' }),
    metrics: createMetrics().relay,
  });
  await relay.start();
  try {
    await work();
  } finally {
    await relay.stop();
  }
}

const held = async (): Promise<number> => (await mapping.sql('select from belfry.held')).length;

describe('a path to many', () => {
  it('is a job, of which a page holds no more than tells that it is one', async () => {
    await mapping.published('insert into posts values (1, 7, 1)');
    expect(await told('post', 1)).toEqual({ people: 0, jobs: 1 });
    const { pool } = mapping.database;
    const statement = resolveSql(mapping.batches.config.sources, await loadColumnTypes(pool, mapping.batches.config));
    const page = await pool.query(statement('select id, xid, at, source, op, new, old from belfry.outbox'));
    expect(page.rowCount).toBe(1_001);
    const steps = await mapping.batches.fanOut();
    expect(Math.max(...steps)).toBeLessThan(members);
    expect(await told('post', 1)).toEqual({ people: members - 1, jobs: 0 });
    await mapping.published('delete from posts where id = 1');
    await mapping.batches.fanOut();
    expect(await told('post', 1)).toEqual({ people: 0, jobs: 0 });
    mapping.batches.heard();
  });

  it('to few is none, and one to one person many times tells them once', async () => {
    expect(await mapping.heard('insert into posts values (2, 7, 2)')).toHaveLength(5);
    expect(await told('post', 2)).toEqual({ people: 5, jobs: 0 });
    await mapping.published('insert into posts values (3, 7, 3)');
    await mapping.batches.fanOut();
    expect(await told('post', 3)).toEqual({ people: 1, jobs: 0 });
  });
});

describe('a row that is held', () => {
  it('and turns out wide by an update of its own is told to all of them', async () => {
    await mapping.published('insert into posts values (10, 7, null)');
    expect(await held()).toBe(1);
    await mapping.published('update posts set circle = 1 where id = 10');
    expect(await held()).toBe(0);
    await mapping.batches.fanOut();
    expect(await told('post', 1)).toEqual({ people: members - 1, jobs: 0 });
    // Another update is none of their business.
    await mapping.published('update posts set author = author where id = 10');
    expect(await told('post', 1)).toEqual({ people: members - 1, jobs: 0 });
  });

  it('and turns out wide by a change of another table, too', async () => {
    // Far more older ones than are looked at: as text their ids would come before the new one's.
    const older = 1_001;
    await mapping.sql(`alter table belfry.outbox alter column id restart with 10001`);
    await mapping.sql(
      `insert into belfry.held (source, key, event_id, until)
       select 'photo', n::text, n, clock_timestamp() + interval '1 hour' from generate_series(2000, ${1_999 + older}) n`,
    );
    await mapping.published('insert into albums values (20, null); insert into photos values (20, 7, 20)');
    expect(await held()).toBe(older + 1);
    await mapping.sql('update albums set circle = 1 where id = 20');
    // The relay looks at what is held when it starts, and every ten seconds.
    await withRelay(async () => {
      await expect.poll(() => told('photo', 20), { timeout: 60_000 }).toEqual({ people: members - 1, jobs: 0 });
      expect(await held()).toBe(older);
    });
  });
});

describe('a job that fails by its own fault', () => {
  it('is a dead letter: tried again it is told, and what moved when it came does not move again; discarded a replay tells it', async () => {
    const state = async () => {
      const [row] = await mapping.sql(
        `select (select count(*)::int from belfry.dead_event) as dead, (select count::int from belfry.counter where source = 'fair') as fairs,
                (select count(*)::int from belfry.channel_event where event = 'fair_update') as events,
                (select count(*)::int from belfry.fanout_job where done_at is null) as jobs,
                array(select count(e.user_id)::int from fairs f left join belfry.notification_event e on e.source = 'fair' and e.key = json_build_array(f.id::text)::text
                       group by f.id order by f.id) as told`,
      );
      return row;
    };
    const ask = async (mode: JobMode): Promise<void> => {
      await requestJob(await mapping.database.client(), { mode, filter: {}, rate: null, mapping: null });
    };
    const both = { fairs: 2, events: 2, jobs: 0 };
    const timeout = 25_000;
    await withRelay(async () => {
      await mapping.sql('insert into fairs values (1, 7, 1), (2, 7, 1)');
      await expect.poll(state, { timeout }).toEqual({ ...both, dead: 2, told: [0, 0] });
      await mapping.sql('update fees set share = 1');
      await mapping.sql('delete from belfry.dead_event where event_id = (select max(event_id) from belfry.dead_event)');
      await ask('retry');
      await expect.poll(state, { timeout }).toMatchObject({ dead: 0, jobs: 0, told: [members - 1, 0] });
      expect(await state()).toMatchObject(both);
      await ask('deliver');
      await expect.poll(state, { timeout }).toEqual({ ...both, dead: 0, told: [members - 1, members - 1] });
    });
  }, 120_000);
});

describe('a list of many that is edited', () => {
  /** Guests from 1 to this number. */
  const guests = (last: number): string => `array(select generate_series(1, ${String(last)}))`;

  it.each([
    ['stays wide', members, members + 1],
    ['becomes narrow', members, 20],
    ['becomes wide', 20, members],
  ])('%s: who stays keeps what they have, and hears nothing', async (_, before, after) => {
    await mapping.sql(`insert into parties values (${String(after)}, 9999, ${guests(before)})`);
    await mapping.batches.run();
    await mapping.batches.fanOut();
    mapping.batches.heard();
    await mapping.sql(`update parties set guests = ${guests(after)} where id = ${String(after)}`);
    await mapping.batches.run();
    await mapping.batches.fanOut();
    const touched = new Set((await mapping.heard()).map((line) => line.split(' ')[0]));
    const [low, high] = [before, after].sort((a, b) => a - b);
    const between = Array.from({ length: (high ?? 0) - (low ?? 0) }, (__, i) => String((low ?? 0) + 1 + i));
    expect([...touched].sort()).toEqual(between.sort());
    const [row] = await mapping.sql(
      `select count(*)::int as holders, (select count(*)::int from belfry.fanout_job where done_at is null) as jobs
         from belfry.notification_event where source = 'party' and key = $1 and removed_at is null`,
      [JSON.stringify([String(after)])],
    );
    expect(row).toEqual({ holders: after, jobs: 0 });
  });
});
