/**
 * Inboxes for the gateway: recovery, list, states, preferences, over Postgres.
 *
 * The numbers of the badge and the list use the same predicate, so they cannot disagree. Everything a session is told
 * at the start is read in one snapshot, so that nothing falls between.
 */

import type pg from 'pg';
import type { Publication } from '../broker/broker.js';
import type { Config } from '../config.js';
import { BelfryError } from '../errors.js';
import { quoteIdent, quoteTable } from '../postgres.js';
import { fitting, holdingRows } from '../schema/columns.js';
import type { ColumnTypes } from '../schema/columns.js';
import { loadOwners } from '../schema/owners.js';
import { announcementFrame, notificationData, notificationFrame, withdrawnFrame } from './render.js';
import type { NotificationView, Words } from './render.js';
import { listQuery } from './list.js';
import { Messages } from './messages.js';
import type { NotificationRow } from './list.js';
import { readableSql } from './readable.js';
import type { Readable } from './readable.js';
import { maxCount } from './types.js';
import type {
  Badge,
  Heads,
  Inbox,
  ListPage,
  ListQuery,
  MarkResult,
  MarkState,
  MarkTarget,
  Preference,
  RecoverRequest,
  Recovery,
  StreamFrame,
} from './types.js';

/** More changes than this are not replayed (CONTRACT §5). */
const maxReplay = 500;

/** Types of the seed guide: preferences may name them whether or not the config has a source for them. */
const standardTypes = [
  'like',
  'comment',
  'follow',
  'message',
  'mention',
  'friend_request',
  'job_application',
  'system',
  'repost',
];

interface StateRow {
  readonly user_id: string;
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
const countsJoin = (user: string, { shunned, condition }: Readable): string => {
  const some = (states: string): string =>
    `select belfry_n.state from belfry.notification belfry_n where belfry_n.user_id = ${user} and not belfry_n.withdrawn
       and belfry_n.state in (${states}) and ${condition} limit ${String(maxCount)}`;
  return `cross join lateral ${shunned(user)} belfry_h cross join lateral (
    select k.unread, case when k.unread < ${String(maxCount)} then k.unseen else (select count(*)::int from (${some("'unseen'")}) s) end as unseen
      from (select count(*)::int as unread, (count(*) filter (where s.state = 'unseen'))::int as unseen
              from (${some("'unseen', 'seen'")}) s) k) counted`;
};

export class PostgresInbox implements Inbox {
  private readonly namesSql: string | null;
  private readonly messages: Messages;
  private readonly types: ReadonlySet<string>;
  private readable: Promise<Readable> | null = null;

  constructor(
    private readonly pool: pg.Pool,
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
    this.types = new Set([
      ...standardTypes,
      ...config.sources.map(({ type }) => type),
      ...Object.keys(config.aggregation),
    ]);
  }

  async epoch(): Promise<string> {
    const result = await this.pool.query<{ epoch: string }>('select epoch from belfry.relay');
    return result.rows[0]?.epoch ?? '';
  }

  async recover(userId: string, since: number | null, epoch: string | null): Promise<Recovery> {
    const readable = await this.rules();
    return await this.inSnapshot(async (client) => {
      const head = await client.query<{ epoch: string; seq: string; pruned: string; unseen: number; unread: number }>(
        `select r.epoch, coalesce((select h.seq from belfry.head h where h.user_id = $1), 0)::text as seq,
                coalesce((select p.seq from belfry.pruned p where p.user_id = $1), 0)::text as pruned, counted.unseen, counted.unread
           from belfry.relay r ${countsJoin('$1::text', readable)}`,
        [userId],
      );
      const row = head.rows[0];
      if (row === undefined)
        throw new BelfryError('not_migrated', 'Schema belfry has no relay row: run belfry migrate.');
      const seq = Number(row.seq);
      const announcements = await this.unseenAnnouncements(client, userId);
      const base = { seq, epoch: row.epoch, announcements, unseen: row.unseen, unread: row.unread };
      if (since === null) return { ...base, recovered: true, frames: [] };
      if (epoch !== row.epoch || since > seq) return { ...base, recovered: false, frames: [] };
      if (since === seq) return { ...base, recovered: true, frames: [] };
      // Something that came after `since` is no longer kept.
      if (since < Number(row.pruned)) return { ...base, recovered: false, frames: [] };
      const frames = (await this.changes(client, readable, [userId], [since], maxReplay + 1)).get(userId) ?? [];
      return frames.length > maxReplay
        ? { ...base, recovered: false, frames: [] }
        : { ...base, recovered: true, frames };
    });
  }

