/** The server: its version and role, who else is on it, and how the connections to it go. */

import type pg from 'pg';
import type { Config } from '../config.js';
import { messageOf } from '../errors.js';
import { Listener } from '../outbox/listener.js';
import { isPooled } from '../schema/session.js';
import { fail, ok, several, spoken, warn } from './check.js';
import type { Check } from './check.js';

const oldestVersion = 140_000;

/** What relay and gateway of one process keep open: relay 5, lease 1, doorbell 2, gateway 8, access rules 4. */
const connectionsNeeded = 20;

/** From this fill on nobody rings (capture/bell.ts). */
const queueSilent = 0.5;
const queueFilling = 0.1;

/** From when on a transaction is long. */
export interface Limits {
  readonly transactionS: number;
  /** Of one that waits for its client. */
  readonly idleTransactionS: number;
}

export const standardLimits: Limits = { transactionS: 600, idleTransactionS: 60 };

/** Times of notifications, leases and tokens come from both clocks. */
const skewWarnS = 2;
const skewFailS = 60;

export interface ServerRow {
  readonly version: number;
  readonly version_text: string;
  readonly standby: boolean;
  readonly encoding: string;
  readonly max_connections: number;
  readonly clients: number;
  readonly belfry: number;
  readonly queue: number;
  readonly prepared: number;
  readonly user: string;
  readonly superuser: boolean;
  readonly replica_role: boolean;
}

/** Of other roles' sessions everything is hidden from most but whose they are and in which database. */
const serverSql = `
select current_setting('server_version_num')::int as version, current_setting('server_version') as version_text,
       pg_is_in_recovery() as standby, getdatabaseencoding() as encoding,
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
         - coalesce(current_setting('reserved_connections', true)::int, 0) as max_connections,
       (select count(*)::int from pg_stat_activity where coalesce(backend_type, 'client backend') = 'client backend' and datid is not null) as clients,
       (select count(*)::int from pg_stat_activity where application_name like 'belfry %' and application_name <> 'belfry cli') as belfry,
       pg_notification_queue_usage() as queue,
       current_setting('max_prepared_transactions')::int as prepared,
       current_user::text as "user", (select rolsuper from pg_roles where rolname = current_user) as superuser,
       current_setting('session_replication_role') = 'replica' as replica_role`;

/** Everything about the server itself. */
export async function checkServer(client: pg.ClientBase, config: Config | null, limits: Limits): Promise<Check[]> {
  const { rows } = await client.query<ServerRow>(serverSql);
  const row = rows[0];
  if (row === undefined) return [];
  return [...judgeServer(row, config), await transactions(client, limits), await clock(client)];
}

/** What its settings and numbers mean. Pure. */
export function judgeServer(row: ServerRow, config: Config | null): Check[] {
  return [
    row.version < oldestVersion
      ? fail('version', `Postgres ${row.version_text}`, 'Belfry needs Postgres 14 or newer: upgrade it.')
      : ok('version', `Postgres ${row.version_text}`),
    row.standby
      ? fail('primary', 'this server is a standby, which can be read only', 'Point DATABASE_URL at the primary.')
      : ok('primary', 'this server is a primary'),
    ...(row.encoding === 'UTF8'
      ? []
      : [
          warn(
            'encoding',
            `the database is ${row.encoding}`,
            'Texts that are not in it are lost: use a UTF8 database.',
          ),
        ]),
    ...(row.replica_role
      ? [
          warn(
            'replication_role',
            `session_replication_role is replica for user ${row.user}: triggers do not fire`,
            'Reset it: alter role … reset session_replication_role.',
          ),
        ]
      : []),
    connections(row),
    queue(row, config),
    wakeup(row, config),
  ];
}

function connections({ max_connections: most, clients, belfry }: ServerRow): Check {
  const free = most - clients;
  const needed = Math.max(0, connectionsNeeded - belfry);
  const detail = `${String(clients)} of ${String(most)} connections are in use`;
  const cure = `Raise max_connections, or put a pooler before the application: Belfry opens about ${String(connectionsNeeded)} a process.`;
  if (free < needed) return (free <= 3 ? fail : warn)('connections', detail, cure);
  return ok('connections', detail);
}

function queue({ queue: usage }: ServerRow, config: Config | null): Check {
  const detail = `the queue of NOTIFY is ${(usage * 100).toFixed(usage < 0.01 ? 2 : 0)} % full`;
  const cure =
    'A session that listens is stuck in a transaction: find it with "select pid, state, xact_start, query from pg_stat_activity where state like \'idle in%\'" and end it with pg_terminate_backend(pid).';
  if (usage >= queueSilent && config?.database.wakeup !== 'poll')
    return fail('notify_queue', `${detail}: nobody rings for the relay any more`, cure);
  return usage >= queueFilling ? warn('notify_queue', detail, cure) : ok('notify_queue', detail);
}

