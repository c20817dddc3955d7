/**
 * Subscriptions: each channel has a stream of its own, resumed from its own offset.
 *
 * What must hold, within one epoch and unless a gap was announced for the channel:
 * - each `offset` is handed out at most once, and in ascending order;
 * - a hole means that an event was lost, in a replay too, which what was sent before the answer may overtake: the channel is
 *   subscribed to again from the last offset held, without disturbing the connection;
 * - counter updates have no offset and hold absolute values: the latest wins, they are always handed out.
 */

import { CHANNEL_ALL, type RequestId, type SubscribeOk } from '../protocol/frames.js';
import { request, without } from './requests.js';
import { none, type ChannelState, type Draft, type Failure } from './state.js';

export function addChannel(d: Draft, channel: string): void {
  const held = d.s.channels.get(channel);
  // One more subscriber: it needs the counters of now, which only an answer holds.
  if (held?.phase === 'on') return set(d, channel, { ...held, phase: 'wanted' });
  if (held !== undefined) return;
  const fresh = { phase: 'wanted', askId: 0, offset: null, epoch: null, dropped: 0, notBeforeMs: 0 } as const;
  set(d, channel, fresh);
}

export function removeChannel(d: Draft, channel: string): void {
  const held = d.s.channels.get(channel);
  if (held === undefined) return;
  drop(d, channel);
  if (held.askId > 0) leave(d, channel, 0);
}

/** The channel to leave or to ask for next, and from when on: Infinity where there is none. */
export function nextChannel(d: Draft): readonly [channel: string, readyMs: number] {
  const { channels, leaving } = d.s;
  // Those to leave go first: they take up places under the server's limit.
  const waiting = [...leaving].filter(([channel]) => !channels.has(channel));
  for (const [channel, held] of channels) if (held.phase === 'wanted') waiting.push([channel, held.notBeforeMs]);
  let next: readonly [string, number] = ['', Infinity];
  // Of those that are ready, the first.
  for (const one of waiting) if (next[1] > d.now && one[1] < next[1]) next = one;
  return next;
}

/** Asks for a channel, or leaves it where nobody wants it. */
export function askChannel(d: Draft, channel: string): void {
  const held = d.s.channels.get(channel);
  d.s.leaving = without(d.s.leaving, channel);
  if (held === undefined) return void request(d, { kind: 'unsubscribe', channel }, { op: 'unsubscribe', channel });
  const from = held.offset === null ? {} : { offset: held.offset, epoch: held.epoch };
  const askId = request(d, { kind: 'subscribe', channel }, { op: 'subscribe', channel, ...from });
  set(d, channel, { ...held, phase: 'asked', askId, dropped: 0 });
}

/** The connection is gone, and the server's subscriptions with it: every channel is to be asked for anew. */
export function wantAll(d: Draft): void {
  for (const [channel, held] of d.s.channels) set(d, channel, { ...held, phase: 'wanted', askId: 0, notBeforeMs: 0 });
  d.s.leaving = none;
}

export function subscribed(d: Draft, id: RequestId, ok: SubscribeOk): void {
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
  set(d, ok.channel, { ...held, phase: behind ? 'wanted' : 'on', offset, epoch: ok.epoch });
  d.effects.push({ type: 'subscribed', ok });
}

/** The server said no: later again, or never. */
export function subscribeFailed(d: Draft, id: RequestId, channel: string, error: Failure): void {
  const held = d.s.channels.get(channel);
  if (held === undefined || held.askId !== id) return;
  if (error.retry) {
    set(d, channel, { ...held, phase: 'wanted', notBeforeMs: later(d) });
  } else {
    refuse(d, channel, error);
  }
}

/** The server said no, so that it may still hold the channel. */
export function unsubscribeFailed(d: Draft, channel: string, error: Failure): void {
  if (error.retry) leave(d, channel, later(d));
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
  if (held.offset !== null && offset > held.offset + 1) {
    set(d, channel, { ...held, phase: 'wanted' });
    return false;
  }
  set(d, channel, { ...held, offset });
  return true;
}

const later = (d: Draft): number => d.now + 1000 + d.random * 2000;

/** If somebody wants the channel again before its turn comes, the subscription stands for it. */
function leave(d: Draft, channel: string, notBeforeMs: number): void {
  d.s.leaving = new Map(d.s.leaving).set(channel, notBeforeMs);
}

function set(d: Draft, channel: string, held: ChannelState): void {
  d.s.channels = new Map(d.s.channels).set(channel, held);
}

function drop(d: Draft, channel: string): void {
  d.s.channels = without(d.s.channels, channel);
}
