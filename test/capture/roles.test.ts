/** Installing without a superuser. Roles belong to the cluster, so this has one of its own. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { installCapture } from '../../src/capture/install.js';
import { uninstall } from '../../src/capture/uninstall.js';
import { verifyCapture } from '../../src/capture/verify.js';
import { startEmbeddedPostgres, type EmbeddedPostgres } from '../../src/embedded/postgres.js';
import { BelfryError } from '../../src/errors.js';
import { connect } from '../../src/postgres/connect.js';
import { migrate } from '../../src/schema/migrate.js';
import { withDatabase, withUser } from '../support/postgres.js';
import { startBelfry } from '../support/program.js';
import { testSecret } from '../support/social.js';
import { captureConfig, source, takeOps } from './support.js';

const config = captureConfig(source('event', 'public.events'));
const api = `select belfry.announce('hello')`;

let folder: string;
let server: EmbeddedPostgres;
let admin: pg.Client;

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'belfry-roles-'));
  server = await startEmbeddedPostgres({
    dataDir: folder,
    log: { info: () => undefined, warn: () => undefined },
    settings: { fsync: 'off', max_prepared_transactions: '5' },
  });
  admin = await connect(server.url, { applicationName: 'belfry-test' });
});
afterAll(async () => {
  await admin.end();
  await server.stop();
  await rm(server.dataDir, { recursive: true, force: true });
  await rm(folder, { recursive: true, force: true });
});

/** The application's owner, who is no superuser, in a database of its own. */
let owner: pg.Client;
let backend: pg.Client;

beforeEach(async () => {
  for (const sql of [
    `create role owner login password 'x'`,
    `create role backend login password 'x'`,
    'create database app owner owner',
  ]) {
    await admin.query(sql);
  }
  const url = withDatabase(server.url, 'app');
  owner = await connect(withUser(url, 'owner', 'x'), { applicationName: 'belfry-test' });
  backend = await connect(withUser(url, 'backend', 'x'), { applicationName: 'belfry-test' });
  await owner.query('create schema app; create table app.events (id bigint, user_id bigint)');
  await owner.query('grant usage on schema app to backend; grant all on app.events to backend');
  await migrate(owner);
});
afterEach(async () => {
  await owner.end();
  await backend.end();
  await admin.query('drop database app with (force)');
  for (const role of ['belfry_capture', 'belfry_app', 'owner', 'backend'])
    await admin.query(`drop role if exists ${role}`);
});

const onEvents = captureConfig(source('event', 'app.events'));
const eventsYaml = (url: string): string =>
  `version: 1\ndatabase: { url: '${url}' }\nauth: { secret: ${testSecret} }\nsources:\n${source('event', 'app.events')}`;

async function functionOwners(): Promise<string[]> {
  const { rows } = await owner.query<{ owner: string }>(
    `select distinct pg_get_userbyid(proowner) as owner from pg_proc where pronamespace = 'belfry'::regnamespace and proname like 'capture%'`,
  );
  return rows.map((row) => row.owner);
}

async function memberships(): Promise<number> {
  const { rows } = await admin.query<{ n: number }>(
    `select count(*)::int as n from pg_auth_members m join pg_roles r on r.oid = m.roleid
      where r.rolname = 'belfry_capture' and (m.inherit_option or m.set_option)`,
  );
  return rows[0]?.n ?? -1;
}

async function captures(): Promise<void> {
  await backend.query(
    'insert into app.events values (1, 1); update app.events set user_id = 2; delete from app.events; truncate app.events',
  );
  expect(await takeOps(owner)).toEqual(['created', 'changed', 'removed', 'truncated']);
}

async function denied(work: Promise<unknown>): Promise<string> {
  const error: unknown = await work.then(
    () => null,
    (caught: unknown) => caught,
  );
  if (!(error instanceof BelfryError) || error.code !== 'database_denied')
    throw new Error('not denied', { cause: error });
  return error.message;
}

