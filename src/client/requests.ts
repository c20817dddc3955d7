/** Requests and what their answers are for: ids are never used twice within the life of a client. */

import type { JsonObject, RequestId } from '../protocol/frames.js';
import type { Draft, Pending } from './state.js';

/** Sends a request and remembers what its answer will be for; returns its id. */
export function request(d: Draft, pending: Pending, body: JsonObject): number {
  const id = d.s.nextId++;
  d.s.pending = new Map(d.s.pending).set(id, pending);
  d.effects.push({ type: 'send', frame: { id, ...body } });
  return id;
}

/** Takes what an answer is for; undefined for an answer nobody asked for. */
export function takePending(d: Draft, id: RequestId): Pending | undefined {
  const found = d.s.pending.get(id);
  if (found !== undefined) d.s.pending = without(d.s.pending, id);
  return found;
}

export function without<K, V>(map: ReadonlyMap<K, V>, key: K): ReadonlyMap<K, V> {
  const rest = new Map(map);
  rest.delete(key);
  return rest;
}
