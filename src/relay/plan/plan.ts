/**
 * What a page of events asks for, before any fact is known: rows to take back, events to deliver, counters to move,
 * channel events to log. Pure; facts are loaded for it afterwards, and the rules decide over them (decide.ts).
 */

import type { Source } from '../../config.js';
import type { LoggedEvent, Revoked } from '../../inbox/store.js';
import { parseJson } from '../../postgres/json.js';
import type { Side, SourceEvent } from '../../rules/event.js';
import { foldPage, sameSide } from '../../rules/fold.js';
import type { NetChange } from '../../rules/fold.js';
import { directedKey } from '../../rules/privacy.js';
import { counterKey } from '../facts/group-facts.js';
import type { OtherEvent, PageEvent } from './resolved.js';
import { againSteps, notifyStep, stepsOf, textOf } from './steps.js';
import type { Step, StepRules } from './steps.js';

/** Internal sources that capture the tables of blocks and mutes. */
export const blocksSource = 'belfry.blocks';
export const mutesSource = 'belfry.mutes';
export const threadMutesSource = 'belfry.thread_mutes';
const betweenPeople: ReadonlySet<string> = new Set([blocksSource, mutesSource, threadMutesSource]);

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

export interface PlanRules extends StepRules {
  readonly sources: ReadonlyMap<string, Source>;
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

  const apart = new Set(blocked.map(([userId, actorId]) => directedKey(userId, actorId)));
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
    const items = [...stepsOf(change, source, rules), ...againSteps(change, source, rules, apart)];
    placed.push({ eventId: change.event.id, items });
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