describe("the tables' owner", () => {
  it('with CREATEROLE makes the roles, and is no member of belfry_capture afterwards', async () => {
    await admin.query('alter role owner createrole');
    const { changed, warnings } = await installCapture(owner, onEvents);
    expect(warnings).toEqual([]);
    expect(changed).toContain('create role belfry_capture nologin');
    expect(await functionOwners()).toEqual(['belfry_capture']);
    expect(await memberships()).toBe(0);
    await captures();
    // Changing the functions works again later, and so does taking everything away.
    const other = captureConfig(source('event', 'app.events', 'when: "id > 0"'));
    await installCapture(owner, other);
    expect((await installCapture(owner, other)).changed).toEqual([]);
    expect((await verifyCapture(owner, other)).every((entry) => entry.state === 'ok')).toBe(true);
    await captures();
    expect(await memberships()).toBe(0);
    const create = await owner.query(`select has_schema_privilege('belfry_capture', 'belfry', 'create') as may`);
    expect(create.rows).toEqual([{ may: false }]);
    const result = await uninstall(owner, { keepData: false });
    expect(result).toMatchObject({ warnings: [] });
    expect(result.removed).toContain('role belfry_capture');
    expect(await uninstall(owner, { keepData: false })).toEqual({ removed: [], warnings: [] });
  });

  it('without CREATEROLE is told what a DBA must run, nothing is changed; that done, it goes on', async () => {
    const message = await denied(installCapture(owner, onEvents));
    const sql = /Have a DBA run: (.*;) Then/.exec(message)?.[1];
    expect(sql).toBe(
      'create role belfry_capture nologin; create role belfry_app nologin; grant belfry_capture to "owner";',
    );
    expect((await owner.query(`select from pg_trigger where tgname like 'belfry%'`)).rowCount).toBe(0);
    await admin.query(sql ?? '');
    expect((await installCapture(owner, onEvents)).warnings).toEqual([]);
    expect(await functionOwners()).toEqual(['belfry_capture']);
    await captures();
    // The DBA's grant stays as it was.
    expect(await memberships()).toBe(1);
  });

  it('without CREATEROLE finds nothing made by belfry migrate', async () => {
    await owner.query('drop schema belfry cascade');
    const file = path.join(folder, 'belfry.yaml');
    const url = withUser(withDatabase(server.url, 'app'), 'owner', 'x');
    await writeFile(file, eventsYaml(url));
    const program = startBelfry(['migrate', '--config', file]);
    expect((await program.exit).code).toBe(1);
    expect(program.stderr).toContain('Have a DBA run: create role belfry_capture nologin;');
    expect((await owner.query(`select to_regnamespace('belfry') as schema`)).rows).toEqual([{ schema: null }]);
  });

  it('where the roles exist but were not granted goes on, and warns that the functions are its own', async () => {
    await admin.query('create role belfry_capture nologin; create role belfry_app nologin');
    const { warnings } = await installCapture(owner, onEvents);
    expect(warnings.join()).toContain('grant belfry_capture to "owner"');
    expect(await functionOwners()).toEqual(['owner']);
    await captures();
    expect((await verifyCapture(owner, onEvents)).every((entry) => entry.state === 'ok')).toBe(true);
    await admin.query('grant belfry_capture to owner');
    expect((await installCapture(owner, onEvents)).warnings).toEqual([]);
    expect(await functionOwners()).toEqual(['belfry_capture']);
    await captures();
  });

  it('is told of a trigger function that came to run with the rights of a superuser, and of one that may not write', async () => {
    await admin.query('alter role owner createrole');
    await installCapture(owner, onEvents);
    const dba = await connect(withDatabase(server.url, 'app'), { applicationName: 'belfry-test' });
    try {
      // As after a restore with --no-owner --no-privileges.
      await dba.query('alter function belfry.capture_event_insert() owner to postgres');
      await dba.query('revoke insert on belfry.outbox from belfry_capture');
      const details = (await verifyCapture(owner, onEvents)).map(({ state, detail }) => `${state}: ${detail ?? ''}`);
      const [insert, ...others] = details;
      expect(insert).toBe(
        "drifted: belfry.capture_event_insert belongs to postgres, and runs with all of that role's rights: run belfry migrate",
      );
      expect([...new Set(others)]).toEqual([
        'drifted: belfry_capture may not do what a trigger needs (grant insert on belfry.outbox to belfry_capture): run belfry migrate',
      ]);
      await installCapture(dba, onEvents);
      expect((await verifyCapture(owner, onEvents)).every((entry) => entry.state === 'ok')).toBe(true);
    } finally {
      await dba.end();
    }
    expect(await functionOwners()).toEqual(['belfry_capture']);
    await captures();
  });

  it('is told whose tables it may not touch', async () => {
    await admin.query('create role belfry_capture nologin; create role belfry_app nologin');
    const dba = await connect(withDatabase(server.url, 'app'), { applicationName: 'belfry-test' });
    await dba.query('create table public.events (id bigint, user_id bigint)');
    await dba.end();
    expect(await denied(installCapture(owner, config))).toContain('"public"."events" (owner postgres)');
  });

  it('uninstalling leaves roles that somebody else needs, and says so', async () => {
    await admin.query('alter role owner createrole');
    await installCapture(owner, onEvents);
    await admin.query('grant belfry_app to backend');
    const result = await uninstall(owner, { keepData: false });
    expect(result.warnings).toEqual(['Role belfry_app stays: it has members (backend).']);
    expect((await admin.query(`select from pg_roles where rolname like 'belfry%'`)).rowCount).toBe(1);
  });
});

