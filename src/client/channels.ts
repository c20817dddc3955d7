/**
 * Subscriptions: each channel has a stream of its own, resumed from its own offset.
 *
 * What must hold, within one epoch and unless a gap was announced for the channel:
 * - each `offset` is handed out at most once, and in ascending order;
 * - up to the head of the subscribe answer holes are the server's; past it a hole means that an event was lost, and the
 *   channel is subscribed to again from the last offset held, without disturbing the connection;
 * - counter updates have no offset and hold absolute values: the latest wins, they are always handed out.
 */

import { CHANNEL_ALL, type SubscribeOk } from '../protocol/frames.js';
import { request } from './requests.js';
import type { ChannelState, Draft, Failure } from './state.js';

export function addChannel(d: Draft, channel: string): void {
  const held = d.s.channels.get(channel);
  // One more subscriber: it needs the counters of now, which only an answer holds.
  if (held?.phase === 'on') return set(d, channel, { ...held, phase: 'wanted' });
  if (held !== undefined) return;
  const fresh = { phase: 'wanted', askId: 0, offset: null, epoch: null, head: 0, dropped: 0, notBeforeMs: 0 } as const;
  set(d, channel, fresh);
}

export function removeChannel(d: Draft, channel: string): void {
  const held = d.s.channels.get(channel);
  if (held === undefined) return;
  drop(d, channel);
  if (held.askId > 0) request(d, { kind: 'unsubscribe' }, { op: 'unsubscribe', channel });
}

/** The channel to ask for next, and from when on; null where none is wanted. */
export function nextWanted(d: Draft): { readonly channel: string; readonly readyMs: number } | null {
  let next: { channel: string; readyMs: number } | null = null;
  for (const [channel, held] of d.s.channels) {
    if (held.phase !== 'wanted') continue;
    if (held.notBeforeMs <= d.now) return { channel, readyMs: held.notBeforeMs };
    if (next === null || held.notBeforeMs < next.readyMs) next = { channel, readyMs: held.notBeforeMs };
  }
  return next;
}

export function askChannel(d: Draft, channel: string): void {
  const held = d.s.channels.get(channel);
  if (held === undefined) return;
  const from = held.offset === null ? {} : { offset: held.offset, epoch: held.epoch };
  const askId = request(d, { kind: 'subscribe', channel }, { op: 'subscribe', channel, ...from });
  set(d, channel, { ...held, phase: 'asked', askId, dropped: 0 });
}

/** The connection is gone: every channel is to be asked for anew. */
export function wantAll(d: Draft): void {
  for (const [channel, held] of d.s.channels) set(d, channel, { ...held, phase: 'wanted', askId: 0, notBeforeMs: 0 });
}

export function subscribed(d: Draft, id: number, ok: SubscribeOk): void {
  const held = d.s.channels.get(ok.channel);
  if (held === undefined || held.askId !== id) return;
  const resumed = held.offset !== null && ok.recovered;
  if (held.offset !== null && !ok.recovered) {
    const gap = { channel: ok.channel, reason: 'not_recovered', from: held.offset, to: ok.offset } as const;
    d.effects.push({ type: 'gap', gap });
  }
  const offset = resumed ? held.offset : ok.offset;
  // Something live came before the answer and is not in it: ask once more.
  const behind = held.dropped > ok.offset;
  set(d, ok.channel, { ...held, phase: behind ? 'wanted' : 'on', offset, epoch: ok.epoch, head: ok.offset });
  d.effects.push({ type: 'subscribed', ok });
}

/** The server said no: later again, or never. */
export function subscribeFailed(d: Draft, id: number, channel: string, error: Failure): void {
  const held = d.s.channels.get(channel);
  if (held === undefined || held.askId !== id) return;
  if (error.retry) {
    set(d, channel, { ...held, phase: 'wanted', notBeforeMs: d.now + 1000 + d.random * 2000 });
  } else {
    refuse(d, channel, error);
  }
}

export function refuse(d: Draft, channel: string, error: Failure): void {
  if (!d.s.channels.has(channel)) return;
  drop(d, channel);
  d.effects.push({ type: 'refused', channel, error });
}

/** The server says that it can't fill a hole: asks from no known epoch, so that the answer announces the gap. */
export function resync(d: Draft, channel: string): void {
  const held = d.s.channels.get(channel);
  if (held?.phase === 'on') set(d, channel, { ...held, phase: 'wanted', epoch: 'resync' });
}

/** Whether a push of a channel is handed out; without an offset it always is. */
export function acceptOffset(d: Draft, channel: string, offset: number | undefined): boolean {
  const held = d.s.channels.get(channel);
  if (held === undefined) return channel === CHANNEL_ALL;
  if (offset === undefined) return true;
  if (held.phase !== 'on') {
    // While asking: the answer's replay brings it, and if not, the answer shows that.
    if (offset > held.dropped) set(d, channel, { ...held, dropped: offset });
    return false;
  }
  if (held.offset !== null && offset <= held.offset) return false;
  const expected = Math.max(held.offset ?? offset - 1, held.head) + 1;
  if (offset > expected) {
    set(d, channel, { ...held, phase: 'wanted' });
    return false;
  }
  set(d, channel, { ...held, offset });
  return true;
}

function set(d: Draft, channel: string, held: ChannelState): void {
  d.s.channels = new Map(d.s.channels).set(channel, held);
}

function drop(d: Draft, channel: string): void {
  const rest = new Map(d.s.channels);
  rest.delete(channel);
  d.s.channels = rest;
}
