/**
 * Authorisation of open subscriptions, asked again: when a block or a source named under `recheck` changes, when a token is
 * refreshed, and every minute; and likewise of whom sessions watch for presence.
 *
 * What must hold: whoever may no longer read a channel is out of it, and told (`unsubscribed`), within a second of the commit
 * that changed it; a storm of changes costs one round of queries per `spacingMs`; what cannot be asked stays as it is, and is
 * asked again. Each kind of channels has rounds of its own, and so has presence: none waits for a slow or broken rule of another.
 */

import type { Access } from '../../config/types.js';
import type { AccessRules } from './access.js';
import type { ChannelHub, ChannelHubs, Subscription } from './channels.js';
import type { Session } from '../sessions/session.js';

export interface RecheckOwner {
  readonly rules: Readonly<Record<string, { readonly read: Access; readonly recheck: readonly string[] }>>;
  readonly access: AccessRules;
  readonly channels: ChannelHubs;
  /** Asks presence again, for these people or for all; gives those for whom it could not be asked. */
  presence(who: Who): Promise<Iterable<Session>>;
  /** A session was put out of a channel. */
  left(session: Session, hub: ChannelHub): void;
  failed(what: string, error: unknown): void;
}

type Who = ReadonlySet<Session> | 'all';

const everyMs = 60_000;
const spacingMs = 250;
/** Pause before what could not be asked is asked again. */
const retryMs = 2000;

export class Recheck {
  readonly #kinds = new Map<string, Rounds>();
  readonly #all: readonly Rounds[];
  #minute: NodeJS.Timeout | null = null;

  constructor(private readonly owner: RecheckOwner) {
    for (const [kind, { read }] of Object.entries(owner.rules)) {
      if (typeof read !== 'string') this.#kinds.set(kind, new Rounds((who) => this.check(kind, read, who)));
    }
    this.#all = [...this.#kinds.values(), new Rounds((who) => owner.presence(who))];
  }

  start(): void {
    this.#minute = setInterval(() => this.everything(0), everyMs);
  }

  stop(): void {
    if (this.#minute !== null) clearInterval(this.#minute);
    for (const rounds of this.#all) rounds.stop();
  }

  /** Events of these sources happened. */
  sources(names: readonly string[]): void {
    for (const [kind, rounds] of this.#kinds) {
      if (this.owner.rules[kind]?.recheck.some((source) => names.includes(source)) === true) rounds.want('all');
    }
  }

  /** How often a kind was asked about again so far: to be read before somebody's right is checked, for `joined`. */
  mark(kind: string): number {
    return this.#kinds.get(kind)?.wanted ?? 0;
  }

  /** A subscription begins: it is asked for again if something changed since the mark, when rounds did not know of it yet. */
  joined({ session, hub }: Subscription, mark: number): void {
    if (this.mark(hub.kind) !== mark) this.#kinds.get(hub.kind)?.want([session]);
  }

  /** Asks everything again: a message may have been lost. */
  everything(delayMs = spacingMs): void {
    for (const rounds of this.#all) rounds.want('all', delayMs);
  }

  /** Something about these people changed: a block, a new token. */
  sessions(sessions: readonly Session[]): void {
    for (const rounds of this.#all) rounds.want(sessions);
  }

  private concerned(kind: string, who: Who): Subscription[] {
    const { channels } = this.owner;
    const lists =
      who === 'all'
        ? [...channels.hubs.values()].filter((hub) => hub.kind === kind).map(({ subscriptions }) => subscriptions)
        : [...who].map(({ subscriptions }) => subscriptions?.values() ?? []);
    // Everybody may read `all`, whatever the config says of rooms.
    return lists.flatMap((list) => [...list]).filter(({ hub }) => hub.kind === kind && hub !== channels.all);
  }

  /** Gives the sessions for which it could not be asked. */
  private async check(kind: string, read: Access, who: Who): Promise<Iterable<Session>> {
    const open = new Map<string, { user: string; other: string; subscriptions: Subscription[] }>();
    for (const subscription of this.concerned(kind, who)) {
      const { session, hub } = subscription;
      const key = `${session.userId}\n${hub.id}`;
      const pair = open.get(key);
      if (pair === undefined) open.set(key, { user: session.userId, other: hub.id, subscriptions: [subscription] });
      else pair.subscriptions.push(subscription);
    }
    const problem = await this.owner.access.decide(read, 'id', [...open.values()], (pair, allowed) => {
      open.delete(`${pair.user}\n${pair.other}`);
      if (!allowed) for (const subscription of pair.subscriptions) this.end(subscription);
    });
    if (problem !== null) this.owner.failed(`re-check of subscriptions to ${kind}`, problem);
    return [...open.values()].flatMap(({ subscriptions }) => subscriptions.map(({ session }) => session));
  }

  private end(subscription: Subscription): void {
    if (subscription.mode === 'ended') return;
    const { session, hub } = subscription;
    this.owner.channels.leave(subscription);
    this.owner.left(session, hub);
    session.send(JSON.stringify({ event: 'unsubscribed', channel: hub.channel, data: { code: 'forbidden' } }));
  }
}

/** One question that is asked again and again: one round at a time, for whoever was named since the last one began. */
class Rounds {
  /** How often something was wanted. */
  wanted = 0;
  readonly #sessions = new Set<Session>();
  #everything = false;
  #planned: NodeJS.Timeout | null = null;
  #dueMs = Infinity;
  #running = false;
  #stopped = false;

  /** `ask` must not reject; it gives those for whom there was no answer. */
  constructor(private readonly ask: (who: Who) => Promise<Iterable<Session>>) {}

  want(who: Iterable<Session> | 'all', delayMs = spacingMs): void {
    this.wanted++;
    if (who === 'all') this.#everything = true;
    else for (const session of who) this.#sessions.add(session);
    this.plan(delayMs);
  }

  stop(): void {
    this.#stopped = true;
    if (this.#planned !== null) clearTimeout(this.#planned);
  }

  private plan(delayMs: number): void {
    if (this.#stopped || this.#running || (!this.#everything && this.#sessions.size === 0)) return;
    const dueMs = performance.now() + delayMs;
    if (this.#dueMs <= dueMs) return;
    if (this.#planned !== null) clearTimeout(this.#planned);
    this.#dueMs = dueMs;
    this.#planned = setTimeout(() => void this.run(), delayMs);
  }

  private async run(): Promise<void> {
    this.#running = true;
    this.#planned = null;
    this.#dueMs = Infinity;
    const who = this.#everything ? 'all' : new Set(this.#sessions);
    this.#everything = false;
    this.#sessions.clear();
    const unanswered = [...(await this.ask(who))].filter(({ active }) => active);
    this.#running = false;
    this.plan(spacingMs);
    if (unanswered.length > 0) this.want(unanswered, retryMs);
  }
}
