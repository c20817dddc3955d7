/** The list behind `useNotifications`: a page and the pushes that come while it is fetched end as the inbox. */

import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { WebSocket } from 'ws';
import { connect, type Client, type MarkSelection, type NotificationData } from '../../src/client/index.js';
import { notificationList, type NotificationList, type NotificationPage } from '../../src/client/list.js';
import { scriptedServer, type Peer, type ScriptedServer } from './server.js';

let server: ScriptedServer;
let client: Client;
let peer: Peer;
let list: NotificationList;
/** Fetches that wait for their answer, oldest first. */
let fetches: { before: string | null; answer: (page: NotificationPage) => void; fail: (error: Error) => void }[];

beforeEach(async () => {
  server = await scriptedServer();
  client = connect({ url: server.url, token: () => 'secret', WebSocket });
  peer = await server.peer();
  await peer.welcome();
  fetches = [];
  list = notificationList(
    client,
    () => (before) => new Promise((answer, fail) => void fetches.push({ before, answer, fail })),
  );
  onTestFinished(list.watch(() => undefined));
});
afterEach(async () => {
  client.close();
  await server.stop();
});

const item = (id: string, state: NotificationData['data']['state'] = 'unseen'): NotificationData => ({
  ...{ id, type: 'like', message: `m${id}`, timestamp: '2026-01-01T00:00:00.000Z' },
  data: { state, alert: false },
});
const page = (seq: number, ids: readonly string[], next: string | null = null): NotificationPage => ({
  ...{ items: ids.map((id) => item(id)), next, seq },
});
const shown = (): string[] => list.snapshot().items.map(({ id, data }) => `${id} ${data.state}`);

async function push(...frames: object[]): Promise<void> {
  peer.send(...frames);
  const answered = client.ping();
  const { id } = await peer.next('ping');
  peer.send({ id, ok: {} });
  await answered;
}
const put = (seq: number, id: string, state?: NotificationData['data']['state']) => ({
  ...{ event: 'notification', seq, data: item(id, state) },
});
const withdrawn = (seq: number, id: string) => ({ event: 'withdrawn', seq, data: { id, type: 'like' } });
const state = (seq: number, data: object) => ({ event: 'state', seq, data });

async function answer(one: NotificationPage): Promise<void> {
  fetches.shift()?.answer(one);
  await new Promise(setImmediate);
}

describe('what comes while a page is fetched', () => {
  it('is put on top of it where the page was read before', async () => {
    expect(list.snapshot()).toEqual({ items: [], loading: true, hasMore: false, error: null });
    await push(put(11, 'b'), put(12, 'c'), withdrawn(13, 'a'));
    expect(shown()).toEqual(['c unseen', 'b unseen']);
    await answer(page(11, ['b', 'a']));
    expect(shown()).toEqual(['c unseen', 'b unseen']);
    expect(list.snapshot()).toMatchObject({ loading: false, hasMore: false, error: null });
  });

  it('is not repeated where the page was read after', async () => {
    await push(put(11, 'b'), put(12, 'a'));
    // Both were withdrawn before it was read.
    await answer(page(14, ['c']));
    expect(shown()).toEqual(['c unseen']);
  });

  it('of an older page: what was withdrawn meanwhile does not come back, what moved up is not shown twice', async () => {
    await answer(page(10, ['d', 'c'], 'next'));
    expect(list.snapshot().hasMore).toBe(true);
    void list.loadMore();
    void list.loadMore();
    expect(fetches.map(({ before }) => before)).toEqual(['next']);
    await push(put(11, 'b'), withdrawn(12, 'a'));
    await answer(page(10, ['b', 'a', 'z']));
    expect(shown()).toEqual(['b unseen', 'd unseen', 'c unseen', 'z unseen']);
  });
});

