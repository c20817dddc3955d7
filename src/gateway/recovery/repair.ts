/**
 * What has no position (blocks, rights, numbers, counters) is taken from Postgres again when messages may have been lost.
 *
 * What must hold: one round at a time, and a pause after it, since every process says so when a broker comes back. What is lost during a
 * round is made good by another one; a round that fails is repeated. A counter of which an update came while it was read is left alone,
 * since what was read may be older.
 */

import type { ChannelPublication, CounterPublication } from '../../broker/broker.js';
import type { Channels } from '../../inbox/types.js';
import type { Badges } from '../people/badges.js';
import type { Blocks } from '../people/blocks.js';
import type { ChannelHubs } from '../channels/channels.js';
import { counterKey } from '../channels/coalesce.js';
import type { People } from '../people/people.js';
import type { Recheck } from '../channels/recheck.js';

export interface RepairOwner {
  readonly store: Channels;
  readonly people: People;
  readonly channels: ChannelHubs;
  readonly blocks: Blocks;
  readonly recheck: Recheck;
  readonly badges: Badges;
  count(publication: CounterPublication): void;
  failed(what: string, error: unknown): void;
}

const pauseMs = 1000;
/** Channels per statement. */
const channelsAtOnce = 1000;

export class Repair {
  #wanted = false;
  #running = false;
  #stopped = false;
  #timer: NodeJS.Timeout | null = null;
  #pausesUntilMs = -Infinity;
  /** Counters of which an update came since reading began; null while none are read. */
  #told: Set<string> | null = null;

  constructor(private readonly owner: RepairOwner) {}

  /** Messages may have been lost until now. */
  wanted(): void {
    this.#wanted = true;
    if (this.#running || this.#timer !== null || this.#stopped) return;
    this.#timer = setTimeout(
      () => {
        this.#timer = null;
        void this.round();
      },
      Math.max(0, this.#pausesUntilMs - performance.now()),
    );
  }

  /** An event with the present value of a counter comes from the broker. */
  told(publication: ChannelPublication | CounterPublication): void {
    this.#told?.add(counterKey(publication));
  }

  stop(): void {
    this.#stopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  private async round(): Promise<void> {
    const { people, blocks, recheck, badges, failed } = this.owner;
    this.#running = true;
    this.#wanted = false;
    try {
      // First, since what follows is told or kept by them.
      await blocks.loadAll();
      recheck.everything();
      for (const userId of people.hubs.keys()) badges.touch(userId);
      await this.counters();
    } catch (error) {
      failed('repair', error);
      this.#wanted = true;
    }
    this.#running = false;
    this.#pausesUntilMs = performance.now() + pauseMs;
    if (this.#wanted) this.wanted();
  }

  private async counters(): Promise<void> {
    const channels = [...this.owner.channels.hubs.keys()];
    for (let from = 0; from < channels.length && !this.#stopped; from += channelsAtOnce) {
      const told = (this.#told = new Set());
      try {
        for (const counter of await this.owner.store.counters(channels.slice(from, from + channelsAtOnce))) {
          if (!told.has(counterKey(counter))) this.owner.count(counter);
        }
      } finally {
        this.#told = null;
      }
    }
  }
}
