/**
 * Whom each connected person blocks or is blocked by: loaded when somebody comes, again when it has changed.
 *
 * What must hold: one query at a time, in the order of the requests (together.ts), so that an older answer never replaces a
 * newer one; without `blocks` in the config no query at all; a change that cannot be loaded is tried until it can.
 */

import type { Inbox } from '../inbox/types.js';
import type { People, PersonHub } from './people.js';
import { Together } from './together.js';

export interface BlocksOwner {
  readonly inbox: Inbox;
  readonly people: People;
  readonly configured: boolean;
  /** The relations of a person have changed. */
  changed(hub: PersonHub): void;
  failed(what: string, error: unknown): void;
}

const retryMs = 1000;
/** People per query. */
const peopleAtOnce = 1000;
/** Questions, each for some people, that are answered together. */
const listsAtOnce = 1000;
type Relations = ReadonlyMap<string, ReadonlySet<string>>;
const nobody: ReadonlySet<string> = new Set();

export class Blocks {
  readonly #relations: Together<readonly string[], Relations>;
  readonly #retries = new Set<string>();
  #timer: NodeJS.Timeout | null = null;
  #stopped = false;

  constructor(private readonly owner: BlocksOwner) {
    this.#relations = new Together(async (lists: readonly (readonly string[])[]): Promise<Relations[]> => {
      const userIds = [...new Set(lists.flat())];
      const found = new Map<string, ReadonlySet<string>>();
      for (let from = 0; from < userIds.length; from += peopleAtOnce) {
        for (const [userId, blocks] of await owner.inbox.blockedWith(userIds.slice(from, from + peopleAtOnce)))
          found.set(userId, blocks);
      }
      return lists.map(() => found);
    }, listsAtOnce);
  }

  /** Whether the hub's relations must be loaded before anything is sent. */
  needed(hub: PersonHub): boolean {
    return this.owner.configured && !hub.blocksKnown;
  }

  /** Resolves when the relations of all these are known; rejects when they cannot be had. */
  async load(hubs: readonly PersonHub[]): Promise<void> {
    if (hubs.length === 0) return;
    const found = await this.#relations.ask(hubs.map(({ userId }) => userId));
    for (const hub of hubs) this.apply(hub, found.get(hub.userId) ?? nobody);
  }

  /** Loads anew those of these people who are connected. */
  reload(userIds: Iterable<string>): void {
    if (!this.owner.configured) return;
    const hubs = [...userIds].flatMap((userId) => this.owner.people.hubs.get(userId) ?? []);
    this.load(hubs).catch((error: unknown) => {
      this.owner.failed('block relations', error);
      this.retry(hubs);
    });
  }

  stop(): void {
    this.#stopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  private retry(hubs: readonly PersonHub[]): void {
    for (const { userId } of hubs) this.#retries.add(userId);
    if (this.#stopped) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      const userIds = [...this.#retries];
      this.#retries.clear();
      this.reload(userIds);
    }, retryMs);
  }

  private apply(hub: PersonHub, blocks: ReadonlySet<string>): void {
    const changed = hub.blocksKnown;
    hub.blocks = blocks.size > 0 ? blocks : null;
    hub.blocksKnown = true;
    if (changed) this.owner.changed(hub);
  }
}
