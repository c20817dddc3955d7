/**
 * A list of notifications that is fetched once and then lives by pushes; what `useNotifications` shows.
 *
 * What must hold: the list is what `GET /api/notifications` would answer: the announcements that were not seen, then
 * the notifications, from the newest down to where they were loaded. A page and the pushes that come while it is fetched
 * are put in order by `seq`: what the page was read before is applied to it, what it already holds is not. What
 * cannot be decided from here is fetched anew.
 */

import type { MarkTarget, NotificationData, NotificationState } from '../protocol/frames.js';
import type { Client, MarkSelection } from './index.js';

/** The answer of `GET /api/notifications`, of which these are used. */
export interface NotificationPage {
  readonly items: readonly NotificationData[];
  /** Those not seen, newest first, on the first page. Without it the list keeps those that it has. */
  readonly announcements?: readonly NotificationData[];
  /** For `before` of the next page; null at the end. */
  readonly next: string | null;
  /** The head of the stream when the page was read. */
  readonly seq: number;
}

/** Fetches a page: `GET /api/notifications`, with `?before=…` unless it is null. */
export type LoadPage = (before: string | null) => Promise<NotificationPage>;

export interface ListSnapshot {
  /** The announcements that were not seen, then the notifications; newest first. */
  readonly items: readonly NotificationData[];
  readonly loading: boolean;
  /** Whether there is an older page. */
  readonly hasMore: boolean;
  /** Why the last fetch failed; the next one clears it. */
  readonly error: unknown;
}

/** Announcements have no position: what concerns them may be applied twice. */
type Change =
  | { readonly kind: 'announce'; readonly data: NotificationData }
  | { readonly kind: 'see'; readonly ids: readonly string[] }
  | { readonly kind: 'put'; readonly seq: number; readonly data: NotificationData }
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

const isAnnouncement = (id: string): boolean => /^a\d{1,15}$/.test(id);
/** They are marked in the order of these. */
const numberOf = (id: string): number => Number(id.slice(1));

export function notificationList(client: Client, load: () => LoadPage): NotificationList {
  let snapshot: ListSnapshot = { items: [], loading: true, hasMore: false, error: null };
  let announcements: readonly NotificationData[] = [];
  let items: readonly NotificationData[] = [];
  let next: string | null = null;
  /** The position of each notification where a push told it; of all others it is known that they are not above `readAt`. */
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

  function showAll(): void {
    show({ items: [...announcements, ...items] });
  }

  function take(change: Change): void {
    meanwhile?.push(change);
    apply(change);
  }

  function apply(change: Change): void {
    switch (change.kind) {
      case 'announce':
        return announce(change.data);
      case 'see':
        return see(change.ids);
      case 'put':
        return put(change.data, change.seq);
      case 'remove':
        return remove(change.id);
      case 'mark':
        return applyMark(change);
    }
  }

  function announce(data: NotificationData): void {
    const others = announcements.filter(({ id }) => id !== data.id);
    announcements = [data, ...others].sort((one, other) => numberOf(other.id) - numberOf(one.id));
    showAll();
  }

  /** To mark one in any way is to have seen it and those before it. */
  function see(ids: readonly string[]): void {
    const known = ids.filter((id) => announcements.some((one) => one.id === id));
    const through = Math.max(0, ...known.map(numberOf));
    announcements = announcements.filter(({ id }) => numberOf(id) > through);
    showAll();
    // By one that the server does not have either, it marks nothing.
    const left = announcements.map(({ id }) => numberOf(id));
    if (left.some((number) => ids.some((id) => number <= numberOf(id)))) void reload();
  }

  function put(data: NotificationData, seq: number): void {
    if (data.data.state === 'archived') return remove(data.id);
    positions.set(data.id, seq);
    items = [data, ...without(data.id)];
    showAll();
  }

  function remove(id: string): void {
    positions.delete(id);
    items = without(id);
    showAll();
  }

  function applyMark({ target, state }: Change & { kind: 'mark' }): void {
    // Of what a page brought only the upper bound of its position is known.
    if ('through' in target && target.through < readAt) {
      if (items.some(({ id }) => !positions.has(id))) return void reload();
    }
    const concerns = (id: string): boolean =>
      'ids' in target ? target.ids.includes(id) : (positions.get(id) ?? readAt) <= target.through;
    const marked = items.map((item) =>
      // A mark never goes back: what was read is not merely seen again.
      concerns(item.id) && rank[item.data.state] < rank[state] ? { ...item, data: { ...item.data, state } } : item,
    );
    items = marked.filter((item) => item.data.state !== 'archived');
    showAll();
  }

  const without = (id: string): NotificationData[] => items.filter((item) => item.id !== id);

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
        items = page.items;
        announcements = page.announcements ?? announcements;
      } else {
        readAt = Math.max(readAt, page.seq);
        const held = new Set(items.map(({ id }) => id));
        items = [...items, ...page.items.filter(({ id }) => !held.has(id))];
      }
      next = page.next;
      show({ items: [...announcements, ...items], loading: false, hasMore: next !== null });
      for (const change of missed) if (!('seq' in change) || change.seq > page.seq) apply(change);
    } catch (error) {
      if (mine !== generation) return;
      meanwhile = null;
      show({ loading: false, error });
    }
  }

  const reload = (): Promise<void> => fetchPage(null);

  function listen(): void {
    unlisten = [
      client.on('notification', (data, { seq }) =>
        take(seq === undefined ? { kind: 'announce', data } : { kind: 'put', seq, data }),
      ),
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
      const announced = 'ids' in target ? target.ids.filter(isAnnouncement) : [];
      if (announced.length > 0) take({ kind: 'see', ids: announced });
    },
  };
}