describe('an archived one', () => {
  it('leaves when it is pushed, and does not come', async () => {
    await answer(page(10, ['b', 'a']));
    await push(put(11, 'b', 'archived'), put(12, 'c', 'archived'));
    expect(shown()).toEqual(['a unseen']);
    await push(put(13, 'b', 'seen'));
    expect(shown()).toEqual(['b seen', 'a unseen']);
  });

  it('leaves the page that was read before it', async () => {
    await push(put(11, 'b', 'archived'));
    expect(shown()).toEqual([]);
    await answer(page(10, ['b', 'a']));
    expect(shown()).toEqual(['a unseen']);
  });
});

describe('announcements', () => {
  const announced = (id: string) => ({ event: 'notification', data: item(id) });
  const telling = (seq: number, told: readonly string[], ids: readonly string[], next: string | null = null) => ({
    ...page(seq, ids, next),
    announcements: told.map((id) => item(id)),
  });
  async function mark(op: 'seen' | 'read' | 'archive', which: MarkSelection, ok: object): Promise<void> {
    const marked = list.mark(op, which);
    const { id } = await peer.next(op);
    peer.send({ id, ok: { unseen: 0, unread: 0, ...ok } });
    await marked;
  }

  it('of the page stand first, those that are pushed above them, and a fetch changes nothing', async () => {
    await answer(telling(10, ['a2', 'a1'], ['n1']));
    expect(shown()).toEqual(['a2 unseen', 'a1 unseen', 'n1 unseen']);
    await push(announced('a10'), announced('a2'), put(11, 'n2'));
    const all = ['a10 unseen', 'a2 unseen', 'a1 unseen', 'n2 unseen', 'n1 unseen'];
    expect(shown()).toEqual(all);
    void list.reload();
    await answer(telling(11, ['a10', 'a2', 'a1'], ['n2', 'n1'], 'next'));
    expect(shown()).toEqual(all);
    void list.loadMore();
    await answer({ ...telling(11, [], ['n0']) });
    expect(shown()).toEqual([...all, 'n0 unseen']);
    await push({ event: 'resync', data: { reason: 'truncate' } });
    await answer(telling(11, ['a10'], ['n2']));
    expect(shown()).toEqual(['a10 unseen', 'n2 unseen']);
  });

  it('that come while a page is fetched are kept', async () => {
    await push(announced('a1'), announced('a2'));
    await answer(telling(10, ['a1'], ['n1']));
    expect(shown()).toEqual(['a2 unseen', 'a1 unseen', 'n1 unseen']);
  });

  it('stay where a `load` hands on nothing of them', async () => {
    await answer(page(10, ['n1']));
    await push(announced('a1'));
    void list.reload();
    await answer(page(10, ['n1']));
    expect(shown()).toEqual(['a1 unseen', 'n1 unseen']);
  });

  it.each(['seen', 'read', 'archive'] as const)('are not concerned by %s with `through`', async (op) => {
    await answer(telling(10, ['a1'], []));
    await push(put(11, 'n1'));
    await mark(op, { through: 11 }, { seq: 12 });
    await push(state(13, { through: 9, state: 'read' }));
    const left = { seen: ['n1 seen'], read: ['n1 read'], archive: [] };
    expect(shown()).toEqual(['a1 unseen', ...left[op]]);
    expect(fetches).toEqual([]);
  });

  it.each(['seen', 'read', 'archive'] as const)('leave by %s, with those before', async (op) => {
    await answer(telling(10, ['a10', 'a9', 'a2'], ['n1']));
    await mark(op, ['a9'], { seq: 10, unchanged: true });
    expect(shown()).toEqual(['a10 unseen', 'n1 unseen']);
    await mark(op, ['a9'], { seq: 10, unchanged: true });
    expect(fetches).toEqual([]);
  });

  it('do not come back with a page that was read before they were marked', async () => {
    await answer(telling(10, ['a1'], ['n1']));
    void list.reload();
    await mark('seen', ['a1', 'n1'], { seq: 11 });
    await answer(telling(11, ['a1'], ['n1']));
    expect(shown()).toEqual(['n1 unseen']);
  });

  it('are fetched anew when one is marked that is not here: it might not be there either', async () => {
    await answer(telling(10, ['a2', 'a1'], []));
    await mark('seen', ['a1000'], { seq: 10, unchanged: true });
    expect(fetches.map(({ before }) => before)).toEqual([null]);
    await answer(telling(10, ['a2', 'a1'], []));
    expect(shown()).toEqual(['a2 unseen', 'a1 unseen']);
  });
});

