/**
 * Looking back over the outbox: events as people ask for them, newest first, with who did what to which object.
 *
 * Only reads, page by page, so that memory stays bounded however much is kept. What the columns of a row tell is decided in SQL; a
 * recipient over a path or a query is resolved as it is now, by the statement that the relay resolves with, and beside that counts who
 * was notified when it happened.
 */

import type pg from 'pg';
import type { Config, Source } from '../../config.js';
import { sqlState } from '../../errors.js';
import { quoteLiteral } from '../../postgres/sql.js';
import type { SourceEvent } from '../../rules/event.js';
import { loadColumnTypes, personOf } from '../../schema/columns.js';
import type { ColumnTypes } from '../../schema/columns.js';
import { cellsSql, withCells } from './cells.js';
import type { Cells } from './cells.js';
import { conditionOf, isTold, pairsOf, userColumns } from './filter.js';
import type { OutboxFilter } from './filter.js';
import { resolveSql } from '../plan/resolve.js';
import { eventsOf } from '../plan/resolved.js';
import type { ResolvedRow } from '../plan/resolved.js';

export interface OutboxItem {
  readonly id: string;
  /** ISO 8601. */
  readonly at: string;
  readonly source: string;
  /** Null for what is no notification: broadcasts, blocks, sources that the config no longer names. */
  readonly type: string | null;
  readonly op: string;
  readonly actor_id: string | null;
  readonly object: { readonly kind: string; readonly id: string } | null;
  /** The mapped columns, ids and integers beyond 2^53 as text. */
  readonly new: Readonly<Record<string, unknown>> | null;
  readonly old: Readonly<Record<string, unknown>> | null;
}

const PAGE_ROWS = 1_000;

/** The newest `limit` events that fit. */
export async function listOutbox(
  client: pg.ClientBase,
  config: Config,
  filter: OutboxFilter,
  limit: number,
): Promise<OutboxItem[]> {
  const browser = await Browser.open(client, config);
  const user = filter.user === undefined ? null : await personOf(client, filter.user, browser.types);
  const items: OutboxItem[] = [];
  for (let before = '9223372036854775807'; ;) {
    const rows = await browser.page(`${conditionOf(config, browser.types, filter)} and o.id < ${before}`);
    const resolved = await browser.resolve(rows.filter((row) => browser.isResolvable(row)).map((row) => row.id));
    const notified = user === null ? new Set<string>() : await browser.notified(user, [...resolved.values()]);
    for (const row of rows) {
      const event = resolved.get(row.id);
      if (user !== null && !concerns(browser.sources.get(row.source), row, event, user, notified)) continue;
      items.push(itemOf(browser.sources.get(row.source), config, row, event));
      if (items.length === limit) return items;
    }
    const last = rows.at(-1);
    if (last === undefined || rows.length < PAGE_ROWS) return items;
    before = last.id;
  }
}

/** One event, or null where the outbox does not hold it (any more). */
export async function showOutbox(client: pg.ClientBase, config: Config, id: string): Promise<OutboxItem | null> {
  const browser = await Browser.open(client, config);
  const [row] = await browser.page(`o.id = ${quoteLiteral(id)}::bigint`);
  if (row === undefined) return null;
  const resolved = browser.isResolvable(row) ? await browser.resolve([row.id]) : new Map<string, SourceEvent>();
  return itemOf(browser.sources.get(row.source), config, row, resolved.get(row.id));
}

interface EventRow {
  readonly id: string;
  readonly at: Date;
  readonly source: string;
  readonly op: string;
}
type StoredRow = EventRow & { readonly new: string | null; readonly old: string | null };
type Row = EventRow & { readonly new: Cells; readonly old: Cells };

class Browser {
  readonly sources: ReadonlyMap<string, Source>;
  readonly #cells: string;

  private constructor(
    private readonly client: pg.ClientBase,
    config: Config,
    readonly types: ColumnTypes,
    private readonly resolvePage: (pageSelect: string) => string,
  ) {
    this.sources = new Map(config.sources.map((source) => [source.name, source]));
    this.#cells = cellsSql({ config, types }, 'o');
  }

