/**
 * Reads a page of what is to be replayed, and what became of each row since.
 *
 * What must hold:
 * - Only events that the relay had read when the replay began (`Bound`); unread ones it will deliver itself.
 * - An event is judged by its row as it is now: nothing is told that has changed since, and columns that a wrong mapping did not capture are
 *   there. A row that is gone (or for which `when` no longer holds) brings nobody anything.
 * - What a recipient has already is recognised by the event's key in the statement that reads the page, before any rule is asked; it is
 *   counted there and not sent to this process.
 * - Live traffic goes on after a page was read. What is to be stored is then read `again`, in the turn in which it is stored.
 * - Dead letters are left out: `belfry dead-letter retry` is for them, since their counters were never moved.
 */

import type pg from 'pg';
import { mappedColumns } from '../../config.js';
import type { Config, Source } from '../../config.js';
import { quoteIdent, quoteLiteral, quoteTable } from '../../postgres/sql.js';
import type { SourceEvent } from '../../rules/event.js';
import { samePlace } from '../../rules/fold.js';
import { cast } from '../../schema/columns.js';
import type { ColumnTypes } from '../../schema/columns.js';
import { recipientsOfSources } from '../wide/fan-out.js';
import { conditionOf, isTold } from '../look/filter.js';
import type { OutboxFilter } from '../look/filter.js';
import { counterKey } from '../facts/group-facts.js';
import { resolveSql } from '../plan/resolve.js';
import { eventsOf, wideRecipients } from '../plan/resolved.js';
import type { PageEvent, ResolvedRow } from '../plan/resolved.js';

/** How far the relay had read: visible in `seen`, or read within the delta that it was at. */
export interface Bound {
  readonly seen: string;
  readonly target: string | null;
  readonly targetId: string;
}

export interface ReplayedPage {
  /** How many events match the filter. */
  readonly count: number;
  /** Those of them that may bring somebody something, with these recipients alone. */
  readonly events: readonly PageEvent[];
  /** Notifications that were left out because their recipients have them already. */
  readonly already: number;
  /** Where the next page begins; null after the last one. */
  readonly next: string | null;
}

/** Events of a page while nothing else happens, and while live events wait for the end of what is stored. */
export const pageEvents = { quiet: 2_000, busy: 1_000 } as const;

/** Most rows of a page, one per event and recipient; a single event has fewer (`wideRecipients`). */
const pageRows = 20_000;

/** Pages are read along the ids, whatever the statistics say of partitions that were empty a minute ago. */
export const replaySession = {
  enable_seqscan: 'off',
  enable_bitmapscan: 'off',
  plan_cache_mode: 'force_custom_plan',
  max_parallel_workers_per_gather: '0',
} as const;

export class ReplayPages {
  private readonly resolved: (page: string) => string;
  private readonly missing: boolean;
  private readonly names: ReadonlySet<string>;
  private readonly where: string;
  private readonly recipients: ReadonlyMap<string, string>;
  /** Most events of a page, lowered after pages whose events had many recipients. */
  private most = Infinity;

  constructor(
    private readonly client: pg.ClientBase,
    private readonly config: Config,
    private readonly types: ColumnTypes,
    private readonly filter: OutboxFilter,
    bound: Bound,
    /** Only what is missing is wanted; else also what a person has but should not. */
    private readonly onlyMissing: boolean,
  ) {
    this.resolved = resolveSql(config.sources, types);
    // Whether an event concerns a user is asked in this process, so such events may not be left out by the statement.
    this.missing = onlyMissing && filter.user === undefined;
    this.names = new Set(config.sources.map(({ name }) => name));
    this.recipients = recipientsOfSources(config.sources, types);
    const sources = [...this.names, 'belfry.notify', 'belfry.announce'].map(quoteLiteral).join(', ');
    this.where = `o.source in (${sources}) and o.op in ('created', 'changed', 'removed', 'notify', 'announce')
 and ${readSql(bound)} and not exists (select from belfry.dead_event d where d.event_id = o.id)
 and ${conditionOf(config, types, filter)}`;
  }

