/**
 * Whom each connected person blocks or is blocked by: loaded when somebody comes, when a change is told, and every minute, since a
 * message that told of a change may have been lost.
 *
 * What must hold:
 * - One query at a time, in the order of the requests (together.ts), so that an older answer never replaces a newer one. Without `blocks` in
 *   the config there is no query at all. A change that can't be loaded is tried until it can.
 * - From the turn in which a change is told until it is loaded, people whom it may keep apart do not see each other: events of one may
 *   follow in the same turn. Nobody else is hidden meanwhile, since what was hidden is not sent again.
 */

import type { ControlPublication } from '../../broker/broker.js';
import type { Inbox } from '../../inbox/types.js';
import type { Blocked, People, PersonHub } from './people.js';
import { Together } from '../recovery/together.js';

export interface BlocksOwner {
  readonly inbox: Inbox;
  readonly people: People;
  readonly configured: boolean;
  /** `hub.blocks` was replaced: the person's sockets may belong into other topics. */
  place(hub: PersonHub): void;
  /** The relations of a person have changed, and are known. */
  changed(hub: PersonHub): void;
  failed(what: string, error: unknown): void;
}

const retryMs = 1000;
/** Nearly a minute: not at the same moment as everything else that comes each minute, which would take one more connection. */
const everyMs = 57_000;
/** People per query. */
const peopleAtOnce = 1000;
/** How many questions, each about some people, are answered together. */
const listsAtOnce = 1000;
type Relations = ReadonlyMap<string, ReadonlySet<string>>;
type Change = Extract<ControlPublication, { readonly kind: 'blocks' }>;
const nobody: ReadonlySet<string> = new Set();

export class Blocks {
  readonly #relations: Together<readonly string[], Relations>;
  readonly #retries = new Set<string>();
  /** Numbers the questions in their order. */
  #asked = 0;
  #timer: NodeJS.Timeout | null = null;
  #minute: NodeJS.Timeout | null = null;
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

  start(): void {
    if (!this.owner.configured) return;
    this.#minute = setInterval(() => {
      this.loadAll().catch((error: unknown) => this.owner.failed('block relations', error));
    }, everyMs);
  }

  /** Whether the hub's relations must be loaded before anything is sent. */
  needed(hub: PersonHub): boolean {
    return this.owner.configured && !hub.blocksKnown;
  }

  /** Resolves when the relations of all these people are known; rejects when they can't be loaded. */
  async load(hubs: readonly PersonHub[]): Promise<void> {
    if (hubs.length === 0) return;
    const asked = ++this.#asked;
    const found = await this.#relations.ask(hubs.map(({ userId }) => userId));
    for (const hub of hubs) this.apply(hub, found.get(hub.userId) ?? nobody, asked);
  }

  /** Loads everybody's again, page by page, so that whoever joins waits for one page at most; rejects when one can't be loaded. */
  async loadAll(): Promise<void> {
    if (!this.owner.configured) return;
    const hubs = [...this.owner.people.hubs.values()].filter(({ blocksKnown }) => blocksKnown);
    for (let from = 0; from < hubs.length && !this.#stopped; from += peopleAtOnce)
      await this.load(hubs.slice(from, from + peopleAtOnce));
  }

  /** Whom people block, or are blocked by, has changed. */
  change({ userIds, pairs }: Change): void {
    if (!this.owner.configured) return;
    const named = new Set(userIds);
    const apart = pairs === undefined ? null : othersOf(pairs);
    for (const hub of this.connected(named)) {
      const perhaps = apart === null ? named : (apart.get(hub.userId) ?? nobody);
      const before = hub.blocks instanceof Doubted ? hub.blocks : null;
      const known = before === null ? hub.blocks : before.known;
      const all = before === null ? perhaps : new Set([...before.perhaps, ...perhaps]);
      hub.blocks = new Doubted(hub.userId, known, all, this.#asked + 1);
      this.owner.place(hub);
    }
    this.reload(named);
  }

  stop(): void {
    this.#stopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#minute !== null) clearInterval(this.#minute);
  }

  private connected(userIds: Iterable<string>): PersonHub[] {
    return [...userIds].flatMap((userId) => this.owner.people.hubs.get(userId) ?? []);
  }

  private reload(userIds: Iterable<string>): void {
    const hubs = this.connected(userIds);
    this.load(hubs).catch((error: unknown) => {
      this.owner.failed('block relations', error);
      this.retry(hubs);
    });
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

  private apply(hub: PersonHub, blocks: ReadonlySet<string>, asked: number): void {
    const { blocks: before, blocksKnown: wasKnown } = hub;
    const known = blocks.size > 0 ? blocks : null;
    const doubt = before instanceof Doubted && asked < before.until;
    hub.blocks = doubt ? new Doubted(hub.userId, known, before.perhaps, before.until) : known;
    hub.blocksKnown = true;
    if (!wasKnown || doubt || sameBlocked(before, known)) return;
    this.owner.place(hub);
    this.owner.changed(hub);
  }
}

/** False for relations in doubt, so that everything that depends on a block is looked at again after a change that was told. */
function sameBlocked(before: Blocked | null, now: ReadonlySet<string> | null): boolean {
  if (before === null || now === null) return before === now;
  return !(before instanceof Doubted) && before.size === now.size && [...now].every((userId) => before.has(userId));
}

function othersOf(pairs: NonNullable<Change['pairs']>): Relations {
  const others = new Map<string, Set<string>>();
  for (const [userId, other] of pairs) others.set(userId, (others.get(userId) ?? new Set()).add(other));
  return others;
}

/** Relations of which a change was told that is not loaded yet: whom it may keep apart from the person counts as blocked. */
class Doubted implements Blocked {
  constructor(
    private readonly self: string,
    readonly known: Blocked | null,
    readonly perhaps: ReadonlySet<string>,
    /** The number of the question that settles it. */
    readonly until: number,
  ) {}

  get size(): number {
    return this.perhaps.size + (this.known?.size ?? 0);
  }

  has(userId: string): boolean {
    return this.known?.has(userId) === true || (this.perhaps.has(userId) && userId !== this.self);
  }
}