  async recoverEach(requests: readonly RecoverRequest[]): Promise<Recovery[]> {
    const readable = await this.rules();
    const { rows } = await this.pool.query<{
      epoch: string;
      seq: string;
      through: string;
      unseen: number;
      unread: number;
      announced: string;
    }>({
      name: 'belfry_recover_each',
      text: `select r.epoch, coalesce(h.seq, 0)::text as seq, coalesce(s.through, 0)::text as through, counted.unseen, counted.unread,
                    (select coalesce(max(a.id), 0) from belfry.announcement a)::text as announced
               from unnest($1::text[]) with ordinality u(user_id, n)
              cross join belfry.relay r
               left join belfry.head h on h.user_id = u.user_id
               left join belfry.announcement_seen s on s.user_id = u.user_id
              ${countsJoin('u.user_id', readable)}
              order by u.n`,
      values: [requests.map(({ userId }) => userId)],
    });
    const leastSeen = rows.reduce((least, { through }) => Math.min(least, Number(through)), Infinity);
    // After the heads: one that is announced in between comes twice rather than never, and the gateway drops the second. One
    // that was not in the table yet is still to be published, and the gateway tells it to those who join.
    const none = leastSeen >= Number(rows[0]?.announced ?? 0);
    const announced = none ? [] : await this.announcementsAfter(this.pool, leastSeen);
    // In a storm of reconnects hardly anybody has missed something: no promise for them.
    const recoveries = requests.map(({ userId, since, epoch }, i): Recovery | Promise<Recovery> => {
      const row = rows[i];
      if (row === undefined)
        throw new BelfryError('not_migrated', 'Schema belfry has no relay row: run belfry migrate.');
      const seq = Number(row.seq);
      if (since !== null && epoch === row.epoch && since < seq) return this.recover(userId, since, epoch);
      return {
        seq,
        epoch: row.epoch,
        recovered: since === null || (epoch === row.epoch && since === seq),
        frames: [],
        announcements: announced.filter(({ id }) => id > Number(row.through)).map(({ frame }) => frame),
        unseen: row.unseen,
        unread: row.unread,
      };
    });
    const replays = recoveries.some((recovery) => recovery instanceof Promise);
    if (!replays) return recoveries as Recovery[];
    return await Promise.all(recoveries.map((recovery) => Promise.resolve(recovery)));
  }

  async heads(userIds: readonly string[], channels: readonly string[]): Promise<Heads> {
    const result = await this.pool.query<{ user_id: string | null; channel: string | null; position: string }>(
      `select user_id, null as channel, seq::text as position from belfry.head where user_id = any($1)
       union all
       select null, channel, "offset"::text from belfry.channel_head where channel = any($2)`,
      [userIds, channels],
    );
    const heads = {
      people: new Map(userIds.map((id) => [id, 0])),
      channels: new Map(channels.map((channel) => [channel, 0])),
    };
    for (const { user_id, channel, position } of result.rows) {
      if (user_id !== null) heads.people.set(user_id, Number(position));
      if (channel !== null) heads.channels.set(channel, Number(position));
    }
    return heads;
  }

  async framesAfter(positions: ReadonlyMap<string, number>): Promise<Map<string, StreamFrame[]>> {
    const readable = await this.rules();
    return await this.inSnapshot((client) =>
      this.changes(client, readable, [...positions.keys()], [...positions.values()], maxReplay),
    );
  }

