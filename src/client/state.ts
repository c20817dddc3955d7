/**
 * What the client's state machine knows, what can happen to it, and what it asks its surroundings to do.
 *
 * What must hold: everything here is plain data. Time and chance come in with each input (`Env`), so that the same
 * inputs always give the same outputs; the machine never reads a clock, opens a socket or calls a handler.
 */

import type { ErrorBody, JsonObject, RequestId, SubscribeOk } from '../protocol/frames.js';

/**
 * Where the connection stands:
 * `token` waits for the application's token, `opening` for the socket, `authenticating` for the auth answer,
 * `replaying` receives what was missed, `live` has had `synced`, `waiting` lets the backoff pass, `closed` is final.
 */
export type Phase = 'token' | 'opening' | 'authenticating' | 'replaying' | 'live' | 'waiting' | 'closed';

/** The last position handed to the application. */
export interface Position {
  /** Whose stream it is; null where the application gave the position without saying. */
  readonly userId: string | null;
  readonly seq: number;
  readonly epoch: string;
}

export interface ChannelState {
  /** `wanted` is to be asked for, `asked` awaits its answer, `on` receives. */
  readonly phase: 'wanted' | 'asked' | 'on';
  /** The id of the question that counts on this connection, 0 before one; answers to others are void. */
  readonly askId: number;
  /** The last offset handed out, null before the first answer. */
  readonly offset: number | null;
  readonly epoch: string | null;
  /** The highest offset that was dropped while asking. */
  readonly dropped: number;
  /** Not to be asked for before this time. */
  readonly notBeforeMs: number;
}

/** A request of the application: sent when the connection stands, settled exactly once. */
export interface Call {
  /** The surroundings' name for whoever waits. */
  readonly ref: number;
  readonly body: JsonObject;
  /** Given up then. */
  readonly untilMs: number;
}

/** A request that was sent on this connection and not answered. */
export type Pending =
  | { readonly kind: 'auth' | 'refresh' | 'ping' }
  | { readonly kind: 'subscribe' | 'unsubscribe'; readonly channel: string }
  | { readonly kind: 'call'; readonly call: Call };

/**
 * handshake: of `token`, `opening`, `authenticating` · retry: of `waiting` · silence: nothing heard, so ping ·
 * probe: the ping's answer is overdue · refresh: a new token is due · send: something may be sent again.
 */
export type Deadline = 'handshake' | 'retry' | 'silence' | 'probe' | 'refresh' | 'send';

export interface State {
  readonly phase: Phase;
  /** Failures in a row; forgotten after `STABLE_MS`. */
  readonly attempt: number;
  /** When the last attempt began, and when the present session was authenticated. */
  readonly begunMs: number;
  readonly sinceMs: number;
  readonly token: string | null;
  /** The server refused the token, so that the next attempt needs a new one. */
  readonly tokenRefused: boolean;
  readonly expiresMs: number | null;
  readonly position: Position | null;
  /** Positions of this session's own marks: known, though they come as no push. */
  readonly own: ReadonlySet<number>;
  /** Ids of announcements handed out, oldest first; they have no position and come again. */
  readonly announced: readonly string[];
  readonly pingMs: number;
  /** The server's name for the present session. */
  readonly session: string | null;
  readonly nextId: number;
  readonly channels: ReadonlyMap<string, ChannelState>;
  /** Channels that nobody wants and the server may still hold: from when on each may be unsubscribed. */
  readonly leaving: ReadonlyMap<string, number>;
  readonly calls: readonly Call[];
  readonly pending: ReadonlyMap<RequestId, Pending>;
  /** The pace of messages (GCRA, as the server has it): when the next is due if all came evenly, how many a second. */
  readonly tatMs: number;
  readonly perSecond: number;
  /** When the server last found that too much. */
  readonly slowedMs: number;
  /** At each of these times the machine wants a `tick`. */
  readonly deadlines: Readonly<Partial<Record<Deadline, number>>>;
}

export type Input =
  | { readonly type: 'start' }
  | { readonly type: 'token'; readonly token: string }
  | { readonly type: 'tokenFailed'; readonly message: string }
  /** The socket is open. */
  | { readonly type: 'open' }
  /** The socket is gone: closed by the server, lost, or never opened. */
  | { readonly type: 'gone'; readonly code: number; readonly reason: string }
  | { readonly type: 'frame'; readonly frame: Frame }
  /** A deadline has passed. Early and spurious ticks do nothing. */
  | { readonly type: 'tick' }
  /** The network is back, or the page is looked at again. */
  | { readonly type: 'wake' }
  | { readonly type: 'subscribe'; readonly channel: string }
  | { readonly type: 'unsubscribe'; readonly channel: string }
  | { readonly type: 'call'; readonly ref: number; readonly body: JsonObject }
  /** The application is done. */
  | { readonly type: 'stop' };

