/**
 * The person's own stream: what of it is handed to the application, and when it has a hole.
 *
 * What must hold, within one epoch and unless a gap was announced:
 * - each `seq` is handed out at most once, and in ascending order;
 * - during the replay holes are the server's (the inbox is a compacted log); after `synced` a hole that is not one of
 *   this session's own marks means that a push was lost, so the client goes back for it.
 */

import type { AuthOk } from '../protocol/frames.js';
import { MAX_REMEMBERED, type Draft, type Frame } from './state.js';

/** `hand` it out, `drop` a duplicate, or the push shows that one before it was `lost`. */
export type Verdict = 'hand' | 'drop' | 'lost';

/** Decides over a push with a position, and moves the position if it is handed out. */
export function acceptSeq(d: Draft, seq: number): Verdict {
  const { s } = d;
  if (s.position === null || seq <= s.position.seq) return 'drop';
  if (s.phase === 'live' && !explained(s.position.seq, seq, s.own)) return 'lost';
  moveTo(d, seq);
  return 'hand';
}

/** A mark of this session was answered: its position will come as no push. */
export function ownMark(d: Draft, seq: number): void {
  const { position } = d.s;
  if (position === null || seq <= position.seq) return;
  d.s.own = new Set(d.s.own).add(seq);
  // A long run of own marks and nothing else: the answers themselves are the stream.
  if (d.s.own.size > MAX_REMEMBERED) {
    let { seq: last } = position;
    while (d.s.own.has(last + 1)) last++;
    moveTo(d, last);
  }
}

/** Takes over the position of an auth answer; announces a gap where it can't be reached from the one held. */
export function adopt(d: Draft, ok: AuthOk): void {
  const { s } = d;
  const held = s.position;
  s.own = new Set();
  const head = { userId: ok.user_id, seq: ok.seq, epoch: ok.epoch };
  if (held === null) {
    s.position = head;
    return;
  }
  const stranger = held.userId !== null && held.userId !== ok.user_id;
  if (ok.recovered && !stranger) {
    s.position = { ...held, userId: ok.user_id };
    return;
  }
  s.position = head;
  const reason = stranger ? 'other_user' : 'not_recovered';
  d.effects.push({ type: 'gap', gap: { channel: null, reason, from: held.seq, to: ok.seq } });
}

/** The replay is over: whatever it did not contain up to here does not exist any more. */
export function synced(d: Draft, seq: number): void {
  if (d.s.position !== null && seq > d.s.position.seq) moveTo(d, seq);
}

/** Announcements have no position and come again until seen: hands out each once. */
export function acceptAnnouncement(d: Draft, push: Frame): boolean {
  const id = (push['data'] as { readonly id?: unknown } | null | undefined)?.id;
  if (typeof id !== 'string') return true;
  if (d.s.announced.includes(id)) return false;
  d.s.announced = [...d.s.announced, id].slice(-MAX_REMEMBERED);
  return true;
}

function moveTo(d: Draft, seq: number): void {
  const { s } = d;
  if (s.position === null) return;
  s.position = { ...s.position, seq };
  if (s.own.size > 0) s.own = new Set([...s.own].filter((one) => one > seq));
}

/** Whether everything between the two positions is known to be no push. */
function explained(from: number, to: number, own: ReadonlySet<number>): boolean {
  if (to - from - 1 > own.size) return false;
  for (let seq = from + 1; seq < to; seq++) if (!own.has(seq)) return false;
  return true;
}
