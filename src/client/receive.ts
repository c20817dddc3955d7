/**
 * What a frame of the server means: the answer to a request, or a push that is handed out, dropped, or shows a loss.
 * Never throws, whatever the server sent; what is neither is ignored.
 */

import type { AuthOk, ErrorBody, MarkOk, RequestId, SubscribeOk } from '../protocol/frames.js';
import { fail, flush } from './calls.js';
import * as channels from './channels.js';
import { acceptAnnouncement, acceptSeq, adopt, ownMark, synced } from './person.js';
import { enter, keepExpiry, lost, scheduleRefresh, slowDown } from './phases.js';
import { takePending } from './requests.js';
import type { Draft, Frame, Pending } from './state.js';

export function onFrame(d: Draft, { frame }: { readonly frame: Frame }): void {
  const { id, event } = frame;
  if (d.s.phase !== 'authenticating') {
    delete d.s.deadlines.probe;
    d.s.deadlines.silence = d.now + d.s.pingMs;
  }
  if (typeof event !== 'string') {
    const pending = takePending(d, id as RequestId);
    if (pending !== undefined) onAnswer(d, id as RequestId, pending, frame);
    flush(d);
  } else if (d.s.phase !== 'authenticating') {
    onPush(d, event, frame);
  }
}

function onAnswer(d: Draft, id: RequestId, pending: Pending, { ok, error }: Frame): void {
  if (typeof error === 'object' && error !== null) return onError(d, id, pending, error as ErrorBody);
  if (typeof ok !== 'object' || ok === null) return lost(d, 1006, 'no answer');
  switch (pending.kind) {
    case 'auth':
      return authenticated(d, ok as AuthOk);
    case 'refresh':
      return refreshed(d, ok as AuthOk);
    case 'subscribe':
      return channels.subscribed(d, id, ok as SubscribeOk);
    case 'call': {
      const { op } = pending.call.body;
      if (op === 'seen' || op === 'read' || op === 'archive') {
        // Where nothing changed it names a push, which may have been lost on its way.
        if ((ok as MarkOk).unchanged !== true) ownMark(d, (ok as MarkOk).seq);
        badge(d, ok as MarkOk);
      }
      d.effects.push({ type: 'settle', ref: pending.call.ref, ok });
      return;
    }
    case 'ping':
    case 'unsubscribe':
      return;
  }
}

function onError(d: Draft, id: RequestId, pending: Pending, error: ErrorBody): void {
  if (error.code === 'rate_limited') slowDown(d);
  if (pending.kind === 'call') fail(d, pending.call.ref, error);
  else if (pending.kind === 'subscribe') channels.subscribeFailed(d, id, pending.channel, error);
  else if (pending.kind === 'unsubscribe') channels.unsubscribeFailed(d, pending.channel, error);
  else if (pending.kind === 'refresh') scheduleRefresh(d, 0.5);
  // Who is refused waits for the close that says why. What will never be taken asks for another token; what may be taken later is kept.
  else if (pending.kind === 'auth' && error.code !== 'forbidden') lost(d, error.retry ? 1006 : 4401, error.message);
}

function authenticated(d: Draft, ok: AuthOk): void {
  const { s } = d;
  enter(d, 'replaying');
  s.sinceMs = d.now;
  s.pingMs = Math.max(1, ok.ping_s) * 1000;
  s.deadlines.silence = d.now + s.pingMs;
  s.tatMs = 0;
  adopt(d, ok);
  keepExpiry(d, ok);
  s.session = ok.session;
  badge(d, ok);
}

/** The numbers in an answer stand for a push that the server does not send besides. */
function badge(d: Draft, { unseen, unread }: AuthOk | MarkOk): void {
  d.effects.push({ type: 'push', push: { event: 'badge', data: { unseen, unread } } });
}

function refreshed(d: Draft, ok: AuthOk): void {
  const before = d.s.expiresMs;
  keepExpiry(d, ok);
  badge(d, ok);
  // The same token again: nothing is won by asking once more, so let the server end the session.
  if ((d.s.expiresMs ?? Infinity) <= (before ?? 0)) delete d.s.deadlines.refresh;
}

function onPush(d: Draft, event: string, push: Frame): void {
  const { seq, channel, offset } = push;
  // A backend may broadcast an event of any name to a channel: only pushes without one, or without an offset, are the protocol's own.
  const isLogged = typeof channel === 'string' && typeof offset === 'number';
  if (event === 'synced' && channel === undefined) {
    synced(d, Number(seq));
    d.s.phase = 'live';
    const { position, session } = d.s;
    d.effects.push({ type: 'status', status: { status: 'online', userId: position?.userId ?? null, session } });
    d.effects.push({ type: 'synced', seq: position?.seq ?? 0 });
  } else if (event === 'resync' && channel === undefined) {
    onResync(d, (push['data'] as { readonly channel?: unknown } | undefined)?.channel);
  } else if (event === 'unsubscribed' && typeof channel === 'string' && !isLogged) {
    const message = 'no longer allowed';
    channels.refuse(d, channel, { code: 'forbidden', message, retry: false });
  } else if (typeof seq === 'number' && channel === undefined) {
    const verdict = acceptSeq(d, seq);
    if (verdict === 'hand') d.effects.push({ type: 'push', push });
    else if (verdict === 'lost') lost(d, 1006, `a push before ${seq} was lost`);
  } else if (typeof channel === 'string' && (event !== 'presence' || isLogged)) {
    const hand = channels.acceptOffset(d, channel, typeof offset === 'number' ? offset : undefined);
    // `hidden` fills the place of an event that the user may not see.
    if (hand && event !== 'hidden') {
      d.effects.push({ type: 'channelPush', push, channel });
    }
    flush(d);
  } else if (event !== 'notification' || acceptAnnouncement(d, push)) {
    d.effects.push({ type: 'push', push });
  }
}

function onResync(d: Draft, channel: unknown): void {
  if (typeof channel === 'string') {
    channels.resync(d, channel);
    flush(d);
  } else {
    d.effects.push({
      type: 'gap',
      gap: { channel: null, reason: 'resync', from: d.s.position?.seq ?? null, to: null },
    });
  }
}
