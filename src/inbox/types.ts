/** What the gateway may ask of inboxes and channel streams. Implemented by inbox.ts and channels.ts over Postgres. */

import type { ChannelPublication, CounterPublication, Publication } from '../broker/broker.js';

/** A push of a person's stream as it stands now: `frame` is JSON text (CONTRACT §5). */
export interface StreamFrame {
  readonly seq: number;
  readonly frame: string;
}

/** What a session that authenticates has to be told. Read in one snapshot, so that nothing falls between. */
export interface Recovery {
  /** The head: everything up to here is in `frames` or was known. */
  readonly seq: number;
  readonly epoch: string;
  /** False: the gap cannot be replayed (other epoch, beyond the head, too old, more than 500 changes). */
  readonly recovered: boolean;
  /** Ascending, present form of what changed after `since`, with holes; empty without `since`. */
  readonly frames: readonly StreamFrame[];
  /** Frames of announcements not yet seen, oldest first. */
  readonly announcements: readonly string[];
  readonly unseen: number;
  readonly unread: number;
}

export interface RecoverRequest {
  readonly userId: string;
  readonly since: number | null;
  readonly epoch: string | null;
}

/** More changes than this are not replayed (CONTRACT §5). */
export const maxReplay = 500;

/** The badge counts no further (CONTRACT §4). */
export const maxCount = 100;

export interface Badge {
  /** At most 100. */
  readonly unseen: number;
  readonly unread: number;
}

/** As it was when the person's stream had come to `seq`. */
export interface PlacedBadge extends Badge {
  readonly seq: number;
}

/** Of somebody who has nothing. */
export const noBadge: PlacedBadge = { seq: 0, unseen: 0, unread: 0 };

export type MarkState = 'seen' | 'read' | 'archived';
export type MarkTarget = { readonly ids: readonly string[] } | { readonly through: number };

export interface MarkResult extends Badge {
  /** The person's head after the change. */
  readonly seq: number;
  /** `state` and `badge`, to be published for the person's other sessions. */
  readonly publications: readonly Publication[];
}

export interface ListQuery {
  /** 1 to 100. */
  readonly limit: number;
  /** `next` of the page before; throws BelfryError `bad_request` when it is not one. */
  readonly before: string | null;
  readonly state: 'unseen' | 'unread' | 'archived' | null;
}

export interface ListPage extends Badge {
  /** Notification `data` as in CONTRACT §5. */
  readonly items: readonly unknown[];
  /** Announcements that the person has not seen, newest first, likewise; they have no `seq`, and only the first page has them. */
  readonly announcements: readonly unknown[];
  readonly hasMore: boolean;
  readonly seq: number;
  readonly epoch: string;
  readonly next: string | null;
}

export type Preference = 'on' | 'off' | 'following';

/** Last positions of streams; 0 for one that has not begun. */
export interface Heads {
  /** That they belong to. */
  readonly epoch: string;
  readonly people: Map<string, number>;
  readonly channels: Map<string, number>;
  /** The highest id of an announcement and of a revocation; 0 without any. */
  readonly announcement: number;
  readonly revocation: number;
}

/** Of a person or of one session. */
export interface Revocation {
  readonly id: number;
  readonly userId: string | null;
  readonly session: string | null;
  /** How long ago it was committed, by the clock of Postgres. */
  readonly ageMs: number;
}

export interface Inbox {
  epoch(): Promise<string>;
  /** For all who come at once, of whom most have missed nothing. Null for whom `catchUp` must be asked. Two statements at most. */
  recoverEach(requests: readonly RecoverRequest[]): Promise<(Recovery | null)[]>;
  /** With what each has missed, in one snapshot. Seven statements, however many ask. */
  catchUp(requests: readonly RecoverRequest[]): Promise<Recovery[]>;
  /** One statement, whatever is asked for. */
  heads(userIds: readonly string[], channels: readonly string[]): Promise<Heads>;
  /** Present forms after a position, per person, ascending; at most 500 each. One statement. */
  framesAfter(positions: ReadonlyMap<string, number>): Promise<Map<string, StreamFrame[]>>;
  /** The newest hundred announcements with a higher id, oldest first. */
  announcementsAfter(id: number): Promise<{ readonly id: number; readonly frame: string }[]>;
  /** Revocations with a higher id, ascending; at most 1000. */
  revokedAfter(id: number): Promise<Revocation[]>;
  badges(userIds: readonly string[]): Promise<Map<string, PlacedBadge>>;
  list(userId: string, query: ListQuery): Promise<ListPage>;
  /** Commits, then the caller publishes `publications`. `exceptSession` is copied into them. */
  mark(userId: string, state: MarkState, target: MarkTarget, exceptSession: string | null): Promise<MarkResult>;
  preferences(userId: string): Promise<Record<string, Preference>>;
  /** Throws BelfryError `bad_request` for an unknown type. */
  setPreferences(
    userId: string,
    preferences: Readonly<Record<string, Preference>>,
  ): Promise<Record<string, Preference>>;
  /** Everybody whom this person blocks or is blocked by. */
  blockedWith(userIds: readonly string[]): Promise<Map<string, Set<string>>>;
}

export interface ChannelRecovery {
  readonly offset: number;
  readonly epoch: string;
  readonly recovered: boolean;
  /** Ascending, after the given offset; empty without one. */
  readonly events: readonly ChannelPublication[];
  /** Every counter of the channel, e.g. {"likes_count": 7, "comments_count": 0}. */
  readonly state: Readonly<Record<string, number>>;
}

export interface Channels {
  recover(channel: string, offset: number | null, epoch: string | null): Promise<ChannelRecovery>;
  /** Events after a position, per channel, ascending, with the counts of now; at most 500 each. One statement. */
  eventsAfter(positions: ReadonlyMap<string, number>): Promise<Map<string, ChannelPublication[]>>;
  /** The present value of every counter of these channels, as it is told. One statement. */
  counters(channels: readonly string[]): Promise<CounterPublication[]>;
  /** Logs an event that a client published. Commits, then the caller publishes the result. */
  append(
    channel: string,
    event: string,
    data: Readonly<Record<string, unknown>>,
    actorId: string,
  ): Promise<ChannelPublication>;
}
