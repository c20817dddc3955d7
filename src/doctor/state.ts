/** Schema belfry: whether it is there, whether somebody reads the outbox, and what has piled up. */

import type pg from 'pg';
import type { Config } from '../config.js';
import { counted } from '../counted.js';
import { BelfryError } from '../errors.js';
import { excludedDays, outboxDays } from '../outbox/partitions.js';
import { assertMigrated } from '../schema/migrate.js';
import { fail, ok, several, spoken, warn } from './check.js';
import type { Check } from './check.js';

/** A relay that runs is never further behind for long. */
const lagWarnS = 30;
/** What triggers lost is repaired within seconds where a relay runs. */
const repairWithinS = 120;
const dayMs = 86_400_000;

/** The check of the schema; `migrated` says whether the others can be made. */
export async function checkSchema(
  client: pg.ClientBase,
): Promise<{ readonly check: Check; readonly migrated: boolean }> {
  try {
    await assertMigrated(client);
    return { check: ok('schema', 'schema belfry is there and up to date'), migrated: true };
  } catch (error) {
    if (!(error instanceof BelfryError)) throw error;
    return { check: fail('schema', error.message, 'Run belfry migrate.'), migrated: false };
  }
}

export interface StateRow {
  readonly leader: string | null;
  readonly paused: boolean;
  readonly events: number;
  readonly seconds: number;
  readonly dead: number;
  readonly dead_sources: string[] | null;
  readonly lost: number;
  readonly lost_sources: string[] | null;
  readonly lost_s: number | null;
  readonly in_default: boolean;
}

export async function checkState(client: pg.ClientBase, config: Config | null): Promise<Check[]> {
  const { rows } = await client.query<StateRow>(`
    select case when r.lease_until > clock_timestamp() then r.leader end as leader, r.paused,
           l.events::float8 as events, greatest(l.seconds, 0) as seconds,
           (select count(*)::int from belfry.dead_event)                  as dead,
           (select array_agg(distinct source) from belfry.dead_event)     as dead_sources,
           (select count(*)::int from belfry.lost)                        as lost,
           (select array_agg(distinct source || ' (SQLSTATE ' || sqlstate || ')') from belfry.lost) as lost_sources,
           (select extract(epoch from clock_timestamp() - min(at))::float8 from belfry.lost) as lost_s,
           exists (select from belfry.outbox_default)                     as in_default
      from belfry.relay r, belfry.lag l
     where r.name = 'main'`);
  const row = rows[0];
  if (row === undefined)
    return [
      fail('relay', 'belfry.relay has no row', 'Restore the database, or run belfry uninstall and belfry migrate.'),
    ];
  return [...judgeState(row), ...(await partitions(client, config, row.in_default))];
}

/** What its numbers mean. Pure. */
export function judgeState(row: StateRow): Check[] {
  return [relay(row), deadLetters(row), lostEvents(row)];
}

function relay({ leader, paused, events, seconds }: StateRow): Check {
  const behind = `${counted(events, 'unread event')}, the oldest for ${spoken(seconds)}`;
  if (paused) return warn('relay', `the relay is paused; ${behind}`, 'Run belfry resume when it may go on.');
  if (leader === null) return warn('relay', `no relay runs; ${behind}`, 'Run belfry start.');
  if (events > 0 && seconds > lagWarnS) {
    return warn(
      'relay',
      `${leader} leads, but ${behind}`,
      'Look at its log: it names what it waits for, or what fails.',
    );
  }
  return ok('relay', `${leader} leads; ${behind}`);
}

function deadLetters({ dead, dead_sources }: StateRow): Check {
  if (dead === 0) return ok('dead_letters', 'there are none');
  return fail(
    'dead_letters',
    `${counted(dead, 'event')} could not be processed, of ${several(dead_sources ?? [])}`,
    'belfry dead-letter list says why. When the cause is gone: belfry dead-letter retry; else discard.',
  );
}

function lostEvents({ lost, lost_sources, lost_s, leader }: StateRow): Check {
  if (lost === 0) return ok('lost_events', 'triggers have captured everything');
  const detail = `not captured: ${counted(lost, 'write')} of ${several(lost_sources ?? [])}`;
  const cure =
    leader === null
      ? 'Run belfry start: the relay counts anew, takes back what is gone, and makes anew what the table still tells.'
      : 'The SQLSTATE says what failed (docs/capture.md). The relay repairs what it can within seconds.';
  return (lost_s ?? 0) > repairWithinS ? fail('lost_events', detail, cure) : warn('lost_events', detail, cure);
}

async function partitions(client: pg.ClientBase, config: Config | null, inDefault: boolean): Promise<Check[]> {
  const days = await outboxDays(client);
  const last = Math.max(...days.map(({ until }) => (until === null ? -Infinity : Date.parse(until))));
  const ahead = Math.floor((last - Date.now()) / dayMs);
  const run = 'A relay that runs makes and drops them every hour; belfry migrate makes them too.';
  const checks = [
    ahead >= 1
      ? ok('outbox_partitions', `the outbox has partitions for ${counted(ahead, 'day')} ahead`)
      : warn(
          'outbox_partitions',
          'the outbox has no partition for tomorrow; its rows would go to the default one',
          run,
        ),
  ];
  if (inDefault) {
    checks.push(
      warn(
        'outbox_default',
        'rows are in the default partition of the outbox',
        `They are read and dropped as all others. ${run}`,
      ),
    );
  }
  const excluded = await excludedDays(client);
  if (excluded.length > 0) {
    checks.push(
      warn(
        'outbox_excluded',
        `from their beginning on no event of these days can be written: ${several(excluded)}`,
        'Either they are being made just now, and the next doctor is silent; or that broke off: start a relay or run belfry migrate, which take it up, or select belfry.admit_days().',
      ),
    );
  }
  const retentionMs = config?.retention.outboxMs ?? 7 * dayMs;
  const old = days.filter(({ until }) => until !== null && Date.parse(until) < Date.now() - retentionMs - dayMs);
  checks.push(
    old.length === 0
      ? ok('retention', 'nothing is kept longer than it should be')
      : warn(
          'retention',
          `${counted(old.length, 'day')} of the outbox beyond retention.outbox: ${several(old.map(({ name }) => name))}`,
          'The relay drops them once they are read and no transaction holds a lock on them: see the checks relay and transactions.',
        ),
  );
  return checks;
}