  async badges(userIds: readonly string[]): Promise<Map<string, Badge>> {
    const readable = await this.rules();
    const result = await this.pool.query<{ user_id: string; unseen: number; unread: number }>({
      name: 'belfry_badges',
      text: `select u.user_id, counted.unseen, counted.unread from unnest($1::text[]) u(user_id) ${countsJoin('u.user_id', readable)}`,
      values: [userIds],
    });
    return new Map(result.rows.map(({ user_id, unseen, unread }) => [user_id, { unseen, unread }]));
  }

  async list(userId: string, query: ListQuery): Promise<ListPage> {
    const before = query.before === null ? null : Number(query.before);
    if (before !== null && (!Number.isSafeInteger(before) || before < 0 || !/^\d+$/.test(query.before ?? ''))) {
      throw new BelfryError('bad_request', 'before: must be the `next` of an earlier page.');
    }
    const readable = await this.rules();
    return await this.inSnapshot(async (client) => {
      const head = await client.query<{ epoch: string; seq: string; unseen: number; unread: number }>(
        `select r.epoch, coalesce((select h.seq from belfry.head h where h.user_id = $1), 0)::text as seq, counted.unseen, counted.unread
           from belfry.relay r ${countsJoin('$1::text', readable)}`,
        [userId],
      );
      const rows = await client.query<NotificationRow>(listQuery(userId, query, before, readable));
      const page = rows.rows.slice(0, query.limit);
      const words = await this.words(client, page);
      const hasMore = rows.rows.length > query.limit;
      const { epoch = '', seq = '0', unseen = 0, unread = 0 } = head.rows[0] ?? {};
      const first = before === null && query.state !== 'archived';
      const announced = first ? await this.unseenAnnouncements(client, userId) : [];
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
    const announced = (given ?? []).filter((id) => /^a\d{1,15}$/.test(id)).map((id) => Number(id.slice(1)));
    const through = 'through' in target ? target.through : null;
    const result = await this.pool.query<{ seq: string; changed: boolean }>(
      'select seq::text, changed from belfry.mark($1, $2, $3, $4, $5)',
      [userId, state, ids, through, announced.length === 0 ? null : Math.max(...announced)],
    );
    const { seq = '0', changed = false } = result.rows[0] ?? {};
    const badge = (await this.badges([userId])).get(userId) ?? { unseen: 0, unread: 0 };
    const publications: Publication[] = [];
    if (changed) {
      const data = through === null ? { ids: ids ?? [], state } : { through, state };
      const frame = JSON.stringify({ event: 'state', seq: Number(seq), data });
      publications.push(
        { to: 'user', userId, seq: Number(seq), frame, ...(exceptSession === null ? {} : { exceptSession }) },
        { to: 'badge', userId },
      );
    }
    return { ...badge, seq: Number(seq), publications };
  }

  async preferences(userId: string): Promise<Record<string, Preference>> {
    const result = await this.pool.query<{ type: string; setting: Preference }>(
      'select type, setting from belfry.preference where user_id = $1',
      [userId],
    );
    const preferences: Record<string, Preference> = Object.fromEntries(
      [...this.types].sort().map((type) => [type, 'on']),
    );
    for (const { type, setting } of result.rows) preferences[type] = setting;
    return preferences;
  }

  async setPreferences(
    userId: string,
    preferences: Readonly<Record<string, Preference>>,
  ): Promise<Record<string, Preference>> {
    const unknown = Object.keys(preferences).filter((type) => !this.types.has(type));
    if (unknown.length > 0)
      throw new BelfryError(
        'bad_request',
        `Unknown notification types: ${unknown.join(', ')}. Known: ${[...this.types].sort().join(', ')}.`,
      );
    await this.pool.query(
      `insert into belfry.preference (user_id, type, setting) select $1, t.type, t.setting from unnest($2::text[], $3::text[]) t(type, setting)
       on conflict (user_id, type) do update set setting = excluded.setting`,
      [userId, Object.keys(preferences), Object.values(preferences)],
    );
    return await this.preferences(userId);
  }

  async blockedWith(userIds: readonly string[]): Promise<Map<string, Set<string>>> {
    const found = new Map(userIds.map((id) => [id, new Set<string>()]));
    const { blocks } = this.config;
    if (blocks === null) return found;
    const [from, to, rows] = [quoteIdent(blocks.from), quoteIdent(blocks.to), holdingRows(blocks)];
    const type = this.columnTypes(blocks.table, blocks.from);
    const blocked = `select t.${from}::text as a, t.${to}::text as b from ${rows} t where t.${from} = any($1::${type ?? 'text'}[])`;
    const blocking = `select t.${to}::text, t.${from}::text from ${rows} t where t.${to} = any($1::${type ?? 'text'}[])`;
    const result = await this.pool.query<{ a: string; b: string }>(
      blocks.direction === 'one' ? blocked : `${blocked} union ${blocking}`,
      [userIds.filter(fitting(type))],
    );
    for (const { a, b } of result.rows) found.get(a)?.add(b);
    return found;
  }

  /** Present forms after a position, ascending. Two statements and one for names. */
  private async changes(
    client: pg.ClientBase,
    readable: Readable,
    userIds: readonly string[],
    after: readonly number[],
    limit: number,
  ): Promise<Map<string, StreamFrame[]>> {
    const notifications = await client.query<NotificationRow>(
      `select n.* from unnest($1::text[], $2::bigint[]) p(user_id, after)
        cross join lateral ${readable.shunned('p.user_id')} belfry_h
        cross join lateral (select ${columnsSql(readable)} from belfry.stream_position s
                              join belfry.notification belfry_n on belfry_n.id = s.notification_id
                             where s.user_id = p.user_id and s.seq > p.after order by s.seq limit $3) n`,
      [userIds, after, limit],
    );
    const states = await client.query<StateRow>(
      `select s.* from unnest($1::text[], $2::bigint[]) p(user_id, after)
        cross join lateral (select s.user_id, s.seq::text, s.state, s.ids::text[], s.through::text from belfry.state_change s
                             where s.user_id = p.user_id and s.seq > p.after order by s.seq limit $3) s`,
      [userIds, after, limit],
    );
    const words = await this.words(client, notifications.rows);
    const frames = new Map<string, StreamFrame[]>(userIds.map((id) => [id, []]));
    for (const row of notifications.rows) {
      const seq = Number(row.seq);
      const frame = row.hidden ? withdrawnFrame(row, seq) : notificationFrame(viewOf(row), seq, words(row.user_id));
      frames.get(row.user_id)?.push({ seq, frame });
    }
    for (const { user_id, seq, state, ids, through } of states.rows) {
      const data = through === null ? { ids: ids ?? [], state } : { through: Number(through), state };
      frames
        .get(user_id)
        ?.push({ seq: Number(seq), frame: JSON.stringify({ event: 'state', seq: Number(seq), data }) });
    }
    for (const list of frames.values()) {
      list.sort((a, b) => a.seq - b.seq);
      // Two kinds, each up to the limit: beyond it one of them may have a hole.
      list.splice(limit);
    }
    return frames;
  }

  private async unseenAnnouncements(client: pg.ClientBase, userId: string): Promise<string[]> {
    const seen = await client.query<{ through: string }>(
      'select through::text from belfry.announcement_seen where user_id = $1',
      [userId],
    );
    const announced = await this.announcementsAfter(client, Number(seen.rows[0]?.through ?? 0));
    return announced.map(({ frame }) => frame);
  }

  /** The newest hundred of the retention, oldest first. */
  private async announcementsAfter(
    client: pg.ClientBase | pg.Pool,
    through: number,
  ): Promise<{ id: number; frame: string }[]> {
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
  private async words(
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

  /** What may be read, as SQL: made when it is first needed, and again when that failed. */
  private async rules(): Promise<Readable> {
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

  private async inSnapshot<T>(read: (client: pg.ClientBase) => Promise<T>): Promise<T> {
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
}

function viewOf(row: NotificationRow): NotificationView {
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
    alert: row.alert,
    message: row.message,
    data: row.data,
    lastAtMs: row.last_at.getTime(),
  };
}
