/** The client's socket handling, against real WebSockets of package `ws`; the decisions are tested in machine.test.ts. */

import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { WebSocket } from 'ws';
import { BelfryClientError, connect, type Client, type ConnectOptions, type EventMap } from '../../src/client/index.js';
import { openSocket, type WebSocketLike } from '../../src/client/socket.js';
import { scriptedServer, type ScriptedServer } from './server.js';

let server: ScriptedServer;
beforeEach(async () => {
  server = await scriptedServer();
});
afterEach(() => server.stop());

function open(options: Partial<ConnectOptions> = {}): Client {
  const client = connect({ url: server.url, token: () => 'secret', WebSocket, ...options });
  onTestFinished(() => client.close());
  return client;
}

/** The next arguments of an event. */
function next<K extends keyof EventMap>(
  client: Client,
  event: K,
  where: (...args: EventMap[K]) => boolean = () => true,
) {
  return new Promise<EventMap[K]>((resolve) => {
    const unlisten = client.on(event, (...args) => {
      if (!where(...args)) return;
      unlisten();
      resolve(args);
    });
  });
}

const notification = (seq: number) => ({ event: 'notification', seq, data: { id: String(seq), type: 'like' } });

describe('a connection', () => {
  it('goes to /ws with the subprotocol, authenticates by the first frame, and tells what happens', async () => {
    const client = open();
    const statuses: string[] = [];
    client.on('status', ({ status }) => statuses.push(status));
    const badge = next(client, 'badge');
    const synced = next(client, 'synced');
    const peer = await server.peer();
    expect(peer.url).toBe('/ws');
    expect(peer.protocol).toBe('belfry.v1');
    expect(await peer.welcome()).toEqual({ id: 1, op: 'auth', token: 'secret' });
    expect(await badge).toMatchObject([{ unseen: 3, unread: 5 }, expect.anything()]);
    expect(await synced).toEqual([{ seq: 10 }]);
    expect(statuses).toEqual(['connecting', 'online']);
    expect(client.status).toEqual({ status: 'online', userId: '42', session: 's1' });

    const push = next(client, 'notification');
    peer.send(notification(11));
    expect(await push).toEqual([notification(11).data, notification(11)]);
    expect(client.position).toEqual({ userId: '42', seq: 11, epoch: 'e1' });

    client.close();
    client.close();
    expect((await peer.gone()).code).toBe(1000);
    expect(statuses).toEqual(['connecting', 'online', 'closed']);
  });

  it('resumes after a cut where it was', async () => {
    const client = open();
    const seqs: unknown[] = [];
    client.on('notification', (_, { seq }) => seqs.push(seq));
    const first = await server.peer();
    await first.welcome({}, notification(9));
    first.send(notification(11));
    await next(client, 'notification', (_, { seq }) => seq === 11);
    first.socket.terminate();
    const second = await server.peer();
    const again = next(client, 'synced');
    expect(await second.welcome({ seq: 13 }, notification(11), notification(12), notification(13))).toMatchObject({
      since: 11,
      epoch: 'e1',
    });
    await again;
    expect(seqs).toEqual([11, 12, 13]);
  });

  it('hears nothing more of a socket that it has dropped', async () => {
    const client = open();
    const seqs: unknown[] = [];
    client.on('notification', (_, { seq }) => seqs.push(seq));
    const first = await server.peer();
    await first.welcome();
    // A hole: the client goes; what the old socket still brings is not for anybody.
    first.send(notification(12), notification(13), notification(14));
    expect((await first.gone()).code).toBe(1000);
    const second = await server.peer();
    expect(await second.welcome({ seq: 12 }, notification(11), notification(12))).toMatchObject({ since: 10 });
    second.send(notification(13));
    await next(client, 'notification', (_, { seq }) => seq === 13);
    expect(seqs).toEqual([11, 12, 13]);
  });

  it('stops at a final code', async () => {
    const client = open();
    const peer = await server.peer();
    await peer.welcome();
    const closed = next(client, 'status', ({ status }) => status === 'closed');
    const pending = client.publish('room', 'e');
    await peer.next('publish');
    peer.socket.close(4403, 'revoked');
    expect(await closed).toEqual([{ status: 'closed', code: 4403, reason: 'revoked' }]);
    await expect(pending).rejects.toMatchObject({ code: 'closed' });
    await expect(client.ping()).rejects.toBeInstanceOf(BelfryClientError);
    await expect(client.subscribe('x', () => undefined).ready).rejects.toMatchObject({ code: 'closed' });
    expect(server.count()).toBe(1);
  });

  it('says what Node found wrong, and goes on trying', async () => {
    await server.stop();
    const client = open();
    const [status] = await next(client, 'status', ({ status }) => status === 'waiting');
    expect(status).toMatchObject({ code: 1006, reason: expect.stringContaining('ECONNREFUSED') as string });
    server = await scriptedServer();
  });

  it('ignores what is no frame', async () => {
    const client = open();
    const peer = await server.peer();
    await peer.welcome();
    const push = next(client, 'notification');
    peer.socket.send('{');
    peer.socket.send('null');
    peer.socket.send(Buffer.from('{"event":"synced"}'), { binary: true });
    peer.send(notification(11));
    expect((await push)[1].seq).toBe(11);
  });

  it('hands every frame to tools', async () => {
    const client = open();
    const frames: unknown[] = [];
    client.on('frame', (frame) => frames.push(frame));
    await (await server.peer()).welcome({}, notification(4));
    await next(client, 'synced');
    expect(frames).toMatchObject([{ id: 1 }, { event: 'notification', seq: 4 }, { event: 'synced' }]);
  });
});

