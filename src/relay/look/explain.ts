/**
 * What became of one event, for everybody it was or could have been for: from what is stored, and where nothing is, from the rules as
 * they are now. Only reads.
 */

import type pg from 'pg';
import type { Config, Source } from '../../config.js';
import { messageOf } from '../../errors.js';
import type { SuppressRule } from '../../rules/event.js';
import { suppressedBy } from '../../rules/privacy.js';
import { quoteTable } from '../../postgres/sql.js';
import { loadColumnTypes, personOf } from '../../schema/columns.js';
import type { ColumnTypes } from '../../schema/columns.js';
import { deliveryOf, deliveryQuestions } from '../plan/questions.js';
import { incompleteIn } from '../upkeep/incomplete.js';
import { pushesOf, timesOf } from './explain-times.js';
import type { EventTimes } from './explain-times.js';
import { blame } from '../failures.js';
import { planPage } from '../plan/plan.js';
import type { DeliverStep, Step } from '../plan/plan.js';
import { PrivacyLoader } from '../facts/privacy-facts.js';
import { keySql } from '../replay/page.js';
import { resolveSql } from '../plan/resolve.js';
import { eventsOf } from '../plan/resolved.js';
import type { PageEvent, ResolvedRow } from '../plan/resolved.js';

export type ExplainVerdict = 'delivered' | 'merged' | 'suppressed' | 'withdrawn' | 'pending' | 'dead';

export interface ExplainedRecipient {
  readonly user_id: string;
  readonly verdict: ExplainVerdict;
  /** Only for `suppressed`. */
  readonly rule: SuppressRule | null;
  readonly notification_id: string | null;
  /** Position of the notification's last push in the person's stream. */
  readonly seq: number | null;
  /** When that was so, ISO 8601: its last push, the decision, the withdrawal, the failure, the end of the window. */
  readonly at: string | null;
  /** Live sockets that the push at `seq` went to; 0: nobody of them was online; null: it was not pushed, or that is not known. */
  readonly sockets: number | null;
}

export interface Explanation {
  readonly event: string;
  readonly source: string;
  readonly op: string;
  /** When it was written, ISO 8601. */
  readonly writtenAt: string;
  /** Null where the outbox does not hold it any more. */
  readonly times: EventTimes | null;
  /** Whether the relay has read it. */
  readonly read: boolean;
  /** Why it is a dead letter. */
  readonly error: string | null;
  readonly recipients: readonly ExplainedRecipient[];
  /** False where the config's SQL fails on the row, while it is held, and of what everybody hears: then it may be for others than `recipients`. */
  readonly recipientsKnown: boolean;
  /** What recipients do not say. */
  readonly notes: readonly string[];
}

interface EventRow {
  readonly source: string;
  readonly op: string;
  readonly at: Date;
  readonly read: boolean;
  readonly error: string | null;
  readonly failed_at: Date | null;
  /** Null where it is not held (any more). */
  readonly held_until: Date | null;
}

interface ShareRow {
  readonly user_id: string;
  readonly event_id: string;
  readonly removed_at: Date | null;
  readonly notification_id: string;
  /** Another event of the same notification came before it. */
  readonly joined: boolean;
  /** It waits for the end of a window. */
  readonly waits: boolean;
  /** Null where the notification has been pruned. */
  readonly seq: string | null;
  readonly withdrawn: boolean | null;
  readonly pushed_at: Date | null;
  readonly due_at: Date | null;
}