function wakeup({ prepared }: ServerRow, config: Config | null): Check {
  if (config?.database.wakeup === 'poll') return ok('wakeup', 'the relay polls: events come within about a second');
  if (prepared === 0) return ok('wakeup', 'writers ring for the relay with NOTIFY');
  return warn(
    'wakeup',
    'max_prepared_transactions is above 0, and PREPARE TRANSACTION fails after NOTIFY: the relay polls, so events come within about a second',
    'Where nobody uses two-phase commit set max_prepared_transactions = 0; else set database.wakeup to poll, to say that it is meant.',
  );
}

async function transactions(client: pg.ClientBase, limits: Limits): Promise<Check> {
  const { rows } = await client.query<{ what: string }>(
    `select * from (
       select format('pid %s%s (%s), %s, in a transaction for %s s', a.pid, case when a.application_name <> '' then ' ' || a.application_name end,
                     coalesce(a.usename, '?'), a.state, round(extract(epoch from clock_timestamp() - a.xact_start))) as what, a.xact_start as since
         from pg_stat_activity a
        where a.backend_type = 'client backend' and a.pid <> pg_backend_pid() and a.application_name not like 'belfry %'
          and a.xact_start < clock_timestamp() - case when a.state like 'idle in transaction%' then $1::float8 else $2::float8 end * interval '1 second'
       union all
       select format('prepared transaction %L of %s, for %s s', x.gid, x.owner, round(extract(epoch from clock_timestamp() - x.prepared))), x.prepared
         from pg_prepared_xacts x
        where x.database = current_database() and x.prepared < clock_timestamp() - $2::float8 * interval '1 second') t
      order by since`,
    [limits.idleTransactionS, limits.transactionS],
  );
  if (rows.length === 0) {
    const hidden = await client.query<{ hidden: boolean }>(
      `select exists (select from pg_stat_activity where query = '<insufficient privilege>' and application_name not like 'belfry %') as hidden`,
    );
    return ok(
      'transactions',
      hidden.rows[0]?.hidden === true
        ? 'no transaction that this role may see is open for long (a member of pg_read_all_stats sees them all)'
        : 'no transaction is open for long',
    );
  }
  return warn(
    'transactions',
    several(rows.map(({ what }) => what)),
    'An open transaction keeps dead rows and delays migrate: end it with pg_terminate_backend(pid) (rollback prepared for a prepared one), and set idle_in_transaction_session_timeout.',
  );
}

async function clock(client: pg.ClientBase): Promise<Check> {
  // The best of three: what a round trip takes is no skew.
  let best = { skew: Infinity, trip: Infinity };
  for (let i = 0; i < 3; i += 1) {
    const before = Date.now();
    const { rows } = await client.query<{ ms: number }>(
      'select extract(epoch from clock_timestamp())::float8 * 1000 as ms',
    );
    const after = Date.now();
    const trip = after - before;
    if (trip < best.trip) best = { skew: ((rows[0]?.ms ?? 0) - (before + after) / 2) / 1000, trip };
  }
  return judgeClock(best.skew, best.trip);
}

/** `skewS` is how far the server's clock is ahead, as far as a round trip of `tripMs` can tell. Pure. */
export function judgeClock(skewS: number, tripMs: number): Check {
  const seconds = Math.max(0, Math.abs(skewS) - tripMs / 2000);
  if (seconds < skewWarnS) return ok('clock', `this machine and the server differ by ${seconds.toFixed(1)} s`);
  const detail = `this machine is ${spoken(seconds)} ${skewS > 0 ? 'behind' : 'ahead of'} the database server`;
  const cure = 'Let both follow NTP: tokens are judged by the clock here, leases and times by that of the database.';
  return (seconds >= skewFailS ? fail : warn)('clock', detail, cure);
}

export async function checkPooler(client: pg.Client, config: Config | null): Promise<Check[]> {
  const pooled = await isPooled(client);
  const url = config?.database;
  const direct = url !== undefined && url.listenUrl !== url.url;
  if (!pooled) return [ok('pooler', 'database.url goes straight to Postgres')];
  if (direct || url?.wakeup === 'poll') {
    return [
      ok(
        'pooler',
        `database.url goes through a pooler, ${direct ? 'database.listenUrl past it' : 'and the relay polls'}`,
      ),
    ];
  }
  return [
    warn(
      'pooler',
      'database.url goes through a pooler, and database.listenUrl is not set',
      'Set database.listenUrl to a direct connection: the relay keeps sessions, and a pooler in transaction mode breaks LISTEN.',
    ),
  ];
}

/** Whether a NOTIFY comes back on the connection that the relay would listen with. */
export async function checkListening(config: Config): Promise<Check[]> {
  if (config.database.wakeup === 'poll') return [];
  const nothing = (): void => undefined;
  const listener = new Listener({
    url: config.database.listenUrl,
    log: { info: nothing, warn: nothing },
    onRing: nothing,
    onChange: nothing,
  });
  try {
    await listener.start();
    return [ok('listening', 'a NOTIFY comes back on the listening connection')];
  } catch (error) {
    return [
      fail(
        'listening',
        messageOf(error),
        'Set database.listenUrl to a direct connection to the primary, or database.wakeup to poll.',
      ),
    ];
  } finally {
    await listener.stop();
  }
}