/** A frame as it came: an object, its fields not yet believed. */
export type Frame = Readonly<Record<string, unknown>>;

/** Something of the stream is missing and will not come: fetch. */
export interface Gap {
  /** Null: the person's own stream. */
  readonly channel: string | null;
  /**
   * not_recovered: the server could not replay from here · other_user: the held position was someone else's ·
   * resync: the server asks for it.
   */
  readonly reason: 'not_recovered' | 'other_user' | 'resync';
  /** The last position held, and the one from which the stream goes on; null where there is none. */
  readonly from: number | null;
  readonly to: number | null;
}

export type Status =
  | { readonly status: 'connecting'; readonly attempt: number }
  | { readonly status: 'online'; readonly userId: string | null; readonly session: string | null }
  /** `retryInMs` from now the next attempt begins. */
  | { readonly status: 'waiting'; readonly retryInMs: number; readonly code: number; readonly reason: string }
  | { readonly status: 'closed'; readonly code: number; readonly reason: string };

/** What went wrong with a request: the server's error, or the client's own. */
export interface Failure {
  /** Beside the server's codes: disconnected (sent, fate unknown), timeout, overflow (too many wait), closed. */
  readonly code: ErrorBody['code'] | 'disconnected' | 'timeout' | 'overflow' | 'closed';
  readonly message: string;
  readonly retry: boolean;
}

export type Effect =
  /** Ask the application; `fresh` where a cached token would not do. Answered by `token` or `tokenFailed`. */
  | { readonly type: 'fetchToken'; readonly fresh: boolean }
  /** Answered by `open` or `gone`. */
  | { readonly type: 'open' }
  /** Drop the socket; nothing of it may come as an input afterwards. */
  | { readonly type: 'drop'; readonly reason: string }
  | { readonly type: 'send'; readonly frame: JsonObject }
  | { readonly type: 'status'; readonly status: Status }
  | { readonly type: 'push'; readonly push: Frame }
  | { readonly type: 'channelPush'; readonly push: Frame; readonly channel: string }
  | { readonly type: 'synced'; readonly seq: number }
  | { readonly type: 'gap'; readonly gap: Gap }
  | { readonly type: 'subscribed'; readonly ok: SubscribeOk }
  /** The subscription is over and will not be tried again. */
  | { readonly type: 'refused'; readonly channel: string; readonly error: Failure }
  | { readonly type: 'settle'; readonly ref: number; readonly ok: unknown }
  | { readonly type: 'fail'; readonly ref: number; readonly error: Failure };

export interface Env {
  /** Milliseconds of any clock that does not jump by much; compared with `expires_at`, so the wall clock. */
  readonly now: number;
  /** In [0, 1). */
  readonly random: number;
}

/** A state that is being changed, and what is to be done; lives for one transition only. */
export interface Draft extends Env {
  readonly s: { -readonly [K in keyof State]: State[K] } & {
    deadlines: Partial<Record<Deadline, number>>;
  };
  readonly effects: Effect[];
}

// Bounds, and where they come from ------------------------------------------------------------------------------------

/** Full jitter over [0, min(cap, base·2^n)]. */
export const BACKOFF_BASE_MS = 1_000;
export const BACKOFF_CAP_MS = 30_000;
/** After this long authenticated the failures before are forgotten, and after this long without another a slowdown. */
export const STABLE_MS = 30_000;
/** A token, an open socket, an auth answer: each is waited for this long. */
export const TOKEN_WAIT_MS = 30_000;
export const HANDSHAKE_MS = 10_000;
/** An attempt that a wake-up brings forward begins no sooner after the last one. */
export const WAKE_SPACING_MS = 1_000;
/** How long the answer to a ping may take after a wake-up. */
export const PROBE_MS = 3_000;
/** Until the server says how often it pings. */
const PING_MS = 25_000;
/** Below `limits.messagesPerSecond` (20), with room for auth and pings. */
export const BURST = 15;
export const PER_SECOND = 18;
/** Calls that wait for a connection, and how long a call may take. */
export const MAX_CALLS = 100;
export const CALL_MS = 30_000;
/** Announcements and own marks that are remembered. */
export const MAX_REMEMBERED = 200;
/** A token this close to its end is not worth a connection. */
export const TOKEN_MARGIN_MS = 5_000;

/** What is in a state is never changed, so that all can share this. */
export const none: ReadonlyMap<never, never> = new Map<never, never>();

export function initialState(position: Position | null): State {
  return {
    phase: 'waiting',
    attempt: 0,
    begunMs: 0,
    sinceMs: 0,
    token: null,
    tokenRefused: false,
    expiresMs: null,
    position,
    own: new Set(),
    announced: [],
    pingMs: PING_MS,
    session: null,
    nextId: 1,
    channels: none,
    leaving: none,
    calls: [],
    pending: none,
    tatMs: 0,
    perSecond: PER_SECOND,
    slowedMs: 0,
    deadlines: {},
  };
}
