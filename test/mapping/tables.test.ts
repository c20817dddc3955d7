/** What happens to tables: times of every kind, partitions that come later, ORMs that rewrite columns at boot, subscribers of replication. */

import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { installCapture } from '../../src/capture/install.js';
import { repairCapture } from '../../src/capture/repair.js';
import { recreateMissed } from '../../src/relay/upkeep/recreate.js';
import { loadColumnTypes } from '../../src/schema/columns.js';
import { startMapping } from './rig.js';
import type { Mapping } from './rig.js';

vi.setConfig({ testTimeout: 240_000, hookTimeout: 240_000 });

const kinds = [
  ['timestamptz', 'timestamptz', 'at', `now() - %s`],
  [
    'timestamp in a zone of its own',
    'timestamp',
    '{ column: at, zone: Asia/Tokyo }',
    `(now() - %s) at time zone 'Asia/Tokyo'`,
  ],
  ['text with a zone', 'text', 'at', `to_char((now() - %s) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`],
  ['text without a zone', 'varchar(40)', 'at', `to_char((now() - %s) at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS')`],
  ['seconds since 1970', 'integer', 'at', `extract(epoch from now() - %s)::int`],
  ['milliseconds since 1970', 'bigint', 'at', `(extract(epoch from now() - %s) * 1000)::bigint`],
] as const;

const tables = `
${kinds.map(([, type], i) => `create table t${String(i)} (id int primary key, who int, owner int, at ${type});`).join('\n')}
create table timeless (id int primary key, who int, owner int);
create table parts (id int, who int, owner int, region text) partition by list (region);
create table parts_eu partition of parts for values in ('eu');
create table synced (id int primary key, who int, owner int, body varchar(20));
create table applied (id int primary key, who int, owner int);
`;

const sources = `
${kinds.map(([, , time], i) => `  - { name: t${String(i)}, type: t, table: t${String(i)}, key: [id], actor: who, recipient: owner, include: [at], time: ${time} }`).join('\n')}
  - { name: timeless, type: t, table: timeless, key: [id], actor: who, recipient: owner }
  - { name: part, type: part, table: parts, key: [id, region], actor: who, recipient: owner }
  - { name: synced, type: synced, table: synced, key: [id], actor: who, recipient: owner, include: [body], when: "body is distinct from 'draft'" }
  - { name: applied, type: applied, table: applied, key: [id], actor: who, recipient: owner, capture: row }
`;

let mapping: Mapping;
beforeAll(async () => {
  mapping = await startMapping(tables, sources);
});
afterAll(() => mapping.stop());

/** As if the trigger had not been there. */
const unseen = (sql: string) => mapping.sql(`begin; set local belfry.capture = 'off'; ${sql}; commit`);

describe('the time of a row', () => {
  it.each(kinds.map(([what, , , sql], i) => [what, i, sql] as const))(
    '%s tells what was missed, and when',
    async (_, i, sql) => {
      const { config } = mapping.batches;
      const source = config.sources[i];
      if (source === undefined) throw new Error('no source');
      const ago = (interval: string) => sql.replace('%s', `interval '${interval}'`);
      // One of before, one that was missed, one that was captured meanwhile.
      await unseen(`insert into t${String(i)} values (1, 2, 3, ${ago('3 hours')}), (2, 4, 5, ${ago('10 minutes')})`);
      expect(await mapping.heard(`insert into t${String(i)} values (3, 6, 7, ${ago('0 s')})`)).toEqual(['7 t 6!']);
      const client = await mapping.database.client();
      const window = { from: new Date(Date.now() - 15 * 60_000).toISOString(), to: new Date().toISOString() };
      const types = await loadColumnTypes(client, config);
      expect(await recreateMissed(client, source, types, window)).toBe(1);
      expect(await mapping.heard()).toEqual(['5 t 4!']);
      const [row] = await mapping.sql(
        `select extract(epoch from now() - last_at) between 590 and 3000 as then from belfry.notification where user_id = '5' order by id desc limit 1`,
      );
      expect(row).toEqual({ then: true });
      expect(await recreateMissed(client, source, types, window)).toBe(0);
    },
  );

  it('of before Belfry is nobody’s loss, a clock that is slow is, and an edit of what was missed does not hide it', async () => {
    const { config } = mapping.batches;
    const [source] = config.sources;
    if (source === undefined) throw new Error('no source');
    const client = await mapping.database.client();
    const types = await loadColumnTypes(client, config);
    const installed = `(select min(installed_at) from belfry.capture_trigger where source = 't0')`;
    const [window] = (await mapping.sql(
      `select (${installed} + interval '1 ms')::text as from, clock_timestamp()::text as to`,
    )) as [{ from: string; to: string }];
    await unseen(`insert into t0 values (101, 2, 90, ${installed} - interval '1 second')`);
    expect(await recreateMissed(client, source, types, window)).toBe(0);
    const [later] = (await mapping.sql(
      `select (clock_timestamp() + interval '2 seconds')::text as from, (clock_timestamp() + interval '3 seconds')::text as to`,
    )) as [{ from: string; to: string }];
    await unseen(`insert into t0 values (102, 2, 91, clock_timestamp())`);
    await mapping.sql(`update t0 set at = at + interval '1 ms' where id = 102`);
    await mapping.heard();
    expect(await recreateMissed(client, source, types, later)).toBe(1);
    expect(await recreateMissed(client, source, types, later)).toBe(0);
    await mapping.heard();
  });

  it('none: nothing is invented', async () => {
    const { config } = mapping.batches;
    const source = config.sources.find(({ name }) => name === 'timeless');
    if (source === undefined) throw new Error('no source');
    await unseen('insert into timeless values (1, 2, 3)');
    const client = await mapping.database.client();
    expect(
      await recreateMissed(client, source, await loadColumnTypes(client, config), {
        from: new Date(0).toISOString(),
        to: new Date().toISOString(),
      }),
    ).toBeNull();
    expect(await mapping.heard()).toEqual([]);
  });
});