  /** At most `limit` events after this id. Throws what Postgres says, also of a value that does not fit. */
  async read(afterId: string, wanted: number): Promise<ReplayedPage> {
    for (;;) {
      const limit = Math.min(wanted, this.most);
      const { rows } = await this.client.query<RecognisedRow>(
        this.textOf(`o.id > ${BigInt(afterId)}`, limit, pageRows),
      );
      const resolved = rows[0]?.all_rows ?? 0;
      if (resolved <= pageRows || limit === 1) {
        if (2 * resolved <= pageRows) this.most *= 2;
        return await this.pageOf(this.client, rows, limit);
      }
      // No row was sent: so many events are asked for as would fit if all had equally many recipients.
      this.most = Math.max(1, Math.min(limit >> 1, Math.floor((limit * pageRows) / resolved)));
    }
  }

  /** Reads these events again; gives those that may bring something now. */
  async again(client: pg.ClientBase, ids: readonly string[]): Promise<readonly PageEvent[]> {
    const { rows } = await client.query<RecognisedRow>({
      name: 'belfry_replay_again',
      text: this.textOf('o.id = any($1::bigint[])', pageEvents.quiet),
      values: [ids],
    });
    return (await this.pageOf(client, rows, ids.length)).events;
  }

  private textOf(which: string, limit: number, mostRows: number | null = null): string {
    const outbox = `(select o.id, o.xid, o.at, o.source, o.op, o.new, o.old from belfry.outbox o
      where ${which} and ${this.where} order by o.id limit ${limit}) p`;
    const resolved = this.resolved(presentRows(outbox, this.config.sources, this.types));
    return recognised(resolved, this.missing, mostRows);
  }

  private async pageOf(client: pg.ClientBase, rows: readonly RecognisedRow[], limit: number): Promise<ReplayedPage> {
    const { all_last: last = null, all_count: count = 0, already = 0 } = rows[0] ?? {};
    const found = eventsOf(
      rows.filter((row) => (row.id as string | null) !== null),
      this.names,
    );
    const { user } = this.filter;
    const events = user === undefined ? found : await this.concerning(client, found, user);
    return {
      count: user === undefined ? count : events.length,
      events,
      already,
      next: count === limit ? last : null,
    };
  }

  /** How many events there are after this id; an upper bound where the filter asks for more than the row tells. */
  async count(afterId: string): Promise<number> {
    const { rows } = await this.client.query<{ count: string }>(
      `select count(*) from belfry.outbox o where o.id > ${BigInt(afterId)} and ${this.where}`,
    );
    return Number(rows[0]?.count ?? '0');
  }

  /** The id before that of the newest `limit` events. */
  async newest(limit: number): Promise<string> {
    const { rows } = await this.client.query<{ id: string }>(
      `select (o.id - 1)::text as id from belfry.outbox o where ${this.where} order by o.id desc limit 1 offset ${limit - 1}`,
    );
    return rows[0]?.id ?? '0';
  }

  /** The id of the next event that matches the filter, unresolved. */
  async idAfter(afterId: string): Promise<string | null> {
    const { rows } = await this.client.query<{ id: string }>(
      `select o.id::text from belfry.outbox o where o.id > ${BigInt(afterId)} and ${this.where} order by o.id limit 1`,
    );
    return rows[0]?.id ?? null;
  }

  /** Events that concern the user, or did. A wide event is narrowed to this user, unless they are its actor. */
  private async concerning(client: pg.ClientBase, found: readonly PageEvent[], user: string): Promise<PageEvent[]> {
    const reaching = await this.wideReaching(client, found, user);
    const standing = this.onlyMissing ? new Set<string>() : await this.standing(client, found, user);
    return found.flatMap((item): PageEvent[] => {
      if (this.concerns(item, user)) return [item];
      if (item.kind === 'other') return [];
      const { event } = item;
      const reached = reaching.has(placeOf(event));
      if (!reached && !rowsOf(event).some(([source, key]) => standing.has(counterKey(source, key)))) return [];
      if (event.after?.wide !== true) return [item];
      const after = { ...event.after, recipients: reached ? [user] : [], wide: false, alone: true };
      return [{ kind: 'source', event: { ...event, after } }];
    });
  }

