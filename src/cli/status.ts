/** `belfry status`: what runs, how far behind it is, what is wrong. Also an answer when nothing runs or nothing is installed. */

import type { Command } from 'commander';
import type pg from 'pg';
import { verifyCapture } from '../capture/verify.js';
import type { TriggerHealth } from '../capture/verify.js';
import type { Config } from '../config.js';
import { counted } from '../counted.js';
import { BelfryError } from '../errors.js';
import { assertMigrated } from '../schema/migrate.js';
import { addReadingCommand, configIfAny, databaseUrl, print, printJson, withClient } from './common.js';
import type { ReadingOptions } from './common.js';
import { getLocal } from './local.js';

export interface Status {
  /** Whether schema belfry is there and as new as this program. */
  readonly migrated: boolean;
  /** host:pid:random of the relay that leads; null: none does. */
  readonly leader: string | null;
  readonly term: string | null;
  readonly epoch: string | null;
  readonly paused: boolean;
  /** Events not yet read, and the age of the oldest; null where there is no schema. */
  readonly lag_events: number | null;
  readonly lag_seconds: number | null;
  readonly dead_letters: number | null;
  /** Events that triggers could not capture and that are not repaired yet. */
  readonly lost: number | null;
  /** The newest loss that was repaired as far as it could be: `recaptured` null means that its notifications are lost. */
  readonly last_repair: {
    readonly at: string;
    readonly source: string;
    readonly writes: number;
    readonly recaptured: number | null;
    readonly retracted: number;
  } | null;
  /** Replays and retries that wait or run. */
  readonly replays: number | null;
  /** Bytes on disk, with indexes. */
  readonly disk: {
    readonly outbox: number;
    readonly inbox: number;
    readonly channels: number;
    readonly other: number;
    readonly total: number;
  } | null;
  /** Null without a config file, which says what there should be. */
  readonly triggers: {
    readonly ok: boolean;
    readonly installed: number;
    readonly missing: number;
    /** Every trigger that is not as it should be, also one that is there. */
    readonly problems: readonly TriggerHealth[];
  } | null;
  /** Of the gateway on this machine, null where none answers. */
  readonly connections: number | null;
  readonly users: number | null;
  readonly version: string | null;
}

export function registerStatus(program: Command): void {
  addReadingCommand(program, 'status', 'show what runs, how far behind it is, and what is wrong').action(
    async (options: ReadingOptions) => {
      const config = await configIfAny(options);
      const url = config?.database.url ?? (await databaseUrl(options));
      const [fromDatabase, gateway] = await Promise.all([
        withClient(url, (client) => readDatabase(client, config)),
        askGateway(config),
      ]);
      const status: Status = { ...fromDatabase, ...gateway };
      if (options.json) printJson(status);
      else show(status);
    },
  );
}

type FromDatabase = Omit<Status, 'connections' | 'users' | 'version'>;

async function readDatabase(client: pg.ClientBase, config: Config | null): Promise<FromDatabase> {
  const triggers = config === null ? null : await readTriggers(client, config);
  if (!(await isMigrated(client))) {
    const unknown = {
      leader: null,
      term: null,
      epoch: null,
      lag_events: null,
      lag_seconds: null,
      dead_letters: null,
      lost: null,
      last_repair: null,
      replays: null,
      disk: null,
    };
    return { migrated: false, ...unknown, paused: false, triggers };
  }
  const { rows } = await client.query<Omit<FromDatabase, 'migrated' | 'triggers'>>(`
    select case when r.lease_until > clock_timestamp() then r.leader end as leader,
           r.term, r.epoch, r.paused,
           l.events::float8                              as lag_events,
           greatest(l.seconds, 0)                        as lag_seconds,
           (select count(*)::int from belfry.dead_event) as dead_letters,
           (select count(*)::int from belfry.lost)       as lost,
           (select jsonb_build_object('at', to_char(p.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), 'source', p.source,
                                      'writes', p.writes, 'recaptured', p.recaptured, 'retracted', p.retracted)
              from belfry.repair p order by p.id desc limit 1) as last_repair,
           (select count(*)::int from belfry.replay_job where state in ('waiting', 'running')) as replays,
           (${diskSql}) as disk
      from belfry.relay r, belfry.lag l
     where r.name = 'main'`);
  const row = rows[0];
  if (row === undefined)
    throw new BelfryError('internal', 'belfry.relay has no row: restore the database, or uninstall and migrate.');
  return { migrated: true, ...row, triggers };
}

