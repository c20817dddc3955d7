/**
 * What a page of events asks for, before any fact is known: rows to take back, events to deliver, counters to move,
 * channel events to log. Pure; facts are loaded for it afterwards, and the rules decide over them (decide.ts).
 */

import type { Source } from '../../config.js';
import type { LoggedEvent, Revoked } from '../../inbox/store.js';
import { parseJson } from '../../postgres/json.js';
import type { Side, SourceEvent } from '../../rules/event.js';
import { foldPage, samePlace, sameSide } from '../../rules/fold.js';
import type { NetChange } from '../../rules/fold.js';
import { groupKeyOf } from '../../rules/group.js';
import { counterKey } from '../facts/group-facts.js';
import type { OtherEvent, PageEvent } from './resolved.js';

/** Internal sources that capture the tables of blocks and mutes. */
export const blocksSource = 'belfry.blocks';
export const mutesSource = 'belfry.mutes';
export const threadMutesSource = 'belfry.thread_mutes';
const betweenPeople: ReadonlySet<string> = new Set([blocksSource, mutesSource, threadMutesSource]);

/** An event and everybody it may be for. */
export interface DeliverStep {
  readonly kind: 'deliver';
  readonly eventId: string;
  readonly atMs: number;
  readonly source: string;
  readonly key: string;
  readonly type: string;
  readonly actorId: string | null;
  readonly objectKind: string | null;
  readonly objectId: string | null;
  readonly subjectKind: string | null;
  readonly subjectId: string | null;
  readonly groupKey: string;
  readonly recipients: readonly string[];
  readonly message: string | null;
  readonly data: string | null;
  readonly byUpdate: boolean;
  readonly fresh: boolean;
  /** Only when the row is held: it was created without a recipient. */
  readonly ifHeld: boolean;
  /** A recipient was expected and could not be told yet. */
  readonly unresolved: boolean;
  /** More recipients than a batch takes: none is listed. */
  readonly wide: boolean;
  /** Others than those listed may have it, too many to look at what they have. */
  readonly alone: boolean;
}

export interface RetractStep {
  readonly kind: 'retract';
  readonly source: string;
  readonly key: string;
  /** Absent: from everybody. */
  readonly onlyUser?: string;
  /** From whom nothing is taken: a text was edited that still names them. */
  readonly keep?: readonly string[];
  /** The event whose row says from whom nothing is taken, for where they are too many to be listed (outbox id). */
  readonly keepBy?: string;
  /** They are too many. */
  readonly wide?: boolean;
}

export type Step = DeliverStep | RetractStep;

export interface CounterMove {
  readonly source: Source;
  readonly objectId: string;
  delta: number;
  /** Channels that hear of it. */
  readonly channels: Set<string>;
  actorId: string | null;
}

/** A channel event whose data still lacks the count. */
export interface ChannelNote {
  readonly eventId: string;
  readonly source: Source;
  readonly side: Side;
  readonly event: string;
}

/** A broadcast of the SQL API. */
export interface Broadcast {
  readonly eventId: string;
  readonly logged: LoggedEvent;
}

export interface Plan {
  /** The newest event of the page. */
  readonly lastEventId: string;
  readonly steps: readonly Step[];
  readonly counters: ReadonlyMap<string, CounterMove>;
  readonly notes: readonly ChannelNote[];
  /** Broadcasts of the SQL API. */
  readonly broadcasts: readonly Broadcast[];
  readonly announcements: readonly OtherEvent[];
  readonly revoked: readonly Revoked[];
  readonly revokedSessions: readonly string[];
  /** Who no longer hears of whom because of a block, and by which event: what came across it until then is withdrawn, also if it was lifted since. */
  readonly blocked: readonly (readonly [string, string, eventId: string])[];
  /** Who muted whom, and who muted which thread: where the mute is in force, what came of it is withdrawn. */
  readonly muted: readonly (readonly [string, string])[];
  readonly threadsMuted: readonly (readonly [string, string])[];
  /** Everybody whose blocks changed. */
  readonly blocksChanged: ReadonlySet<string>;
  /** Everybody whose numbers may be others because of a block or mute that came or went: what it hides is not all withdrawn. */
  readonly mayCountOtherwise: ReadonlySet<string>;
  /** Names of the sources that had events. */
  readonly sources: ReadonlySet<string>;
}

export interface PlanRules {
  readonly sources: ReadonlyMap<string, Source>;
  /** Types that group. */
  readonly groups: (type: string) => boolean;
  /** Default true: what either does is kept from the other. */
  readonly blocksBothWays?: boolean;
  /** Default false. */
  readonly mutesBothWays?: boolean;
}