  static async open(client: pg.ClientBase, config: Config): Promise<Browser> {
    const types = await loadColumnTypes(client, config);
    return new Browser(client, config, types, resolveSql(config.sources, types));
  }

  async page(condition: string): Promise<Row[]> {
    const { rows } = await this.client.query<StoredRow>(`
      select o.id, o.at, o.source, o.op, ${this.#cells}
        from belfry.outbox o
       where ${condition}
       order by o.id desc
       limit ${PAGE_ROWS}`);
    return rows.map(withCells);
  }

  /** A row that a trigger of a source wrote, of a source that the config still names. */
  isResolvable(row: Row): boolean {
    return ['created', 'changed', 'removed'].includes(row.op) && this.sources.has(row.source);
  }

  /** Resolved events by id; those with values that cannot be resolved are missing. */
  async resolve(ids: readonly string[]): Promise<Map<string, SourceEvent>> {
    if (ids.length === 0) return new Map();
    const page = `select id, xid, at, source, op, new, old from belfry.outbox where id in (${ids.join(', ')})`;
    try {
      const { rows } = await this.client.query<ResolvedRow>(this.resolvePage(page));
      const events = eventsOf(rows, new Set(this.sources.keys())).flatMap((one) =>
        one.kind === 'source' ? [one.event] : [],
      );
      return new Map(events.map((event) => [event.id, event]));
    } catch (error) {
      // Class 22: a value does not fit. The one that spoils the page is left out.
      if (sqlState(error)?.startsWith('22') !== true) throw error;
      if (ids.length === 1) return new Map();
      const middle = ids.length >> 1;
      const [left, right] = [await this.resolve(ids.slice(0, middle)), await this.resolve(ids.slice(middle))];
      return new Map([...left, ...right]);
    }
  }

  /** Which of these rows stand behind a notification of the user: `source key`. */
  async notified(user: string, events: readonly SourceEvent[]): Promise<Set<string>> {
    const { rows } = await this.client.query<{ source: string; key: string }>(
      `select e.source, e.key
         from unnest($2::text[], $3::text[]) as w (source, key)
         join belfry.notification_event e on e.source = w.source and e.key = w.key and e.user_id = $1`,
      [user, events.map((event) => event.source), events.map((event) => keyOf(event))],
    );
    return new Set(rows.map(({ source, key }) => `${source} ${key}`));
  }
}

function keyOf(event: SourceEvent): string {
  return (event.after ?? event.before)?.key ?? '';
}

function concerns(
  source: Source | undefined,
  row: Row,
  event: SourceEvent | undefined,
  user: string,
  notified: ReadonlySet<string>,
): boolean {
  // What its own columns tell was asked in SQL.
  if (source === undefined || isTold(source)) return true;
  if (userColumns(source).some((column) => row.new?.[column] === user || row.old?.[column] === user)) return true;
  if (event === undefined) return false;
  const sides = [event.before, event.after];
  if (sides.some((side) => side?.actorId === user || side?.recipients.includes(user) === true)) return true;
  return notified.has(`${event.source} ${keyOf(event)}`);
}

function itemOf(source: Source | undefined, config: Config, row: Row, event: SourceEvent | undefined): OutboxItem {
  const { id, at, op } = row;
  const cells = row.new ?? row.old ?? {};
  const base = { id, at: at.toISOString(), source: row.source, op, new: row.new, old: row.old };
  if (source === undefined) {
    const pair = pairsOf(config).find(({ name }) => name === row.source);
    const type =
      row.source === 'belfry.announce' ? 'system' : row.source === 'belfry.notify' ? textOf(cells['type']) : null;
    return { ...base, type, actor_id: textOf(cells[pair?.columns[0] ?? 'actor_id']), object: null };
  }
  const actor = source.actor?.kind === 'column' ? textOf(cells[source.actor.column]) : (event?.after?.actorId ?? null);
  const objectId = source.object === null ? null : textOf(cells[source.object.id]);
  const object = source.object === null || objectId === null ? null : { kind: source.object.kind, id: objectId };
  return { ...base, type: source.type, actor_id: actor, object };
}

function textOf(value: unknown): string | null {
  if (value === null || value === undefined) return null;
  return typeof value === 'string' ? value : JSON.stringify(value);
}