/** What each part uses; a partitioned table is the sum of its days. */
const diskSql = `
  select jsonb_object_agg(part, bytes) || jsonb_build_object('total', sum(bytes))
    from (select p.part,
                 coalesce(sum(pg_total_relation_size(c.oid)) filter (where p.part = case
                   when c.relname like 'outbox%' then 'outbox'
                   when c.relname in ('head', 'notification', 'notification_event', 'stream_position', 'window_end', 'state_change', 'pruned', 'preference',
                                      'announcement', 'announcement_seen', 'fanout_job') then 'inbox'
                   when c.relname in ('channel_head', 'channel_event', 'counter') then 'channels'
                   else 'other' end), 0) as bytes
            from (values ('outbox'), ('inbox'), ('channels'), ('other')) p(part)
           cross join pg_class c
           where c.relnamespace = 'belfry'::regnamespace and c.relkind = 'r'
           group by p.part) sizes`;

async function isMigrated(client: pg.ClientBase): Promise<boolean> {
  try {
    await assertMigrated(client);
    return true;
  } catch (error) {
    if (error instanceof BelfryError && error.code === 'not_migrated') return false;
    throw error;
  }
}

async function readTriggers(client: pg.ClientBase, config: Config): Promise<Status['triggers']> {
  const health = await verifyCapture(client, config);
  const problems = health.filter(({ state }) => state !== 'ok');
  const missing = health.filter(({ state }) => state === 'missing').length;
  return { ok: problems.length === 0, installed: health.length - missing, missing, problems };
}

/** How long a gateway on this machine may take to answer. */
const GATEWAY_TIMEOUT_MS = 1_000;

async function askGateway(config: Config | null): Promise<Pick<Status, 'connections' | 'users' | 'version'>> {
  const nothing = { connections: null, users: null, version: null };
  if (config === null) return nothing;
  try {
    const body = (await getLocal(config.server, '/api/ws/status', GATEWAY_TIMEOUT_MS)) as Record<string, unknown>;
    const { connections, users, version } = body;
    if (typeof connections !== 'number' || typeof users !== 'number') return nothing;
    return { connections, users, version: typeof version === 'string' ? version : null };
  } catch {
    return nothing;
  }
}

function show(status: Status): void {
  if (!status.migrated) print('schema       missing or older than this program: run `belfry migrate`');
  else {
    print(`leader       ${status.leader ?? 'none: no relay runs'}`);
    print(
      `unread       ${counted(status.lag_events ?? 0, 'event')}, the oldest ${(status.lag_seconds ?? 0).toFixed(1)} s old`,
    );
    print(`paused       ${status.paused ? 'yes: `belfry resume` lets the relay read again' : 'no'}`);
    const { disk } = status;
    if (disk !== null) {
      const of = (bytes: number): string => `${(bytes / 1_048_576).toFixed(1)} MB`;
      print(
        `disk         ${of(disk.total)}: outbox ${of(disk.outbox)}, inboxes ${of(disk.inbox)}, channels ${of(disk.channels)}, the rest ${of(disk.other)}`,
      );
    }
    if ((status.replays ?? 0) > 0) print(`replays      ${status.replays ?? 0} under way: belfry replay --list`);
    print(`dead letters ${status.dead_letters ?? 0}`);
    print(`lost         ${status.lost ?? 0}`);
    if (status.last_repair !== null) print(`last repair  ${repaired(status.last_repair)}`);
  }
  if (status.triggers !== null) showTriggers(status.triggers);
  const here =
    status.connections === null
      ? 'no gateway answers on this machine'
      : `${status.connections} of ${counted(status.users ?? 0, 'user')}, on this machine`;
  print(`connections  ${here}`);
}

function repaired({ at, source, recaptured, retracted }: NonNullable<Status['last_repair']>): string {
  const again = recaptured === null ? 'notifications of that time are lost' : `${recaptured} captured again`;
  return `${at} ${source}: ${again}, ${retracted} withdrawn, counted anew`;
}

/** The same problem of several triggers of a table is told once. */
function showTriggers({ ok, installed, problems }: NonNullable<Status['triggers']>): void {
  print(`triggers     ${installed}, ${ok ? 'all as they should be' : `and ${problems.length} not as they should be`}`);
  const lines = problems.map(({ source, table, detail }) => `${source} on ${table}: ${detail ?? ''}`);
  for (const line of new Set(lines)) print(`             ${line}`);
}
