/**
 * Badges: the numbers of inboxes, told to sockets for which they changed.
 *
 * A new, unseen notification adds one to both numbers. That is reckoned from the last count at once, and counted a little later, since the
 * rule of who may read what has the last word. After any other change the inbox is counted, with one query for everybody concerned. Some
 * changes come without an event (an account that is suspended, a mute that ends, whatever `visible` asks about): so everybody who is
 * connected is counted again now and then, a few at a time and in no hurry.
 *
 * What must hold: one query at a time, so that an older answer can never overtake a newer one; a change that comes while one runs is
 * counted by the next; numbers are reckoned only from a count at the position right before; a socket is told only numbers that differ from
 * what it was told last; a person who can't be counted keeps nobody else from being counted.
 */

import type { BadgePublication } from '../../broker/broker.js';
import { inHalves } from '../../halves.js';
import { maxCount, noBadge } from '../../inbox/types.js';
import type { Inbox, PlacedBadge } from '../../inbox/types.js';
import { isOfNoRow } from '../problem.js';
import { packBadge, unpackBadge } from '../sessions/session.js';
import type { PersonHub, People } from './people.js';

export interface BadgeOwner {
  readonly inbox: Inbox;
  readonly people: People;
  /** Counts queries. */
  asked(): void;
  pushed(kind: 'badge', count: number): void;
  failed(what: string, error: unknown): void;
}

/** Queries are at least this far apart, and three times as long as the last one took; what comes in between is asked for together. */
const spacingMs = 20;
const rest = 3;
const retryMs = 1000;
/** People per query: few enough that one that counts full inboxes keeps no core busy for long. */
const peopleAtOnce = 50;

/** Everybody is counted again this long after the last time; between two pages is a rest of so many times the length of a query. */
const againMs = 60_000;
const againRest = 20;
/** A query that waited long, for a lock perhaps, puts the next page off by no more than this. */
const mostRestMs = 2000;
/** Numbers that were reckoned are counted this long after the first of them, at the same pace. */
const verifyMs = 2000;

/** Both counts are at the most that is counted. */
const fullBadge = packBadge({ unseen: maxCount, unread: maxCount });

export class Badges {
  readonly #dirty = new Set<string>();
  readonly #failed = new Set<string>();
  #retry: NodeJS.Timeout | null = null;
  #planned = false;
  #timer: NodeJS.Timeout | null = null;
  #restUntilMs = -Infinity;
  #stopped = false;
  #again: NodeJS.Timeout | null = null;
  /** Who is still to be counted again. */
  #round: string[] = [];
  /** The people whom the running query counts. */
  #asking: ReadonlySet<string> = new Set();
  /** People whose numbers were reckoned, and not counted since. */
  readonly #reckoned = new Set<string>();
  #verify: NodeJS.Timeout | null = null;
  #tookMs = 0;

  constructor(private readonly owner: BadgeOwner) {}