/** Null where neither the outbox nor the dead letters hold the event (any more). */
export async function explainEvent(
  client: pg.ClientBase,
  config: Config,
  id: string,
  who: string | null,
): Promise<Explanation | null> {
  const row = await eventRow(client, id);
  if (row === null) return null;
  const types = await loadColumnTypes(client, config);
  const user = who === null ? null : await personOf(client, who, types);
  const { item, unknown, notes } = await resolved(client, config, types, id, row);
  const sources = new Map(config.sources.map((source) => [source.name, source]));
  const plan = planPage(item === null ? [] : [item], {
    sources,
    groups: (type) => Object.hasOwn(config.aggregation, type),
  });
  const { incomplete } = await incompleteIn(client, item === null ? [] : [item], sources);
  const lacks = incomplete[0]?.columns ?? [];
  const found = new Map<string, ExplainedRecipient>();
  const delivers = plan.steps.filter((step): step is DeliverStep => step.kind === 'deliver' && !step.ifHeld);
  const possible = new Set(lacks.length > 0 ? [] : delivers.flatMap(({ recipients }) => recipients));

  for (const share of await sharesOf(client, plan.steps, user)) {
    // What stands is of the event that its row was captured with again.
    if (lacks.length > 0 && share.event_id !== id) continue;
    const entry = fromShare(share, id, plan.steps);
    // What is to be taken back still stands: it was not read, or could not be processed (told below).
    const standing = entry?.verdict === 'withdrawn' && entry.at === null;
    if (standing && row.error !== null) possible.add(share.user_id);
    else if (standing && !row.read) found.set(share.user_id, nobody(share.user_id));
    else if (entry !== null) found.set(share.user_id, entry);
  }
  for (const { user_id, rule, at } of await verdictsOf(client, id, row.at)) {
    if (found.get(user_id)?.verdict === 'delivered' || found.get(user_id)?.verdict === 'merged') continue;
    if (rule === 'duplicate' && found.has(user_id)) continue;
    found.set(user_id, { ...nobody(user_id), verdict: 'suppressed', rule, at: at.toISOString() });
  }
  if (row.error !== null) {
    for (const userId of possible)
      found.set(userId, { ...nobody(userId), verdict: 'dead', at: row.failed_at?.toISOString() ?? null });
    if (unknown !== null) notes.push('It failed before anybody could tell whom it is for.');
  } else if (!row.read || row.held_until !== null) {
    for (const userId of possible) if (!found.has(userId)) found.set(userId, nobody(userId));
    if (row.held_until !== null)
      notes.push(
        `Held until ${row.held_until.toISOString()}: when it was read nothing told whom it is for. What tells that until then delivers it.`,
      );
  } else {
    const missing = [...possible].filter((userId) => !found.has(userId));
    const discarded = await discardOf(client, id);
    if (discarded === null) {
      for (const entry of await unrecorded(client, config, types, item, delivers, missing, notes))
        found.set(entry.user_id, entry);
    } else {
      const { by, at, error, reason } = discarded;
      const why = reason === null ? '' : `: ${reason}`;
      notes.push(
        `A dead letter (${error}) that ${by} discarded${why}.${unknown === null ? ' belfry replay would deliver it.' : ''}`,
      );
      for (const userId of missing) found.set(userId, { ...nobody(userId), verdict: 'dead', at: at.toISOString() });
    }
  }
  if (lacks.length > 0)
    notes.push(
      `Its table had no column ${lacks.join(', ')} when it was written, so nobody is told of it. When config and table fit again its row is captured anew, or belfry replay reads it.`,
    );
  if (unknown !== null && row.error === null) notes.push(`Whom it is for cannot be asked: ${unknown}.`);
  if (row.source === 'belfry.announce') {
    const announced = await announcementOf(client, id);
    notes.push(
      announced === null ? 'Nobody has heard it yet.' : `Everybody hears it, as notification a${announced.id}.`,
    );
    if (user !== null && announced !== null)
      found.set(user, {
        ...nobody(user),
        verdict: 'delivered',
        notification_id: `a${announced.id}`,
        at: announced.at.toISOString(),
      });
  }
  const recipients = [...found.values()].filter(({ user_id }) => user === null || user_id === user);
  recipients.sort((a, b) => (a.user_id < b.user_id ? -1 : 1));
  return {
    event: id,
    source: row.source,
    op: row.op,
    writtenAt: row.at.toISOString(),
    times: await timesOf(client, id),
    read: row.read,
    error: row.error,
    recipients: await withSockets(client, recipients),
    recipientsKnown:
      unknown === null && lacks.length === 0 && row.held_until === null && row.source !== 'belfry.announce',
    notes,
  };
}

/** Of what was pushed: to how many sockets. */
async function withSockets(
  client: pg.ClientBase,
  recipients: readonly ExplainedRecipient[],
): Promise<ExplainedRecipient[]> {
  const pushed = recipients.flatMap(({ user_id, verdict, seq, at }) =>
    (verdict === 'delivered' || verdict === 'merged') && seq !== null && at !== null
      ? [{ userId: user_id, seq, at: new Date(at) }]
      : [],
  );
  const found = new Map((await pushesOf(client, pushed)).map((push, i) => [pushed[i]?.userId, push.sockets]));
  return recipients.map((one) => ({ ...one, sockets: found.get(one.user_id) ?? null }));
}