  /** Those of the events' rows (`counterKey`) that stand in the user's inbox, whoever would get them today. */
  private async standing(
    client: pg.ClientBase,
    found: readonly PageEvent[],
    user: string,
  ): Promise<ReadonlySet<string>> {
    const asked = found.flatMap((item) => (item.kind === 'source' ? rowsOf(item.event) : []));
    if (asked.length === 0) return new Set();
    const { rows } = await client.query<{ source: string; key: string }>(
      `select e.source, e.key from unnest($1::text[], $2::text[]) w(source, key)
         join belfry.notification_event e on e.source = w.source and e.key = w.key and e.user_id = $3
        where e.removed_at is null`,
      [asked.map(([source]) => source), asked.map(([, key]) => key), user],
    );
    return new Set(rows.map(({ source, key }) => counterKey(source, key)));
  }

  /** Places (`placeOf`) of wide events that have the user as a recipient; each place is asked for once. */
  private async wideReaching(
    client: pg.ClientBase,
    found: readonly PageEvent[],
    user: string,
  ): Promise<ReadonlySet<string>> {
    const wide = new Map<string, SourceEvent>();
    for (const item of found)
      if (item.kind === 'source' && item.event.after?.wide === true) wide.set(placeOf(item.event), item.event);
    const reaching = new Set<string>();
    for (const [place, { source, after }] of wide) {
      const recipients = this.recipients.get(source);
      if (recipients === undefined || after === null) continue;
      const row = await presentRowOf(client, this.config.sources, this.types, { source, key: after.key });
      const { rowCount } = await client.query(`select from (${recipients}) r where r.user_id = $2 limit 1`, [
        row ?? '{}',
        user,
      ]);
      if (rowCount === 1) reaching.add(place);
    }
    return reaching;
  }

  private concerns(item: PageEvent, user: string): boolean {
    // For these the condition in SQL was enough.
    if (item.kind === 'other') return true;
    const source = this.config.sources.find(({ name }) => name === item.event.source);
    if (source === undefined || isTold(source)) return true;
    return [item.event.before, item.event.after].some(
      (side) =>
        side !== null &&
        (side.actorId === user ||
          side.recipients.includes(user) ||
          (source.recipient?.kind === 'column' && side.route === user)),
    );
  }
}

function rowsOf({ source, before, after }: SourceEvent): (readonly [source: string, key: string])[] {
  return [before, after].flatMap((side) => (side === null ? [] : [[source, side.key] as const]));
}

/** A key for what leads to an event's recipients: events with the same key have the same ones. */
function placeOf({ source, after }: SourceEvent): string {
  return `${source}\0${after?.route ?? ''}`;
}

interface RecognisedRow extends ResolvedRow {
  /** About the whole page, the same on every row; there is always at least one. */
  readonly all_last: string | null;
  readonly all_count: number;
  readonly all_rows: number;
  readonly already: number;
}

/**
 * The statement of resolve.ts without the rows whose recipient has the event already, which are counted in a column beside the others.
 * Where the page may hold a wide event all its rows come, since it is their number that tells; where it has too many rows, none come.
 */
function recognised(statement: string, onlyMissing: boolean, mostRows: number | null): string {
  const has = `r.op = 'created' and not r.counters_only and r.recipient <> ''
    and w.rows - w.events < ${wideRecipients}
    and exists (select from belfry.notification_event e
                 where e.source = r.source and e.key = r.a_key and e.user_id = r.recipient and e.removed_at is null)`;
  return `with resolved as materialized (
${statement}
), w as materialized (select count(*) as rows, coalesce(max(page_count::bigint), 0) as events, max(page_last::bigint)::text as last from resolved),
judged as materialized (select r.*, coalesce(${onlyMissing ? has : 'false'}, false) as has from resolved r cross join w)
select w.last as all_last, w.events::float8 as all_count, (select count(*) from judged where has)::float8 as already, w.rows::float8 as all_rows, j.*
  from w left join judged j on not j.has ${mostRows === null ? '' : `and (w.rows <= ${mostRows} or w.events = 1)`}
 order by j.id::bigint`;
}

/** The relay's cursor as it is now. */
export async function boundOf(client: pg.ClientBase): Promise<Bound> {
  const { rows } = await client.query<Bound>(
    `select seen::text, target::text, after_id::text as "targetId" from belfry.relay where name = 'main'`,
  );
  return rows[0] ?? { seen: '1:1:', target: null, targetId: '0' };
}

