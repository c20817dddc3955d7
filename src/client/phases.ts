/**
 * How the machine gets from one phase to another, and what each costs: deadlines, backoff, the token's life.
 * The table in machine.ts says when.
 */

import { closeAction } from '../protocol/codes.js';
import type { AuthOk } from '../protocol/frames.js';
import { failAll, salvageCalls } from './calls.js';
import { refuse, wantAll } from './channels.js';
import { request } from './requests.js';
import {
  BACKOFF_BASE_MS,
  BACKOFF_CAP_MS,
  HANDSHAKE_MS,
  STABLE_MS,
  TOKEN_MARGIN_MS,
  TOKEN_WAIT_MS,
  type Draft,
  type Failure,
  type Phase,
  type State,
} from './state.js';

export const isClosed: Failure = { code: 'closed', message: 'it is closed', retry: false };

export function enter(d: Draft, phase: Phase): void {
  d.s.phase = phase;
  d.s.deadlines = {};
}

export function due(d: Draft, name: keyof State['deadlines']): boolean {
  return (d.s.deadlines[name] ?? Infinity) <= d.now;
}

/** An attempt: with the token at hand if it is still good for something, else with a new one. */
export function begin(d: Draft): void {
  const { s } = d;
  s.begunMs = d.now;
  d.effects.push({ type: 'status', status: { status: 'connecting', attempt: s.attempt } });
  const usable = s.token !== null && !s.tokenRefused && (s.expiresMs ?? Infinity) > d.now + TOKEN_MARGIN_MS;
  if (usable) return open(d);
  enter(d, 'token');
  s.deadlines.handshake = d.now + TOKEN_WAIT_MS;
  d.effects.push({ type: 'fetchToken', fresh: s.token !== null });
}

export function open(d: Draft): void {
  enter(d, 'opening');
  d.s.deadlines.handshake = d.now + HANDSHAKE_MS;
  d.effects.push({ type: 'open' });
}

/** The connection is gone, or is given up. */
export function lost(d: Draft, code: number, reason: string): void {
  const { s } = d;
  const action = closeAction(code);
  if (action === 'final') return close(d, code, reason);
  if (action === 'newToken') s.tokenRefused = true;
  if (s.phase !== 'token') d.effects.push({ type: 'drop', reason });
  if ((s.phase === 'replaying' || s.phase === 'live') && d.now - s.sinceMs >= STABLE_MS) s.attempt = 0;
  // The server is overloaded, or finds us too eager.
  if (code === 4429 || code === 1013) s.attempt = Math.max(s.attempt, 2);
  if (code === 4429) slowDown(d);
  enter(d, 'waiting');
  salvageCalls(d);
  wantAll(d);
  const retryInMs = Math.floor(d.random * Math.min(BACKOFF_CAP_MS, BACKOFF_BASE_MS * 2 ** s.attempt));
  s.attempt++;
  s.deadlines.retry = d.now + retryInMs;
  d.effects.push({ type: 'status', status: { status: 'waiting', retryInMs, code, reason } });
}

export function close(d: Draft, code: number, reason: string): void {
  if (d.s.phase !== 'waiting' && d.s.phase !== 'token') d.effects.push({ type: 'drop', reason });
  enter(d, 'closed');
  failAll(d, isClosed);
  for (const channel of d.s.channels.keys()) refuse(d, channel, isClosed);
  d.effects.push({ type: 'status', status: { status: 'closed', code, reason } });
}

export function keepToken(d: Draft, token: string): void {
  d.s.token = token;
  d.s.tokenRefused = false;
  d.s.expiresMs = null;
}

/** Asks for a sign of life within `limitMs`; any frame is one. */
export function ping(d: Draft, limitMs: number): void {
  delete d.s.deadlines.silence;
  if ((d.s.deadlines.probe ?? Infinity) <= d.now + limitMs) return;
  d.s.deadlines.probe = d.now + limitMs;
  request(d, { kind: 'ping' }, { op: 'ping' });
}

export function keepExpiry(d: Draft, ok: AuthOk): void {
  // NaN where it can't be read.
  d.s.expiresMs = Date.parse(ok.expires_at) || null;
  scheduleRefresh(d, 0.75 + 0.15 * d.random);
}

/**
 * A new token after this share of what the present one has left, never sooner than a second. If the clocks disagree so much
 * that it seems to be over already, the server's 4401 says when it is.
 */
export function scheduleRefresh(d: Draft, share: number): void {
  const leftMs = (d.s.expiresMs ?? 0) - d.now;
  if (leftMs > 0) d.s.deadlines.refresh = d.now + Math.max(1_000, leftMs * share);
}

/** At most once a second: what was sent at once is refused at once. `flush` takes it back. */
export function slowDown(d: Draft): void {
  const { s } = d;
  if (d.now - s.slowedMs < 1000) return;
  s.slowedMs = d.now;
  s.perSecond = Math.max(1, s.perSecond / 2);
}
