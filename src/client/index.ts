/**
 * `belfry/client`: live notifications and channels of a Belfry server, in browsers, workers and Node.
 *
 *     import { connect } from 'belfry/client';
 *     const belfry = connect({ url: 'wss://app.example/ws', token: () => fetchToken() });
 *     belfry.on('notification', (n) => show(n));
 *     belfry.on('gap', () => reloadFromApi());
 *     belfry.subscribe('post:456', (e) => update(e.data), (counters) => draw(counters));
 *
 * What it promises: within one epoch every position is handed to a handler at most once and in order; what was missed
 * while the connection was down is fetched on return; what cannot be had any more is announced by one `gap`.
 */

import type {
  BadgePush,
  ChannelPush,
  ErrorBody,
  MarkOk,
  MarkTarget,
  NotificationData,
  NotificationPush,
  PingOk,
  PresenceOk,
  PresencePush,
  PublishOk,
  JsonObject,
  StatePush,
  SubscribeOk,
  WithdrawnPush,
} from '../protocol/frames.js';
import { createClient } from './connect.js';
import type { WebSocketClass } from './socket.js';
import type { Failure, Frame, Gap, Position, Status } from './state.js';
import type { PositionStorage } from './storage.js';

export { BelfryClientError } from './connect.js';
export type * from '../protocol/frames.js';
export type { Gap, Position, PositionStorage, Status, WebSocketClass };

export interface ConnectOptions {
  /** `wss://host/ws`; also `https://host`, and in a page a path such as `/ws`. */
  readonly url: string;
  /**
   * Gives the token (JWT). Called before the first connection and whenever another is needed: `fresh` is then true, and
   * a token kept from before will not do. A rejection, or no token, counts as a failed attempt: it is asked again later.
   */
  readonly token: (why: { readonly fresh: boolean }) => string | Promise<string>;
  /** Another class than the global one; without that `belfry/client` takes package `ws` in Node. */
  readonly WebSocket?: WebSocketClass | undefined;
  /**
   * Keeps the position over a reload, so that the next page is told what was missed in between. `sessionStorage` keeps
   * one per tab; with `localStorage` tabs share the latest written. Default: nothing is kept.
   */
  readonly storage?: PositionStorage | undefined;
  /** Default `belfry.position`. */
  readonly storageKey?: string | undefined;
  /** Where to resume from at first; wins over `storage`. `userId` null if it is not known. */
  readonly position?: Position | undefined;
}

/** Both at most 100. */
export type Badge = BadgePush['data'];

/** What each event hands to its listeners. */
export interface EventMap {
  /** New, changed in place (same `id`), or an announcement. `data.alert` tells whether it should ring. */
  notification: [data: NotificationData, push: NotificationPush];
  /** No longer true: take it off the list. */
  withdrawn: [data: WithdrawnPush['data'], push: WithdrawnPush];
  /** Marked on another device. */
  state: [data: StatePush['data'], push: StatePush];
  /** The numbers, at every connection and after every change. */
  badge: [data: Badge];
  presence: [data: PresencePush['data'], push: PresencePush];
  /** The replay is over, what comes now is live. */
  synced: [at: { readonly seq: number }];
  status: [status: Status];
  /** Something cannot be had any more: fetch the list (`GET /api/notifications`), or the channel's content. */
  gap: [gap: Gap];
  /** A subscription ended without being closed, and will not be tried again. */
  unsubscribed: [why: { readonly channel: string; readonly code: Failure['code']; readonly message: string }];
  /** Everything that is handed to a subscription, of all channels. */
  channel: [event: ChannelEvent];
  /** Every frame as it came, before anything is dropped or put in order. For tools. */
  frame: [frame: Frame];
}

/** A counter update (without `offset`), or an event with its position. */
export type ChannelEvent = ChannelPush;

/** Ids, or everything up to and with a `seq`. */
export type MarkSelection = readonly string[] | MarkTarget;

export type Unlisten = () => void;

export interface Subscription {
  readonly channel: string;
  /** Settled by the first answer, or by `close` before it; rejects with BelfryClientError. It need not be looked at. */
  readonly ready: Promise<SubscribeOk>;
  /** Idempotent. */
  close(): void;
}

/**
 * All promises reject with BelfryClientError: a code of the server, or `disconnected` (a `publish` was sent and its fate
 * is not known), `timeout` (30 s), `overflow` (100 calls wait already), `closed`; `bad_request` also where the arguments can
 * be no JSON. One that nobody looks at is no uncaught error.
 */
export interface Client {
  readonly status: Status;
  /** The last position handed out. */
  readonly position: Position | null;
  /** The numbers as the server last told them, null before. */
  readonly badge: Badge | null;
  /** Returns what ends it. */
  on<K extends keyof EventMap>(event: K, listener: (...args: EventMap[K]) => void): Unlisten;
  /**
   * Any number of subscriptions of one channel share one on the wire. `onState` gets every counter of the channel at
   * once and again after every reconnect.
   */
  subscribe(
    channel: string,
    onEvent: (event: ChannelEvent) => void,
    onState?: (state: Readonly<Record<string, number>>) => void,
  ): Subscription;
  /** The person has opened the list. Calls made without a connection wait for one. */
  seen(which: MarkSelection): Promise<MarkOk>;
  read(which: MarkSelection): Promise<MarkOk>;
  archive(which: MarkSelection): Promise<MarkOk>;
  /** Where the server's config allows it. */
  publish(channel: string, event: string, data?: JsonObject): Promise<PublishOk>;
  /** Of people (at most 500), or of those in a channel; changes follow as `presence`. */
  presence(of: readonly string[] | string): Promise<PresenceOk>;
  ping(): Promise<PingOk>;
  /** Final. Idempotent. */
  close(): void;
}

/** Connects, and stays connected until `close`. Throws TypeError for an address or environment that can't work. */
export function connect(options: ConnectOptions): Client {
  return createClient(options);
}

export type { ErrorBody, Failure };
