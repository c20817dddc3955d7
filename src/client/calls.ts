/**
 * What goes out: subscriptions and the calls of the application, paced below the server's limit.
 *
 * What must hold:
 * - Every call is settled exactly once: answered, given up after `CALL_MS`, or failed when it can't be known whether the
 *   server acted on it. Marks and questions may be sent again after a lost connection, a `publish` may not.
 * - Auth and pings are never held back; subscriptions go before calls, since what is missed grows meanwhile.
 */

import type { JsonObject } from '../protocol/frames.js';
import { askChannel, nextWanted } from './channels.js';
import { request, takePending } from './requests.js';
import { BURST, CALL_MS, MAX_CALLS, type Call, type Draft, type Failure, type State } from './state.js';

export function addCall(d: Draft, ref: number, body: JsonObject): void {
  if (d.s.calls.length >= MAX_CALLS) {
    fail(d, ref, { code: 'overflow', message: `${MAX_CALLS} calls wait for a connection already`, retry: true });
  } else {
    d.s.calls = [...d.s.calls, { ref, body, untilMs: d.now + CALL_MS }];
  }
}

export function fail(d: Draft, ref: number, error: Failure): void {
  d.effects.push({ type: 'fail', ref, error });
}

/** Sends what waits, as far as the budget goes, and sets the deadline for the rest. */
export function flush(d: Draft): void {
  const { s } = d;
  delete s.deadlines.send;
  if (s.phase !== 'replaying' && s.phase !== 'live') return;
  const most = Math.min(BURST, s.perSecond);
  s.budget = Math.min(most, s.budget + ((d.now - s.budgetAtMs) / 1000) * s.perSecond);
  s.budgetAtMs = d.now;
  for (;;) {
    const wanted = nextWanted(d);
    const call = s.calls[0];
    if (wanted === null && call === undefined) return;
    if (s.budget < 1) {
      s.deadlines.send = d.now + Math.ceil(((1 - s.budget) / s.perSecond) * 1000);
      return;
    }
    if (wanted !== null && wanted.readyMs <= d.now) {
      askChannel(d, wanted.channel);
    } else if (call !== undefined) {
      s.calls = s.calls.slice(1);
      request(d, { kind: 'call', call }, call.body);
    } else {
      if (wanted !== null) s.deadlines.send = wanted.readyMs;
      return;
    }
    s.budget--;
  }
}

/** The connection is gone: what may be repeated waits for the next one, the rest fails. */
export function salvageCalls(d: Draft): void {
  const again: Call[] = [];
  for (const pending of d.s.pending.values()) {
    if (pending.kind !== 'call') continue;
    if (pending.call.body['op'] !== 'publish') again.push(pending.call);
    else {
      const message = 'the connection was lost before the answer; the server may have acted or not';
      fail(d, pending.call.ref, { code: 'disconnected', message, retry: true });
    }
  }
  d.s.pending = new Map();
  d.s.calls = [...again, ...d.s.calls];
}

/** Gives up calls whose time is over, sent or not. */
export function sweepCalls(d: Draft): void {
  const { s } = d;
  const late = (call: Call): boolean => call.untilMs <= d.now;
  const sent = [...s.pending].filter(([, p]) => p.kind === 'call' && late(p.call));
  if (sent.length === 0 && !s.calls.some(late)) return;
  const message = `no answer within ${CALL_MS / 1000} s`;
  const give = (call: Call): void => fail(d, call.ref, { code: 'timeout', message, retry: true });
  for (const [id, p] of sent) {
    takePending(d, id);
    if (p.kind === 'call') give(p.call);
  }
  s.calls.filter(late).forEach(give);
  s.calls = s.calls.filter((call) => !late(call));
}

/** When the next call has to be given up. */
export function firstCallDeadline(s: State): number {
  let first = Infinity;
  for (const call of s.calls) first = Math.min(first, call.untilMs);
  for (const p of s.pending.values()) if (p.kind === 'call') first = Math.min(first, p.call.untilMs);
  return first;
}

/** Every call fails: the client is closed. */
export function failAll(d: Draft, error: Failure): void {
  for (const pending of d.s.pending.values()) if (pending.kind === 'call') fail(d, pending.call.ref, error);
  for (const call of d.s.calls) fail(d, call.ref, error);
  d.s.pending = new Map();
  d.s.calls = [];
}
