/**
 * `belfry/client/react`: hooks for React 18 and later. React is a peer that only those who import this file need.
 *
 *     const belfry = connect({ url: '/ws', token });              // once, outside of components
 *     <BelfryProvider client={belfry}><Bell /></BelfryProvider>
 *
 *     function Bell() {
 *       const { unseen } = useBadge();
 *       const { items, seen } = useNotifications((before) => fetchPage(before));
 *       const { likes_count } = useChannel('post:456');
 *
 * What must hold: a hook listens only while its component is mounted, and listens anew when the client changes; nothing
 * here opens or closes a connection, so that strict mode and hot reloading cost none.
 */

import {
  createContext,
  createElement,
  useCallback,
  useContext,
  useEffect,
  useMemo,
  useRef,
  useState,
  useSyncExternalStore,
  type ReactNode,
} from 'react';
import type { Badge, ChannelEvent, Client, EventMap, MarkSelection, Status } from './index.js';
import { notificationList, type ListSnapshot, type LoadPage, type NotificationPage } from './list.js';

export type { LoadPage, NotificationPage };

const Context = createContext<Client | null>(null);

/** Makes a client known to all hooks below it. */
export function BelfryProvider({ client, children }: { readonly client: Client; readonly children?: ReactNode }) {
  return createElement(Context.Provider, { value: client }, children);
}

/** The client of the nearest provider; throws where there is none. */
export function useBelfry(): Client {
  const client = useContext(Context);
  if (client === null) throw new Error('useBelfry: put <BelfryProvider client={…}> around this component');
  return client;
}

/** Calls the listener while the component is mounted; always the one of the latest rendering. */
export function useEvent<K extends keyof EventMap>(event: K, listener: (...args: EventMap[K]) => void): void {
  const client = useBelfry();
  const latest = useLatest(listener);
  useEffect(() => client.on(event, (...args) => latest.current(...args)), [client, event, latest]);
}

/** `connecting`, `online`, `waiting` or `closed`. */
export function useStatus(): Status {
  const client = useBelfry();
  const watch = useCallback((changed: () => void) => client.on('status', changed), [client]);
  const read = (): Status => client.status;
  return useSyncExternalStore(watch, read, read);
}

/** The server's numbers, zeros before it has told them. */
export function useBadge(): Badge {
  const client = useBelfry();
  const watch = useCallback((changed: () => void) => client.on('badge', changed), [client]);
  const read = (): Badge => client.badge ?? noBadge;
  return useSyncExternalStore(watch, read, read);
}

/**
 * The counters of a channel while the component is mounted, `{}` before the first answer; `onEvent` gets everything else
 * of it too. Components that watch the same channel share one subscription. `null` as channel: none.
 */
export function useChannel(
  channel: string | null,
  onEvent?: (event: ChannelEvent) => void,
): Readonly<Record<string, number>> {
  const client = useBelfry();
  const latest = useLatest(onEvent);
  const [held, setHeld] = useState<{ readonly of: string | null; readonly counters: Readonly<Record<string, number>> }>(
    {
      of: channel,
      counters: none,
    },
  );
  useEffect(() => {
    if (channel === null) return;
    let names: readonly string[] = [];
    const subscription = client.subscribe(
      channel,
      (event) => {
        const changed = Object.entries(event.data).filter(([name]) => names.includes(name)) as [string, number][];
        if (changed.length > 0) {
          setHeld(({ counters }) => ({ of: channel, counters: { ...counters, ...Object.fromEntries(changed) } }));
        }
        latest.current?.(event);
      },
      (state) => {
        names = Object.keys(state);
        setHeld({ of: channel, counters: state });
      },
    );
    return () => subscription.close();
  }, [client, channel, latest]);
  return held.of === channel ? held.counters : none;
}

const noBadge: Badge = { unseen: 0, unread: 0 };
const none: Readonly<Record<string, number>> = {};

export interface Notifications extends ListSnapshot {
  readonly loadMore: () => Promise<void>;
  readonly reload: () => Promise<void>;
  /** As those of the client, and the list shows it: this connection's own marks come as no push. */
  readonly seen: (which: MarkSelection) => Promise<void>;
  readonly read: (which: MarkSelection) => Promise<void>;
  readonly archive: (which: MarkSelection) => Promise<void>;
}

/**
 * The inbox, newest first: fetched by `load` at first and after a gap, kept by pushes in between. Each component that
 * calls it has a list of its own: call it once and hand it down.
 */
export function useNotifications(load: LoadPage): Notifications {
  const client = useBelfry();
  const latest = useLatest(load);
  const list = useMemo(() => notificationList(client, () => latest.current), [client, latest]);
  const snapshot = useSyncExternalStore(list.watch, list.snapshot, list.snapshot);
  return useMemo(
    () => ({
      ...snapshot,
      loadMore: list.loadMore,
      reload: list.reload,
      seen: (which) => list.mark('seen', which),
      read: (which) => list.mark('read', which),
      archive: (which) => list.mark('archive', which),
    }),
    [snapshot, list],
  );
}

/** The value of the latest rendering, for callbacks that outlive it. */
function useLatest<T>(value: T): { readonly current: T } {
  const latest = useRef(value);
  useEffect(() => {
    latest.current = value;
  });
  return latest;
}
