/**
 * Counter updates: at most one per channel and counter in 250 ms, the first at once, the latest value last.
 *
 * What must hold: values are absolute, so that leaving out all but the latest loses nothing; the latest value of each counter that
 * arrived is always sent, also where many share a channel; an older value never follows a newer one, also not one that came with a
 * logged event (`supersede`), nor one that new hearers began with: what waits ends with those for whom it came.
 */

import type { ChannelPublication, CounterPublication } from '../../broker/broker.js';

/** CONTRACT §5, per counter: another object's value is no newer one of this. */
const coalesceMs = 250;

interface Window {
  readonly endsAtMs: number;
  pending: { readonly publication: CounterPublication; readonly hearers: object | undefined } | null;
}

export class Coalescer {
  /** In the order in which they end, since all are equally long. */
  readonly #windows = new Map<string, Window>();
  #timer: NodeJS.Timeout | null = null;

  constructor(
    private readonly send: (publication: CounterPublication) => void,
    /** Who hears of a channel: another object once nobody did meanwhile, when values pass by unheard. */
    private readonly hearersOf: (channel: string) => object | undefined = () => undefined,
    private readonly nowMs: () => number = () => performance.now(),
  ) {}

  add(publication: CounterPublication): void {
    const key = counterKey(publication);
    const window = this.#windows.get(key);
    if (window !== undefined) {
      window.pending = { publication, hearers: this.hearersOf(publication.channel) };
      return;
    }
    this.open(key);
    this.send(publication);
  }

  /** A newer value goes out with a logged event: what waits is older. */
  supersede(publication: ChannelPublication): void {
    if (this.#windows.size === 0) return;
    const window = this.#windows.get(counterKey(publication));
    if (window !== undefined) window.pending = null;
  }

  /** Sends what waits. */
  stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    for (const window of this.#windows.values()) {
      const publication = this.waiting(window);
      if (publication !== null) this.send(publication);
    }
    this.#windows.clear();
  }

  private open(key: string): void {
    this.#windows.set(key, { endsAtMs: this.nowMs() + coalesceMs, pending: null });
    this.plan();
  }

  /** One timer, for the window that ends first. */
  private plan(): void {
    const first = this.#windows.values().next().value;
    if (this.#timer !== null || first === undefined) return;
    this.#timer = setTimeout(() => this.flush(), Math.max(1, first.endsAtMs - this.nowMs()));
  }

  private flush(): void {
    const now = this.nowMs();
    for (const [key, window] of this.#windows) {
      // Also those that were opened by this loop: they stand at the end.
      if (window.endsAtMs > now) break;
      this.#windows.delete(key);
      const publication = this.waiting(window);
      if (publication === null) continue;
      this.open(key);
      this.send(publication);
    }
    // Until here the timer that has fired stands for the next.
    this.#timer = null;
    this.plan();
  }

  private waiting({ pending }: Window): CounterPublication | null {
    if (pending === null || this.hearersOf(pending.publication.channel) !== pending.hearers) return null;
    return pending.publication;
  }
}

/** By event alone where nothing says which counter it is. */
export function counterKey({ channel, event, counter }: ChannelPublication | CounterPublication): string {
  return `${channel}\n${event}\n${counter ?? ''}`;
}
