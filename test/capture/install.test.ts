/** Installing, checking and removing the triggers. */
import type pg from 'pg';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readCatalog } from '../../src/capture/catalog.js';
import { capturedTables, captureSql, installCapture } from '../../src/capture/install.js';
import { functionName, stemOf, triggerName } from '../../src/capture/names.js';
import { uninstall } from '../../src/capture/uninstall.js';
import { verifyCapture } from '../../src/capture/verify.js';
import { BelfryError } from '../../src/errors.js';
import { createTestDatabase, type TestDatabase } from '../support/postgres.js';
import { socialConfig, socialSql } from '../support/social.js';
import { parseConfig } from '../../src/config.js';
import { captureConfig, install, source, takeOps, takeOutbox } from './support.js';

const tables = `
  create table public.events (id bigint, user_id bigint, note text);
  create table public.others (id bigint, user_id bigint);
`;
const config = captureConfig(source('event', 'public.events', 'include: [note]') + source('other', 'public.others'));

let db: TestDatabase;
let client: pg.Client;
beforeEach(async () => {
  db = await createTestDatabase({ prepare: tables });
  client = await db.client();
});
afterEach(() => db.drop());

async function triggers(): Promise<string[]> {
  const { rows } = await db.pool.query<{ name: string }>(
    `select tgname || ' ' || oid || ' ' || xmin as name from pg_trigger where tgname like 'belfry%' order by 1`,
  );
  return rows.map((row) => row.name);
}

async function problem(work: Promise<unknown>): Promise<BelfryError> {
  const error: unknown = await work.then(
    () => null,
    (caught: unknown) => caught,
  );
  if (!(error instanceof BelfryError)) throw new Error('no BelfryError', { cause: error });
  return error;
}

