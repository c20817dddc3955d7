/**
 * What aggregation thinks in: notifications as they stand and as a batch changes them, and the events behind them.
 */

export type InboxState = 'unseen' | 'seen' | 'read' | 'archived';

/** A notification as it stands in the inbox. Times in milliseconds since the epoch. */
export interface GroupFact {
  readonly id: string;
  /** Position of its last push in the recipient's stream. */
  readonly seq: number;
  readonly userId: string;
  readonly type: string;
  readonly groupKey: string;
  readonly open: boolean;
  readonly objectKind: string | null;
  readonly objectId: string | null;
  readonly subjectKind: string | null;
  readonly subjectId: string | null;
  readonly actors: readonly string[];
  readonly actorCount: number;
  readonly eventCount: number;
  readonly state: InboxState;
  readonly withdrawn: boolean;
  /** Whether the last push showed it: a client does not hold what was last withdrawn. */
  readonly shown: boolean;
  readonly message: string | null;
  /** JSON text. */
  readonly data: string | null;
  readonly firstAtMs: number;
  readonly lastAtMs: number;
  readonly pushedAtMs: number;
  readonly dueAtMs: number | null;
}

/** That an event stands (or stood) behind a notification. */
export interface ShareFact {
  readonly source: string;
  readonly key: string;
  readonly userId: string;
  readonly notificationId: string;
  readonly eventId: string;
  readonly actorId: string | null;
  readonly removedAtMs: number | null;
}

export interface GroupFacts {
  readonly nowMs: number;
  readonly groups: readonly GroupFact[];
  readonly shares: readonly ShareFact[];
  /** `memberKey(notification, actor)` to how many live events of that actor stand behind it; missing means 0. */
  readonly members: ReadonlyMap<string, number>;
}

/** One event, allowed by the privacy rules for those it is added for. */
export interface Candidate {
  readonly source: string;
  readonly key: string;
  readonly eventId: string;
  readonly atMs: number;
  readonly type: string;
  readonly groupKey: string;
  readonly actorId: string | null;
  readonly objectKind: string | null;
  readonly objectId: string | null;
  readonly subjectKind: string | null;
  readonly subjectId: string | null;
  readonly message: string | null;
  /** JSON text. */
  readonly data: string | null;
  /** An update brought the row back, so that a tombstone means undelete: no alert. */
  readonly byUpdate: boolean;
  /** Another event than the one of the same key that was just retracted: alerts like a new one. */
  readonly fresh: boolean;
}

/** A notification being changed by a batch. */
export interface Draft {
  /** Null until the store gives it one. */
  readonly id: string | null;
  /** Position of its last push so far; null while it has none. */
  readonly seq: number | null;
  readonly userId: string;
  readonly type: string;
  readonly groupKey: string;
  readonly objectKind: string | null;
  readonly objectId: string | null;
  readonly subjectKind: string | null;
  subjectId: string | null;
  open: boolean;
  actors: string[];
  actorCount: number;
  eventCount: number;
  withdrawn: boolean;
  readonly shown: boolean;
  readonly state: InboxState;
  readonly message: string | null;
  readonly data: string | null;
  firstAtMs: number;
  lastAtMs: number;
  readonly pushedAtMs: number;
  dueAtMs: number | null;
  /** Gets a position in the stream with this batch. */
  push: boolean;
  /** A new notification that should ring. A read one that becomes unseen rings too; the store decides that under its lock. */
  alert: boolean;
  /** Something new happened: seen or read becomes unseen when it is pushed. */
  reopen: boolean;
  /** Actors and newest time must be taken from the stored events again: the sample lost its newest, or has room. */
  resample: boolean;
}

export interface ShareAdded {
  readonly source: string;
  readonly key: string;
  readonly userId: string;
  readonly eventId: string;
  readonly actorId: string | null;
  readonly atMs: number;
  readonly draft: Draft;
  /** The row is there already, as one that was undone. */
  readonly stored: boolean;
}

export interface ShareRemoved {
  readonly source: string;
  readonly key: string;
  readonly userId: string;
}

export function memberKey(notificationId: string, actorId: string): string {
  return `${notificationId}\0${actorId}`;
}

/** The notification that a memberKey names. */
export function notificationOf(key: string): string {
  return key.slice(0, key.indexOf('\0'));
}

/** What a candidate groups by: the object for types that group, else the event's own key. */
export function groupKeyOf(
  groups: boolean,
  event: { source: string; key: string; objectKind: string | null; objectId: string | null },
): string {
  if (!groups) return `${event.source} ${event.key}`;
  return event.objectKind === null ? '' : `${event.objectKind}:${event.objectId ?? ''}`;
}

/** Names a group. */
export function groupId(group: { userId: string; type: string; groupKey: string }): string {
  return groupIdOf(group.userId, group);
}

/** Likewise, of somebody's event. */
export function groupIdOf(userId: string, { type, groupKey }: { type: string; groupKey: string }): string {
  return `${userId}\0${type}\0${groupKey}`;
}

/** A notification as a batch finds it. Field by field, since every notification of a batch comes through here, and a spread is several times slower. */
export function draftOf(group: GroupFact): Draft {
  return {
    id: group.id,
    seq: group.seq,
    userId: group.userId,
    type: group.type,
    groupKey: group.groupKey,
    objectKind: group.objectKind,
    objectId: group.objectId,
    subjectKind: group.subjectKind,
    subjectId: group.subjectId,
    open: group.open,
    actors: [...group.actors],
    actorCount: group.actorCount,
    eventCount: group.eventCount,
    withdrawn: group.withdrawn,
    shown: group.shown,
    state: group.state,
    message: group.message,
    data: group.data,
    firstAtMs: group.firstAtMs,
    lastAtMs: group.lastAtMs,
    pushedAtMs: group.pushedAtMs,
    dueAtMs: group.dueAtMs,
    push: false,
    alert: false,
    reopen: false,
    resample: false,
  };
}
