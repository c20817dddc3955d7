/**
 * Who is online, for those who may see them.
 *
 * What must hold: nobody learns anything about a person whom `presence.read` does not let them see, or with whom they have a block relation:
 * to them that person is always offline. Who is back within the grace time was never away (no flapping). Nothing is kept without
 * `presence.read`, nor of a session that is gone.
 *
 * A session watches what it asked for: people, up to a bound (the oldest question is forgotten first), and channels that it
 * is subscribed to. What it watches is asked again by recheck.ts.
 */

import type { PresencePublication } from '../../broker/broker.js';
import type { Access } from '../../config/types.js';
import type { Inbox } from '../../inbox/types.js';
import type { PresenceStatus } from '../../protocol/frames.js';
import type { AccessRules, Pair } from '../channels/access.js';
import type { ChannelHub } from '../channels/channels.js';
import { Elsewhere, partsOf, placeIn, placeOf } from './elsewhere.js';
import type { People } from '../people/people.js';
import type { Session } from '../sessions/session.js';

export interface PresenceOwner {
  readonly read: Access;
  readonly access: AccessRules;
  readonly people: People;
  readonly inbox: Inbox;
  /** Most people and channels that one session watches. */
  readonly mostWatched: number;
  /** To the other gateways; null where there are none. */
  readonly publish: ((publications: readonly PresencePublication[]) => void) | null;
  pushed(kind: 'presence', count: number): void;
  failed(what: string, error: unknown): void;
}

/** Who is back within this time was never away. */
export const graceMs = 5000;
/** Most people that are listed of a channel. */
const mostListed = 1000;

/** A session that watches somebody. */
interface Watch extends Pair {
  readonly session: Session;
}

export class Presence {
  /** Watched name (`u` person, `c` channel) → who watches it. */
  readonly #watchers = new Map<string, Set<Session>>();
  /** Who left a moment ago (person, or channel and person) → the end of the grace. In the order in which they end. */
  readonly #leaving = new Map<string, { readonly atMs: number; readonly gone: () => void }>();
  /** Who counts as online: with a live session, or away for less than the grace. */
  readonly #online = new Set<string>();
  /** Who is there at other gateways; null where nothing is to be known of them. */
  readonly #elsewhere: Elsewhere | null;
  #timer: NodeJS.Timeout | null = null;

  constructor(private readonly owner: PresenceOwner) {
    const { publish } = owner;
    this.#elsewhere =
      publish === null || !this.enabled
        ? null
        : new Elsewhere({ publish, changed: (place, present) => this.changedElsewhere(place, present) });
  }

  start(): void {
    this.#elsewhere?.start();
  }

  /** Another gateway says who is there. */
  heard(publication: PresencePublication): void {
    this.#elsewhere?.receive(publication);
  }

  /** The broker was away: messages may have been lost. */
  reconnected(): void {
    this.#elsewhere?.reconnected();
  }

  get enabled(): boolean {
    return this.owner.read !== 'none';
  }

  /** Throws BelfryError `unavailable`. */
  async statuses(viewer: string, users: readonly string[]): Promise<Record<string, PresenceStatus>> {
    const visible = await this.visible(viewer, users);
    return Object.fromEntries(
      users.map((user) => [user, visible.has(user) && this.isOnline(user) ? 'online' : 'offline']),
    );
  }

  /** As `statuses`, and tells the session of changes from now on. */
  async watchUsers(session: Session, users: readonly string[]): Promise<Record<string, PresenceStatus>> {
    const visible = await this.visible(session.userId, users);
    for (const user of visible) this.watch(session, placeOf(user));
    return Object.fromEntries(
      users.map((user) => [user, visible.has(user) && this.isOnline(user) ? 'online' : 'offline']),
    );
  }

  /** Tells the session from now on who comes to a channel and who leaves it; of a channel that it is subscribed to. */
  watchChannel(session: Session, channel: string): void {
    this.watch(session, `c${channel}`);
  }

  unwatchChannel(session: Session, channel: string): void {
    this.unwatch(session, `c${channel}`);
  }

