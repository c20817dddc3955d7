/**
 * Badges: the counts of inboxes, asked for everybody concerned with one query, told to sockets whose numbers changed.
 *
 * Some changes no event tells of (an account that is suspended, a mute that ends, whatever `visible` asks about): so everybody
 * who is connected is counted again now and then, a few at a time and in no hurry.
 *
 * What must hold: one query at a time, so that an older answer can never overtake a newer one; a change that comes while
 * one runs is asked for by the next; a socket is told only numbers that differ from what it was told last; one person who can't be
 * counted keeps nobody else from it.
 */

import { inHalves } from '../halves.js';
import { maxCount } from '../inbox/types.js';
import type { Badge, Inbox } from '../inbox/types.js';
import { isOfNoRow } from './problem.js';
import { packBadge } from './session.js';
import type { People } from './people.js';

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
/** People per query. */
const peopleAtOnce = 200;

/** Everybody is counted again this long after the last time, with so many times the length of a query between two pages. */
const againMs = 60_000;
const againRest = 20;

/** Both counts have come to their end. */
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

  start(): void {
    this.#again = setTimeout(() => this.lookAgain(), againMs);
  }

  stop(): void {
    this.#stopped = true;
    this.#dirty.clear();
    for (const timer of [this.#timer, this.#again, this.#retry]) if (timer !== null) clearTimeout(timer);
  }

  /** Counts the next page of people again, whatever is known of them. */
  lookAgain(): void {
    if (this.#again !== null) clearTimeout(this.#again);
    if (this.#stopped) return;
    if (this.#round.length === 0) this.#round = [...this.owner.people.hubs.keys()];
    for (const userId of this.#round.splice(-peopleAtOnce)) this.touch(userId);
    const restMs = Math.max(spacingMs, againRest * this.#tookMs);
    this.#again = setTimeout(() => this.lookAgain(), this.#round.length === 0 ? againMs : restMs);
  }

  private plan(delayMs: number): void {
    this.#planned = true;
    // The end of the turn: a page of publications touches many people.
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
      await inHalves(
        users,
        isOfNoRow,
        async (some) => {
          this.owner.asked();
          const badges = await this.owner.inbox.badges(some);
          for (const userId of some) this.tell(userId, badges.get(userId) ?? { unseen: 0, unread: 0 });
        },
        (some, error) => {
          this.owner.failed('badges', error);
          failed.push(...some);
        },
      );
      this.#tookMs = performance.now() - askedAtMs;
      delayMs = Math.max(spacingMs, rest * this.#tookMs);
      this.later(failed);
      if (failed.length === users.length) delayMs = retryMs;
    }
    this.#planned = false;
    this.#restUntilMs = performance.now() + delayMs;
    if (this.#dirty.size > 0 && !this.#stopped) this.plan(delayMs);
  }

  private tell(userId: string, badge: Badge): void {
    const hub = this.owner.people.hubs.get(userId);
    if (hub === undefined) return;
    const packed = packBadge(badge);
    let frame: string | null = null;
    let sent = 0;
    for (const session of hub.sessions) {
      if (session.stage === 'joining') {
        // Its answer may come from before this change: it asks again once it has answered.
        session.badge = badgeMissed;
        continue;
      }
      if (session.badge === packed || !session.active) continue;
      session.badge = packed;
      frame ??= JSON.stringify({ event: 'badge', data: { unseen: badge.unseen, unread: badge.unread } });
      session.send(frame);
      sent++;
    }
    if (sent > 0) this.owner.pushed('badge', sent);
  }
}

/** Stands in `session.badge` when a change passed by while the session was joining. */
export const badgeMissed = -2;
