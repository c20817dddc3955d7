/**
 * What everything about an inbox is read with: snapshots, the condition of who may read what, present forms, words.
 *
 * What must hold: the numbers of the badge and the list use the same predicate, so they cannot disagree.
 */

import type pg from 'pg';
import type { Config } from '../config.js';
import { quoteIdent, quoteTable } from '../postgres/sql.js';
import { fitting } from '../schema/columns.js';
import type { ColumnTypes } from '../schema/columns.js';
import { loadOwners } from '../schema/owners.js';
import type { NotificationRow } from './list.js';
import { Messages } from './messages.js';
import { readableSql } from './readable.js';
import type { Readable } from './readable.js';
import { announcementFrame, notificationFrame, withdrawnFrame } from './render.js';
import type { NotificationView, Words } from './render.js';
import { maxCount } from './types.js';
import type { StreamFrame } from './types.js';

/** A place in a person's stream. */
export interface StreamPosition {
  readonly userId: string;
  readonly after: number;
}

interface Numbered {
  /** Which of the positions asked for, from 1. */
  readonly position: number;
}

interface StateRow {
  readonly seq: string;
  readonly state: string;
  readonly ids: string[] | null;
  readonly through: string | null;
}

/** `hidden`: withdrawn, or its recipient may no longer see it. */
const columnsSql = ({
  condition,
  actors,
}: Readable): string => `belfry_n.user_id, belfry_n.id::text, belfry_n.seq::text,
  belfry_n.type, belfry_n.object_kind, belfry_n.object_id, belfry_n.subject_kind, belfry_n.subject_id, belfry_n.event_count,
  belfry_n.state, belfry_n.alert, belfry_n.message, belfry_n.data::text, belfry_n.last_at, belfry_n.actor_count,
  cardinality(belfry_n.actors) as sampled, ${actors} as actors, belfry_n.withdrawn or not (${condition}) as hidden`;

/**
 * The numbers of the badge, by the predicate of the list (list.ts), as a lateral join called `counted`. What is unseen is
 * unread too: it is only counted by itself where the count of the unread has come to its end.
 */
export const countsJoin = (user: string, { shunned, condition }: Readable): string => {
  const some = (states: string): string =>
    `select belfry_n.state from belfry.notification belfry_n where belfry_n.user_id = ${user} and not belfry_n.withdrawn
       and belfry_n.state in (${states}) and ${condition} limit ${String(maxCount)}`;
  return `cross join lateral ${shunned(user)} belfry_h cross join lateral (
    select k.unread, case when k.unread < ${String(maxCount)} then k.unseen else (select count(*)::int from (${some("'unseen'")}) s) end as unseen
      from (select count(*)::int as unread, (count(*) filter (where s.state = 'unseen'))::int as unseen
              from (${some("'unseen', 'seen'")}) s) k) counted`;
};

export class InboxReader {
  private readonly namesSql: string | null;
  private readonly messages: Messages;
  private readable: Promise<Readable> | null = null;

  constructor(
    readonly pool: pg.Pool,
    private readonly config: Config,
    private readonly columnTypes: ColumnTypes,
  ) {
    const { people } = config;
    this.messages = new Messages(config.templates);
    this.namesSql =
      people === null
        ? null
        : `select p.${quoteIdent(people.id)}::text as id, ${people.name === null ? 'null' : `p.${quoteIdent(people.name)}::text`} as name,
                  ${people.locale === null ? 'null' : `p.${quoteIdent(people.locale)}::text`} as locale
             from ${quoteTable(people.table)} p where p.${quoteIdent(people.id)} = any($1::${columnTypes(people.table, people.id) ?? 'text'}[])`;
  }

  /** What may be read, as SQL: made when it is first needed, and again when that failed. */
  async rules(): Promise<Readable> {
    this.readable ??= (async () => {
      const client = await this.pool.connect();
      try {
        const owners = await loadOwners(client, this.config, this.columnTypes);
        return await readableSql(client, this.config, this.columnTypes, owners);
      } finally {
        client.release();
      }
    })().catch((error: unknown) => {
      this.readable = null;
      throw error;
    });
    return await this.readable;
  }

  async inSnapshot<T>(read: (client: pg.ClientBase) => Promise<T>): Promise<T> {
    const client = await this.pool.connect();
    try {
      await client.query('begin isolation level repeatable read read only');
      const result = await read(client);
      await client.query('commit');
      client.release();
      return result;
    } catch (error) {
      client.release(error instanceof Error ? error : true);
      throw error;
    }
  }

