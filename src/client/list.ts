/**
 * A list of notifications that is fetched once and then lives by pushes; what `useNotifications` shows.
 *
 * What must hold: the list is what `GET /api/notifications` would answer, from its newest down to where it was loaded.
 * A page and the pushes that come while it is fetched are put in order by `seq`: what the page was read before is applied
 * to it, what it already holds is not. What cannot be decided from here is fetched anew.
 */

import type { MarkTarget, NotificationData, NotificationState } from '../protocol/frames.js';
import type { Client, MarkSelection } from './index.js';

/** The answer of `GET /api/notifications`, of which these are used. */
export interface NotificationPage {
  readonly items: readonly NotificationData[];
  /** For `before` of the next page; null at the end. */
  readonly next: string | null;
  /** The head of the stream when the page was read. */
  readonly seq: number;
}

/** Fetches a page: `GET /api/notifications`, with `?before=…` unless it is null. */
export type LoadPage = (before: string | null) => Promise<NotificationPage>;

export interface ListSnapshot {
  /** Newest first. */
  readonly items: readonly NotificationData[];
  readonly loading: boolean;
  /** Whether there is an older page. */
  readonly hasMore: boolean;
  /** Why the last fetch failed; the next one clears it. */
  readonly error: unknown;
}

type Change =
  | { readonly kind: 'put'; readonly seq: number | undefined; readonly data: NotificationData }
  | { readonly kind: 'remove'; readonly seq: number; readonly id: string }
  | { readonly kind: 'mark'; readonly seq: number; readonly target: MarkTarget; readonly state: NotificationState };

export interface NotificationList {
  readonly snapshot: () => ListSnapshot;
  /** Listens to the client and fetches while anybody watches; returns what ends it. */
  readonly watch: (changed: () => void) => () => void;
  readonly loadMore: () => Promise<void>;
  readonly reload: () => Promise<void>;
  readonly mark: (op: 'seen' | 'read' | 'archive', which: MarkSelection) => Promise<void>;
}

const stateOf = { seen: 'seen', read: 'read', archive: 'archived' } as const;
const rank: Readonly<Record<NotificationState, number>> = { unseen: 0, seen: 1, read: 2, archived: 3 };

export function notificationList(client: Client, load: () => LoadPage): NotificationList {
  let snapshot: ListSnapshot = { items: [], loading: true, hasMore: false, error: null };
  let next: string | null = null;
  /** The position of each item where a push told it; of all others it is known that they are not above `readAt`. */
  let positions = new Map<string, number>();
  let readAt = 0;
  /** What came while a page is being fetched; null while none is. */
  let meanwhile: Change[] | null = null;
  /** Counts fetches from the top: the answer of one that was overtaken is void. */
  let generation = 0;
  const watchers = new Set<() => void>();
  let unlisten: (() => void)[] = [];

  function show(changed: Partial<ListSnapshot>): void {
    snapshot = { ...snapshot, ...changed };
    for (const watcher of watchers) watcher();
  }

  function take(change: Change): void {
    meanwhile?.push(change);
    apply(change);
  }

  function apply(change: Change): void {
    switch (change.kind) {
      case 'put':
        return put(change.data, change.seq);
      case 'remove':
        positions.delete(change.id);
        return show({ items: without(change.id) });
      case 'mark':
        return applyMark(change);
    }
  }

  function put(data: NotificationData, seq: number | undefined): void {
    // An announcement that comes again stays where it is.
    if (seq === undefined && snapshot.items.some(({ id }) => id === data.id)) {
      return show({ items: snapshot.items.map((item) => (item.id === data.id ? data : item)) });
    }
    if (seq !== undefined) positions.set(data.id, seq);
    show({ items: [data, ...without(data.id)] });
  }

  function applyMark({ target, state }: Change & { kind: 'mark' }): void {
    // Of what a page brought only the upper bound of its position is known.
    if ('through' in target && target.through < readAt) {
      if (snapshot.items.some(({ id }) => !positions.has(id))) return void reload();
    }
    const concerns = (id: string): boolean =>
      'ids' in target ? target.ids.includes(id) : (positions.get(id) ?? readAt) <= target.through;
    const items = snapshot.items.map((item) =>
      // A mark never goes back: what was read is not merely seen again.
      concerns(item.id) && rank[item.data.state] < rank[state] ? { ...item, data: { ...item.data, state } } : item,
    );
    show({ items: items.filter((item) => item.data.state !== 'archived') });
  }

  const without = (id: string): NotificationData[] => snapshot.items.filter((item) => item.id !== id);

  async function fetchPage(before: string | null): Promise<void> {
    const mine = before === null ? ++generation : generation;
    meanwhile = [];
    show({ loading: true, error: null });
    try {
      const page = await load()(before);
      if (mine !== generation) return;
      // Such as the body of a 401, which a `load` that looks at no status hands on.
      if (!('items' in page)) throw new TypeError('load: gave no page of notifications');
      const missed = meanwhile;
      meanwhile = null;
      if (before === null) {
        positions = new Map();
        readAt = page.seq;
        snapshot = { ...snapshot, items: page.items };
      } else {
        readAt = Math.max(readAt, page.seq);
        const held = new Set(snapshot.items.map(({ id }) => id));
        snapshot = { ...snapshot, items: [...snapshot.items, ...page.items.filter(({ id }) => !held.has(id))] };
      }
      next = page.next;
      show({ loading: false, hasMore: next !== null });
      // An announcement has no position: again is harmless.
      for (const change of missed) if (change.seq === undefined || change.seq > page.seq) apply(change);
    } catch (error) {
      if (mine !== generation) return;
      meanwhile = null;
      show({ loading: false, error });
    }
  }

  const reload = (): Promise<void> => fetchPage(null);

  function listen(): void {
    unlisten = [
      client.on('notification', (data, { seq }) => take({ kind: 'put', seq, data })),
      client.on('withdrawn', ({ id }, { seq }) => take({ kind: 'remove', seq, id })),
      client.on('state', (data, { seq }) => take({ kind: 'mark', seq, target: data, state: data.state })),
      client.on('gap', ({ channel }) => void (channel === null && reload())),
    ];
    void reload();
  }

  return {
    snapshot: () => snapshot,
    watch(changed) {
      watchers.add(changed);
      if (watchers.size === 1) listen();
      return () => {
        watchers.delete(changed);
        if (watchers.size === 0) for (const end of unlisten) end();
      };
    },
    async loadMore() {
      if (next !== null && !snapshot.loading) await fetchPage(next);
    },
    reload,
    async mark(op, which) {
      const target: MarkTarget =
        'through' in which ? { through: which.through } : { ids: 'ids' in which ? which.ids : which };
      const { seq } = await client[op](which);
      take({ kind: 'mark', seq, target, state: stateOf[op] });
    },
  };
}
