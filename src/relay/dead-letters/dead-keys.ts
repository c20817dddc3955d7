/**
 * With `deadLetters.later: wait`: later events of a row whose earlier event is a dead letter are set aside behind it.
 *
 * What must hold:
 * - Whoever leads alone makes dead letters, so what it remembers of them never lacks one; it may remember one that is gone (retried,
 *   discarded), and then an event waits for nothing, until the dead letters are looked at next.
 * - What waits is written in the transaction that moves the cursor past it, and remembered only when that has committed.
 * - Where there is no dead letter, nobody pays for this.
 */

import type pg from 'pg';
import type { Config, Source } from '../../config.js';
import { quoteLiteral } from '../../postgres/sql.js';
import type { Aside } from './aside.js';
import type { PageEvent } from '../plan/resolved.js';

/** What of a part of a page may be processed, and what waits for which dead letters. */
export interface Parted {
  readonly go: readonly PageEvent[];
  readonly wait: readonly { readonly id: string; readonly for: readonly string[] }[];
  /** To be called once it is stored. */
  readonly stored: () => void;
}

export class DeadKeys {
  /** The last dead letter of a key. */
  private last = new Map<string, string>();
  private stale = false;

  private constructor(
    private readonly client: pg.ClientBase,
    private readonly sources: readonly Source[],
  ) {}

  /** Null where later events follow. */
  static async open(client: pg.ClientBase, config: Config, sources: readonly Source[]): Promise<DeadKeys | null> {
    if (config.deadLetters.later === 'follow') return null;
    const keys = new DeadKeys(client, sources);
    await keys.load();
    return keys;
  }

  /** Some may be gone. */
  changed(): void {
    this.stale = this.last.size > 0;
  }

  /** One more: its outbox id. */
  async add(id: string): Promise<void> {
    await this.load(id);
  }

  /** Dead letters that an event of the outbox stands behind: one that fails by itself is no less a later event of its row. */
  async before(id: string): Promise<string[]> {
    await this.refresh();
    if (this.last.size === 0) return [];
    const rows = await this.keys('(select id as event_id, source, new, old from belfry.outbox)', id);
    const before = rows.flatMap(({ source, key }) => this.last.get(nameOf(source, key)) ?? []);
    return [...new Set(before)].filter((other) => BigInt(other) < BigInt(id));
  }

  async part(events: readonly PageEvent[]): Promise<Parted> {
    await this.refresh();
    if (this.last.size === 0) return { go: events, wait: [], stored: () => undefined };
    const later = new Map<string, string>();
    const go: PageEvent[] = [];
    const wait: { id: string; for: string[] }[] = [];
    for (const item of events) {
      const keys = keysOf(item);
      const before = keys.flatMap((key) => later.get(key) ?? this.last.get(key) ?? []);
      if (before.length === 0) go.push(item);
      else {
        wait.push({ id: item.event.id, for: [...new Set(before)] });
        for (const key of keys) later.set(key, item.event.id);
      }
    }
    return { go, wait, stored: () => later.forEach((id, key) => this.last.set(key, id)) };
  }

  private async refresh(): Promise<void> {
    if (!this.stale) return;
    this.stale = false;
    this.last.clear();
    await this.load();
  }

  private async load(id: string | null = null): Promise<void> {
    for (const row of await this.keys('belfry.dead_event', id)) this.last.set(nameOf(row.source, row.key), row.id);
  }

  /** The keys of one event, or of all, in order; a change of the key has two. */
  private async keys(events: string, id: string | null): Promise<{ id: string; source: string; key: string }[]> {
    const key = (row: string): string =>
      `case d.source ${this.sources.map(({ name, key }) => `when ${quoteLiteral(name)} then json_build_array(${key.map((column) => `${row} ->> ${quoteLiteral(column)}`).join(', ')})::text`).join(' ')} end`;
    const { rows } = await this.client.query<{ id: string; source: string; key: string }>(
      `select d.event_id::text as id, d.source, k.key
         from ${events} d
        cross join lateral (select ${key('d.new')} as key where d.new is not null union select ${key('d.old')} where d.old is not null) k
        where k.key is not null and ($1::bigint is null or d.event_id = $1)
        order by d.event_id`,
      [id],
    );
    return rows;
  }
}

/** What waits, as it is set aside (aside.ts): it was not tried itself. */
export function waiting(wait: Parted['wait']): Aside[] {
  return wait.map((one) => ({ id: one.id, attempts: 0, error: `waits for ${one.for.join(', ')}`, waitsFor: one.for }));
}

function keysOf(item: PageEvent): string[] {
  if (item.kind === 'other') return [];
  const { source, before, after } = item.event;
  const keys = [before?.key, after?.key].flatMap((key) => (key === undefined ? [] : [nameOf(source, key)]));
  return keys[0] === keys[1] ? keys.slice(0, 1) : keys;
}

function nameOf(source: string, key: string): string {
  return `${source}\0${key}`;
}
