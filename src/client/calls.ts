/**
 * What goes out: subscriptions, their ends and the calls of the application, paced below the server's limit.
 *
 * What must hold:
 * - Every call is settled exactly once: answered, given up after `CALL_MS`, or failed when it can't be known whether the
 *   server acted on it. Marks and questions may be sent again after a lost connection, a `publish` may not.
 * - Auth and pings are never held back; subscriptions go before calls, since what is missed grows meanwhile.
 */

import type { JsonObject } from '../protocol/frames.js';
import { askChannel, nextChannel } from './channels.js';
import { request } from './requests.js';
import {
  BURST,
  CALL_MS,
  MAX_CALLS,
  PER_SECOND,
  STABLE_MS,
  none,
  type Call,
  type Draft,
  type Failure,
  type State,
} from './state.js';

export function addCall(d: Draft, ref: number, body: JsonObject): void {
  if (d.s.calls.length >= MAX_CALLS) {
    fail(d, ref, { code: 'overflow', message: `${MAX_CALLS} calls wait already`, retry: true });
  } else {
    d.s.calls = [...d.s.calls, { ref, body, untilMs: d.now + CALL_MS }];
  }
}

export function fail(d: Draft, ref: number, error: Failure): void {
  d.effects.push({ type: 'fail', ref, error });
}

/** Sends what waits, as far as the pace allows, and sets the deadline for the rest. */
export function flush(d: Draft): void {
  const { s } = d;
  if (s.phase !== 'replaying' && s.phase !== 'live') return;
  if (d.now - s.slowedMs >= STABLE_MS) s.perSecond = PER_SECOND;
  const stepMs = 1000 / s.perSecond;
  // Half a step makes up for rounding.
  const burstMs = (Math.min(BURST, s.perSecond) - 0.5) * stepMs;
  for (;;) {
    const [channel, readyMs] = nextChannel(d);
    const call = s.calls[0];
    const dueMs = Math.max(s.tatMs - burstMs, call === undefined ? readyMs : 0);
    s.deadlines.send = Math.ceil(dueMs);
    if (dueMs > d.now) return;
    if (readyMs <= d.now) {
      askChannel(d, channel);
    } else if (call !== undefined) {
      s.calls = s.calls.slice(1);
      request(d, { kind: 'call', call }, call.body);
    }
    s.tatMs = Math.max(s.tatMs, d.now) + stepMs;
  }
}

/** The connection is gone: what may be repeated waits for the next one, the rest fails. */
export function salvageCalls(d: Draft): void {
  const again: Call[] = [];
  for (const call of sentCalls(d.s)) {
    if (call.body['op'] !== 'publish') again.push(call);
    else {
      const message = 'the connection was lost';
      fail(d, call.ref, { code: 'disconnected', message, retry: true });
    }
  }
  d.s.pending = none;
  d.s.calls = [...again, ...d.s.calls];
}

/** Gives up calls whose time is over, sent or not. */
export function sweepCalls(d: Draft): void {
  const { s } = d;
  const message = `no answer within ${CALL_MS / 1000} s`;
  const keep = (call: Call): boolean => {
    if (call.untilMs > d.now) return true;
    fail(d, call.ref, { code: 'timeout', message, retry: true });
    return false;
  };
  s.pending = new Map([...s.pending].filter(([, sent]) => sent.kind !== 'call' || keep(sent.call)));
  s.calls = s.calls.filter(keep);
}

/** When the next call has to be given up. */
export function firstCallDeadline(s: State): number {
  return Math.min(...[...sentCalls(s), ...s.calls].map((call) => call.untilMs));
}

/** Every call fails: the client is closed. */
export function failAll(d: Draft, error: Failure): void {
  for (const call of [...sentCalls(d.s), ...d.s.calls]) fail(d, call.ref, error);
  d.s.pending = none;
  d.s.calls = [];
}

function sentCalls(s: State): Call[] {
  return [...s.pending.values()].flatMap((sent) => (sent.kind === 'call' ? [sent.call] : []));
}