describe('tokens', () => {
  it('come from a promise, are fetched anew after 4401, and a failure is tried again', async () => {
    const asked: boolean[] = [];
    const client = open({
      token: ({ fresh }) => {
        asked.push(fresh);
        if (asked.length === 2) throw new Error('no network');
        return Promise.resolve(`t${asked.length}`);
      },
    });
    const peer = await server.peer();
    expect((await peer.welcome())['token']).toBe('t1');
    const failed = next(client, 'status', (s) => s.status === 'waiting' && s.reason.includes('no network'));
    peer.socket.close(4401, 'expired');
    await failed;
    expect((await (await server.peer()).welcome())['token']).toBe('t3');
    expect(asked).toEqual([false, true, true]);
  });

  it('that are none are not shown to the server', async () => {
    let asked = 0;
    const client = open({ token: () => (asked++ === 0 ? (undefined as unknown as string) : 'good') });
    const [status] = await next(client, 'status', (s) => s.status === 'waiting');
    expect(status).toMatchObject({ code: 4401, reason: 'no token: it is empty' });
    expect((await (await server.peer()).welcome())['token']).toBe('good');
    expect(server.count()).toBe(1);
  });

  it('are refreshed on the open socket before they end', async () => {
    let n = 0;
    open({ token: () => `t${++n}` });
    const peer = await server.peer();
    await peer.welcome({ expires_at: new Date(Date.now() + 6_000).toISOString() });
    expect(await peer.next('auth')).toMatchObject({ token: 't2' });
    expect(server.count()).toBe(1);
  }, 15_000);

  it('and pings that are months away do not fire a timer at once', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] });
    onTestFinished(() => void vi.useRealTimers());
    const timers = vi.spyOn(globalThis, 'setTimeout');
    const client = open();
    const peer = await server.peer();
    await peer.welcome({ expires_at: new Date(Date.now() + 90 * 86_400_000).toISOString(), ping_s: 90 * 86_400 });
    await next(client, 'synced');
    // The timers of the handshake pass; what is left lies months ahead.
    vi.advanceTimersByTime(31_000);
    const delays = timers.mock.calls.map(([, delay]) => delay ?? 0);
    expect(Math.max(...delays)).toBe(2 ** 31 - 1);
    expect(client.status.status).toBe('online');
  });
});

