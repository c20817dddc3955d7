/**
 * Anti-entropy: every ten seconds the positions that were told are compared with the heads in Postgres, and so are their epoch and what
 * was announced and revoked.
 *
 * What must hold: only streams of connected people and of channels with subscribers are asked for, at most a thousand of each per
 * statement. A stream is repaired only if it is still behind a moment later, since what was just committed is just being published. Where
 * Postgres is behind what was told (a restore), a person resumes and a channel says `resync`. Positions of two epochs are never compared:
 * in a new one all streams begin anew, and everybody resumes.
 */

import type { Heads, Inbox } from '../../inbox/types.js';
import { CHANNEL_ALL } from '../../protocol/frames.js';
import type { Announcements } from '../people/announcements.js';
import type { ChannelHubs } from '../channels/channels.js';
import type { People } from '../people/people.js';
import type { Revocations } from '../people/revocations.js';

export interface SweepOwner {
  readonly inbox: Inbox;
  readonly people: People;
  readonly channels: ChannelHubs;
  /** Another epoch has begun: closes everybody with 1012 in small batches. */
  resumeAll(epoch: string): void;
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
  #next: Promise<void> | null = null;
  #epoch = '';

  constructor(
    private readonly owner: SweepOwner,
    private readonly announcements: Announcements,
    private readonly revocations: Revocations,
  ) {}

  /** Reads where everything stands, before anybody is connected. Throws what Postgres raised. */
  async begin(): Promise<void> {
    const heads = await this.owner.inbox.heads([], [CHANNEL_ALL]);
    this.enter(heads.epoch, heads.channels.get(CHANNEL_ALL) ?? 0);
    this.announcements.begin(heads.announcement);
    this.revocations.begin(heads.revocation);
  }

  /** A message tells of a new epoch. Whoever comes from now on learns of it from Postgres, and need not resume. */
  told(epoch: string): void {
    if (epoch === this.#epoch) return;
    this.enter(epoch, null);
    // Not in this turn: the `resync` that came with the message is still to be told.
    setImmediate(() => this.owner.resumeAll(epoch));
    void this.run();
  }

  start(): void {
    this.#timer = setInterval(() => void this.run(), everyMs);
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    if (this.#secondLook !== null) clearTimeout(this.#secondLook);
  }

  /** One sweep that begins now, or once the present one is over; its repairs follow a moment later. Never throws. */
  run(): Promise<void> {
    if (this.#running !== null) return (this.#next ??= this.#running.then(() => this.run()));
    this.#next = null;
    this.#running = this.sweep().finally(() => {
      this.#running = null;
    });
    return this.#running;
  }

  private async sweep(): Promise<void> {
    const { people, channels, inbox } = this.owner;
    const found = { people: new Found(people.hubs), channels: new Found(channels.hubs) };
    const carriedOut = this.revocations.through;
    let heads: Heads | null = null;
    try {
      for (let from = 0; from < found.people.size || from < found.channels.size; from += streamsAtOnce) {
        const epoch = this.#epoch;
        const page = [found.people.page(from), found.channels.page(from)] as const;
        heads = await inbox.heads(...page);
        if (heads.epoch !== epoch || epoch !== this.#epoch) {
          // A message may have been faster.
          if (epoch === this.#epoch) await this.discover();
          break;
        }
        // A message tells of an epoch, but not where `all` stands in it.
        const positionOfAll = heads.channels.get(CHANNEL_ALL);
        if (positionOfAll !== undefined) channels.begin(channels.all, positionOfAll);
        found.people.compare(heads.people);
        found.channels.compare(heads.channels);
      }
      for (const userId of found.people.ahead.keys()) this.resume(userId);
      for (const [channel, head] of found.channels.ahead) this.rewind(channel, head);
      if (found.people.behind.size + found.channels.behind.size > 0)
        this.#secondLook ??= setTimeout(() => {
          this.#secondLook = null;
          this.repair(found.people.behind, found.channels.behind);
        }, secondLookMs);
      if (heads === null) return;
      await this.revocations.catchUp(heads.revocation, carriedOut);
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

  /** Enters an epoch that no message told of, at the position of `all` in it. */
  private async discover(): Promise<void> {
    const heads = await this.owner.inbox.heads([], [CHANNEL_ALL]);
    if (heads.epoch === this.#epoch) return;
    this.enter(heads.epoch, heads.channels.get(CHANNEL_ALL) ?? 0);
    this.owner.resumeAll(heads.epoch);
  }

  /** Begins all streams anew. */
  private enter(epoch: string, positionOfAll: number | null): void {
    this.#epoch = epoch;
    this.owner.people.restart();
    this.owner.channels.restart(positionOfAll);
  }

  private rewind(channel: string, head: number): void {
    const hub = this.owner.channels.hubs.get(channel);
    if (hub !== undefined) this.owner.channels.rewind(hub, head);
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
  readonly ahead = new Map<string, number>();
  readonly #keys: readonly string[];
  #before: ReadonlyMap<string, number> = new Map();

  constructor(private readonly hubs: ReadonlyMap<string, { readonly position: number }>) {
    this.#keys = [...hubs.keys()];
  }

  get size(): number {
    return this.#keys.length;
  }

  /** Keys to ask for. Their positions are noted now: since a stream only moves on, a head below them is a restore and no race. */
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
      if (head < before) this.ahead.set(key, head);
    }
  }

  private position(key: string): number {
    return this.hubs.get(key)?.position ?? -1;
  }
}
