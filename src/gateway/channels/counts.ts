/**
 * Counter updates that come while somebody joins a channel: they have no position that shows that one was missed, so the latest of
 * each counter is kept and told when the subscription is placed.
 *
 * What must hold: at most `mostCounts` are kept, and who missed one that was dropped is known; a value is left out once a newer one has
 * come with a logged event, which nobody misses.
 */

import type { ChannelPublication, CounterPublication } from '../../broker/broker.js';
import { counterKey } from './coalesce.js';

/** Hardly any channel hears of more than two counters; `all` may. */
const mostCounts = 512;

export class LatestCounts {
  /** The one that came first stands first. */
  readonly #latest = new Map<string, { readonly at: number; readonly publication: CounterPublication }>();
  #now = 0;
  /** When the newest of those that were dropped had come. */
  #droppedAt = 0;

  /** Counts what has come; for `since`. */
  get now(): number {
    return this.#now;
  }

  add(publication: CounterPublication): void {
    const key = counterKey(publication);
    this.#latest.delete(key);
    this.#latest.set(key, { at: ++this.#now, publication });
    if (this.#latest.size <= mostCounts) return;
    for (const [oldest, { at }] of this.#latest) {
      this.#latest.delete(oldest);
      this.#droppedAt = at;
      return;
    }
  }

  supersede(publication: ChannelPublication): void {
    this.#latest.delete(counterKey(publication));
  }

  /** The latest of each counter that changed since; null where not all of them were kept. */
  since(then: number): CounterPublication[] | null {
    if (this.#droppedAt > then) return null;
    return [...this.#latest.values()].filter(({ at }) => at > then).map(({ publication }) => publication);
  }
}