  /** Who is in a channel, of those whom the session may see. Throws BelfryError `unavailable`. */
  async statusesIn(
    session: Session,
    channel: string,
    hub: ChannelHub | undefined,
  ): Promise<Record<string, PresenceStatus>> {
    const users = new Set<string>();
    for (const subscription of hub?.subscriptions ?? []) {
      if (users.size >= mostListed) break;
      users.add(subscription.session.userId);
    }
    for (const userId of this.#elsewhere?.membersOf(channel) ?? []) {
      if (users.size >= mostListed) break;
      users.add(userId);
    }
    const visible = await this.visible(session.userId, [...users]);
    return Object.fromEntries([...visible].map((user) => [user, 'online']));
  }

  /** A session became live. */
  arrived(session: Session): void {
    if (!this.enabled) return;
    const { userId } = session;
    this.#leaving.delete(placeOf(userId));
    if (this.#online.has(userId)) return;
    this.#online.add(userId);
    if (this.noteHere(placeOf(userId), true)) this.tellUser(userId, 'online');
  }

  /** A session is gone. */
  left(session: Session): void {
    for (const name of session.watching ?? []) this.unwatch(session, name);
    const { userId } = session;
    if (!this.#online.has(userId) || this.hasLive(userId)) return;
    this.leave(placeOf(userId), () => {
      if (this.hasLive(userId)) return;
      this.#online.delete(userId);
      if (this.noteHere(placeOf(userId), false)) this.tellUser(userId, 'offline');
    });
  }

  joinedChannel(session: Session, hub: ChannelHub): void {
    if (!this.enabled) return;
    const { userId } = session;
    const place = placeIn(hub.channel, userId);
    if (this.#leaving.delete(place) || othersIn(hub, session) > 0) return;
    if (this.noteHere(place, true)) void this.tellChannel(hub.channel, userId, 'online');
  }

  /** A session left a channel. It may come back at once, so it goes on watching until `unwatchChannel`. */
  leftChannel(session: Session, hub: ChannelHub): void {
    if (!this.enabled || othersIn(hub, session) > 0) return;
    const { userId } = session;
    const place = placeIn(hub.channel, userId);
    this.leave(place, () => {
      if (this.noteHere(place, false)) void this.tellChannel(hub.channel, userId, 'offline');
    });
  }

  /** Asks again whether sessions may see whom they watch, many sessions at once; gives those for whom it could not be asked. */
  async recheck(sessions: Iterable<Session>): Promise<Session[]> {
    if (!this.enabled) return [];
    const watches = [...sessions].filter(({ active }) => active).flatMap(watchedPeople);
    const open = new Set(watches);
    const problem = await this.owner.access.decide(this.owner.read, 'other', watches, (watch, allowed) => {
      open.delete(watch);
      const { session, other } = watch;
      if (allowed && session.hub?.blocks?.has(other) !== true) return;
      this.unwatch(session, placeOf(other));
      if (this.isOnline(other)) session.send(frame(other, 'offline', null));
    });
    if (problem !== null) this.owner.failed('re-check of presence', problem);
    return [...open].map(({ session }) => session);
  }

  /** All sessions that watch something. */
  get watching(): Set<Session> {
    return new Set([...this.#watchers.values()].flatMap((sessions) => [...sessions]));
  }

  stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#leaving.clear();
    this.#elsewhere?.stop();
  }

  private isOnline(userId: string): boolean {
    return this.#online.has(userId) || this.#elsewhere?.has(placeOf(userId)) === true;
  }

  /** Notes that somebody came to a place of this gateway, or left it. Gives whether that changes anything: they may be at another gateway too. */
  private noteHere(place: string, present: boolean): boolean {
    this.#elsewhere?.set(place, present);
    return this.#elsewhere?.has(place) !== true;
  }

  private changedElsewhere(place: string, present: boolean): void {
    if (this.#elsewhere?.isHere(place) !== false) return;
    const { channel, userId } = partsOf(place);
    const status = present ? 'online' : 'offline';
    if (channel === null) this.tellUser(userId, status);
    else void this.tellChannel(channel, userId, status);
  }

  private hasLive(userId: string): boolean {
    return this.owner.people.hubs.get(userId)?.sessions.some(({ stage }) => stage === 'live') === true;
  }

  private async visible(viewer: string, users: readonly string[]): Promise<Set<string>> {
    const { people, inbox, access, read } = this.owner;
    const hub = people.hubs.get(viewer);
    // Whoever has no session here may ask all the same, over HTTP.
    const blocks = hub?.blocksKnown === true ? hub.blocks : (await inbox.blockedWith([viewer])).get(viewer);
    const asked = users.filter((user) => user !== viewer && blocks?.has(user) !== true);
    const pairs = asked.map((other) => ({ user: viewer, other }));
    const answers = await access.allowsEach(read, 'other', pairs);
    return new Set([...asked.filter((_, i) => answers[i] === true), ...users.filter((user) => user === viewer)]);
  }

  private watch(session: Session, name: string): void {
    // The session may have ended while it was asked whom it may see.
    if (!session.open) return;
    session.watching ??= new Set();
    session.watching.delete(name);
    session.watching.add(name);
    const watchers = this.#watchers.get(name);
    if (watchers === undefined) this.#watchers.set(name, new Set([session]));
    else watchers.add(session);
    if (session.watching.size <= this.owner.mostWatched) return;
    const [oldest] = session.watching;
    if (oldest !== undefined) this.unwatch(session, oldest);
  }

  private unwatch(session: Session, name: string): void {
    session.watching?.delete(name);
    const watchers = this.#watchers.get(name);
    if (watchers?.delete(session) === true && watchers.size === 0) this.#watchers.delete(name);
  }

  private tellUser(userId: string, status: PresenceStatus): void {
    let sent = 0;
    for (const session of this.#watchers.get(placeOf(userId)) ?? []) {
      if (session.hub?.blocks?.has(userId) === true || session.userId === userId) continue;
      session.send(frame(userId, status, null));
      sent++;
    }
    if (sent > 0) this.owner.pushed('presence', sent);
  }

  private async tellChannel(channel: string, userId: string, status: PresenceStatus): Promise<void> {
    const watchers = [...(this.#watchers.get(`c${channel}`) ?? [])].filter(
      (session) => session.userId !== userId && session.hub?.blocks?.has(userId) !== true,
    );
    if (watchers.length === 0) return;
    try {
      const pairs = watchers.map((session) => ({ user: session.userId, other: userId }));
      const answers = await this.owner.access.allowsEach(this.owner.read, 'other', pairs);
      watchers.forEach((session, i) => {
        if (answers[i] === true) session.send(frame(userId, status, channel));
      });
      this.owner.pushed('presence', watchers.length);
    } catch (error) {
      this.owner.failed('presence', error);
    }
  }

  private leave(name: string, gone: () => void): void {
    this.#leaving.delete(name);
    this.#leaving.set(name, { atMs: performance.now() + graceMs, gone });
    this.#timer ??= setTimeout(() => this.endGraces(), graceMs);
  }

  private endGraces(): void {
    this.#timer = null;
    const now = performance.now();
    for (const [name, { atMs, gone }] of this.#leaving) {
      if (atMs > now) {
        this.#timer = setTimeout(() => this.endGraces(), Math.max(1, atMs - now));
        return;
      }
      this.#leaving.delete(name);
      gone();
    }
  }
}

/** The people whom a session watches, but for the user's own self. */
function watchedPeople(session: Session): Watch[] {
  const user = session.userId;
  return [...(session.watching ?? [])]
    .filter((name) => name.startsWith('u') && name !== placeOf(user))
    .map((name) => ({ session, user, other: name.slice(1) }));
}

function othersIn(hub: ChannelHub, session: Session): number {
  let count = 0;
  for (const { session: other } of hub.subscriptions) if (other !== session && other.userId === session.userId) count++;
  return count;
}

function frame(userId: string, status: PresenceStatus, channel: string | null): string {
  const data = { user_id: userId, status };
  return JSON.stringify(channel === null ? { event: 'presence', data } : { event: 'presence', channel, data });
}