function readSql({ seen, target, targetId }: Bound): string {
  const visible = `pg_visible_in_snapshot(o.xid, ${quoteLiteral(seen)}::pg_snapshot)`;
  if (target === null) return visible;
  return `(${visible} or o.id <= ${BigInt(targetId)} and pg_visible_in_snapshot(o.xid, ${quoteLiteral(target)}::pg_snapshot))`;
}

/**
 * The page as resolve.ts takes it, with `new` as the row is now, while `op` is what happened then. `presentEvents` reads both together:
 * `removed` with a row has come back, `changed` without one is gone.
 */
export function presentRows(page: string, sources: readonly Source[], types: ColumnTypes): string {
  const isRow = `p.op in ('created', 'changed', 'removed')`;
  const counters = `'belfry:counters'`;
  return `select p.id, p.xid, p.at, p.source,
      case when ${isRow} and t.now is null and p.op <> 'removed' then 'changed' else p.op end as op,
      case when not ${isRow} then p.new
           when coalesce(p.new, p.old) ? ${counters} then t.now || jsonb_build_object(${counters}, true)
           else t.now end as new,
      case when ${isRow} and t.now is null then coalesce(p.new, p.old) else p.old end as old
    from ${page} left join lateral (${sources.map((source) => presentRow(source, types)).join('\nunion all\n')}) t on ${isRow}`;
}

/** A row of a source as it is now, its mapped columns as JSON; null when it is gone. `key`: as events have it. */
export async function presentRowOf(
  client: pg.ClientBase,
  sources: readonly Source[],
  types: ColumnTypes,
  { source, key }: { readonly source: string; readonly key: string },
): Promise<string | null> {
  const columns = sources.find(({ name }) => name === source)?.key ?? [];
  const values = JSON.parse(key) as readonly unknown[];
  const named = JSON.stringify(Object.fromEntries(columns.map((column, i) => [column, values[i]])));
  const page = `(select 0::bigint as id, '3'::xid8 as xid, now() as at, $1::text as source, 'created'::text as op, $2::jsonb as new, null::jsonb as old) p`;
  const { rows } = await client.query<{ row: string | null }>(
    `select r.new::text as row from (${presentRows(page, sources, types)}) r`,
    [source, named],
  );
  return rows[0]?.row ?? null;
}

/** Keys are natural, but need not be unique in the table: one row stands for all. */
function presentRow(source: Source, types: ColumnTypes): string {
  const columns = mappedColumns(source).filter((column) => types(source.table, column) !== null);
  const picked = columns.map((column) => `jsonb_build_object(${quoteLiteral(column)}, t.${quoteIdent(column)})`);
  return `(select ${picked.join(' || ')} as now from ${quoteTable(source.table)} t
      where p.source = ${quoteLiteral(source.name)} and ${keySql(source, types, 't', (column) => `coalesce(p.new, p.old) ->> ${quoteLiteral(column)}`)}
        ${source.when === null ? '' : `and (${source.when}\n)`} limit 1)`;
}

/** The condition that a row of the source's table has this natural key; `text` gives a column of the key as text. */
export function keySql(source: Source, types: ColumnTypes, alias: string, text: (column: string) => string): string {
  return source.key
    .map(
      (column) => `${alias}.${quoteIdent(column)} = ${cast(text(column), types(source.table, column) ?? 'text', null)}`,
    )
    .join(' and ');
}

/**
 * The events that a replay processes: for a row that is there, its creation as it is now; for one that is gone, its removal, but only where
 * things are to be taken back. Delivering takes nothing back: the row may have come again since the page was read, and been told by the relay.
 */
export function presentEvents(items: readonly PageEvent[], takeBack: boolean): PageEvent[] {
  return items.flatMap((item): PageEvent[] => {
    if (item.kind === 'other') return [item];
    const { event } = item;
    const { before, after, op } = event;
    const base = { ...event, counts: false };
    if (after === null) {
      if (before === null || !takeBack) return [];
      return [{ kind: 'source', event: { ...base, op: 'removed' } }];
    }
    // It came back: that has an event of its own.
    if (op === 'removed') return [];
    // What changed without concerning anybody else brings nothing new.
    const moved = before === null || before.key !== after.key || !samePlace(before, after);
    if (op === 'changed' && !moved && !takeBack) return [];
    return [{ kind: 'source', event: { ...base, op: 'created', before: null } }];
  });
}
