/**
 * Anti-entropy: every ten seconds the positions that were told are compared with the heads in Postgres, and so is what was announced
 * and revoked.
 *
 * What must hold: only streams of connected people and open channels are asked for, at most a thousand of each per statement; a stream is
 * repaired only if it is still behind a moment later, for what was just committed is just being published; a stream that is
 * ahead of Postgres (a restore) makes its sockets resume.
 */

import type { Heads, Inbox } from '../inbox/types.js';
import type { Announcements } from './announcements.js';
import type { ChannelHubs } from './channels.js';
import type { People } from './people.js';
import type { Revocations } from './revocations.js';

export interface SweepOwner {
  readonly inbox: Inbox;
  readonly people: People;
  readonly channels: ChannelHubs;
  repaired(outcome: 'person' | 'closed'): void;
  failed(what: string, error: unknown): void;
}

const everyMs = 10_000;
const secondLookMs = 500;
const streamsAtOnce = 1000;

export class Sweep {
  #timer: NodeJS.Timeout | null = null;
  #secondLook: NodeJS.Timeout | null = null;
  #running: Promise<void> | null = null;

  constructor(
    private readonly owner: SweepOwner,
    private readonly announcements: Announcements,
    private readonly revocations: Revocations,
  ) {}

  start(): void {
    this.#timer = setInterval(() => void this.run(), everyMs);
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    if (this.#secondLook !== null) clearTimeout(this.#secondLook);
  }

  /** One sweep; its repairs follow a moment later. Never throws. */
  run(): Promise<void> {
    this.#running ??= this.sweep().finally(() => {
      this.#running = null;
    });
    return this.#running;
  }

  private async sweep(): Promise<void> {
    const { people, channels, inbox } = this.owner;
    const found = { people: new Found(people.hubs), channels: new Found(channels.hubs) };
    let heads: Heads | null = null;
    try {
      for (let from = 0; from < found.people.size || from < found.channels.size; from += streamsAtOnce) {
        const page = [found.people.page(from), found.channels.page(from)] as const;
        heads = await inbox.heads(...page);
        found.people.compare(heads.people);
        found.channels.compare(heads.channels);
      }
      for (const userId of found.people.ahead) this.resume(userId);
      if (found.people.behind.size + found.channels.behind.size > 0)
        this.#secondLook ??= setTimeout(() => {
          this.#secondLook = null;
          this.repair(found.people.behind, found.channels.behind);
        }, secondLookMs);
      if (heads === null) return;
      await this.revocations.catchUp(heads.revocation);
      await this.announcements.catchUp(heads.announcement);
    } catch (error) {
      this.owner.failed('sweep', error);
    }
  }

  private repair(behindPeople: ReadonlyMap<string, number>, behindChannels: ReadonlyMap<string, number>): void {
    for (const [userId, head] of behindPeople) {
      const hub = this.owner.people.hubs.get(userId);
      if (hub === undefined || hub.position >= head) continue;
      this.owner.repaired('person');
      this.owner.people.gaps.behind(hub, head);
    }
    for (const [channel, head] of behindChannels) {
      const hub = this.owner.channels.hubs.get(channel);
      if (hub !== undefined) this.owner.channels.gaps.behind(hub, head);
    }
  }

  private resume(userId: string): void {
    const hub = this.owner.people.hubs.get(userId);
    if (hub === undefined) return;
    this.owner.repaired('closed');
    for (const session of [...hub.sessions]) session.close(1012, 'resume');
  }
}

/** Streams of one kind that are not where Postgres is. */
class Found {
  readonly behind = new Map<string, number>();
  readonly ahead: string[] = [];
  readonly #keys: readonly string[];
  #before: ReadonlyMap<string, number> = new Map();

  constructor(private readonly hubs: ReadonlyMap<string, { readonly position: number }>) {
    this.#keys = [...hubs.keys()];
  }

  get size(): number {
    return this.#keys.length;
  }

  /** Keys to ask for, with the positions of now: a stream can only move on, so that a head below this is a restore and no race. */
  page(from: number): readonly string[] {
    const keys = this.#keys.slice(from, from + streamsAtOnce);
    this.#before = new Map(keys.map((key) => [key, this.position(key)]));
    return keys;
  }

  compare(heads: ReadonlyMap<string, number>): void {
    for (const [key, before] of this.#before) {
      const head = heads.get(key);
      if (head === undefined) continue;
      const position = this.position(key);
      if (position >= 0 && position < head) this.behind.set(key, head);
      if (head < before) this.ahead.push(key);
    }
  }

  private position(key: string): number {
    return this.hubs.get(key)?.position ?? -1;
  }
}