describe('installing', () => {
  it('is idempotent: a second run changes nothing and touches no trigger', async () => {
    const first = await installCapture(client, config);
    expect(first.changed.filter((line) => line.startsWith('trigger '))).toHaveLength(8);
    expect(first.warnings).toEqual([]);
    const before = await triggers();
    expect(await installCapture(client, config)).toEqual({ changed: [], warnings: [] });
    expect(await triggers()).toEqual(before);
  });

  it('a change of the mapping replaces functions, but no trigger: writers do not wait', async () => {
    await installCapture(client, config);
    const before = await triggers();
    const { changed } = await installCapture(
      client,
      captureConfig(source('event', 'public.events', 'when: "id > 5"') + source('other', 'public.others')),
    );
    expect(changed.filter((line) => line.startsWith('function '))).toHaveLength(3);
    expect(await triggers()).toEqual(before);
    await db.pool.query('insert into public.events values (5, 1), (6, 1)');
    expect(await takeOps(db.pool)).toEqual(['created']);
  });

  it('removes what the config no longer has, and nothing that is not its own', async () => {
    await installCapture(client, config);
    await db.pool.query(`
      create function public.mine() returns trigger language plpgsql as 'begin return null; end';
      create trigger belfry_mine after insert on public.others for each statement execute function public.mine();
      create trigger mine after insert on public.others for each statement execute function public.mine()`);
    await installCapture(client, captureConfig(source('event', 'public.events', 'include: [note]')));
    const names = (await triggers()).map((line) => line.split(' ')[0]);
    expect(names).toEqual([
      'belfry_event_delete',
      'belfry_event_insert',
      'belfry_event_truncate',
      'belfry_event_update',
      'belfry_mine',
    ]);
    const left = await db.pool.query(`select from pg_proc where proname like 'capture_other%'`);
    expect(left.rowCount).toBe(0);
  });

  it('statement to row and back leaves one set of triggers', async () => {
    const row = captureConfig(source('event', 'public.events', 'capture: row'));
    for (const mode of [row, captureConfig(source('event', 'public.events')), row]) {
      await install(db, mode);
      await db.pool.query('insert into public.events values (1, 1), (2, 2)');
      expect(await takeOps(db.pool)).toEqual(['created', 'created']);
      expect(await triggers()).toHaveLength(4);
    }
    const { rows } = await db.pool.query<{ enabled: string }>(
      `select distinct tgenabled as enabled from pg_trigger where tgname like 'belfry%'`,
    );
    expect(rows).toEqual([{ enabled: 'A' }]);
    const session = await db.client();
    await session.query(`set session_replication_role = replica; insert into public.events values (3, 3)`);
    expect(await takeOps(db.pool)).toEqual(['created']);
  });

  it('tells every problem of the mapping at once, and changes nothing', async () => {
    await db.pool.query('create view public.seen as select * from public.events');
    const error = await problem(
      installCapture(
        client,
        captureConfig(
          source('a', 'public.nowhere') +
            source('b', 'public.events', 'include: [gone]') +
            source('c', 'public.seen') +
            source('d', 'public.others'),
        ),
      ),
    );
    expect(error.code).toBe('config_invalid');
    for (const part of ['sources[0] (a)', 'no table public.nowhere', 'no column gone', 'public.seen is not a table'])
      expect(error.message).toContain(part);
    expect(error.message).not.toContain('sources[3]');
    expect(await triggers()).toEqual([]);
  });

  it('tries the conditions before it changes anything', async () => {
    const error = await problem(
      installCapture(
        client,
        captureConfig(
          source('a', 'public.events', 'when: "nope is null"') + source('b', 'public.others', 'when: "id"'),
        ),
      ),
    );
    expect(error.message).toContain('sources[0] (a).when: column "nope" does not exist');
    expect(error.message).toContain('sources[1] (b).when');
    expect(await triggers()).toEqual([]);
  });

  it('without the migrations it says so', async () => {
    const empty = await createTestDatabase({ template: 'empty', prepare: tables });
    try {
      expect((await problem(install(empty, config))).code).toBe('not_migrated');
    } finally {
      await empty.drop();
    }
  });

  it('the social app: all sources and the blocks', async () => {
    await db.pool.query(socialSql);
    await install(db, parseConfig(socialConfig(db.url), {}, { path: 'x' }));
    await db.pool.query(
      `insert into public.users (full_name) values ('a'), ('b'); insert into public.blocks values (1, 2)`,
    );
    expect(await takeOutbox(db.pool)).toEqual([
      { source: 'belfry.blocks', op: 'created', new: { blocker_id: 1, blocked_id: 2 }, old: null },
    ]);
  });

  it('mutes and thread mutes', async () => {
    await db.pool.query(
      'create table public.mutes (muter bigint, muted bigint, expires timestamptz, note text); create table public.quiet (who bigint, post bigint)',
    );
    await install(
      db,
      captureConfig(
        ' []',
        `mutes: { table: public.mutes, from: muter, to: muted, until: expires }
threadMutes: { table: public.quiet, user: who, kind: post, id: post }`,
      ),
    );
    await db.pool.query('insert into public.mutes values (1, 2); insert into public.quiet values (3, 4)');
    expect(await takeOutbox(db.pool)).toMatchObject([
      { source: 'belfry.mutes', op: 'created', new: { muter: 1, muted: 2, expires: null } },
      { source: 'belfry.thread_mutes', op: 'created', new: { who: 3, post: 4 } },
    ]);
  });
});

