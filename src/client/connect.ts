/**
 * The client around its machine: does what the machine asks, feeds it what happens, and calls the application's
 * handlers.
 *
 * What must hold: inputs are worked off one after another (a handler may call the client), and whatever throws, the next
 * is worked off too; a handler that throws harms nobody else, its error surfaces as an uncaught one; after `close` no
 * handler is called but for `status`.
 */

import type { JsonObject, MarkOk, PingOk, PresenceOk, PublishOk, SubscribeOk } from '../protocol/frames.js';
import { nextDeadline, transition } from './machine.js';
import { isClosed } from './phases.js';
import type {
  Badge,
  ChannelEvent,
  Client,
  ConnectOptions,
  EventMap,
  MarkSelection,
  Subscription,
  Unlisten,
} from './index.js';
import { openSocket, watchPage, type Socket, type WebSocketClass } from './socket.js';
import { initialState, type Effect, type Failure, type Frame, type Input, type Status } from './state.js';
import { loadPosition, positionSaver } from './storage.js';

/** Why a call or a subscription failed. `retry`: the same may succeed later. */
export class BelfryClientError extends Error {
  override readonly name = 'BelfryClientError';
  readonly code: Failure['code'];
  readonly retry: boolean;

  constructor({ code, message, retry }: Failure) {
    super(message);
    this.code = code;
    this.retry = retry;
  }
}

interface Waiting {
  readonly resolve: (value: never) => void;
  readonly reject: (error: Error) => void;
}

interface Subscriber {
  readonly onEvent: (event: ChannelEvent) => void;
  readonly onState: ((state: Readonly<Record<string, number>>) => void) | undefined;
  readonly waiting: Waiting;
}

type Listener = (...args: never[]) => void;