describe('partitions', () => {
  it('made and attached later are captured through the parent at once, and by themselves after the repair; nothing twice', async () => {
    expect(await mapping.heard(`insert into parts_eu values (1, 2, 3, 'eu')`)).toEqual(['3 part 2!']);
    await mapping.sql(`
      create table parts_us partition of parts for values in ('us');
      create table parts_as (like parts);
      alter table parts attach partition parts_as for values in ('as');
      create table parts_rest partition of parts default`);
    expect(await mapping.heard(`insert into parts values (2, 2, 3, 'us'), (3, 2, 3, 'as'), (4, 2, 3, 'xx')`)).toEqual([
      '3 part 2!',
      '3 part 2!',
      '3 part 2!',
    ]);
    const client = await mapping.database.client();
    const { changed, missed } = await repairCapture(client, mapping.batches.config);
    expect(changed).toHaveLength(12);
    expect(missed).toEqual(['part']);
    expect(
      await mapping.heard(`insert into parts_us values (5, 2, 3, 'us'); insert into parts values (6, 2, 3, 'as')`),
    ).toEqual(['3 part 2!', '3 part 2!']);
    // From one to another: another key, so another event.
    expect(await mapping.heard(`update parts set region = 'us' where id = 6`)).toEqual(['3 -part', '3 part 2!']);
  });
});

describe('tables that an ORM rewrites at boot', () => {
  it('types, defaults, keys and columns beside them: nothing stands in its way, and everything is still captured', async () => {
    const boot = `
      alter table synced alter column body type varchar(255);
      alter table synced alter column body type text;
      alter table synced alter column who type bigint;
      alter table synced alter column owner type bigint using owner::bigint;
      alter table synced alter column owner drop not null, alter column body set default '';
      alter table synced drop constraint synced_pkey;
      alter table synced add primary key (id);
      alter table synced add column extra jsonb;
      alter table synced drop column extra`;
    for (let i = 0; i < 2; i += 1) {
      await mapping.sql(boot);
      expect(
        await mapping.heard(`insert into synced (id, who, owner) values (${String(i)}, 2, ${String(10 + i)})`),
      ).toEqual([`${String(10 + i)} synced 2!`]);
    }
    const client = await mapping.database.client();
    const { changed } = await installCapture(client, mapping.batches.config);
    expect(changed.filter((change) => change.startsWith('trigger'))).toEqual([]);
  });

  it('a table that was copied, dropped and renamed, as SQLite-minded tools do, is captured again after the repair', async () => {
    await mapping.sql(`
      begin;
      create table synced_new (like synced including all);
      insert into synced_new select * from synced;
      drop table synced;
      alter table synced_new rename to synced;
      commit`);
    const client = await mapping.database.client();
    expect((await repairCapture(client, mapping.batches.config)).changed).toContain(
      'trigger belfry_synced_insert on "public"."synced"',
    );
    expect(await mapping.heard('insert into synced (id, who, owner) values (99, 2, 3)')).toEqual(['3 synced 2!']);
  });
});

describe('capture: row', () => {
  it('fires for what a subscription applies, which statement triggers do not', async () => {
    const asApplied = (sql: string) => `begin; set local session_replication_role = replica; ${sql}; commit`;
    expect(
      await mapping.heard(asApplied('insert into applied values (1, 2, 3); insert into timeless values (50, 2, 3)')),
    ).toEqual(['3 applied 2!']);
    expect(await mapping.heard(asApplied('update applied set owner = 4; delete from timeless'))).toEqual([
      '3 -applied',
      '4 applied 2!',
    ]);
    expect(await mapping.heard(asApplied('delete from applied'))).toEqual(['4 -applied']);
    const enabled = await mapping.sql(
      `select distinct tgenabled::text from pg_trigger where tgrelid = 'applied'::regclass and tgname like 'belfry_%'`,
    );
    expect(enabled).toEqual([{ tgenabled: 'A' }]);
  });

  it('is put back as enabled always, when somebody enabled it as usual', async () => {
    await mapping.sql('alter table applied enable trigger belfry_applied_insert_row');
    const client = await mapping.database.client();
    expect((await repairCapture(client, mapping.batches.config)).changed).toEqual([
      'trigger belfry_applied_insert_row on "public"."applied"',
    ]);
    const [row] = await mapping.sql(
      `select tgenabled::text from pg_trigger where tgname = 'belfry_applied_insert_row'`,
    );
    expect(row).toEqual({ tgenabled: 'A' });
  });
});
