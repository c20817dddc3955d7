/**
 * Inboxes for the gateway, over Postgres: what each call answers. What they are read with is in reader.ts, what a client that comes back
 * is told in recovery.ts.
 */

import type pg from 'pg';
import type { Publication } from '../broker/broker.js';
import type { Config } from '../config.js';
import { BelfryError } from '../errors.js';
import { quoteIdent } from '../postgres/sql.js';
import { fitting, holdingRows, personColumn, personId } from '../schema/columns.js';
import type { ColumnTypes } from '../schema/columns.js';
import { listQuery } from './list.js';
import type { NotificationRow } from './list.js';
import { Preferences } from './preferences.js';
import { countsJoin, InboxReader, viewOf } from './reader.js';
import { catchUp, recoverEach } from './recovery.js';
import { notificationData } from './render.js';
import { maxReplay, noBadge } from './types.js';
import type {
  Heads,
  Inbox,
  ListPage,
  ListQuery,
  MarkResult,
  MarkState,
  MarkTarget,
  PlacedBadge,
  Preference,
  RecoverRequest,
  Recovery,
  Revocation,
  StreamFrame,
} from './types.js';

export class PostgresInbox implements Inbox {
  private readonly reader: InboxReader;
  private readonly settings: Preferences;

  constructor(
    private readonly pool: pg.Pool,
    private readonly config: Config,
    private readonly columnTypes: ColumnTypes,
  ) {
    this.reader = new InboxReader(pool, config, columnTypes);
    this.settings = new Preferences(pool, config);
  }

  async epoch(): Promise<string> {
    const result = await this.pool.query<{ epoch: string }>('select value as epoch from belfry.epoch');
    return result.rows[0]?.epoch ?? '';
  }

  async recoverEach(requests: readonly RecoverRequest[]): Promise<(Recovery | null)[]> {
    return await recoverEach(this.reader, requests);
  }

  async catchUp(requests: readonly RecoverRequest[]): Promise<Recovery[]> {
    return await catchUp(this.reader, requests);
  }

  async heads(userIds: readonly string[], channels: readonly string[]): Promise<Heads> {
    const result = await this.pool.query<{
      of: Exclude<keyof Heads, 'epoch'>;
      key: string;
      position: string;
      epoch: string;
    }>(
      `select h.*, e.value as epoch from belfry.epoch e cross join (
       select 'people' as of, user_id as key, seq::text as position from belfry.head where user_id = any($1)
       union all
       select 'channels', channel, "offset"::text from belfry.channel_head where channel = any($2)
       union all
       select 'announcement', '', coalesce(max(id), 0)::text from belfry.announcement
       union all
       select 'revocation', '', coalesce(max(id), 0)::text from belfry.revocation) h`,
      [userIds, channels],
    );
    const heads = {
      epoch: result.rows[0]?.epoch ?? '',
      people: new Map(userIds.map((id) => [id, 0])),
      channels: new Map(channels.map((channel) => [channel, 0])),
      announcement: 0,
      revocation: 0,
    };
    for (const { of, key, position } of result.rows) {
      if (of === 'people' || of === 'channels') heads[of].set(key, Number(position));
      else heads[of] = Number(position);
    }
    return heads;
  }

  async framesAfter(positions: ReadonlyMap<string, number>): Promise<Map<string, StreamFrame[]>> {
    const readable = await this.reader.rules();
    const from = [...positions].map(([userId, after]) => ({ userId, after }));
    const frames = await this.reader.inSnapshot((client) => this.reader.changes(client, readable, from, maxReplay));
    return new Map(from.map(({ userId }, i) => [userId, frames[i] ?? []]));
  }

  async announcementsAfter(id: number): Promise<{ id: number; frame: string }[]> {
    return await this.reader.announcementsAfter(this.pool, id);
  }

  async revokedAfter(id: number): Promise<Revocation[]> {
    const result = await this.pool.query<Revocation>(
      `select id::float8 as id, user_id as "userId", session,
              (extract(epoch from clock_timestamp() - coalesce(revoked_at, at)) * 1000)::float8 as "ageMs"
         from belfry.revocation where id > $1 order by id limit 1000`,
      [id],
    );
    return result.rows;
  }

  async badges(userIds: readonly string[]): Promise<Map<string, PlacedBadge>> {
    const readable = await this.reader.rules();
    const result = await this.pool.query<{ user_id: string; seq: number; unseen: number; unread: number }>({
      name: 'belfry_badges',
      text: `select u.user_id, coalesce(h.seq, 0)::float8 as seq, counted.unseen, counted.unread
               from unnest($1::text[]) u(user_id) left join belfry.head h on h.user_id = u.user_id ${countsJoin('u.user_id', readable)}`,
      values: [userIds],
    });
    return new Map(result.rows.map(({ user_id, ...badge }) => [user_id, badge]));
  }