  /** The counts of this person may have changed; `onlyRises`: nothing was taken away. */
  touch(userId: string, onlyRises = false): void {
    const hub = this.owner.people.hubs.get(userId);
    if (hub === undefined || this.#stopped) return;
    if (onlyRises && hub.sessions.length > 0 && hub.sessions.every(({ badge }) => badge === fullBadge)) return;
    this.#dirty.add(userId);
    if (!this.#planned) this.plan(Math.max(0, this.#restUntilMs - performance.now()));
  }

  /** The relay says that the numbers of this person change. */
  receive({ userId, onlyRises, rose }: BadgePublication): void {
    const hub = this.owner.people.hubs.get(userId);
    if (hub === undefined || this.#stopped) return;
    if (rose === undefined || !this.rise(hub, ...rose)) this.touch(userId, onlyRises);
  }

  /** A session of this person had the inbox counted, and is told the numbers by its own answer. */
  known(hub: PersonHub, { seq, unseen, unread }: PlacedBadge): void {
    const { userId } = hub;
    // A query that runs may have begun earlier and answer with older numbers; or this answer is older than what the others were told.
    if (this.#asking.has(userId) || seq < hub.counted) return this.touch(userId);
    if (this.#dirty.has(userId)) return;
    hub.counted = seq;
    hub.numbers = packBadge({ unseen, unread });
  }

  start(): void {
    this.#again = setTimeout(() => this.lookAgain(), againMs);
  }

  stop(): void {
    this.#stopped = true;
    this.#dirty.clear();
    for (const timer of [this.#timer, this.#again, this.#retry, this.#verify]) if (timer !== null) clearTimeout(timer);
  }

  /** Counts the next page of people again, though nothing told of a change. */
  lookAgain(): void {
    if (this.#again !== null) clearTimeout(this.#again);
    if (this.#stopped) return;
    if (this.#round.length === 0) this.#round = [...this.owner.people.hubs.keys()];
    for (const userId of this.#round.splice(-peopleAtOnce)) this.touch(userId);
    this.#again = setTimeout(() => this.lookAgain(), this.#round.length === 0 ? againMs : this.restMs());
  }

  /** Reckons the numbers of somebody who got new notifications at these positions; false without a count from right before them. */
  private rise(hub: PersonHub, from: number, through: number): boolean {
    const { userId } = hub;
    if (this.#dirty.has(userId) || this.#asking.has(userId) || this.#failed.has(userId)) return false;
    if (hub.counted < 0 || from > hub.counted + 1) return false;
    const more = through - hub.counted;
    if (more > 0) {
      hub.counted = through;
      if (hub.numbers !== fullBadge) {
        const { unseen, unread } = unpackBadge(hub.numbers);
        const ended = (count: number): number => Math.min(count + more, maxCount);
        hub.numbers = packBadge({ unseen: ended(unseen), unread: ended(unread) });
        this.#reckoned.add(userId);
        this.#verify ??= setTimeout(() => this.verify(), verifyMs);
      }
    }
    // Also where it was counted already for a session that came a moment ago: the other sessions have not heard of it.
    this.tell(hub);
    return true;
  }

  /** Counts a page of those whose numbers were reckoned. */
  private verify(): void {
    let left = peopleAtOnce;
    for (const userId of this.#reckoned) {
      if (left-- === 0) break;
      this.#reckoned.delete(userId);
      this.touch(userId);
    }
    this.#verify = this.#reckoned.size === 0 ? null : setTimeout(() => this.verify(), this.restMs());
  }

  /** The rest between two pages of what has no hurry. */
  private restMs(): number {
    return Math.min(mostRestMs, Math.max(spacingMs, againRest * this.#tookMs));
  }

  private plan(delayMs: number): void {
    this.#planned = true;
    // At the end of this turn, since a page of publications touches many people.
    if (delayMs <= 0) setImmediate(() => void this.ask());
    else this.#timer = setTimeout(() => void this.ask(), delayMs);
  }

  /** Those who could not be counted are asked for again, apart from the others. */
  private later(userIds: readonly string[]): void {
    for (const userId of userIds) this.#failed.add(userId);
    if (this.#failed.size === 0 || this.#stopped) return;
    this.#retry ??= setTimeout(() => {
      this.#retry = null;
      const again = [...this.#failed];
      this.#failed.clear();
      for (const userId of again) this.touch(userId);
    }, retryMs);
  }

  private async ask(): Promise<void> {
    const users: string[] = [];
    for (const userId of this.#dirty) {
      if (users.length >= peopleAtOnce) break;
      this.#dirty.delete(userId);
      if (this.owner.people.hubs.has(userId)) users.push(userId);
    }
    const askedAtMs = performance.now();
    let delayMs = spacingMs;
    if (users.length > 0 && !this.#stopped) {
      const failed: string[] = [];
      this.#asking = new Set(users);
      await inHalves(
        users,
        isOfNoRow,
        async (some) => {
          this.owner.asked();
          const badges = await this.owner.inbox.badges(some);
          for (const userId of some) this.counted(userId, badges.get(userId) ?? noBadge);
        },
        (some, error) => {
          this.owner.failed('badges', error);
          failed.push(...some);
        },
      );
      this.#asking = new Set();
      this.#tookMs = performance.now() - askedAtMs;
      delayMs = Math.max(spacingMs, rest * this.#tookMs);
      this.later(failed);
      if (failed.length === users.length) delayMs = retryMs;
    }
    this.#planned = false;
    this.#restUntilMs = performance.now() + delayMs;
    if (this.#dirty.size > 0 && !this.#stopped) this.plan(delayMs);
  }

  private counted(userId: string, { seq, unseen, unread }: PlacedBadge): void {
    const hub = this.owner.people.hubs.get(userId);
    this.#reckoned.delete(userId);
    if (hub === undefined) return;
    hub.counted = seq;
    hub.numbers = packBadge({ unseen, unread });
    this.tell(hub);
  }

  private tell(hub: PersonHub): void {
    let frame: string | null = null;
    let sent = 0;
    for (const session of hub.sessions) {
      if (session.stage === 'joining') {
        // Its answer may hold numbers from before this change: it asks again once the answer is out.
        session.badge = badgeMissed;
        continue;
      }
      if (session.badge === hub.numbers || !session.active) continue;
      session.badge = hub.numbers;
      frame ??= JSON.stringify({ event: 'badge', data: unpackBadge(hub.numbers) });
      session.send(frame);
      sent++;
    }
    if (sent > 0) this.owner.pushed('badge', sent);
  }
}

/** Stands in `session.badge` when a change passed by while the session was joining. */
export const badgeMissed = -2;
