/**
 * Counters start from the table: rows from before Belfry notify nobody, but count.
 *
 * A count stores the snapshot it was made in. Events visible in that snapshot are in the count already and are skipped
 * by the relay, all others are added: exact, without a lock, however many writers are at work.
 *
 * What must hold:
 * - A count is made after the triggers are in place, and when nobody writes any more whom other triggers have captured.
 * - What is counted (table, object, when) is kept beside it: where the config says something else, a count is due. A source that is not
 *   captured any more is forgotten, so that it is counted when it comes back.
 * - Nobody counts beside a leader, who may have read a page with the snapshot of before. The leader counts what is due between two
 *   batches; but not by a config that is older than what was migrated.
 */

import type pg from 'pg';
import { runWithTableLock } from '../capture/locks.js';
import type { Config, Source } from '../config.js';
import { sqlState } from '../errors.js';
import { parseTableName, quoteIdent, quoteLiteral, quoteTable } from '../postgres/sql.js';

export interface SeedLog {
  info(details: object, message: string): void;
}

/**
 * Brings the counts to what the config says; the client must be in no transaction. Returns the sources whose count was, or is still, due.
 * Throws `lock_busy` (retry).
 */
export async function seedCounters(client: pg.ClientBase, config: Config, log: SeedLog): Promise<string[]> {
  const due: string[] = [];
  for (const { name, source, locked, statements } of await countSteps(client, config)) {
    if (locked === null) for (const sql of statements) await client.query(sql);
    else await runWithTableLock(client, parseTableName(locked), statements, { log });
    if (source === null) continue;
    due.push(name);
    const objects = await countAlone(client, source);
    if (objects !== null) log.info({ source: name, objects }, counted);
    else log.info({ source: name }, 'a relay leads: it counts the rows that were there once it runs with this config');
  }
  return due;
}

/**
 * For the leader, between two batches. Returns the sources that it has counted. It needs no fence: a count is due until it is committed, so
 * whoever leads next makes it again.
 */
export async function seedDue(client: pg.ClientBase, config: Config, log: SeedLog): Promise<string[]> {
  const { rows } = await client.query<{ source: string; mapping: string | null }>(
    'select source, mapping from belfry.source_state where due',
  );
  const due = config.sources.filter((source) =>
    rows.some((row) => row.source === source.name && row.mapping === mappingOf(source)),
  );
  for (const source of due) {
    log.info({ source: source.name }, 'counting the rows that are there: nothing is delivered until that is done');
    log.info({ source: source.name, objects: await seedCounter(client, source) }, counted);
  }
  return due.map(({ name }) => name);
}

/** What `seedCounters` would run, for psql: whether a relay leads is asked when it runs. */
export async function seedScript(client: pg.ClientBase, config: Config): Promise<string> {
  const steps = await countSteps(client, config);
  return steps
    .map(({ source, locked, statements }) => {
      const lines =
        locked === null ? statements : ['begin', "set local lock_timeout = '200ms'", ...statements, 'commit'];
      const seed = source?.object == null ? [] : [countAloneSql(source, source.object)];
      return [...lines, ...seed].map((sql) => `${sql};\n`).join('');
    })
    .join('\n');
}

const counted = 'counted the rows that were there';

interface CountStep {
  readonly name: string;
  /** To be counted after the statements; null: nothing is. */
  readonly source: Source | null;
  /** The table that the statements lock. */
  readonly locked: string | null;
  readonly statements: readonly string[];
}

/** What a count depends on; null where there is nothing to count. */
function mappingOf({ counter, object, table, when }: Source): string | null {
  return counter === null || object === null ? null : JSON.stringify([quoteTable(table), object.id, when]);
}

