/**
 * Repairs what triggers could not capture (onError: available; belfry.lost), or did not see because they were gone (drift.ts).
 *
 * Rows that were created meanwhile are captured again where the table says when a row was created: they come as events like
 * any other. Counters are counted anew, notifications whose row is gone are taken back, and clients are told to fetch.
 * Nothing is invented: a loss without a time column is said, in the log and in belfry.repair, which `belfry status` shows.
 *
 * What must hold: nothing is repaired before the table has the columns that the config names; events are captured again before counters
 * are counted, so that the count has seen them; a row of belfry.lost goes when everything else of its repair is done, and all of that may
 * be done twice; one that was committed while it was done stays.
 */

import type pg from 'pg';
import { mappedColumns } from '../../config.js';
import type { Config, Source } from '../../config.js';
import { messageOf } from '../../errors.js';
import { seedCounter } from '../../inbox/seed.js';
import type { Logger } from '../../log.js';
import { quoteTable } from '../../postgres/sql.js';
import { loadColumnTypes, sameKey } from '../../schema/columns.js';
import type { ColumnTypes } from '../../schema/columns.js';
import { blame } from '../failures.js';
import type { Leading } from '../leading.js';
import { recreateMissed } from './recreate.js';
import type { PageEvent } from '../plan/resolved.js';

/** Rows taken back in one go; the rest follows with the next chore. */
const retractLimit = 5_000;

export interface LostOptions {
  readonly config: Config;
  readonly log: Logger;
  readonly facts: pg.Client;
  readonly leading: Leading;
}

interface Loss {
  readonly source: string;
  readonly writes: string;
  /** The snapshot in which it was found. */
  readonly seen: string;
  readonly sqlstates: string[];
  /** Null when it is not known for one of them. */
  readonly since: string | null;
  readonly until: string;
}

interface Repair {
  /** Null: there is no way to tell which rows were lost. */
  readonly recaptured: number | null;
  readonly retracted: number;
}

/** Cheap when nothing was lost: one look at an empty table. */
export async function repairLost({ config, log, facts, leading }: LostOptions): Promise<void> {
  const losses = await readLosses(facts, config.retention.outboxMs);
  if (losses.length === 0) return;
  const types = await loadColumnTypes(facts, config);
  let repaired = false;
  for (const loss of losses) {
    const { source: name, writes, sqlstates } = loss;
    const source = config.sources.find((candidate) => candidate.name === name);
    // The rows can't be read yet as the config says, which drift.ts tells of.
    if (source !== undefined && mappedColumns(source).some((column) => types(source.table, column) === null)) continue;
    try {
      const repair = source === undefined ? nothing : await repairSource(facts, source, loss, types, leading);
      log.error({ source: name, writes: Number(writes), sqlstates, ...repair }, explained(repair));
      // What was committed meanwhile stays for the next time, whatever its id; so does a rest above the limit.
      if (repair.retracted < retractLimit) await close(facts, loss, repair, config.retention.outboxMs);
      repaired = true;
    } catch (error) {
      if (blame(error) === 'lease') throw error;
      log.error(
        { source: name, writes: Number(writes), sqlstates, error: messageOf(error) },
        'writes were not captured and can not be repaired yet; that is tried again',
      );
    }
  }
  if (repaired) leading.publish([{ to: 'control', kind: 'resync', reason: 'lost', userIds: null }]);
}

const nothing: Repair = { recaptured: null, retracted: 0 };

async function readLosses(facts: pg.Client, retentionMs: number): Promise<Loss[]> {
  const { rows } = await facts.query<Loss>(
    `select source, count(*)::text as writes, pg_current_snapshot()::text as seen, array_agg(distinct sqlstate) as sqlstates,
            case when bool_and(since is not null)
                 then greatest(min(since), clock_timestamp() - $1 * interval '1 millisecond') end::text as since,
            max(at)::text as until
       from belfry.lost group by source`,
    [retentionMs],
  );
  return rows;
}

async function repairSource(
  facts: pg.Client,
  source: Source,
  loss: Loss,
  types: ColumnTypes,
  leading: Leading,
): Promise<Repair> {
  const recaptured =
    loss.since === null ? null : await recreateMissed(facts, source, types, { from: loss.since, to: loss.until });
  if (source.counter !== null) {
    await seedCounter(facts, source);
    // It was read with the count before, and would be counted twice.
    leading.forgetAhead();
  }
  return { recaptured, retracted: await retractGone(facts, source, types, leading) };
}

function explained({ recaptured }: Repair): string {
  const done = 'writes were not captured: counters are counted anew, what is gone is withdrawn';
  return recaptured === null
    ? `${done}, but notifications of these writes are lost`
    : `${done}, what is missing was captured again`;
}

async function close(facts: pg.Client, loss: Loss, repair: Repair, retentionMs: number): Promise<void> {
  await facts.query(
    `with done as (delete from belfry.lost where source = $1 and pg_visible_in_snapshot(xid, $2)),
          old as (delete from belfry.repair where at < clock_timestamp() - $7 * interval '1 millisecond')
     insert into belfry.repair (source, writes, sqlstates, since, recaptured, retracted) values ($1, $3, $4, $5, $6, $8)`,
    [loss.source, loss.seen, loss.writes, loss.sqlstates, loss.since, repair.recaptured, retentionMs, repair.retracted],
  );
}

/** Takes back notifications of open groups whose row no longer exists, or for which `when` no longer holds. */
async function retractGone(facts: pg.Client, source: Source, types: ColumnTypes, leading: Leading): Promise<number> {
  const same = sameKey(source, types, 't', (_, i) => `e.key::jsonb ->> ${String(i)}`);
  const { rows } = await facts.query<{ key: string; actor_id: string | null }>(
    `select distinct e.key, e.actor_id
       from belfry.notification_event e
       join belfry.notification n on n.id = e.notification_id and n.open and not n.withdrawn
      where e.source = $1 and e.removed_at is null
        and not exists (select from ${quoteTable(source.table)} t where ${same} ${source.when === null ? '' : `and (${source.when}\n)`})
      limit $2`,
    [source.name, retractLimit],
  );
  const at = new Date();
  const events = rows.map(({ key, actor_id }): PageEvent => {
    const before = {
      key,
      actorId: actor_id,
      objectId: null,
      subjectId: null,
      route: null,
      channels: [],
      include: null,
      recipients: [],
    };
    return {
      kind: 'source',
      event: {
        id: '0',
        xid: '0',
        at,
        source: source.name,
        op: 'removed',
        before,
        after: null,
        counts: false,
        countersOnly: false,
        keyStands: false,
      },
    };
  });
  if (events.length > 0) await leading.inject(events);
  return events.length;
}