describe('subscriptions', () => {
  const ok = (id: number, channel: string, offset = 5) => ({
    id,
    ok: { channel, offset, epoch: 'e1', recovered: true, state: { likes_count: 7 } },
  });

  it('share one on the wire, give counters and events, and end with the last', async () => {
    const client = open();
    const events: unknown[] = [];
    const states: unknown[] = [];
    const one = client.subscribe(
      'post:1',
      (event) => events.push(event.offset),
      (state) => states.push(state),
    );
    const peer = await server.peer();
    await peer.welcome();
    peer.send(ok((await peer.next('subscribe')).id, 'post:1'));
    expect((await one.ready).offset).toBe(5);
    const two = client.subscribe('post:1', (event) => events.push(event.offset));
    peer.send(ok((await peer.next('subscribe')).id, 'post:1'));
    await two.ready;
    peer.send({ event: 'comment_update', channel: 'post:1', offset: 6, data: {} });
    await next(client, 'channel');
    expect(events).toEqual([6, 6]);
    expect(states).toEqual([{ likes_count: 7 }, { likes_count: 7 }]);
    one.close();
    one.close();
    two.close();
    expect(await peer.next('unsubscribe')).toMatchObject({ channel: 'post:1' });
  });

  it('that are closed before the first answer reject, and those that had it keep it', async () => {
    const client = open();
    const one = client.subscribe('post:1', () => undefined);
    const two = client.subscribe('post:1', () => undefined);
    two.close();
    await expect(two.ready).rejects.toMatchObject({ name: 'BelfryClientError', code: 'closed' });
    const peer = await server.peer();
    await peer.welcome();
    peer.send(ok((await peer.next('subscribe')).id, 'post:1'));
    await one.ready;
    one.close();
    expect((await one.ready).offset).toBe(5);
  });

  it('are resumed, several at once, each from its own offset', async () => {
    const client = open();
    const a = client.subscribe('a', () => undefined);
    const b = client.subscribe('b', () => undefined);
    const first = await server.peer();
    await first.welcome();
    first.send(ok((await first.next('subscribe')).id, 'a', 3), ok((await first.next('subscribe')).id, 'b', 9));
    await Promise.all([a.ready, b.ready]);
    first.socket.close(1012, 'restart');
    const second = await server.peer();
    await second.welcome();
    expect(await second.next('subscribe')).toMatchObject({ channel: 'a', offset: 3, epoch: 'e1' });
    expect(await second.next('subscribe')).toMatchObject({ channel: 'b', offset: 9, epoch: 'e1' });
  });

  it('that are refused say so, to whoever looks', async () => {
    const client = open();
    const refused = next(client, 'unsubscribed');
    const subscription = client.subscribe('secret', () => undefined);
    const peer = await server.peer();
    await peer.welcome();
    const { id } = await peer.next('subscribe');
    peer.send({ id, error: { code: 'forbidden', message: 'no', retry: false } });
    expect(await refused).toEqual([{ channel: 'secret', code: 'forbidden', message: 'no' }]);
    await expect(subscription.ready).rejects.toMatchObject({ code: 'forbidden', retry: false });
    subscription.close();
  });
});

describe('calls', () => {
  it.each([
    [(c: Client) => c.seen(['1', '2']), { op: 'seen', ids: ['1', '2'] }],
    [(c: Client) => c.seen({ ids: ['1'] }), { op: 'seen', ids: ['1'] }],
    [(c: Client) => c.read({ through: 10 }), { op: 'read', through: 10 }],
    [(c: Client) => c.archive(['1']), { op: 'archive', ids: ['1'] }],
    [
      (c: Client) => c.publish('r', 'typing', { on: true }),
      { op: 'publish', channel: 'r', event: 'typing', data: { on: true } },
    ],
    [(c: Client) => c.presence(['7']), { op: 'presence', users: ['7'] }],
    [(c: Client) => c.presence('r'), { op: 'presence', channel: 'r' }],
    [(c: Client) => c.ping(), { op: 'ping' }],
  ])('%s', async (call, frame) => {
    const client = open();
    const answer = call(client);
    const peer = await server.peer();
    await peer.welcome();
    const asked = await peer.next(frame.op);
    expect(asked).toEqual({ id: asked.id, ...frame });
    peer.send({ id: asked.id, ok: { seq: 11, unseen: 0, unread: 0 } });
    expect(await answer).toEqual({ seq: 11, unseen: 0, unread: 0 });
  });

  it('that can be no JSON reject, and the client goes on', async () => {
    const client = open();
    const peer = await server.peer();
    await peer.welcome();
    const ring: Record<string, unknown> = {};
    ring['self'] = ring;
    for (const data of [{ n: 10n }, ring]) {
      const error: unknown = await client.publish('r', 'e', data as never).catch((caught: unknown) => caught);
      expect(error).toBeInstanceOf(BelfryClientError);
      expect(error).toMatchObject({
        code: 'bad_request',
        retry: false,
        message: expect.stringMatching(/BigInt|circular/),
      });
    }
    const answer = client.ping();
    peer.send({ id: (await peer.next('ping')).id, ok: {} });
    expect(await answer).toEqual({});
  });

  it('are sent as they were when they were made', async () => {
    const client = open();
    const data = { n: 1 };
    void client.publish('r', 'e', data);
    data.n = 2;
    const peer = await server.peer();
    await peer.welcome();
    expect(await peer.next('publish')).toMatchObject({ data: { n: 1 } });
  });

  it('that mark tell the numbers, as a badge would', async () => {
    const client = open();
    const peer = await server.peer();
    await peer.welcome();
    await next(client, 'synced');
    const badge = next(client, 'badge');
    void client.read(['1']);
    peer.send({ id: (await peer.next('read')).id, ok: { seq: 11, unseen: 2, unread: 4 } });
    expect((await badge)[0]).toEqual({ unseen: 2, unread: 4 });
  });

  it('reject with the error of the server', async () => {
    const client = open();
    const answer = client.publish('r', 'e');
    const peer = await server.peer();
    await peer.welcome();
    peer.send({ id: (await peer.next('publish')).id, error: { code: 'forbidden', message: 'not here', retry: false } });
    const error: unknown = await answer.catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(BelfryClientError);
    expect(error).toMatchObject({ name: 'BelfryClientError', code: 'forbidden', message: 'not here', retry: false });
  });
});