/** Of whom nothing else is known yet. */
function nobody(userId: string): ExplainedRecipient {
  return { user_id: userId, verdict: 'pending', rule: null, notification_id: null, seq: null, at: null, sockets: null };
}

async function eventRow(client: pg.ClientBase, id: string): Promise<EventRow | null> {
  const { rows } = await client.query<EventRow>(
    `select coalesce(o.source, d.source) as source, coalesce(o.op, d.op) as op, coalesce(o.at, d.event_at) as at, d.error, d.failed_at,
            (select max(h.until) from belfry.held h where h.event_id = $1 and h.until > clock_timestamp()) as held_until,
            o.id is null or pg_visible_in_snapshot(o.xid, r.seen)
              or r.target is not null and o.id <= r.after_id and pg_visible_in_snapshot(o.xid, r.target) as read
       from belfry.relay r
       left join belfry.outbox o     on o.id = $1
       left join belfry.dead_event d on d.event_id = $1
      where coalesce(o.id, d.event_id) is not null`,
    [id],
  );
  return rows[0] ?? null;
}

/**
 * The event with its recipients of today. `unknown`: why they can't be asked for; then it comes without, or not at all where even what is
 * stored of its row can't be found.
 */
async function resolved(
  client: pg.ClientBase,
  config: Config,
  types: ColumnTypes,
  id: string,
  { error }: EventRow,
): Promise<{ readonly item: PageEvent | null; readonly unknown: string | null; readonly notes: string[] }> {
  const page = `select ${BigInt(id)} as id, '3'::xid8 as xid, coalesce(o.at, d.event_at) as at, coalesce(o.source, d.source) as source,
      coalesce(o.op, d.op) as op, coalesce(o.new, d.new) as new, coalesce(o.old, d.old) as old
    from (select) one left join belfry.outbox o on o.id = ${BigInt(id)} left join belfry.dead_event d on d.event_id = ${BigInt(id)}`;
  const names = new Set(config.sources.map(({ name }) => name));
  let unknown: string | null = null;
  for (const recipients of [true, false]) {
    try {
      const { rows } = await client.query<ResolvedRow>(resolveSql(config.sources, types, { recipients })(page));
      const [item = null] = eventsOf(rows, names);
      const notes =
        item?.kind === 'other' && !item.event.source.startsWith('belfry.')
          ? [`The config has no source ${item.event.source} (any more).`]
          : [];
      return { item, unknown, notes };
    } catch (cause) {
      if (error === null && blame(cause) !== 'event') throw cause;
      unknown ??= messageOf(cause);
    }
  }
  return { item: null, unknown, notes: [] };
}

interface Discard {
  readonly by: string;
  readonly at: Date;
  /** Why it was a dead letter. */
  readonly error: string;
  /** Why it was discarded. */
  readonly reason: string | null;
}

async function discardOf(client: pg.ClientBase, id: string): Promise<Discard | null> {
  const { rows } = await client.query<Discard>(
    `select discarded_by as by, discarded_at as at, error, reason from belfry.discarded_event
      where event_id = $1 order by discarded_at desc limit 1`,
    [id],
  );
  return rows[0] ?? null;
}

async function sharesOf(client: pg.ClientBase, steps: readonly Step[], user: string | null): Promise<ShareRow[]> {
  const { rows } = await client.query<ShareRow>(
    `select distinct on (e.user_id) e.user_id, e.event_id::text, e.removed_at, e.notification_id::text, n.seq::text, n.withdrawn, n.pushed_at, n.due_at,
            exists (select from belfry.notification_event x where x.notification_id = e.notification_id and x.event_id < e.event_id) as joined,
            n.due_at is not null and (e.at > n.pushed_at or not exists (
              select from belfry.notification_event x
               where x.notification_id = e.notification_id and x.removed_at is null and x.event_id > e.event_id)) as waits
       from unnest($1::text[], $2::text[], $4::text[]) w(source, key, user_id)
       join belfry.notification_event e on e.source = w.source and e.key = w.key and (w.user_id is null or e.user_id = w.user_id)
       left join belfry.notification n on n.id = e.notification_id
      where $3::text is null or e.user_id = $3
      order by e.user_id, e.removed_at nulls first`,
    [
      steps.map(({ source }) => source),
      steps.map(({ key }) => key),
      user,
      // A dedupe_key may have been given for others, by events of their own.
      steps.map((step) => (step.kind === 'deliver' && step.alone ? (step.recipients[0] ?? '') : null)),
    ],
  );
  return rows;
}