describe('locks', () => {
  it('waits for a busy table without making writers wait, says for whom, and holds no other table', async () => {
    const writer = await db.client();
    await writer.query(`begin; insert into public.events values (1, 1)`);
    const said: string[] = [];
    const log = { info: (details: object): number => said.push(JSON.stringify(details)), warn: () => undefined };
    const installing = installCapture(client, config, { log });
    const other = await db.client();
    for (let i = 0; i < 20; i += 1) {
      const start = performance.now();
      await other.query(`insert into public.events values (2, 2); insert into public.others values (2, 2)`);
      expect(performance.now() - start).toBeLessThan(600);
    }
    await expect.poll(() => said.join('\n')).toContain('belfry-test, idle in transaction');
    const held = await db.pool.query(
      `select count(distinct relation)::int as n from pg_locks l join pg_class c on c.oid = l.relation
        where c.relname in ('events', 'others') and l.mode = 'ShareRowExclusiveLock' and l.granted`,
    );
    expect(held.rows).toEqual([{ n: 0 }]);
    await writer.query('commit');
    await installing;
    expect(await triggers()).toHaveLength(8);
  });

  it('gives up after its bound, says who holds the table, and goes on where it was', async () => {
    const writer = await db.client();
    await writer.query(`begin; insert into public.others values (1, 1)`);
    const error = await problem(installCapture(client, config, { lockBoundMs: 700 }));
    expect([error.code, error.retry]).toEqual(['lock_busy', true]);
    expect(error.message).toMatch(/"public"."others" stayed locked .*held by pid \d+/);
    await writer.query('rollback');
    const { changed } = await installCapture(client, config);
    expect(changed.filter((line) => line.startsWith('trigger '))).toHaveLength(4);
  });
});

describe('names', () => {
  const strange = `Über "Post" likes: ${'x'.repeat(80)}`;

  it('fit into 63 bytes and never collide', () => {
    const sources = [
      'a',
      'A',
      'a-b',
      'a_b',
      strange,
      `${strange}y`,
      'belfry.blocks',
      'blocks',
      stemOf('a-b'),
      'x'.repeat(48),
      'x'.repeat(47),
    ];
    const names = sources.flatMap((name) => [
      triggerName(name, 'truncate', 'row'),
      triggerName(name, 'insert', 'statement'),
      functionName(name, 'truncate', 'row'),
    ]);
    expect(new Set(names).size).toBe(names.length);
    for (const name of names) expect(Buffer.byteLength(name), name).toBeLessThanOrEqual(63);
  });

  it('mixed case, reserved words, quotes, variables of the functions, 63 bytes', async () => {
    const long = 'c'.repeat(63);
    const columns = [
      'Id',
      'order',
      `it's "q"`,
      'belfry_state',
      'belfry_new',
      'new',
      'tg_op',
      'sqlstate',
      'nr',
      'c1',
      'op',
      'holds',
      `back\\slash`,
      long,
    ];
    const quoted = columns.map((name) => `"${name.replaceAll('"', '""')}"`);
    await db.pool.query(
      `create schema "My Schema"; create table "My Schema"."select" (${quoted.map((name) => `${name} text`).join(', ')})`,
    );
    const list = JSON.stringify(columns);
    const make = (name: string): string =>
      `  - { name: ${name}, type: like, table: '"My Schema"."select"', key: ${list}, when: "belfry_state is not null and \\"new\\" <> '$belfry$'" }\n`;
    const long48 = 'S'.repeat(48);
    await install(db, captureConfig(make('Case') + make('case') + make(long48)));
    await db.pool.query(`insert into "My Schema"."select" values (${columns.map((_, i) => `'v${i}'`).join(', ')})`);
    await db.pool.query(`update "My Schema"."select" set "Id" = 'other'`);
    const rows = await takeOutbox(db.pool);
    const values = Object.fromEntries(columns.map((name, i) => [name, `v${i}`]));
    expect(rows.filter((row) => row.op === 'created').map((row) => [row.source, row.new])).toEqual(
      [...['Case', 'case', long48]]
        .map((name) => [name, values])
        .sort((a, b) => rows.findIndex((r) => r.source === a[0]) - rows.findIndex((r) => r.source === b[0])),
    );
    expect(rows.filter((row) => row.op === 'changed')).toHaveLength(3);
    expect(rows.at(-1)).toMatchObject({ new: { ...values, Id: 'other' }, old: values });
  });

  it('more columns than a function takes arguments', async () => {
    const columns = Array.from({ length: 120 }, (_, i) => `col_${i}`);
    await db.pool.query(`create table public.wide (${columns.map((name) => `${name} int`).join(', ')})`);
    await install(
      db,
      captureConfig(`  - { name: wide, type: like, table: public.wide, key: [${columns.join(', ')}] }\n`),
    );
    await db.pool.query(
      `insert into public.wide values (${columns.map((_, i) => i).join(', ')}); update public.wide set col_119 = 0`,
    );
    const [created, changed] = await takeOutbox(db.pool);
    expect(created?.new).toEqual(Object.fromEntries(columns.map((name, i) => [name, i])));
    expect([changed?.new?.['col_119'], changed?.old?.['col_119']]).toEqual([0, 119]);
  });

  it('types of every kind', async () => {
    await db.pool.query(`
      create schema private; create type private.mood as enum ('sad', 'glad'); create domain private.positive as int check (value > 0);
      create type private.pair as (a int, b text);
      create table private.typed (id uuid, m private.mood, ms private.mood[], p private.positive, c private.pair, j json, x xml, pt point, b bytea, big bigint, n numeric, t timestamptz)`);
    await install(
      db,
      captureConfig(
        `  - { name: typed, type: like, table: private.typed, key: [id, m, ms, p, c, j, x, pt, b, big, n, t], when: "m = 'glad'" }\n`,
      ),
    );
    await db.pool
      .query(`insert into private.typed values ('00000000-0000-0000-0000-000000000001', 'glad', '{sad,glad}', 5, '(1,x)', '{"k": 1}', '<a/>', '(1,2)',
      '\\x01', 9223372036854775807, 0.10, '2026-01-02T03:04:05Z')`);
    await db.pool.query('update private.typed set x = x, pt = pt, j = j');
    await db.pool.query(`update private.typed set j = '{"k": 2}'`);
    expect(await takeOps(db.pool)).toEqual(['created', 'changed']);
    await db.pool.query(`alter table private.typed drop column m`);
    await db.pool.query(`update private.typed set j = '{"k": 3}'`);
    expect((await db.pool.query('select from belfry.lost')).rowCount).toBe(0);
  });
});