/** Builds the plan of a page, given in order of id. */
export function planPage(events: readonly PageEvent[], rules: PlanRules): Plan {
  const placed: Placed<Step>[] = [];
  const counters = new Map<string, CounterMove>();
  const notes: ChannelNote[] = [];
  const broadcasts: Broadcast[] = [];
  const announcements: OtherEvent[] = [];
  const revoked: Revoked[] = [];
  const revokedSessions: string[] = [];
  const blocked: (readonly [string, string, string])[] = [];
  const muted: (readonly [string, string])[] = [];
  const threadsMuted: (readonly [string, string])[] = [];
  const blocksChanged = new Set<string>();
  const mayCountOtherwise = new Set<string>();
  const sources = new Set<string>();

  const rows: SourceEvent[] = [];
  for (const item of events) {
    if (item.kind === 'source') {
      rows.push(item.event);
      const { source, op, after, id } = item.event;
      if (source === blocksSource && op !== 'removed' && after !== null)
        blocked.push(...bothWays(after, rules.blocksBothWays ?? true).map(([a, b]) => [a, b, id] as const));
      // Also where it came and went within this page, which folds to nothing: a gateway may have asked while it stood, and goes by that still.
      for (const side of item.event.countersOnly ? [] : [item.event.before, item.event.after]) {
        if (side === null || !betweenPeople.has(source)) continue;
        const both = source === blocksSource || (source === mutesSource && (rules.mutesBothWays ?? false));
        for (const [userId] of bothWays(side, both)) mayCountOtherwise.add(userId);
        if (source === blocksSource) blocksChanged.add(side.actorId ?? '').add(side.objectId ?? '');
      }
      sources.add(item.event.source);
      countEvent(counters, item.event, rules);
      continue;
    }
    const { event } = item;
    if (event.op === 'notify') placed.push({ eventId: event.id, items: [notifyStep(event)] });
    else if (event.op === 'announce') announcements.push(event);
    else if (event.op === 'revoke' && 'session' in event.row) revokedSessions.push(textOf(event.row['session']));
    else if (event.op === 'revoke') revoked.push({ eventId: event.id, userId: textOf(event.row['user_id']) });
    else if (event.op === 'broadcast') broadcasts.push({ eventId: event.id, logged: broadcastOf(event) });
  }

  for (const change of foldPage(rows)) {
    if (change.source === blocksSource) continue;
    if (change.source === mutesSource || change.source === threadMutesSource) {
      if (change.kind === 'removed') continue;
      if (change.source === mutesSource) muted.push(...bothWays(change.after, rules.mutesBothWays ?? false));
      else threadsMuted.push(...bothWays(change.after, false));
      continue;
    }
    const source = rules.sources.get(change.source);
    if (source === undefined) continue;
    placed.push({ eventId: change.event.id, items: stepsOf(change, source, rules) });
    const note = noteOf(change, source);
    if (note !== null) notes.push(note);
  }
  return {
    lastEventId: events.at(-1)?.event.id ?? '0',
    steps: inOrder(placed),
    counters,
    notes,
    broadcasts,
    announcements,
    revoked,
    revokedSessions,
    blocked,
    muted,
    threadsMuted,
    blocksChanged,
    mayCountOtherwise,
    sources,
  };
}

interface Placed<Item> {
  readonly eventId: string;
  readonly items: readonly Item[];
}

/** What several kinds of events brought, in the order of the events. */
export function inOrder<Item>(placed: readonly Placed<Item>[]): Item[] {
  return [...placed].sort((a, b) => Number(a.eventId) - Number(b.eventId)).flatMap(({ items }) => items);
}

/** Who does not hear of whom because of a row that stands between two. */
function bothWays({ actorId, objectId }: Side, both: boolean): (readonly [string, string])[] {
  const [a, b] = [actorId ?? '', objectId ?? ''];
  return both
    ? [
        [a, b],
        [b, a],
      ]
    : [[a, b]];
}

function stepsOf(change: NetChange, source: Source, rules: PlanRules): Step[] {
  if (change.kind === 'removed') return [{ kind: 'retract', source: source.name, key: change.before.key, keep: [] }];
  if (change.kind === 'created')
    return [
      deliverStep(change.event, change.after, source, rules, {
        byUpdate: change.byUpdate,
        fresh: false,
        ifHeld: false,
      }),
    ];
  const { before, after, cameBack } = change;
  if (cameBack && samePlace(before, after)) {
    // Who has what it brought before keeps that; who does not, since a rule kept it from them then or took it away, is told as by a new row.
    if (after.wide !== true)
      return [deliverStep(change.event, after, source, rules, { byUpdate: false, fresh: false, ifHeld: false })];
    // They would have to be looked for among all who have it.
    if (change.event.op === 'created' && sameSide(before, after)) return [];
  }
  if (samePlace(before, after) || before.route === null) {
    return [deliverStep(change.event, after, source, rules, { byUpdate: true, fresh: false, ifHeld: true })];
  }
  if (!isOne(source) && samePlace({ ...before, route: after.route }, after)) {
    const keep = { keep: after.recipients, keepBy: change.event.id, wide: after.wide === true };
    return [
      { kind: 'retract', source: source.name, key: before.key, ...keep },
      deliverStep(change.event, after, source, rules, { byUpdate: true, fresh: false, ifHeld: false }),
    ];
  }
  return [
    { kind: 'retract', source: source.name, key: before.key, keep: [] },
    deliverStep(change.event, after, source, rules, { byUpdate: true, fresh: true, ifHeld: false }),
  ];
}

