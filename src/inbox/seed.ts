/**
 * Counters start from the table: rows from before Belfry notify nobody, but count.
 *
 * A count stores the snapshot it was made in. Events visible in that snapshot are in the count already and are skipped
 * by the relay, all others are added: exact, without a lock, however many writers are at work. It must run after the
 * triggers are in place.
 */

import type pg from 'pg';
import type { Config, Source } from '../config.js';
import { quoteIdent, quoteLiteral, quoteTable } from '../postgres.js';

export interface SeedLog {
  info(details: object, message: string): void;
}

/** Counts the sources that have a counter and were never counted. Returns their names. */
export async function seedCounters(client: pg.ClientBase, config: Config, log: SeedLog): Promise<string[]> {
  const known = await client.query<{ source: string }>('select source from belfry.source_state');
  const done = new Set(known.rows.map(({ source }) => source));
  const seeded: string[] = [];
  for (const source of config.sources) {
    if (source.counter === null || done.has(source.name)) continue;
    const objects = await seedCounter(client, source);
    log.info({ source: source.name, objects }, 'counted the rows that were there');
    seeded.push(source.name);
  }
  return seeded;
}

/** Counts a source anew, in one statement and so one snapshot; gives the number of objects. Also used after lost events. */
export async function seedCounter(client: pg.ClientBase, source: Source): Promise<number> {
  if (source.object === null) return 0;
  const result = await client.query<{ objects: string }>(seedSql(source, source.object));
  return Number(result.rows[0]?.objects ?? '0');
}

/** The statement of `seedCounter`, also for `belfry migrate --dry-run`. */
export function seedSql(source: Source, object: NonNullable<Source['object']>): string {
  const name = quoteLiteral(source.name);
  const id = quoteIdent(object.id);
  return `with state as (
       insert into belfry.source_state (source, seed) values (${name}, pg_current_snapshot())
       on conflict (source) do update set seed = excluded.seed, at = clock_timestamp()
     ), counted as (
       insert into belfry.counter as c (source, object_id, count)
       select ${name}, t.${id}::text, count(*) from ${quoteTable(source.table)} t
        where t.${id} is not null ${source.when === null ? '' : `and (${source.when}\n)`}
        group by t.${id}
       on conflict (source, object_id) do update set count = excluded.count
       returning object_id
     ), gone as (
       update belfry.counter c set count = 0
        where c.source = ${name} and not exists (select from counted n where n.object_id = c.object_id) and c.count <> 0
     )
     select count(*)::text as objects from counted`;
}