  async list(userId: string, query: ListQuery): Promise<ListPage> {
    const before = query.before === null ? null : Number(query.before);
    if (before !== null && (!Number.isSafeInteger(before) || before < 0 || !/^\d+$/.test(query.before ?? ''))) {
      throw new BelfryError('bad_request', 'before: must be the `next` of an earlier page.');
    }
    const readable = await this.reader.rules();
    return await this.reader.inSnapshot(async (client) => {
      const head = await client.query<{ epoch: string; seq: string; unseen: number; unread: number }>(
        `select e.value as epoch, coalesce((select h.seq from belfry.head h where h.user_id = $1), 0)::text as seq, counted.unseen, counted.unread
           from belfry.epoch e ${countsJoin('$1::text', readable)}`,
        [userId],
      );
      const rows = await client.query<NotificationRow>(listQuery(userId, query, before, readable));
      const page = rows.rows.slice(0, query.limit);
      const words = await this.reader.words(client, page);
      const hasMore = rows.rows.length > query.limit;
      const { epoch = '', seq = '0', unseen = 0, unread = 0 } = head.rows[0] ?? {};
      const first = before === null && query.state !== 'archived';
      const announced = first ? await this.reader.unseenAnnouncements(client, userId) : [];
      return {
        announcements: announced.map((frame) => (JSON.parse(frame) as { data: unknown }).data).reverse(),
        items: page.map((row) => notificationData(viewOf(row), words(userId))),
        unseen,
        unread,
        hasMore,
        seq: Number(seq),
        epoch,
        next: hasMore ? (page.at(-1)?.seq ?? null) : null,
      };
    });
  }

  async mark(userId: string, state: MarkState, target: MarkTarget, exceptSession: string | null): Promise<MarkResult> {
    const given = 'ids' in target ? target.ids : null;
    const ids = given?.filter((id) => /^\d{1,18}$/.test(id)) ?? null;
    const announced = (given ?? []).filter((id) => /^a\d{1,15}$/.test(id)).map((id) => id.slice(1));
    const through = 'through' in target ? target.through : null;
    const result = await this.pool.query<{ seq: string; changed: boolean }>(
      // One that is not there would hide those that are still to come.
      `select seq::text, changed
         from belfry.mark($1, $2, $3, $4, (select max(a.id) from belfry.announcement a where a.id = any($5::bigint[])))`,
      [userId, state, ids, through, announced],
    );
    const { seq = '0', changed = false } = result.rows[0] ?? {};
    const { unseen, unread } = (await this.badges([userId])).get(userId) ?? noBadge;
    const publications: Publication[] = [];
    if (changed) {
      const data = through === null ? { ids: ids ?? [], state } : { through, state };
      const frame = JSON.stringify({ event: 'state', seq: Number(seq), data });
      publications.push(
        { to: 'user', userId, seq: Number(seq), frame, ...(exceptSession === null ? {} : { exceptSession }) },
        { to: 'badge', userId },
      );
    }
    return { unseen, unread, seq: Number(seq), publications };
  }

  async preferences(userId: string): Promise<Record<string, Preference>> {
    return await this.settings.of(userId);
  }

  async setPreferences(
    userId: string,
    preferences: Readonly<Record<string, Preference>>,
  ): Promise<Record<string, Preference>> {
    return await this.settings.set(userId, preferences);
  }

  async blockedWith(userIds: readonly string[]): Promise<Map<string, Set<string>>> {
    const found = new Map(userIds.map((id) => [id, new Set<string>()]));
    const { blocks } = this.config;
    if (blocks === null) return found;
    const types = this.columnTypes;
    const rows = holdingRows(blocks);
    const [from, to] = [personColumn(blocks.table, blocks.from, types), personColumn(blocks.table, blocks.to, types)];
    const idOf = (column: string): string =>
      personId(`t.${quoteIdent(column)}::text`, types(blocks.table, column), types);
    const [one, other] = [idOf(blocks.from), idOf(blocks.to)];
    const blocked = `select ${one} as a, ${other} as b from ${rows} t where ${from.sql} = any($1::text[]::${from.type}[])`;
    const blocking = `select ${other}, ${one} from ${rows} t where ${to.sql} = any($1::text[]::${to.type}[])`;
    const result = await this.pool.query<{ a: string; b: string }>(
      blocks.direction === 'one' ? blocked : `${blocked} union ${blocking}`,
      [userIds.filter(fitting(from.type)).filter(fitting(to.type))],
    );
    for (const { a, b } of result.rows) found.get(a)?.add(b);
    return found;
  }
}