describe('a condition runs as belfry_capture', () => {
  const named = captureConfig(source('event', 'app.events', `when: "mood = 'glad'::app.mood"`));
  const called = captureConfig(source('event', 'app.events', 'when: "app.is_glad(mood)"'));
  const problemsOf = (problem: Promise<unknown>): Promise<string> =>
    problem.then(
      () => 'none',
      (error: unknown) =>
        error instanceof BelfryError && error.code === 'config_invalid' ? error.message : String(error),
    );

  beforeEach(async () => {
    await admin.query('alter role owner createrole');
    await owner.query(`
      create type app.mood as enum ('glad', 'sad');
      alter table app.events add column mood app.mood default 'glad';
      create function app.is_glad(app.mood) returns boolean language sql return $1 = 'glad'`);
  });

  it('so the grant that is missing is told before anything is changed, and with it events are captured', async () => {
    for (const config of [named, called]) {
      expect(await problemsOf(installCapture(owner, config))).toContain(
        'sources[0] (event).when: permission denied for schema app. The triggers run as belfry_capture: create role belfry_capture nologin; grant usage on schema "app" to belfry_capture',
      );
      expect((await owner.query(`select from pg_trigger where tgname like 'belfry%'`)).rowCount).toBe(0);
      expect((await admin.query(`select from pg_roles where rolname = 'belfry_capture'`)).rowCount).toBe(0);
    }
    await owner.query('create role belfry_capture nologin; grant usage on schema "app" to belfry_capture');
    for (const config of [named, called]) {
      expect((await installCapture(owner, config)).warnings).toEqual([]);
      await backend.query('insert into app.events (id) values (1)');
      expect(await takeOps(owner)).toEqual(['created']);
    }
    expect(await memberships()).toBe(0);
    await owner.query('revoke all on function app.is_glad from public');
    expect(await problemsOf(installCapture(owner, called))).toContain(
      'permission denied for function is_glad. The triggers run as belfry_capture',
    );
  });

  it('where the table has a column of a type that nobody names, nothing need be granted', async () => {
    await installCapture(owner, captureConfig(source('event', 'app.events', 'when: "mood is not null"')));
    await backend.query('insert into app.events (id) values (1)');
    expect(await takeOps(owner)).toEqual(['created']);
    expect(
      (await owner.query(`select from pg_views where schemaname = 'belfry' and viewname like '%condition%'`)).rowCount,
    ).toBe(0);
  });
});

describe('the SQL API', () => {
  it('is for members of belfry_app and the owner only', async () => {
    await admin.query('alter role owner createrole');
    await installCapture(owner, onEvents);
    await owner.query(api);
    await expect(backend.query(api)).rejects.toThrow('permission denied');
    await admin.query('grant belfry_app to backend');
    await backend.query(api);
    for (const sql of [
      'select from belfry.outbox',
      `insert into belfry.outbox (source, op) values ('x', 'y')`,
      'select belfry.ring()',
    ]) {
      await expect(backend.query(sql), sql).rejects.toThrow('permission denied');
    }
    expect(await takeOps(owner)).toEqual(['announce', 'announce']);
  });
});

describe('max_prepared_transactions', () => {
  it('above 0: nobody rings, so PREPARE TRANSACTION works while the relay sleeps', async () => {
    await admin.query('alter role owner createrole');
    const { changed } = await installCapture(owner, onEvents);
    expect(changed).toContain('function belfry.ring (wakeup: poll)');
    const relay = await connect(withDatabase(server.url, 'app'), { applicationName: 'belfry-test' });
    await relay.query('begin; select pg_advisory_xact_lock(108187749872249)');
    await owner.query(`begin; insert into app.events values (1, 1); ${api}; prepare transaction 'p'`);
    await owner.query(`commit prepared 'p'`);
    await relay.end();
    expect(await takeOps(owner)).toEqual(['created', 'announce']);
  });
});