describe('handlers', () => {
  function uncaughtErrors() {
    const uncaught = vi.fn();
    const others = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException').on('uncaughtException', uncaught);
    onTestFinished(() => {
      process.removeAllListeners('uncaughtException');
      for (const other of others) process.on('uncaughtException', other);
    });
    return uncaught;
  }

  it('may call the client, and one that throws harms no other', async () => {
    const uncaught = uncaughtErrors();
    const client = open();
    client.on('notification', () => {
      throw new Error('mine');
    });
    client.on('notification', ({ id }) => void client.read([id]));
    const peer = await server.peer();
    await peer.welcome();
    peer.send(notification(11));
    expect(await peer.next('read')).toMatchObject({ ids: ['11'] });
    peer.send(notification(12));
    expect(await peer.next('read')).toMatchObject({ ids: ['12'] });
    expect(uncaught).toHaveBeenCalledTimes(2);
  });

  it('are not needed for an error to surface: whatever throws, what comes next is done', async () => {
    const uncaught = uncaughtErrors();
    const client = open();
    const peer = await server.peer();
    await peer.welcome();
    await next(client, 'synced');
    client.subscribe(5n as unknown as string, () => undefined);
    const answer = client.ping();
    peer.send({ id: (await peer.next('ping')).id, ok: {} });
    expect(await answer).toEqual({});
    expect(uncaught).toHaveBeenCalledTimes(1);
  });

  it('that listen anew at each event hear each once, and one that was taken off hears nothing more', async () => {
    const client = open();
    const heard = { person: 0, channel: 0 };
    const taken = vi.fn();
    const listen = () => {
      const end = client.on('notification', () => {
        end();
        takeOff();
        // Not without end, should it fail.
        if (++heard.person < 100) listen();
      });
    };
    listen();
    const takeOff = client.on('notification', taken);
    client.subscribe('post:1', () => undefined);
    const subscribe = () => {
      const subscription = client.subscribe('post:1', () => {
        subscription.close();
        if (++heard.channel < 100) subscribe();
      });
    };
    subscribe();
    const peer = await server.peer();
    await peer.welcome();
    const channel = next(client, 'channel');
    peer.send(notification(11), { event: 'like_update', channel: 'post:1', data: {} });
    await channel;
    expect(heard).toEqual({ person: 1, channel: 1 });
    expect(taken).not.toHaveBeenCalled();
  });

  it('that closes the client is not called in the middle of something else', async () => {
    const client = open();
    const heard: string[] = [];
    client.on('synced', () => heard.push('synced'));
    const closed = next(client, 'status', ({ status }) => {
      heard.push(status);
      if (status === 'online') client.close();
      return status === 'closed';
    });
    await (await server.peer()).welcome();
    await closed;
    expect(heard).toEqual(['connecting', 'online', 'synced', 'closed']);
  });

  it('can be taken off', async () => {
    const client = open();
    const heard = vi.fn();
    client.on('notification', heard)();
    const peer = await server.peer();
    await peer.welcome();
    const other = next(client, 'notification');
    peer.send(notification(11));
    await other;
    expect(heard).not.toHaveBeenCalled();
  });
});