  /** Present forms after each of these positions, ascending, at most `limit` each. Two statements and one for names. */
  async changes(
    client: pg.ClientBase,
    readable: Readable,
    positions: readonly StreamPosition[],
    limit: number,
  ): Promise<StreamFrame[][]> {
    const from = [positions.map(({ userId }) => userId), positions.map(({ after }) => after), limit];
    const notifications = await client.query<NotificationRow & Numbered>(
      `select p.n::int as position, n.* from unnest($1::text[], $2::bigint[]) with ordinality p(user_id, after, n)
        cross join lateral ${readable.shunned('p.user_id')} belfry_h
        cross join lateral (select ${columnsSql(readable)} from belfry.stream_position s
                              join belfry.notification belfry_n on belfry_n.id = s.notification_id
                             where s.user_id = p.user_id and s.seq > p.after order by s.seq limit $3) n`,
      from,
    );
    const states = await client.query<StateRow & Numbered>(
      `select p.n::int as position, s.* from unnest($1::text[], $2::bigint[]) with ordinality p(user_id, after, n)
        cross join lateral (select s.seq::text, s.state, s.ids::text[], s.through::text from belfry.state_change s
                             where s.user_id = p.user_id and s.seq > p.after order by s.seq limit $3) s`,
      from,
    );
    const words = await this.words(client, notifications.rows);
    const frames = positions.map((): StreamFrame[] => []);
    for (const row of notifications.rows) {
      const seq = Number(row.seq);
      const frame = row.hidden ? withdrawnFrame(row, seq) : notificationFrame(viewOf(row), seq, words(row.user_id));
      frames[row.position - 1]?.push({ seq, frame });
    }
    for (const { position, seq: text, state, ids, through } of states.rows) {
      const seq = Number(text);
      const data = through === null ? { ids: ids ?? [], state } : { through: Number(through), state };
      frames[position - 1]?.push({ seq, frame: JSON.stringify({ event: 'state', seq, data }) });
    }
    for (const list of frames) {
      list.sort((a, b) => a.seq - b.seq);
      // Two kinds, each up to the limit: beyond it one of them may have a hole.
      list.splice(limit);
    }
    return frames;
  }

  async unseenAnnouncements(client: pg.ClientBase, userId: string): Promise<string[]> {
    const seen = await client.query<{ through: string }>(
      'select through::text from belfry.announcement_seen where user_id = $1',
      [userId],
    );
    const announced = await this.announcementsAfter(client, Number(seen.rows[0]?.through ?? 0));
    return announced.map(({ frame }) => frame);
  }

  /** The newest hundred of the retention, oldest first. */
  async announcementsAfter(client: pg.ClientBase | pg.Pool, through: number): Promise<{ id: number; frame: string }[]> {
    const result = await client.query<{ id: string; message: string; data: string; at: Date }>(
      `select a.id::text, a.message, a.data::text, a.at from belfry.announcement a
        where a.id > $1 and a.at > now() - make_interval(secs => $2)
        order by a.id desc limit 100`,
      [through, this.config.retention.inboxMs / 1000],
    );
    return result.rows.reverse().map(({ id, message, data, at }) => ({
      id: Number(id),
      frame: announcementFrame({ id, message, data, atMs: at.getTime() }),
    }));
  }

  /** What the notifications of a person are put into words with. One statement. */
  async words(
    client: pg.ClientBase,
    rows: readonly { readonly user_id: string; readonly actors: readonly string[] }[],
  ): Promise<(userId: string) => Words> {
    const { people } = this.config;
    const { messages } = this;
    const ids = [...new Set(rows.flatMap(({ user_id, actors }) => [user_id, ...actors]))];
    if (this.namesSql === null || people === null || ids.length === 0)
      return () => ({ names: new Map(), messages, locale: null });
    const fits = fitting(this.columnTypes(people.table, people.id));
    const result = await client.query<{ id: string; name: string | null; locale: string | null }>(this.namesSql, [
      ids.filter(fits),
    ]);
    const names = new Map(result.rows.map(({ id, name }) => [id, name]));
    const locales = new Map(result.rows.map(({ id, locale }) => [id, locale]));
    return (userId) => ({ names, messages, locale: locales.get(userId) ?? null });
  }
}

/** As it is put into words. */
export function viewOf(row: NotificationRow): NotificationView {
  return {
    id: row.id,
    type: row.type,
    objectKind: row.object_kind,
    objectId: row.object_id,
    subjectKind: row.subject_kind,
    subjectId: row.subject_id,
    actors: row.actors,
    // Those who may not be seen are not counted either.
    actorCount: row.actor_count - (row.sampled - row.actors.length),
    eventCount: row.event_count,
    state: row.state,
    // What was seen elsewhere meanwhile need not ring.
    alert: row.alert && row.state === 'unseen',
    message: row.message,
    data: row.data,
    lastAtMs: row.last_at.getTime(),
  };
}
