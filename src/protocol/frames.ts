/**
 * The frames of `/ws` (CONTRACT §5) as types: what a client may ask, what the server answers, what it pushes.
 *
 * What must hold: every frame is one JSON object in one text frame; a request has an `id` and is answered exactly once
 * with that `id`; a push has none. Ids of people, objects and notifications are text, positions are numbers.
 * `parse.ts` turns text into requests; nothing here has a runtime but the constants.
 */

import type { ErrorCode } from './codes.js';

/** The subprotocol that the server selects where it is offered. */
export const SUBPROTOCOL = 'belfry.v1';
/** A token may come as a second subprotocol, `bearer.<token>`, for browsers cannot set headers. */
export const BEARER_PREFIX = 'bearer.';
/** Reaches every session without subscribing. */
export const CHANNEL_ALL = 'all';

/** Chosen by the client, echoed by the server. */
export type RequestId = number | string;

// Requests ------------------------------------------------------------------------------------------------------------

export interface AuthRequest {
  readonly op: 'auth';
  readonly token: string;
  /** The last `seq` the client holds; null: replay nothing. */
  readonly since: number | null;
  /** The epoch that `since` belongs to; null never matches. */
  readonly epoch: string | null;
}

export interface SubscribeRequest {
  readonly op: 'subscribe';
  readonly channel: string;
  /** The last `offset` the client holds of this channel; null: replay nothing. */
  readonly offset: number | null;
  readonly epoch: string | null;
}

export interface UnsubscribeRequest {
  readonly op: 'unsubscribe';
  readonly channel: string;
}

export type MarkOp = 'seen' | 'read' | 'archive';
/** Exactly one of the two in the frame. `through` is a `seq`, a high-water mark that never goes back. */
export type MarkTarget = { readonly ids: readonly string[] } | { readonly through: number };

export interface MarkRequest {
  readonly op: MarkOp;
  readonly target: MarkTarget;
}

export interface PresenceRequest {
  readonly op: 'presence';
  /** Exactly one of the two in the frame. */
  readonly of: { readonly users: readonly string[] } | { readonly channel: string };
}

export interface PublishRequest {
  readonly op: 'publish';
  readonly channel: string;
  readonly event: string;
  /** `{}` where the frame has none. */
  readonly data: JsonObject;
}

export interface PingRequest {
  readonly op: 'ping';
}

export type Request =
  AuthRequest | SubscribeRequest | UnsubscribeRequest | MarkRequest | PresenceRequest | PublishRequest | PingRequest;

export type Op = Request['op'];

// Answers -------------------------------------------------------------------------------------------------------------

/** Also the `data` of the push `hello`, where the token came with the upgrade. */
export interface AuthOk {
  readonly session: string;
  readonly user_id: string;
  /** The head of the user's stream: what the replay leads up to. */
  readonly seq: number;
  readonly epoch: string;
  readonly recovered: boolean;
  /** At most 100, as everywhere. */
  readonly unseen: number;
  readonly unread: number;
  /** The server pings this often; silent for twice that, either side may give the other up. */
  readonly ping_s: number;
  /** ISO 8601; the session ends within 5 s after it. */
  readonly expires_at: string;
}

export interface SubscribeOk {
  readonly channel: string;
  readonly offset: number;
  readonly epoch: string;
  readonly recovered: boolean;
  /** Every counter of the channel, 0 where there are no rows. */
  readonly state: Readonly<Record<string, number>>;
}

export interface UnsubscribeOk {
  readonly channel: string;
}

/**
 * The answer stands in the asker's stream where the others get `state`: every push with a lower `seq` is sent before
 * it, and this `seq` comes as no push to the session that asked.
 */
export interface MarkOk {
  /** The position of the change, which comes to this session as no push; where nothing changed, the user's head. */
  readonly seq: number;
  readonly unseen: number;
  readonly unread: number;
  /** Nothing was left to mark: `seq` is the position of something else, which does come as a push. */
  readonly unchanged?: true;
}

export type PresenceStatus = 'online' | 'offline';
/** User id → status; for a channel, those who are in it and whom the caller may see. */
export type PresenceOk = Readonly<Record<string, PresenceStatus>>;

/** An event that the application handles itself has no offset, but what the handler answered. */
export type PublishOk =
  { readonly channel: string; readonly offset: number } | { readonly channel: string; readonly answer: JsonValue };

export type PingOk = Readonly<Record<string, never>>;

/** The answer that belongs to each op. */
export interface Answers {
  readonly auth: AuthOk;
  readonly subscribe: SubscribeOk;
  readonly unsubscribe: UnsubscribeOk;
  readonly seen: MarkOk;
  readonly read: MarkOk;
  readonly archive: MarkOk;
  readonly presence: PresenceOk;
  readonly publish: PublishOk;
  readonly ping: PingOk;
}