describe('health', () => {
  beforeEach(async () => {
    await installCapture(client, config);
  });

  const states = async (): Promise<string[]> =>
    (await verifyCapture(client, config))
      .filter((entry) => entry.state !== 'ok')
      .map((entry) => `${entry.source} ${entry.operation} ${entry.state}`);
  const view = async (): Promise<string[]> =>
    (
      await db.pool.query<{ line: string }>(
        `select source || ' ' || operation || ' ' || state as line from belfry.trigger_health where state <> 'ok' order by source, trigger_name`,
      )
    ).rows.map((row) => row.line);

  it('ok, for every source and operation', async () => {
    expect(await verifyCapture(client, config)).toHaveLength(8);
    expect([await states(), await view()]).toEqual([[], []]);
    expect((await db.pool.query('select from belfry.trigger_health')).rowCount).toBe(8);
  });

  for (const [change, expected, inView] of [
    ['drop trigger belfry_event_insert on public.events', ['event insert missing'], true],
    ['alter table public.events disable trigger belfry_event_insert', ['event insert disabled'], true],
    ['alter table public.events enable replica trigger belfry_event_insert', ['event insert disabled'], true],
    ['alter function belfry.capture_event_insert() security invoker', ['event insert drifted'], false],
    ['alter function belfry.capture_event_insert() reset lock_timeout', ['event insert drifted'], false],
    [
      `create or replace function belfry.capture_event_insert() returns trigger language plpgsql security definer
         set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' as 'begin return null; end'`,
      ['event insert drifted'],
      false,
    ],
    [
      `create or replace trigger belfry_event_insert after insert on public.events referencing new table as belfry_new for each statement
         execute function belfry.capture_other_insert()`,
      ['event insert drifted'],
      false,
    ],
    [
      'alter table public.events alter user_id type text',
      ['delete', 'insert', 'truncate', 'update'].map((op) => `event ${op} column retyped`),
      true,
    ],
    ['drop table public.events', ['event insert missing'], false],
  ] as const) {
    it(`${change.slice(0, 70)}: ${expected[0]}; migrate heals it`, async () => {
      await db.pool.query(change);
      expect((await states()).sort()).toEqual([...expected]);
      if (inView) expect((await view()).sort()).toEqual([...expected]);
      if (change.startsWith('drop table')) {
        expect(await view()).toHaveLength(4);
        return;
      }
      const { changed } = await installCapture(client, config);
      expect(changed).not.toEqual([]);
      expect([await states(), await view()]).toEqual([[], []]);
      expect((await installCapture(client, config)).changed).toEqual([]);
      await db.pool.query('insert into public.events values (1, 1)');
      expect(await takeOps(db.pool)).toEqual(['created']);
    });
  }

  it('a dropped or renamed column, which migrate refuses until the config is corrected', async () => {
    await db.pool.query('alter table public.events rename note to remark');
    const gone = ['delete', 'insert', 'truncate', 'update'].map((op) => `event ${op} column gone`);
    expect((await states()).sort()).toEqual(gone);
    expect((await view()).sort()).toEqual(gone);
    expect((await problem(installCapture(client, config))).message).toContain('has no column note');
    await installCapture(
      client,
      captureConfig(source('event', 'public.events', 'include: [remark]') + source('other', 'public.others')),
    );
    expect(await view()).toEqual([]);
  });
});