describe('marks', () => {
  it('of other devices by id, which never go back; archived ones leave', async () => {
    await answer(page(10, ['c', 'b', 'a']));
    await push(state(11, { ids: ['a', 'b'], state: 'read' }), state(12, { ids: ['a'], state: 'seen' }));
    expect(shown()).toEqual(['c unseen', 'b read', 'a read']);
    await push(state(13, { ids: ['b'], state: 'archived' }));
    expect(shown()).toEqual(['c unseen', 'a read']);
  });

  it('through a position: what is above stays, and where a page does not tell, it is fetched anew', async () => {
    await answer(page(10, ['b', 'a']));
    await push(put(11, 'c'), put(12, 'd'), state(13, { through: 11, state: 'seen' }));
    expect(shown()).toEqual(['d unseen', 'c seen', 'b seen', 'a seen']);
    expect(fetches).toEqual([]);
    await push(state(14, { through: 9, state: 'read' }));
    expect(fetches.map(({ before }) => before)).toEqual([null]);
    await answer({ ...page(14, []), items: [item('d'), item('c', 'seen'), item('b', 'seen'), item('a', 'read')] });
    expect(shown()).toEqual(['d unseen', 'c seen', 'b seen', 'a read']);
  });

  it('of its own, which come as no push', async () => {
    await answer(page(10, ['b', 'a']));
    const marked = list.mark('read', ['a']);
    const { id, ids } = await peer.next('read');
    expect(ids).toEqual(['a']);
    peer.send({ id, ok: { seq: 11, unseen: 1, unread: 1 } });
    await marked;
    expect(shown()).toEqual(['b unseen', 'a read']);
  });
});

describe('a fetch', () => {
  it('that fails is told, keeps what is there, and can be tried again', async () => {
    await push(put(11, 'b'));
    fetches.shift()?.fail(new Error('no network'));
    await new Promise(setImmediate);
    expect(list.snapshot()).toMatchObject({ loading: false, error: new Error('no network') });
    expect(shown()).toEqual(['b unseen']);
    void list.reload();
    await answer(page(11, ['b', 'a']));
    expect(list.snapshot().error).toBe(null);
    expect(shown()).toEqual(['b unseen', 'a unseen']);
  });

  it('that brings no page but the body of an error has failed, and the list stays', async () => {
    await answer(page(10, ['a']));
    void list.reload();
    await answer({ title: 'Unauthorized', status: 401 } as unknown as NotificationPage);
    expect(list.snapshot()).toMatchObject({ loading: false, error: expect.any(TypeError) });
    expect(shown()).toEqual(['a unseen']);
    await push(put(11, 'b'));
    expect(shown()).toEqual(['b unseen', 'a unseen']);
  });

  it('that another one overtook is void', async () => {
    await push({ event: 'resync', data: { reason: 'truncate' } });
    expect(fetches).toHaveLength(2);
    const [old, fresh] = fetches;
    fresh?.answer(page(12, ['new']));
    await new Promise(setImmediate);
    old?.answer(page(10, ['old']));
    await new Promise(setImmediate);
    expect(shown()).toEqual(['new unseen']);
    await push({ event: 'notification', data: item('a1') }, { event: 'notification', data: item('a2') });
    expect(shown()).toEqual(['a2 unseen', 'a1 unseen', 'new unseen']);
  });
});
