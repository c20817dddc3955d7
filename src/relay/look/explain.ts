/**
 * What became of one event, for everybody it was or could have been for: from what is stored, and where nothing is, from the rules as
 * they are now. Only reads.
 */

import type pg from 'pg';
import type { Config } from '../../config.js';
import type { SuppressRule } from '../../rules/event.js';
import { suppressedBy } from '../../rules/privacy.js';
import { loadColumnTypes, personOf } from '../../schema/columns.js';
import type { ColumnTypes } from '../../schema/columns.js';
import { deliveryOf, deliveryQuestions } from '../plan/questions.js';
import { incompleteIn } from '../upkeep/incomplete.js';
import { announcementOf, discardOf, eventRow, resolved, rowIsThere, sharesOf, verdictsOf } from './explain-facts.js';
import type { ShareRow } from './explain-facts.js';
import { pushesOf, timesOf } from './explain-times.js';
import type { EventTimes } from './explain-times.js';
import { planPage } from '../plan/plan.js';
import type { DeliverStep, Step } from '../plan/steps.js';
import { PrivacyLoader } from '../facts/privacy-facts.js';
import type { PageEvent } from '../plan/resolved.js';

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
  const all = new Set(lacks.length > 0 ? [] : delivers.flatMap(({ recipients }) => recipients));
  const possible = new Set(user === null ? all : [user].filter((one) => all.has(one)));

  for (const share of await sharesOf(client, plan.steps, user)) {
    // What stands is of the event that its row was captured with again.
    if (lacks.length > 0 && share.event_id !== id) continue;
    const later = BigInt(id) < BigInt(share.event_id);
    // Who is a recipient by a later event alone.
    if (later && delivers.length > 0 && !possible.has(share.user_id)) continue;
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