/** What stands behind a notification now may be another event of the same row. */
function fromShare(share: ShareRow, id: string, steps: readonly Step[]): ExplainedRecipient | null {
  const { user_id, removed_at, notification_id, seq } = share;
  const base = { user_id, rule: null, notification_id, seq: seq === null ? null : Number(seq), sockets: null };
  const takesBack = steps.every(({ kind }) => kind === 'retract');
  const isThis = share.event_id === id;
  if (removed_at !== null || takesBack || BigInt(id) < BigInt(share.event_id)) {
    // A later event that changed nothing for this person took nothing back either.
    if (!isThis && !takesBack && BigInt(id) > BigInt(share.event_id)) return null;
    return { ...base, verdict: 'withdrawn', at: removed_at?.toISOString() ?? null };
  }
  if (!isThis) return null;
  // A muted thread takes the whole notification away, and leaves what stands behind it.
  if (share.withdrawn === true) return { ...base, verdict: 'withdrawn', at: share.pushed_at?.toISOString() ?? null };
  if (share.waits) return { ...base, verdict: 'pending', at: share.due_at?.toISOString() ?? null };
  return {
    ...base,
    verdict: share.joined ? 'merged' : 'delivered',
    at: share.pushed_at?.toISOString() ?? null,
  };
}

/** A verdict is never older than its event. */
async function verdictsOf(
  client: pg.ClientBase,
  id: string,
  at: Date,
): Promise<{ readonly user_id: string; readonly rule: SuppressRule; readonly at: Date }[]> {
  const { rows } = await client.query<{ user_id: string; rule: SuppressRule; at: Date }>(
    `select u.user_id, v.rule, v.at
       from belfry.verdict v
      cross join lateral unnest(v.event_ids, v.user_ids) u(event_id, user_id)
      where v.at >= $2 and v.event_ids @> array[$1::bigint] and u.event_id = $1
      order by v.id`,
    [id, at],
  );
  return rows;
}

/** People of whom nothing was kept: what the rules say now. */
async function unrecorded(
  client: pg.ClientBase,
  config: Config,
  types: ColumnTypes,
  item: PageEvent | null,
  delivers: readonly DeliverStep[],
  users: readonly string[],
  notes: string[],
): Promise<ExplainedRecipient[]> {
  if (users.length === 0) return [];
  const loader = await PrivacyLoader.create(client, config, types);
  const facts = await loader.load(client, deliveryQuestions(delivers));
  const [step] = delivers;
  const source = config.sources.find(({ name }) => name === step?.source);
  const isThere = source === undefined || step === undefined || (await rowIsThere(client, source, types, step.key));
  if (item?.kind === 'source' && item.event.countersOnly)
    notes.push(`It was written under belfry.capture = 'counters', which notifies nobody.`);
  return users.map((userId) => {
    const own = delivers.find(({ recipients }) => recipients.includes(userId));
    const rule = own === undefined ? null : suppressedBy(own.source, deliveryOf(own, userId), facts);
    if (rule !== null) return { ...nobody(userId), verdict: 'suppressed', rule };
    if (item?.kind === 'source' && item.event.countersOnly)
      return { ...nobody(userId), verdict: 'suppressed', rule: 'policy' };
    if (!isThere) return { ...nobody(userId), verdict: 'withdrawn' };
    notes.push(
      `By the mapping of today it is for ${userId}, but was not when it was read: belfry replay would deliver it.`,
    );
    return nobody(userId);
  });
}

async function rowIsThere(client: pg.ClientBase, source: Source, types: ColumnTypes, key: string): Promise<boolean> {
  const same = keySql(source, types, 't', (column) => `$1::jsonb ->> ${source.key.indexOf(column)}`);
  const { rows } = await client.query<{ there: boolean }>(
    `select exists (select from ${quoteTable(source.table)} t where ${same} ${source.when === null ? '' : `and (${source.when}\n)`}) as there`,
    [key],
  );
  return rows[0]?.there ?? false;
}

async function announcementOf(
  client: pg.ClientBase,
  id: string,
): Promise<{ readonly id: string; readonly at: Date } | null> {
  const { rows } = await client.query<{ id: string; at: Date }>(
    'select id::text, at from belfry.announcement where event_id = $1',
    [id],
  );
  return rows[0] ?? null;
}
