/**
 * Authorisation of open subscriptions, asked again: when a block or a source named under `recheck` changes, when a token is
 * refreshed, and every minute.
 *
 * What must hold: whoever may no longer read a channel is out of it, and told (`unsubscribed`), within a second of the commit
 * that changed it; a storm of changes costs one round of queries per `spacingMs`; while it cannot be asked, subscriptions stay
 * as they are and the round is repeated.
 */

import type { Access } from '../config/types.js';
import type { AccessRules, Pair } from './access.js';
import type { ChannelHubs, Subscription } from './channels.js';
import type { Session } from './session.js';

export interface RecheckOwner {
  readonly rules: Readonly<Record<string, { readonly read: Access; readonly recheck: readonly string[] }>>;
  readonly access: AccessRules;
  readonly channels: ChannelHubs;
  /** Also asks presence again, for these people or for all. */
  presence(sessions: Iterable<Session> | 'all'): Promise<void>;
  failed(what: string, error: unknown): void;
}

const everyMs = 60_000;
const spacingMs = 250;

export class Recheck {
  readonly #kinds = new Set<string>();
  readonly #sessions = new Set<Session>();
  #everything = false;
  #planned: NodeJS.Timeout | null = null;
  #minute: NodeJS.Timeout | null = null;
  #running = false;
  #stopped = false;

  constructor(private readonly owner: RecheckOwner) {}

  start(): void {
    this.#minute = setInterval(() => {
      this.#everything = true;
      this.plan(0);
    }, everyMs);
  }

  stop(): void {
    this.#stopped = true;
    if (this.#minute !== null) clearInterval(this.#minute);
    if (this.#planned !== null) clearTimeout(this.#planned);
  }

  /** Events of these sources happened. */
  sources(names: readonly string[]): void {
    for (const [kind, rule] of Object.entries(this.owner.rules)) {
      if (rule.recheck.some((source) => names.includes(source))) this.#kinds.add(kind);
    }
    if (this.#kinds.size > 0) this.plan(spacingMs);
  }

  /** What changed may not have been told. */
  everything(): void {
    this.#everything = true;
    this.plan(spacingMs);
  }

  /** Something about these people changed: a block, a new token. */
  sessions(sessions: Iterable<Session>): void {
    for (const session of sessions) this.#sessions.add(session);
    if (this.#sessions.size > 0) this.plan(spacingMs);
  }

  private plan(delayMs: number): void {
    if (this.#stopped || this.#running || this.#planned !== null) return;
    this.#planned = setTimeout(() => {
      this.#planned = null;
      void this.run();
    }, delayMs);
  }

  private async run(): Promise<void> {
    this.#running = true;
    const everything = this.#everything;
    const kinds = new Set(this.#kinds);
    const sessions = new Set(this.#sessions);
    this.#everything = false;
    this.#kinds.clear();
    this.#sessions.clear();
    let delayMs = spacingMs;
    try {
      await this.check(this.concerned(everything, kinds, sessions));
      if (everything || sessions.size > 0) await this.owner.presence(everything ? 'all' : sessions);
    } catch (error) {
      this.owner.failed('re-check of subscriptions', error);
      this.#everything ||= everything;
      for (const kind of kinds) this.#kinds.add(kind);
      for (const session of sessions) if (session.active) this.#sessions.add(session);
      delayMs = 2000;
    }
    this.#running = false;
    if (this.#everything || this.#kinds.size > 0 || this.#sessions.size > 0) this.plan(delayMs);
  }

  /** Subscriptions to ask for, by kind. */
  private concerned(
    everything: boolean,
    kinds: ReadonlySet<string>,
    sessions: ReadonlySet<Session>,
  ): Map<string, Subscription[]> {
    const found = new Map<string, Subscription[]>();
    const add = (subscription: Subscription): void => {
      const { kind } = subscription.hub;
      const rule = this.owner.rules[kind];
      if (rule === undefined || typeof rule.read === 'string') return;
      const list = found.get(kind);
      if (list === undefined) found.set(kind, [subscription]);
      else list.push(subscription);
    };
    if (everything || kinds.size > 0) {
      for (const hub of this.owner.channels.hubs.values()) {
        if (everything || kinds.has(hub.kind)) for (const subscription of hub.subscriptions) add(subscription);
      }
    }
    if (!everything) {
      for (const session of sessions) {
        for (const subscription of session.subscriptions?.values() ?? [])
          if (!kinds.has(subscription.hub.kind)) add(subscription);
      }
    }
    return found;
  }

  private async check(concerned: ReadonlyMap<string, readonly Subscription[]>): Promise<void> {
    for (const [kind, subscriptions] of concerned) {
      const pairs = new Map<string, Pair>();
      for (const { session, hub } of subscriptions) {
        pairs.set(`${session.userId}\n${hub.id}`, { user: session.userId, other: hub.id });
      }
      const read = this.owner.rules[kind]?.read ?? 'none';
      const answers = await this.owner.access.allowsEach(read, 'id', [...pairs.values()]);
      const refused = new Set([...pairs.keys()].filter((_, i) => answers[i] === false));
      for (const subscription of subscriptions) {
        if (refused.has(`${subscription.session.userId}\n${subscription.hub.id}`)) this.end(subscription);
      }
    }
  }

  private end(subscription: Subscription): void {
    if (subscription.mode === 'ended') return;
    const { session, hub } = subscription;
    this.owner.channels.leave(subscription);
    session.send(JSON.stringify({ event: 'unsubscribed', channel: hub.channel, data: { code: 'forbidden' } }));
  }
}