/** The longest time that a timer can hold: beyond 2^31 - 1 ms it would fire at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

export function createClient(options: ConnectOptions): Client {
  const url = socketUrl(options.url);
  const Class = options.WebSocket ?? (globalThis as { WebSocket?: WebSocketClass }).WebSocket;
  if (Class === undefined) throw new TypeError('no global WebSocket: pass one as an option');

  let state = initialState(options.position ?? loadPosition(options));
  let badge: Badge | null = null;
  let status: Status = { status: 'connecting', attempt: 0 };
  let socket: Socket | null = null;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let timerAtMs = Infinity;
  let nextRef = 1;
  let running = false;
  const inputs: Input[] = [];
  const calls = new Map<number, Waiting>();
  const subscribers = new Map<string, Set<Subscriber>>();
  const listeners = new Map<string, Set<Listener>>();
  const saver = positionSaver(options);
  const unwatch = watchPage(() => input({ type: 'wake' }), saver.flush);

  function input(next: Input): void {
    inputs.push(next);
    if (running) return;
    running = true;
    for (let one = inputs.shift(); one !== undefined; one = inputs.shift()) {
      guard(work, one as never);
    }
    running = false;
    saver.save(state.position);
    arm();
  }

  function work(one: Input): void {
    const step = transition(state, one, { now: Date.now(), random: Math.random() });
    state = step.state;
    for (const effect of step.effects) guard(perform, effect as never);
  }

  /** One timer for all deadlines, set anew only if it would come too late. */
  function arm(): void {
    const atMs = nextDeadline(state);
    if (atMs >= timerAtMs) return;
    clearTimeout(timer);
    timerAtMs = atMs;
    timer = setTimeout(
      () => {
        timerAtMs = Infinity;
        input({ type: 'tick' });
      },
      Math.min(atMs - Date.now(), LONGEST_TIMER_MS),
    );
  }

  function perform(effect: Effect): void {
    switch (effect.type) {
      case 'fetchToken':
        return fetchToken(effect.fresh);
      case 'open':
        socket = openSocket(Class as WebSocketClass, url, {
          open: () => input({ type: 'open' }),
          message: receive,
          gone: (code, reason) => input({ type: 'gone', code, reason }),
        });
        return;
      case 'drop':
        socket?.drop(effect.reason);
        socket = null;
        return;
      case 'send':
        return socket?.send(JSON.stringify(effect.frame));
      case 'status':
        status = effect.status;
        if (status.status === 'closed') shut();
        return emit('status', status);
      case 'push':
        if (effect.push['event'] === 'badge') badge = effect.push['data'] as Badge;
        return emit(String(effect.push['event']) as keyof EventMap, effect.push['data'] as never, effect.push as never);
      case 'channelPush':
        each(subscribers.get(effect.channel), ({ onEvent }) => onEvent(effect.push as never));
        return emit('channel', effect.push as never);
      case 'synced':
        return emit('synced', { seq: effect.seq });
      case 'gap':
        return emit('gap', effect.gap);
      case 'subscribed':
        return answered(effect.ok);
      case 'refused':
        return refused(effect.channel, effect.error);
      case 'settle':
        return take(effect.ref)?.resolve(effect.ok as never);
      case 'fail':
        return take(effect.ref)?.reject(new BelfryClientError(effect.error));
    }
  }

  function fetchToken(fresh: boolean): void {
    // The function may throw at once, too.
    new Promise<string>((resolve) => resolve(options.token({ fresh }))).then(
      (token) => input(token ? { type: 'token', token } : { type: 'tokenFailed', message: 'it is empty' }),
      (error: unknown) =>
        input({ type: 'tokenFailed', message: String((error as Partial<Error> | undefined)?.message ?? error) }),
    );
  }

  function receive(text: string): void {
    let frame: unknown;
    try {
      frame = JSON.parse(text);
    } catch {
      return;
    }
    if (typeof frame !== 'object' || frame === null) return;
    emit('frame', frame as Frame);
    input({ type: 'frame', frame: frame as Frame });
  }

  function emit<K extends keyof EventMap>(event: K, ...args: EventMap[K]): void {
    each(listeners.get(event), (listener) => listener(...(args as unknown as never[])));
  }

  /** For those that are there now and still are when their turn comes: one that comes anew each time has no end. */
  function each<T>(all: ReadonlySet<T> | undefined, does: (one: T) => void): void {
    for (const one of [...(all ?? [])]) if (all?.has(one)) guard(does, one as never);
  }

  function guard(handler: (of: never) => void, of: never): void {
    try {
      handler(of);
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }

  function take(ref: number): Waiting | undefined {
    const waiting = calls.get(ref);
    calls.delete(ref);
    return waiting;
  }

  function call<T>(body: JsonObject): Promise<T> {
    const { promise, waiting } = later<T>();
    const ref = nextRef++;
    try {
      // As it is now: it may be changed while it waits, and what is no JSON must not come up where it is sent.
      const copy = JSON.parse(JSON.stringify(body)) as JsonObject;
      calls.set(ref, waiting);
      input({ type: 'call', ref, body: copy });
    } catch (error) {
      waiting.reject(new BelfryClientError({ code: 'bad_request', message: String(error), retry: false }));
    }
    return promise;
  }

  function answered(ok: SubscribeOk): void {
    each(subscribers.get(ok.channel), ({ onState, waiting }) => {
      waiting.resolve(ok as never);
      onState?.(ok.state);
    });
  }

  function refused(channel: string, failure: Failure): void {
    const gone = subscribers.get(channel);
    subscribers.delete(channel);
    for (const { waiting } of gone ?? []) waiting.reject(new BelfryClientError(failure));
    if (failure.code !== 'closed') emit('unsubscribed', { channel, code: failure.code, message: failure.message });
  }

  function shut(): void {
    clearTimeout(timer);
    unwatch();
    saver.save(state.position);
    saver.flush();
  }

  const mark = (op: string, which: MarkSelection): Promise<MarkOk> =>
    call({ op, ...('length' in which ? { ids: which } : which) });

  const client: Client = {
    get status() {
      return status;
    },
    get badge() {
      return badge;
    },
    get position() {
      return state.position;
    },
    on(event, listener): Unlisten {
      const all = listeners.get(event) ?? new Set();
      listeners.set(event, all.add(listener as unknown as Listener));
      return () => void all.delete(listener as unknown as Listener);
    },
    subscribe(channel, onEvent, onState): Subscription {
      const { promise: ready, waiting } = later<SubscribeOk>();
      const one: Subscriber = { onEvent, onState, waiting };
      const all = subscribers.get(channel) ?? new Set();
      subscribers.set(channel, all.add(one));
      input({ type: 'subscribe', channel });
      return {
        channel,
        ready,
        close: () => {
          waiting.reject(new BelfryClientError(isClosed));
          if (!all.delete(one) || all.size > 0 || subscribers.get(channel) !== all) return;
          subscribers.delete(channel);
          input({ type: 'unsubscribe', channel });
        },
      };
    },
    seen: (which) => mark('seen', which),
    read: (which) => mark('read', which),
    archive: (which) => mark('archive', which),
    publish: (channel, event, data = {}) => call<PublishOk>({ op: 'publish', channel, event, data }),
    presence: (of) =>
      call<PresenceOk>({ op: 'presence', ...(typeof of === 'string' ? { channel: of } : { users: of }) }),
    ping: () => call<PingOk>({ op: 'ping' }),
    close: () => input({ type: 'stop' }),
  };

  // A turn later, so that handlers attached right after `connect` hear everything.
  queueMicrotask(() => input({ type: 'start' }));
  return client;
}

/** A promise, and who settles it. One that nobody waits for must not end the process when the client is closed. */
function later<T>(): { readonly promise: Promise<T>; readonly waiting: Waiting } {
  let waiting: Waiting | undefined;
  const promise = new Promise<T>((resolve, reject) => (waiting = { resolve, reject }));
  promise.catch(() => undefined);
  return { promise, waiting: waiting as unknown as Waiting };
}

/** `http` becomes `ws`, a bare host gets the path `/ws`, and a page may give a path alone; throws TypeError. */
function socketUrl(text: string): string {
  const url = new URL(text, (globalThis as { location?: { href: string } }).location?.href);
  url.protocol = url.protocol.replace(/^http/, 'ws');
  if (!/^wss?:$/.test(url.protocol)) throw new TypeError(`${text} is no WebSocket address`);
  if (url.pathname === '/') url.pathname = '/ws';
  return url.href;
}
