/**
 * What the relay says to the gateways after a commit.
 *
 * A publication is a hint: it may be lost, repeated or overtaken. Positions (`seq`, `offset`) let a gateway notice, and
 * Postgres repairs it. A broker therefore promises speed, not delivery.
 */

/** One push to one person's stream: `frame` is the JSON text of the push (CONTRACT §5), which carries the same `seq`. */
export interface UserPublication {
  readonly to: 'user';
  readonly userId: string;
  /** Dense position in the person's stream. */
  readonly seq: number;
  readonly frame: string;
  /** The session that caused the push and already has its answer; it is left out. */
  readonly exceptSession?: string;
}

/** The counts of a person's inbox may have changed: the gateway computes and sends `badge` to that person's sessions. */
export interface BadgePublication {
  readonly to: 'badge';
  readonly userId: string;
  /** Nothing was taken away: who has come to the end of the count stays there. */
  readonly onlyRises?: true;
  /**
   * All that happened: at each position of the person's stream, from the first of these to the last, stands a new notification, unseen. Absent
   * where anything else happened, and from a relay of an older version: then the inbox is counted.
   */
  readonly rose?: readonly [from: number, through: number];
}

/** A logged channel event (new comment, message, broadcast). */
export interface ChannelPublication {
  readonly to: 'channel';
  readonly channel: string;
  /** Dense position in the channel's stream. */
  readonly offset: number;
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
  /** Who did it; sessions of people blocked by or blocking the actor get `dataWithoutActor`, or nothing if that is null. */
  readonly actorId: string | null;
  readonly dataWithoutActor: Readonly<Record<string, unknown>> | null;
  /** Whose value the data holds, see CounterPublication; null: no counter's. */
  readonly counter?: string | null;
}

/** The present value of a counter; coalesced by the gateway to one per channel and counter in 250 ms. */
export interface CounterPublication {
  readonly to: 'counter';
  readonly channel: string;
  readonly event: string;
  /** e.g. `{"post_id":"456","likes_count":8}`; `user_id` is added from `actorId`. */
  readonly data: Readonly<Record<string, unknown>>;
  readonly actorId: string | null;
  /** Which counter it is (`counterName`), since a channel may hear of many. Absent from a relay of an older version. */
  readonly counter?: string;
}

/**
 * A count as clients see it. Below 0 it is while a row whose creation is a dead letter has been deleted already: that one adds what is missing
 * once it is tried again or discarded.
 */
export function shownCount(count: number | undefined): number {
  return Math.max(0, count ?? 0);
}

/** What publications call the counter of a source for an object. */
export function counterName(source: string, objectId: string): string {
  return `${source} ${objectId}`;
}

/** An announcement: to every session; it has no `seq`. */
export interface AnnouncementPublication {
  readonly to: 'everyone';
  readonly frame: string;
}

export type ControlPublication =
  /** Close the sessions of this person that began before what was stored last of it: 4403 `revoked`. */
  | { readonly to: 'control'; readonly kind: 'revoke'; readonly userId: string }
  /** Close this session, wherever it is: 4403 `revoked`. */
  | { readonly to: 'control'; readonly kind: 'revokeSession'; readonly session: string }
  /**
   * Whom these people block, or are blocked by, has changed; `pairs`: who may no longer hear of whom. Absent from a relay of an older
   * version: then it may be any two of them.
   */
  | {
      readonly to: 'control';
      readonly kind: 'blocks';
      readonly userIds: readonly string[];
      readonly pairs?: readonly (readonly [userId: string, otherId: string])[];
    }
  /** Events of these sources happened: re-check channel subscriptions of kinds whose `recheck` names one. */
  | { readonly to: 'control'; readonly kind: 'recheck'; readonly sources: readonly string[] }
  /** Everybody must throw away what they hold and fetch; `userIds` null means everyone. */
  | {
      readonly to: 'control';
      readonly kind: 'resync';
      readonly reason: string;
      readonly userIds: readonly string[] | null;
    }
  /**
   * Another relay leads: what the one before it had stored may not have been published. `term` null: so it may be with what
   * a process had to say that was cut off from the broker.
   */
  | { readonly to: 'control'; readonly kind: 'leader'; readonly term: string | null }
  /** The epoch of all streams has changed. */
  | { readonly to: 'control'; readonly kind: 'epoch'; readonly epoch: string };

/** What gateways say to each other of who is present where; `node` is the one that says it (gateway/presence/elsewhere.ts). */
export type PresencePublication = { readonly to: 'presence'; readonly node: string } & (
  | {
      /** The `number`-th change of who is there; a beat, without any, has the number of the change before it. */
      readonly kind: 'changes';
      readonly number: number;
      readonly came: readonly string[];
      readonly went: readonly string[];
    }
  | {
      /** All who were there after the change of this number, in so many parts, which follow each other. */
      readonly kind: 'all';
      readonly number: number;
      readonly part: number;
      readonly parts: number;
      readonly places: readonly string[];
    }
  /** This node is to say who is there; null: everyone is. */
  | { readonly kind: 'ask'; readonly of: string | null }
  | { readonly kind: 'ended' }
);

export type Publication =
  | UserPublication
  | BadgePublication
  | ChannelPublication
  | CounterPublication
  | AnnouncementPublication
  | PresencePublication
  | ControlPublication;

export interface BrokerHandler {
  /** Publications of one commit, in order. Must not throw and must not wait. */
  receive(publications: readonly Publication[]): void;
  /** The connection was lost and is back: everything sent meanwhile may be missing. */
  reconnected(): void;
  /** Whether this gateway has a session of this person, or one that is just joining. */
  hasSessions(userId: string): boolean;
  /** Likewise for the subscribers of a channel. */
  hasSubscribers(channel: string): boolean;
}

export interface Broker {
  readonly kind: 'memory' | 'redis' | 'nats';
  /** Connects; throws BelfryError `broker_unavailable`. */
  start(): Promise<void>;
  /** Idempotent. */
  stop(): Promise<void>;
  /** Registers the one gateway of this process. */
  subscribe(handler: BrokerHandler): void;
  /** Hands publications to every gateway; never throws: what cannot be sent is lost, and counted. */
  publish(publications: readonly Publication[]): void;
  /** False only when it is certain that no gateway has a session of this person: spares the relay the rendering. */
  mayHaveSessions(userId: string): boolean;
  /** Likewise for the subscribers of a channel. */
  mayHaveSubscribers(channel: string): boolean;
}