describe('as SQL', () => {
  it('the printed script does the same, and then there is nothing left to do', async () => {
    const sql = captureSql(await readCatalog(client, capturedTables(config)), config);
    for (const part of [
      'create or replace trigger "belfry_event_insert"',
      'begin;',
      'commit;',
      `set local lock_timeout = '200ms'`,
    ])
      expect(sql).toContain(part);
    await db.pool.query(sql);
    expect((await installCapture(client, config)).changed).toEqual([]);
    expect(captureSql(await readCatalog(client, capturedTables(config)), config)).toContain('nothing to do');
    await db.pool.query('insert into public.events values (1, 1)');
    expect(await takeOps(db.pool)).toEqual(['created']);
  });

  it('printed before there is a schema belfry, it is complete', async () => {
    const empty = await createTestDatabase({ template: 'empty', prepare: tables });
    const other = await empty.client();
    const sql = captureSql(await readCatalog(other, capturedTables(config)), config);
    await empty.drop();
    const grants = sql.split('\n').filter((line) => line.startsWith('grant '));
    expect(grants).toHaveLength(10);
    await db.pool.query(sql);
    await db.pool.query('insert into public.events values (1, 1)');
    expect(await takeOps(db.pool)).toEqual(['created']);
  });
});

describe('uninstalling', () => {
  it('removes triggers and schema; the application writes on', async () => {
    await installCapture(client, config);
    const result = await uninstall(client, { keepData: false });
    expect(result.removed).toContain('schema belfry');
    expect(await triggers()).toEqual([]);
    await db.pool.query('insert into public.events values (1, 1)');
    expect((await db.pool.query(`select from pg_namespace where nspname = 'belfry'`)).rowCount).toBe(0);
    expect((await uninstall(client, { keepData: false })).removed.filter((line) => line.startsWith('trigger'))).toEqual(
      [],
    );
  });

  it('keepData leaves the outbox; migrate goes on where it was', async () => {
    await installCapture(client, config);
    await db.pool.query('insert into public.events values (1, 1)');
    await uninstall(client, { keepData: true });
    await db.pool.query('insert into public.events values (2, 1)');
    expect(await triggers()).toEqual([]);
    await installCapture(client, config);
    await db.pool.query('insert into public.events values (3, 1)');
    expect((await takeOutbox(db.pool)).map((row) => row.new?.['id'])).toEqual([1, 3]);
  });

  it('a table at a time, and no longer than its bound', async () => {
    await installCapture(client, config);
    const reader = await db.client();
    await reader.query('begin; select from public.others');
    const error = await problem(uninstall(client, { keepData: false, lockBoundMs: 500 }));
    expect(error.code).toBe('lock_busy');
    await reader.query('commit');
    await uninstall(client, { keepData: false });
    expect(await triggers()).toEqual([]);
  });
});