describe('a page', () => {
  /** What a browser has, and Node does not. */
  function stubPage(): { readonly page: EventTarget & { visibilityState: string }; readonly window: EventTarget } {
    const page = Object.assign(new EventTarget(), { visibilityState: 'visible' });
    const window = new EventTarget();
    vi.stubGlobal('document', page);
    vi.stubGlobal('addEventListener', window.addEventListener.bind(window));
    vi.stubGlobal('removeEventListener', window.removeEventListener.bind(window));
    onTestFinished(() => void vi.unstubAllGlobals());
    return { page, window };
  }

  it.each(['visibilitychange', 'pageshow', 'online'])(
    'probes at %s',
    async (event) => {
      const { page, window } = stubPage();
      const client = open();
      const peer = await server.peer();
      await peer.welcome();
      await next(client, 'synced');
      (event === 'visibilitychange' ? page : window).dispatchEvent(new Event(event));
      // Long before the 25 s after which it would ask by itself.
      expect(await peer.next('ping')).toMatchObject({ op: 'ping' });
      client.close();
    },
    15_000,
  );

  it('gives up a connection that is dead', async () => {
    const { window } = stubPage();
    const client = open();
    const peer = await server.peer();
    await peer.welcome();
    await next(client, 'synced');
    window.dispatchEvent(new Event('online'));
    await peer.next('ping');
    const started = Date.now();
    const [status] = await next(client, 'status', ({ status }) => status === 'waiting');
    expect(status).toMatchObject({ reason: 'no answer to a ping' });
    expect(Date.now() - started).toBeGreaterThan(2_500);
    await server.peer();
  }, 15_000);
});

describe('storage', () => {
  it('keeps the position over a reload, never ahead of what was handed out', async () => {
    const kept = new Map<string, string>();
    const storage = {
      getItem: (key: string) => kept.get(key) ?? null,
      setItem: (key: string, value: string) => void kept.set(key, value),
    };
    const client = open({ storage });
    const peer = await server.peer();
    await peer.welcome();
    const push = next(client, 'notification');
    peer.send(notification(11));
    await push;
    expect(kept.get('belfry.position') ?? '{"seq":0}').not.toContain('"seq":11');
    client.close();
    expect(JSON.parse(kept.get('belfry.position') ?? '')).toEqual({ userId: '42', seq: 11, epoch: 'e1' });
    open({ storage });
    expect(await (await server.peer()).welcome()).toMatchObject({ since: 11, epoch: 'e1' });
  });

  it.each([
    ...['', 'null', '{', '{"seq":"x"}', '{"userId":"1","seq":1e99,"epoch":"e"}'],
    ...['{"userId":"1","seq":-1,"epoch":"e"}', '{"userId":"1","seq":1,"epoch":""}'],
  ])('takes %j for none', async (value) => {
    const storage = { getItem: () => value, setItem: () => undefined };
    open({ storage });
    expect(await (await server.peer()).welcome()).not.toHaveProperty('since');
  });

  it('that throws counts as none', async () => {
    const storage = {
      getItem: () => {
        throw new Error('SecurityError');
      },
      setItem: () => {
        throw new Error('QuotaExceededError');
      },
    };
    const client = open({ storage });
    await (await server.peer()).welcome();
    await next(client, 'synced');
    client.close();
  });
});

describe('a socket', () => {
  it('that was dropped is heard no more, whatever it still does', () => {
    // Stands for a browser whose events are in the queue already when the socket is dropped.
    const made: Late[] = [];
    class Late implements WebSocketLike {
      onopen = null;
      onmessage: WebSocketLike['onmessage'] = null;
      onclose: WebSocketLike['onclose'] = null;
      onerror = null;
      readonly closedWith: unknown[] = [];
      constructor() {
        made.push(this);
      }
      send(): void {
        throw new Error('nobody sends here');
      }
      close(...how: unknown[]): void {
        this.closedWith.push(...how);
      }
    }
    const heard: unknown[] = [];
    const handler = {
      open: () => heard.push('open'),
      message: (text: string) => heard.push(text),
      gone: (code: number) => heard.push(code),
    };
    const socket = openSocket(Late, 'ws://127.0.0.1', handler);
    const [late] = made;
    late?.onmessage?.({ data: 'before' } as never);
    socket.drop('why '.repeat(50));
    late?.onmessage?.({ data: 'after' } as never);
    late?.onclose?.({ code: 1000, reason: '' } as never);
    expect(heard).toEqual(['before']);
    // A close frame has room for 123 bytes of reason; a longer one throws.
    expect(late?.closedWith[0]).toBe(1000);
    expect(String(late?.closedWith[1]).length).toBeLessThanOrEqual(123);
  });
});

describe('what cannot work', () => {
  it('is said at once', () => {
    expect(() => open({ url: 'ftp://x' })).toThrow(TypeError);
    expect(() => open({ url: '/ws' })).toThrow(TypeError);
    vi.stubGlobal('WebSocket', undefined);
    onTestFinished(() => void vi.unstubAllGlobals());
    expect(() => open({ WebSocket: undefined })).toThrow(/global WebSocket/);
  });
});