async function countSteps(client: pg.ClientBase, config: Config): Promise<CountStep[]> {
  const known = new Map((await readState(client)).map((row) => [row.source, row]));
  const steps: CountStep[] = [];
  for (const source of config.sources) {
    const mapping = mappingOf(source);
    if (mapping === null) continue;
    const { name, table } = source;
    const state = known.get(name);
    known.delete(name);
    const values = `${quoteLiteral(name)}, pg_current_snapshot(), ${quoteLiteral(mapping)}`;
    const mark =
      `insert into belfry.source_state (source, seed, mapping, due) values (${values}, true)\n` +
      'on conflict (source) do update set mapping = excluded.mapping, due = true';
    if (state === undefined) steps.push({ name, source, locked: null, statements: [mark] });
    else if (state.mapping === mapping) {
      if (state.due) steps.push({ name, source, locked: null, statements: [] });
    } else if (state.mapping === null && !state.due) {
      const taken = `update belfry.source_state set mapping = ${quoteLiteral(mapping)} where source = ${quoteLiteral(name)}`;
      steps.push({ name, source: null, locked: null, statements: [taken] });
    } else {
      // Whoever wrote with the functions of before is through when the lock is had.
      const lock = `lock table ${quoteTable(table)} in share row exclusive mode`;
      steps.push({ name, source, locked: table, statements: [lock, mark] });
    }
  }
  for (const name of known.keys()) {
    const forgotten = `delete from belfry.source_state where source = ${quoteLiteral(name)}`;
    steps.push({ name, source: null, locked: null, statements: [forgotten] });
  }
  return steps;
}

interface State {
  readonly source: string;
  readonly mapping: string | null;
  readonly due: boolean;
}

/** Of an older schema too, which lacks two of the columns; nothing where there is none. */
async function readState(client: pg.ClientBase): Promise<State[]> {
  try {
    const { rows } = await client.query<State>(
      `select s.source, to_jsonb(s) ->> 'mapping' as mapping, coalesce((to_jsonb(s) -> 'due')::boolean, false) as due from belfry.source_state s`,
    );
    return rows;
  } catch (error) {
    if (sqlState(error) === '42P01' || sqlState(error) === '3F000') return [];
    throw error;
  }
}

/** A row where no relay leads. */
const idle = `select term from belfry.relay where name = 'main' and lease_until <= clock_timestamp()`;

/** The same as one statement, which leaves the count due where a relay leads or begins to. */
function countAloneSql(source: Source, object: NonNullable<Source['object']>): string {
  return `do $belfry$
declare
  v_term bigint;
begin
  ${idle} into v_term;
  if v_term is not null then
    execute $count$${seedSql(source, object)}$count$;
    ${idle} and term = v_term into v_term for share;
    if v_term is not null then
      return;
    end if;
    raise exception using errcode = 'BF001';
  end if;
  raise notice 'a relay leads: it counts the rows of % once it runs with this config', ${quoteLiteral(source.name)};
exception
  when sqlstate 'BF001' then
    raise notice 'a relay began to lead: it counts the rows of % once it runs with this config', ${quoteLiteral(source.name)};
end
$belfry$`;
}

/** The number of objects; null, and nothing is changed, where a relay leads or begins to: also one with another config. */
async function countAlone(client: pg.ClientBase, source: Source): Promise<number | null> {
  const before = (await client.query<{ term: string }>(idle)).rows[0];
  if (before === undefined) return null;
  await client.query('begin');
  try {
    const objects = await seedCounter(client, source);
    const alone = (await client.query(`${idle} and term = $1 for share`, [before.term])).rowCount === 1;
    await client.query(alone ? 'commit' : 'rollback');
    return alone ? objects : null;
  } catch (error) {
    // A broken connection can't roll back, and need not.
    await client.query('rollback').catch(() => undefined);
    throw error;
  }
}

/**
 * Counts a source anew, in one statement and so one snapshot; gives the number of objects. Also used after lost events: of one that
 * belfry migrate has not marked the count stays due, since nobody knows whether its triggers are in place; and it is due again where
 * this config is not the one that was migrated, which then comes back to another's count.
 */
export async function seedCounter(client: pg.ClientBase, source: Source): Promise<number> {
  if (source.object === null) return 0;
  const result = await client.query<{ objects: string }>(seedSql(source, source.object));
  return Number(result.rows[0]?.objects ?? '0');
}

function seedSql(source: Source, object: NonNullable<Source['object']>): string {
  const name = quoteLiteral(source.name);
  const id = quoteIdent(object.id);
  const mapping = quoteLiteral(mappingOf(source) ?? '');
  return `with state as (
       insert into belfry.source_state as s (source, seed, due) values (${name}, pg_current_snapshot(), true)
       on conflict (source) do update set seed = excluded.seed, at = clock_timestamp(), due = case when s.mapping = ${mapping} then false else s.due or s.mapping is not null end
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