export interface OkFrame<T = Answers[Op]> {
  readonly id: RequestId;
  readonly ok: T;
}

export interface ErrorBody {
  readonly code: ErrorCode;
  readonly message: string;
  readonly retry: boolean;
}

export interface ErrorFrame {
  /** Null where the request had no usable `id`. */
  readonly id: RequestId | null;
  readonly error: ErrorBody;
}

// Pushes --------------------------------------------------------------------------------------------------------------

export interface NotificationActor {
  readonly id: string;
  readonly name: string;
}

export type NotificationState = 'unseen' | 'seen' | 'read' | 'archived';

/** `data` of a notification: the structure that older clients know, and what is new under `data`. */
export interface NotificationData {
  /** Begins with `a` for an announcement. */
  readonly id: string;
  /** like comment follow message mention friend_request job_application system, or the application's own. */
  readonly type: string;
  /** The latest actor; absent where there is none. */
  readonly user_id?: string;
  readonly message: string;
  /** ISO 8601, the newest event's time. */
  readonly timestamp: string;
  readonly data: {
    readonly actor_count?: number;
    readonly event_count?: number;
    /** Newest first. */
    readonly actors?: readonly NotificationActor[];
    readonly object?: { readonly kind: string; readonly id: string };
    readonly state: NotificationState;
    /** Whether it should ring. */
    readonly alert: boolean;
    readonly [key: string]: unknown;
  };
  /** `<kind>_id` of the object and of the subject, e.g. `post_id`, `comment_id`. */
  readonly [key: string]: unknown;
}

export interface NotificationPush {
  readonly event: 'notification';
  /** Absent for announcements. */
  readonly seq?: number;
  readonly data: NotificationData;
}

export interface WithdrawnPush {
  readonly event: 'withdrawn';
  readonly seq: number;
  readonly data: { readonly id: string; readonly type: string };
}

export interface StatePush {
  readonly event: 'state';
  readonly seq: number;
  readonly data: MarkTarget & { readonly state: 'seen' | 'read' | 'archived' };
}

export interface BadgePush {
  readonly event: 'badge';
  readonly data: { readonly unseen: number; readonly unread: number };
}

/** The replay is over; `seq` is dense from here on. */
export interface SyncedPush {
  readonly event: 'synced';
  readonly seq: number;
}

/** Stands for the auth answer where the token came with the upgrade. */
export interface HelloPush {
  readonly event: 'hello';
  readonly data: AuthOk;
}

/** Throw away what you hold and fetch. */
export interface ResyncPush {
  readonly event: 'resync';
  /** With `channel`: only what is held of that channel. */
  readonly data: { readonly reason: string; readonly channel?: string };
}

export interface PresencePush {
  readonly event: 'presence';
  /** Where the client asked for a channel's presence. */
  readonly channel?: string;
  readonly data: { readonly user_id: string; readonly status: PresenceStatus };
}

/** The server ended a subscription, since the user may no longer read the channel. */
export interface UnsubscribedPush {
  readonly event: 'unsubscribed';
  readonly channel: string;
  readonly data: { readonly code: ErrorCode };
}

/**
 * A counter update (no `offset`) or a logged event (with one) of a channel. Live offsets are dense for everybody; a
 * subscriber who may not see an event's content gets it without, or `hidden` in its place, never a hole. `subscribe` on a channel that the
 * session is subscribed to already, with an `offset`, is how a client fills a hole; `all` may be subscribed to as well,
 * for its resume.
 */
export interface ChannelPush {
  readonly event: string;
  readonly channel: string;
  /** Dense; absent for counter updates, which hold absolute values. */
  readonly offset?: number;
  readonly data: JsonObject;
}

/** Events whose names belong to the protocol: nobody may publish one to a channel, and no counter be told by one. */
export const RESERVED_EVENTS: readonly string[] = [
  'notification',
  'withdrawn',
  'state',
  'badge',
  'synced',
  'hello',
  'resync',
  'presence',
  'unsubscribed',
  'hidden',
];

export type PersonalPush =
  | NotificationPush
  | WithdrawnPush
  | StatePush
  | BadgePush
  | SyncedPush
  | HelloPush
  | ResyncPush
  | PresencePush
  | UnsubscribedPush;

export type Push = PersonalPush | ChannelPush;
export type ServerFrame = OkFrame | ErrorFrame | Push;

// JSON ----------------------------------------------------------------------------------------------------------------

export type JsonValue = string | number | boolean | null | readonly JsonValue[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: JsonValue;
}