function deliverStep(
  event: SourceEvent,
  side: Side,
  source: Source,
  rules: PlanRules,
  how: { readonly byUpdate: boolean; readonly fresh: boolean; readonly ifHeld: boolean },
): DeliverStep {
  const objectKind = source.object?.kind ?? null;
  return {
    kind: 'deliver',
    eventId: event.id,
    atMs: event.at.getTime(),
    source: source.name,
    key: side.key,
    type: source.type,
    actorId: side.actorId,
    objectKind,
    objectId: side.objectId,
    subjectKind: source.subject?.kind ?? null,
    subjectId: side.subjectId,
    groupKey: groupKeyOf(rules.groups(source.type), {
      source: source.name,
      key: side.key,
      objectKind,
      objectId: side.objectId,
    }),
    recipients: side.recipients,
    message: null,
    data: null,
    ...how,
    unresolved: isOne(source) && side.recipients.length === 0 && side.wide !== true,
    wide: side.wide === true,
    alone: side.alone === true,
  };
}

/** Exactly one recipient is expected: nobody is then an owner who is not known yet. A query or a list may give nobody. */
function isOne({ recipient }: Source): boolean {
  return recipient?.kind === 'column' || recipient?.kind === 'path';
}

function notifyStep(event: OtherEvent): DeliverStep {
  const { row } = event;
  const type = textOf(row['type']);
  const dedupe = row['dedupe_key'];
  const key = typeof dedupe === 'string' ? JSON.stringify([type, dedupe]) : JSON.stringify([event.id]);
  const recipient = textOf(row['user_id']);
  return {
    kind: 'deliver',
    eventId: event.id,
    atMs: event.at.getTime(),
    source: event.source,
    key,
    type,
    actorId: typeof row['actor_id'] === 'string' ? row['actor_id'] : null,
    objectKind: null,
    objectId: null,
    subjectKind: null,
    subjectId: null,
    groupKey: `${event.source} ${key}`,
    recipients: recipient === '' ? [] : [recipient],
    message: typeof row['message'] === 'string' ? row['message'] : null,
    data: typeof row['data'] === 'string' ? row['data'] : null,
    byUpdate: false,
    fresh: false,
    ifHeld: false,
    unresolved: false,
    wide: false,
    // The same dedupe_key may have been given for everybody.
    alone: true,
  };
}

function broadcastOf(event: OtherEvent): LoggedEvent {
  const data: unknown = typeof event.row['data'] === 'string' ? parseJson(event.row['data']) : {};
  return {
    channel: textOf(event.row['channel']),
    event: textOf(event.row['event']),
    actorId: null,
    data: typeof data === 'object' && data !== null ? { ...data } : { value: data },
    dataWithoutActor: null,
    counter: null,
  };
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : value === null || value === undefined ? '' : JSON.stringify(value);
}

/** Every event counts, folded or not, but those that the seed has seen. */
function countEvent(counters: Map<string, CounterMove>, event: SourceEvent, rules: PlanRules): void {
  const source = rules.sources.get(event.source);
  if (source?.counter == null || !event.counts) return;
  const { before, after } = event;
  const from = event.op === 'created' ? null : (before?.objectId ?? null);
  const to = event.op === 'removed' ? null : (after?.objectId ?? null);
  if (from === to) {
    // It is somebody else's now.
    const moved = from === null ? undefined : counters.get(counterKey(source.name, from));
    if (moved !== undefined && after !== null) moved.actorId = after.actorId;
    return;
  }
  if (from !== null && before !== null) move(counters, source, from, before, -1);
  if (to !== null && after !== null) move(counters, source, to, after, 1);
}

function move(counters: Map<string, CounterMove>, source: Source, objectId: string, side: Side, delta: number): void {
  const id = counterKey(source.name, objectId);
  let counter = counters.get(id);
  if (counter === undefined)
    counters.set(id, (counter = { source, objectId, delta: 0, channels: new Set(), actorId: null }));
  counter.delta += delta;
  counter.actorId = side.actorId;
  for (const channel of side.channels) counter.channels.add(channel);
}

/** New rows, and rows whose included columns changed, are told in their channels. */
function noteOf(change: NetChange, source: Source): ChannelNote | null {
  if (source.include.length === 0 || change.kind === 'removed') return null;
  if (change.kind === 'changed' && sameSide(change.before, change.after)) return null;
  if (change.after.channels.length === 0) return null;
  return { eventId: change.event.id, source, side: change.after, event: source.counter?.event ?? source.type };
}
