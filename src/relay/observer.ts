/** What a relay tells whoever watches it (the demo's page, tests that wait for a signal instead of a time). */

import type { PageEvent } from './plan/resolved.js';

/** One event on its way through one relay; all times are by `nowMs`. */
export interface EventTrace {
  /** Outbox id. */
  readonly id: string;
  readonly source: string;
  readonly op: string;
  readonly actorId: string | null;
  readonly recipients: readonly string[];
  /** When the outbox row was written, by the database's clock. */
  readonly writtenAtMs: number;
  readonly readAtMs: number;
  /** When the relay's transaction had committed. */
  readonly storedAtMs: number;
  /** When the publications had been handed to the broker. */
  readonly pushedAtMs: number;
}

export interface RelayObserver {
  /** A batch is through. Only called with traces when `wantsTraces` is true. */
  batch?(info: { readonly events: number; readonly traces: readonly EventTrace[] }): void;
  readonly wantsTraces?: boolean;
  /** The doorbell changed its state. */
  doorbell?(state: 'asleep' | 'awake', why: 'bell' | 'poll' | 'empty' | 'start'): void;
  /** This relay became or ceased to be the leader. */
  leader?(leads: boolean, term: string): void;
}

/** Traces of a batch that is through; none when nothing of it was stored. */
export function eventTracesOf(
  events: readonly PageEvent[],
  readAtMs: number,
  storedAtMs: number | undefined,
  pushedAtMs: number,
): EventTrace[] {
  if (storedAtMs === undefined) return [];
  return events.map((item) => {
    const side = item.kind === 'source' ? (item.event.after ?? item.event.before) : null;
    const { id, source, op, at } = item.event;
    return {
      id,
      source,
      op,
      actorId: side?.actorId ?? null,
      recipients: side?.recipients ?? [],
      writtenAtMs: at.getTime(),
      readAtMs,
      storedAtMs,
      pushedAtMs,
    };
  });
}
