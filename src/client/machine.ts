/**
 * The client as a pure state machine: state × input → state and effects. `connect.ts` feeds it and does what it asks.
 *
 * An attempt goes `token` (only if none is at hand) → `opening` → `authenticating` → `replaying` → `live`. Whatever goes
 * wrong leads to `waiting`, and from there, after a random time, back to the beginning; a close code that no other
 * attempt would change, or the application's `stop`, leads to `closed`, from which nothing leads away. Positions and
 * subscriptions outlive connections: each session resumes from what the application was last handed.
 *
 * What must hold (test/client/machine.test.ts and properties.test.ts name these numbers):
 *  1. A `seq` is handed out at most once and ascending, within one epoch, unless a gap was announced.
 *  2. After `synced` no `seq` is skipped, but for this session's own marks; a hole brings the client back for it.
 *  3. A channel's `offset` likewise (channels.ts).
 *  4. At most one socket is asked for at a time; a frame is only sent on one that is open.
 *  5. Out of `closed` comes no effect but the failure of new calls and subscriptions.
 *  6. Every call is settled exactly once.
 *  7. The n-th failure in a row waits a random time in [0, min(cap, base·2^n)].
 *  8. A deadline of a phase does not outlive it.
 *  9. A token that the server refused is not sent again unless the application gives it again.
 */

import { addCall, fail, firstCallDeadline, flush, sweepCalls } from './calls.js';
import { addChannel, removeChannel } from './channels.js';
import { begin, close, due, enter, isClosed, keepToken, lost, open, ping, scheduleRefresh } from './phases.js';
import { onFrame } from './receive.js';
import { request } from './requests.js';
import {
  HANDSHAKE_MS,
  PROBE_MS,
  WAKE_SPACING_MS,
  type Draft,
  type Effect,
  type Env,
  type Input,
  type Phase,
  type State,
} from './state.js';

/** Pure: `state` is not changed. Never throws, whatever the server sent. */
export function transition(
  state: State,
  input: Input,
  env: Env,
): { readonly state: State; readonly effects: Effect[] } {
  const d: Draft = { ...env, s: { ...state, deadlines: { ...state.deadlines } }, effects: [] };
  const handler = table[state.phase][input.type] as (d: Draft, input: Input) => void;
  handler(d, input);
  return { state: d.s, effects: d.effects };
}

/** When the machine wants its next `tick`; Infinity for never. */
export function nextDeadline(state: State): number {
  return Math.min(firstCallDeadline(state), ...Object.values(state.deadlines));
}

// The table -----------------------------------------------------------------------------------------------------------

type Handler<T extends Input['type']> = (d: Draft, input: Extract<Input, { type: T }>) => void;
type Row = { readonly [T in Input['type']]: Handler<T> };

const nothing = (): void => undefined;

/** Nothing that happens outside matters. */
const deaf = {
  start: nothing,
  token: nothing,
  tokenFailed: nothing,
  open: nothing,
  gone: nothing,
  frame: nothing,
  tick: nothing,
  wake: nothing,
} satisfies Partial<Row>;

const always = {
  ...deaf,
  subscribe: (d, { channel }) => {
    addChannel(d, channel);
    flush(d);
  },
  unsubscribe: (d, { channel }) => {
    removeChannel(d, channel);
    flush(d);
  },
  call: (d, { ref, body }) => {
    addCall(d, ref, body);
    flush(d);
  },
  stop: (d) => close(d, 1000, 'closed by the application'),
} satisfies Partial<Row>;

/** Before a socket is open: nothing but its coming or failing matters. */
const connecting = {
  ...always,
  token: (d, { token }) => keepToken(d, token),
  gone: (d, { code, reason }) => lost(d, code, reason),
  tick: (d) => {
    sweepCalls(d);
    if (due(d, 'handshake')) lost(d, 1006, `${d.s.phase}: took too long`);
  },
} satisfies Row;

/** While a session stands. */
const session = {
  ...always,
  frame: onFrame,
  gone: (d, { code, reason }) => lost(d, code, reason),
  token: (d, { token }) => {
    d.s.token = token;
    request(d, { kind: 'refresh' }, { op: 'auth', token });
  },
  // The present token still holds; again in half of what it has left.
  tokenFailed: (d) => scheduleRefresh(d, 0.5),
  wake: (d) => ping(d, PROBE_MS),
  tick: (d) => {
    sweepCalls(d);
    if (due(d, 'probe')) return lost(d, 1006, 'no answer to a ping');
    if (due(d, 'silence')) ping(d, d.s.pingMs);
    if (due(d, 'refresh')) {
      delete d.s.deadlines.refresh;
      d.effects.push({ type: 'fetchToken', fresh: true });
    }
    flush(d);
  },
} satisfies Row;

const table: { readonly [P in Phase]: Row } = {
  waiting: {
    ...connecting,
    start: begin,
    gone: nothing,
    wake: (d) => {
      const soon = Math.max(d.now, d.s.begunMs + WAKE_SPACING_MS);
      d.s.deadlines.retry = Math.min(d.s.deadlines.retry ?? soon, soon);
      if (due(d, 'retry')) begin(d);
    },
    tick: (d) => {
      sweepCalls(d);
      if (due(d, 'retry')) begin(d);
    },
  },
  token: {
    ...connecting,
    gone: nothing,
    token: (d, { token }) => {
      keepToken(d, token);
      open(d);
    },
    tokenFailed: (d, { message }) => lost(d, 4401, `no token: ${message}`),
  },
  opening: {
    ...connecting,
    open: (d) => {
      const { position, token } = d.s;
      enter(d, 'authenticating');
      d.s.deadlines.handshake = d.now + HANDSHAKE_MS;
      const from = position === null ? {} : { since: position.seq, epoch: position.epoch };
      request(d, { kind: 'auth' }, { op: 'auth', token, ...from });
    },
  },
  authenticating: { ...connecting, frame: onFrame },
  replaying: session,
  live: session,
  closed: {
    ...deaf,
    subscribe: (d, { channel }) => d.effects.push({ type: 'refused', channel, error: isClosed }),
    unsubscribe: nothing,
    call: (d, { ref }) => fail(d, ref, isClosed),
    stop: nothing,
  },
};
