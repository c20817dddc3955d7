/** The client's machine: every phase with every input, then what must hold, by the numbers in src/client/machine.ts. */

import { describe, expect, it } from 'vitest';
import { closeAction, closeCodes } from '../../src/protocol/codes.js';
import { nextDeadline } from '../../src/client/machine.js';
import { BURST, MAX_CALLS, PER_SECOND, STABLE_MS, type Input, type Phase } from '../../src/client/state.js';
import { channelEvent, Drive, notification, subscribeOk } from './drive.js';

const phases: Record<Phase, () => Drive> = {
  waiting: () => new Drive(),
  token: () => new Drive().token(),
  opening: () => new Drive().opening(),
  authenticating: () => new Drive().authenticating(),
  replaying: () => new Drive().replaying(),
  live: () => new Drive().live(),
  closed: () => new Drive().live().put({ type: 'stop' }),
};

const inputs: Record<Input['type'], Input> = {
  start: { type: 'start' },
  token: { type: 'token', token: 't9' },
  tokenFailed: { type: 'tokenFailed', message: 'no' },
  open: { type: 'open' },
  gone: { type: 'gone', code: 1006, reason: '' },
  frame: { type: 'frame', frame: notification(11) },
  tick: { type: 'tick' },
  wake: { type: 'wake' },
  subscribe: { type: 'subscribe', channel: 'post:1' },
  unsubscribe: { type: 'unsubscribe', channel: 'post:1' },
  call: { type: 'call', ref: 1, body: { op: 'ping' } },
  stop: { type: 'stop' },
};

/** Where each input leads, and what it makes the surroundings do. */
const table: Record<Phase, Record<Input['type'], string>> = {
  waiting: {
    start: 'token: status fetchToken',
    token: 'waiting:',
    tokenFailed: 'waiting:',
    open: 'waiting:',
    gone: 'waiting:',
    frame: 'waiting:',
    tick: 'waiting:',
    wake: 'token: status fetchToken',
    subscribe: 'waiting:',
    unsubscribe: 'waiting:',
    call: 'waiting:',
    stop: 'closed: status',
  },
  token: {
    start: 'token:',
    token: 'opening: open',
    tokenFailed: 'waiting: status',
    open: 'token:',
    gone: 'token:',
    frame: 'token:',
    tick: 'token:',
    wake: 'token:',
    subscribe: 'token:',
    unsubscribe: 'token:',
    call: 'token:',
    stop: 'closed: status',
  },
  opening: {
    start: 'opening:',
    token: 'opening:',
    tokenFailed: 'opening:',
    open: 'authenticating: send',
    gone: 'waiting: drop status',
    frame: 'opening:',
    tick: 'opening:',
    wake: 'opening:',
    subscribe: 'opening:',
    unsubscribe: 'opening:',
    call: 'opening:',
    stop: 'closed: drop status',
  },
  authenticating: {
    start: 'authenticating:',
    token: 'authenticating:',
    tokenFailed: 'authenticating:',
    open: 'authenticating:',
    gone: 'waiting: drop status',
    frame: 'authenticating:',
    tick: 'authenticating:',
    wake: 'authenticating:',
    subscribe: 'authenticating:',
    unsubscribe: 'authenticating:',
    call: 'authenticating:',
    stop: 'closed: drop status',
  },
  replaying: {
    start: 'replaying:',
    token: 'replaying: send',
    tokenFailed: 'replaying:',
    open: 'replaying:',
    gone: 'waiting: drop status',
    frame: 'replaying: push',
    tick: 'replaying:',
    wake: 'replaying: send',
    subscribe: 'replaying: send',
    unsubscribe: 'replaying:',
    call: 'replaying: send',
    stop: 'closed: drop status',
  },
  live: {
    start: 'live:',
    token: 'live: send',
    tokenFailed: 'live:',
    open: 'live:',
    gone: 'waiting: drop status',
    frame: 'live: push',
    tick: 'live:',
    wake: 'live: send',
    subscribe: 'live: send',
    unsubscribe: 'live:',
    call: 'live: send',
    stop: 'closed: drop status',
  },
  closed: {
    start: 'closed:',
    token: 'closed:',
    tokenFailed: 'closed:',
    open: 'closed:',
    gone: 'closed:',
    frame: 'closed:',
    tick: 'closed:',
    wake: 'closed:',
    subscribe: 'closed: refused',
    unsubscribe: 'closed:',
    call: 'closed: fail',
    stop: 'closed:',
  },
};

describe.each(Object.keys(table) as Phase[])('in %s', (phase) => {
  it.each(Object.entries(table[phase]))('%s → %s', (type, expected) => {
    const drive = phases[phase]();
    expect(drive.state.phase).toBe(phase);
    drive.put(inputs[type as Input['type']]);
    expect([`${drive.state.phase}:`, ...drive.types()].join(' ')).toBe(expected);
  });
});

describe('1, 2: the stream of the person', () => {
  it('hands out each seq once, ascending, in the replay with holes', () => {
    const drive = new Drive({ userId: '42', seq: 4, epoch: 'e1' }).replaying({ seq: 10 });
    for (const seq of [3, 4, 6, 6, 9, 8]) drive.frame(notification(seq));
    drive.frame({ event: 'synced', seq: 10 });
    for (const seq of [10, 11, 11, 12]) drive.frame(notification(seq));
    expect(drive.handed()).toEqual([6, 9, 11, 12]);
    expect(drive.of('gap')).toEqual([]);
    expect(drive.state.position).toEqual({ userId: '42', seq: 12, epoch: 'e1' });
  });

  it('goes back for a hole in the live stream, and resumes from before it', () => {
    const drive = new Drive().live().frame(notification(11)).frame(notification(13));
    expect(drive.state.phase).toBe('waiting');
    expect(drive.handed()).toEqual([11]);
    drive.again({ seq: 13 });
    expect(drive.sent('auth')).toMatchObject({ since: 11, epoch: 'e1' });
    drive.frame(notification(12)).frame(notification(13)).frame({ event: 'synced', seq: 13 }).frame(notification(14));
    expect(drive.handed()).toEqual([11, 12, 13, 14]);
  });

  it('resumes a replay that was cut from the last position received', () => {
    const drive = new Drive({ userId: null, seq: 4, epoch: 'e1' }).replaying({ seq: 10 }).frame(notification(7));
    drive.put({ type: 'gone', code: 4508, reason: '' }).again({ seq: 10 });
    expect(drive.sent('auth')).toMatchObject({ since: 7, epoch: 'e1' });
  });

  it('knows its own marks, which come as no push', () => {
    const drive = new Drive().live().put({ type: 'call', ref: 1, body: { op: 'read', through: 10 } });
    drive.answer('read', { seq: 12, unseen: 0, unread: 0 });
    // 11 is somebody else's and was on its way: it must not count as known.
    drive.frame(notification(11)).frame(notification(13));
    expect(drive.handed()).toEqual([11, 13]);
    expect(drive.state.phase).toBe('live');
  });

  it('does not take a hole for its own mark', () => {
    const drive = new Drive().live().put({ type: 'call', ref: 1, body: { op: 'read', through: 10 } });
    drive.answer('read', { seq: 12, unseen: 0, unread: 0 }).frame(notification(13));
    expect(drive.state.phase).toBe('waiting');
    expect(drive.handed()).toEqual([]);
  });

  it('does not take the head for its own mark where nothing was left to mark', () => {
    const drive = new Drive().live().put({ type: 'call', ref: 1, body: { op: 'read', through: 10 } });
    // 11 was pushed before this answer, and lost.
    drive.answer('read', { seq: 11, unseen: 0, unread: 0, unchanged: true }).frame(notification(12));
    expect(drive.state.phase).toBe('waiting');
    expect(drive.handed()).toEqual([]);
  });

  it('does not take a hole for its own mark while later marks are known', () => {
    const drive = new Drive().live();
    for (const [ref, seq] of [
      [1, 12],
      [2, 14],
    ] as const) {
      drive.put({ type: 'call', ref, body: { op: 'read', through: 10 } }).answer('read', { seq, unseen: 0, unread: 0 });
    }
    expect(drive.frame(notification(13)).state.phase).toBe('waiting');
  });

  it('forgets own marks that it has passed, and bounds them when nothing else comes', () => {
    const drive = new Drive().live();
    for (let i = 1; i <= 500; i++) {
      drive.now += 1000;
      drive.put({ type: 'call', ref: i, body: { op: 'seen', through: i } }).answer('seen', { seq: 10 + i, unseen: 0 });
    }
    expect(drive.state.own.size).toBeLessThanOrEqual(201);
    drive.frame(notification(511));
    expect(drive.handed()).toEqual([511]);
    expect(drive.state.own.size).toBe(0);
  });

  it('announces what could not be recovered, once, and goes on from the head', () => {
    const drive = new Drive({ userId: '42', seq: 4, epoch: 'old' }).live({ seq: 10, recovered: false });
    expect(drive.of('gap').map(({ gap }) => gap)).toEqual([
      { channel: null, reason: 'not_recovered', from: 4, to: 10 },
    ]);
    drive.frame(notification(11));
    expect(drive.handed()).toEqual([11]);
    expect(drive.state.position).toEqual({ userId: '42', seq: 11, epoch: 'e1' });
  });

  it('does not go on from somebody else’s position', () => {
    const drive = new Drive({ userId: '7', seq: 4, epoch: 'e1' }).replaying({ seq: 10 }).frame(notification(8));
    expect(drive.of('gap').map(({ gap }) => gap.reason)).toEqual(['other_user']);
    expect(drive.handed()).toEqual([]);
    expect(drive.state.position).toEqual({ userId: '42', seq: 10, epoch: 'e1' });
  });

  it('hands out an announcement once, however often it comes', () => {
    const announcement = { event: 'notification', data: { id: 'a5' } };
    const drive = new Drive().live().frame(announcement).put({ type: 'gone', code: 1006, reason: '' });
    drive
      .again()
      .frame(announcement)
      .frame({ event: 'notification', data: { id: 'a6' } });
    const ids = drive.of('push').flatMap(({ push }) => (push['event'] === 'notification' ? [push['data']] : []));
    expect(ids).toEqual([{ id: 'a5' }, { id: 'a6' }]);
  });

  it('passes a resync on', () => {
    const drive = new Drive().live().frame({ event: 'resync', data: { reason: 'truncate' } });
    expect(drive.of('gap')[0]?.gap).toEqual({ channel: null, reason: 'resync', from: 10, to: null });
  });

  it('is not deceived by a channel event that bears the name of a push', () => {
    const drive = new Drive().replaying();
    for (const event of ['synced', 'resync', 'badge', 'notification']) {
      drive.frame({ event, channel: 'all', seq: 99, data: {} });
    }
    expect(drive.state.phase).toBe('replaying');
    expect(drive.types()).toEqual(['channelPush']);
    expect(drive.state.position?.seq).toBe(10);
  });
});

describe('3: channels', () => {
  const on = (ok = {}) => new Drive().live().put(inputs.subscribe).answer('subscribe', subscribeOk(ok));

  it('hands out each offset once, ascending', () => {
    const drive = on().frame(channelEvent(5)).frame(channelEvent(6)).frame(channelEvent(6)).frame(channelEvent(7));
    expect(drive.offsets('post:1')).toEqual([6, 7]);
    expect(drive.of('subscribed')[0]?.ok.state).toEqual({ likes_count: 7 });
  });

  it('always hands out counters', () => {
    const counter = { event: 'like_update', channel: 'post:1', data: { likes_count: 8 } };
    expect(on().frame(counter).frame(counter).of('channelPush')).toHaveLength(2);
  });

  it('asks again for a hole, in place', () => {
    const drive = on().frame(channelEvent(8));
    expect(drive.state.phase).toBe('live');
    expect(drive.sent('subscribe')).toMatchObject({ channel: 'post:1', offset: 5, epoch: 'e1' });
    drive.answer('subscribe', subscribeOk({ offset: 8 }));
    for (const offset of [6, 7, 8, 9]) drive.frame(channelEvent(offset));
    expect(drive.offsets('post:1')).toEqual([6, 7, 8, 9]);
  });

  it('does not take for the replay what was overtaken by the answer', () => {
    const drive = on()
      .frame(channelEvent(7))
      .answer('subscribe', subscribeOk({ offset: 8 }));
    for (const offset of [8, 6, 7, 8]) drive.frame(channelEvent(offset));
    drive.answer('subscribe', subscribeOk({ offset: 8 }));
    for (const offset of [6, 7, 8]) drive.frame(channelEvent(offset));
    expect(drive.offsets('post:1')).toEqual([6, 7, 8]);
  });

  it('asks once more when something live came before an answer that does not hold it', () => {
    const drive = on().frame(channelEvent(8)).frame(channelEvent(9));
    const asked = drive.sent('subscribe').id;
    drive.answer('subscribe', subscribeOk({ offset: 8 }));
    expect(drive.sent('subscribe').id).toBeGreaterThan(asked);
    expect(drive.sent('subscribe')).toMatchObject({ offset: 5 });
  });

  it('resumes every channel after a reconnect, each from its own offset', () => {
    const drive = on().frame(channelEvent(6)).put({ type: 'subscribe', channel: 'post:2' });
    drive.answer('subscribe', subscribeOk({ channel: 'post:2', offset: 70 }));
    drive.put({ type: 'gone', code: 1012, reason: '' }).again();
    const asked = drive.of('send', drive.last).map(({ frame }) => frame);
    expect(asked).toMatchObject([
      { op: 'subscribe', channel: 'post:1', offset: 6, epoch: 'e1' },
      { op: 'subscribe', channel: 'post:2', offset: 70, epoch: 'e1' },
    ]);
  });

  it('announces a gap of one channel', () => {
    const drive = on().put({ type: 'gone', code: 1006, reason: '' }).again();
    drive.answer('subscribe', subscribeOk({ offset: 900, recovered: false, epoch: 'e2' })).frame(channelEvent(901));
    expect(drive.of('gap').map(({ gap }) => gap)).toEqual([
      { channel: 'post:1', reason: 'not_recovered', from: 5, to: 900 },
    ]);
    expect(drive.offsets('post:1')).toEqual([901]);
  });

  it('asks anew where the server can’t fill a hole, and does not loop', () => {
    const drive = on().frame({ event: 'resync', data: { reason: 'channel', channel: 'post:1' } });
    expect(drive.sent('subscribe')).toMatchObject({ offset: 5, epoch: 'resync' });
    drive.answer('subscribe', subscribeOk({ offset: 9, recovered: false })).frame(channelEvent(10));
    expect(drive.of('gap').map(({ gap }) => gap.channel)).toEqual(['post:1']);
    expect(drive.offsets('post:1')).toEqual([10]);
  });

  it('keeps the place of a hidden event', () => {
    const drive = on().frame({ event: 'hidden', channel: 'post:1', offset: 6, data: {} }).frame(channelEvent(7));
    expect(drive.offsets('post:1')).toEqual([7]);
    expect(drive.of('send').filter(({ frame }) => frame['op'] === 'subscribe')).toHaveLength(1);
  });

  it('tells a broadcast from what the protocol says under the same name by its offset', () => {
    const names = ['presence', 'unsubscribed', 'resync', 'synced', 'notification'];
    const drive = on();
    names.forEach((event, i) => drive.frame({ event, channel: 'post:1', offset: 6 + i, data: {} }));
    expect(drive.offsets('post:1')).toEqual([6, 7, 8, 9, 10]);
    expect(drive.of('send').filter(({ frame }) => frame['op'] === 'subscribe')).toHaveLength(1);
    const presence = { event: 'presence', channel: 'post:1', data: { user_id: '7', status: 'online' } };
    expect(drive.frame(presence).last).toEqual([{ type: 'push', push: presence }]);
    drive.frame({ event: 'unsubscribed', channel: 'post:1', data: { code: 'forbidden' } });
    expect(drive.of('refused')).toHaveLength(1);
  });

  it('gives a second subscriber the counters of now', () => {
    const drive = on().frame(channelEvent(6)).put(inputs.subscribe);
    expect(drive.sent('subscribe')).toMatchObject({ offset: 6 });
    drive.answer('subscribe', subscribeOk({ offset: 6 }));
    expect(drive.of('subscribed')).toHaveLength(2);
  });

  it('tries again what may succeed, gives up what will not', () => {
    const drive = new Drive().live().put(inputs.subscribe).refuse('subscribe', 'unavailable', true);
    const first = drive.sent('subscribe').id;
    drive.pass(4000);
    expect(drive.sent('subscribe').id).toBeGreaterThan(first);
    drive.refuse('subscribe', 'forbidden');
    expect(drive.of('refused')).toMatchObject([{ channel: 'post:1', error: { code: 'forbidden' } }]);
    expect(drive.state.channels.size).toBe(0);
  });

  it('is told when the server ends a subscription', () => {
    const drive = on().frame({ event: 'unsubscribed', channel: 'post:1', data: { code: 'forbidden' } });
    expect(drive.types()).toEqual(['refused']);
    expect(drive.put({ type: 'gone', code: 1006, reason: '' }).again().of('send', drive.last)).toEqual([]);
  });

  it('unsubscribes what the server knows, also while asking, and ignores answers that no longer count', () => {
    const drive = new Drive().live().put(inputs.subscribe);
    const first = drive.sent('subscribe').id;
    drive.put(inputs.unsubscribe);
    expect(drive.types()).toEqual(['send']);
    drive.put(inputs.subscribe).frame({ id: first, ok: subscribeOk({ offset: 3 }) });
    expect(drive.of('subscribed')).toEqual([]);
    drive.answer('subscribe', subscribeOk({ offset: 4 }));
    expect(drive.state.channels.get('post:1')).toMatchObject({ phase: 'on', offset: 4 });
    drive.frame(channelEvent(9)).put(inputs.unsubscribe);
    expect(drive.sent('unsubscribe')).toMatchObject({ channel: 'post:1' });
    expect(drive.frame(channelEvent(10)).types()).toEqual([]);
  });

  it('paces a resume of 200 channels below the limit of the server', () => {
    const drive = new Drive();
    for (let i = 0; i < 200; i++) drive.put({ type: 'subscribe', channel: `post:${i}` });
    drive.live();
    const asked = () => drive.of('send').filter(({ frame }) => frame['op'] === 'subscribe').length;
    expect(asked()).toBe(BURST);
    for (let second = 1; second <= 5; second++) {
      const before = asked();
      drive.pass(1000);
      expect(asked() - before).toBeLessThanOrEqual(19);
      expect(asked() - before).toBeGreaterThanOrEqual(17);
    }
    drive.pass(7000);
    expect(asked()).toBe(200);
  });

  describe('many that end at once', () => {
    const asked = (drive: Drive, op: string, among = drive.all) =>
      drive.of('send', among).flatMap(({ frame }) => (frame['op'] === op ? [frame] : []));
    const subscribedTo = (count: number): Drive => {
      const drive = new Drive();
      for (let i = 0; i < count; i++) drive.put({ type: 'subscribe', channel: `post:${i}` });
      drive.live();
      while (asked(drive, 'subscribe').length < count) drive.toDeadline();
      for (const { id, channel } of asked(drive, 'subscribe'))
        drive.frame({ id, ok: subscribeOk({ channel: channel as string }) });
      return drive.pass(2000);
    };
    const endAll = (drive: Drive, count: number) => {
      for (let i = 0; i < count; i++) drive.put({ type: 'unsubscribe', channel: `post:${i}` });
      return drive;
    };
    const refused = { code: 'rate_limited', message: 'wait', retry: true };

    it('are unsubscribed below the limit of the server, before new ones are asked for', () => {
      const drive = endAll(subscribedTo(60), 60);
      expect(asked(drive, 'unsubscribe')).toHaveLength(BURST);
      const before = drive.all.length;
      drive.put({ type: 'subscribe', channel: 'new' }, { type: 'call', ref: 1, body: { op: 'ping' } });
      for (let second = 1; second <= 4; second++) {
        const sent = asked(drive, 'unsubscribe').length;
        drive.pass(1000);
        expect(asked(drive, 'unsubscribe').length - sent).toBeLessThanOrEqual(19);
      }
      const ops = drive.of('send', drive.all.slice(before)).map(({ frame }) => frame['op']);
      expect(ops).toEqual([...Array<string>(60 - BURST).fill('unsubscribe'), 'subscribe', 'ping']);
      expect(new Set(asked(drive, 'unsubscribe').map(({ channel }) => channel)).size).toBe(60);
    });

    it('are unsubscribed again where the server had no time', () => {
      const drive = endAll(subscribedTo(2), 2);
      const [first, second] = asked(drive, 'unsubscribe');
      drive.frame({ id: first?.['id'], error: refused }).frame({ id: second?.['id'], ok: { channel: 'post:1' } });
      expect(asked(drive, 'unsubscribe')).toHaveLength(2);
      drive.pass(4000);
      expect(asked(drive, 'unsubscribe').slice(2)).toMatchObject([{ channel: 'post:0' }]);
      drive.answer('unsubscribe', {}).pass(10_000);
      expect(asked(drive, 'unsubscribe')).toHaveLength(3);
      // What it says of another connection means nothing any more.
      const cut = endAll(subscribedTo(40), 40).put({ type: 'gone', code: 1006, reason: '' }).again();
      const before = asked(cut, 'unsubscribe').length;
      expect(asked(cut.pass(10_000), 'unsubscribe')).toHaveLength(before);
    });

    it('and are wanted again end as subscribed, the other way round as not', () => {
      const drive = endAll(subscribedTo(40), 40);
      const late = { channel: 'post:39' };
      const ops = () =>
        drive.of('send').flatMap(({ frame }) => (frame['channel'] === late.channel ? [frame['op']] : []));
      drive.put({ type: 'subscribe', ...late }).pass(5000);
      expect(ops()).toEqual(['subscribe', 'subscribe']);
      drive.answer('subscribe', subscribeOk(late));
      expect(drive.state.channels.get(late.channel)?.phase).toBe('on');
      const other = endAll(subscribedTo(40), 40);
      other.put({ type: 'subscribe', ...late }, { type: 'unsubscribe', ...late }).pass(5000);
      expect(asked(other, 'unsubscribe')).toHaveLength(40);
      expect(other.state.channels.size).toBe(0);
    });

    it('are unsubscribed no oftener, where one was refused and its channel is wanted again', () => {
      const drive = endAll(subscribedTo(1), 1);
      const { id } = drive.sent('unsubscribe');
      drive.put({ type: 'subscribe', channel: 'post:0' }).frame({ id, error: refused }).pass(5000);
      drive.answer('subscribe', subscribeOk({ channel: 'post:0' }));
      expect(asked(drive, 'unsubscribe')).toHaveLength(1);
      expect(endAll(drive, 1).pass(5000).state.channels.size).toBe(0);
      expect(asked(drive, 'unsubscribe')).toHaveLength(2);
    });

    it('slow it down once a second at most, and not for ever', () => {
      const drive = endAll(subscribedTo(BURST), BURST);
      for (const { id } of asked(drive, 'unsubscribe')) drive.frame({ id, error: refused });
      expect(drive.state.perSecond).toBe(PER_SECOND / 2);
      drive.pass(STABLE_MS);
      for (let i = 0; i < 200; i++) drive.put({ type: 'subscribe', channel: `other:${i}` });
      drive.pass(13_000);
      expect(asked(drive, 'subscribe').filter(({ channel }) => (channel as string).startsWith('other'))).toHaveLength(
        200,
      );
    });
  });

  it('stays when a ping is refused: the answer shows that the server is there', () => {
    const drive = new Drive().live();
    while (drive.of('send').at(-1)?.frame['op'] !== 'ping') drive.toDeadline();
    const { id } = drive.sent('ping');
    drive.frame({ id, error: { code: 'rate_limited', message: 'wait', retry: true } });
    expect(drive.state.phase).toBe('live');
  });

  it('slows down when told that it is too fast', () => {
    const drive = new Drive();
    for (let i = 0; i < 100; i++) drive.put({ type: 'subscribe', channel: `post:${i}` });
    drive.live().put({ type: 'gone', code: 4429, reason: '' }).again();
    const before = drive.of('send').length;
    drive.pass(2000);
    expect(drive.of('send').length - before).toBeLessThanOrEqual(19);
  });
});

describe('4, 5: sockets', () => {
  it('asks for the next socket only after dropping the last', () => {
    const drive = new Drive().live();
    for (let i = 0; i < 20; i++) drive.put({ type: 'gone', code: 1006, reason: '' }).again();
    const sockets = drive.all.filter(({ type }) => type === 'open' || type === 'drop').map(({ type }) => type);
    expect(sockets.slice(0, 4)).toEqual(['open', 'drop', 'open', 'drop']);
    expect(sockets).toEqual(sockets.map((_, i) => (i % 2 === 0 ? 'open' : 'drop')));
  });

  it.each(Object.entries(closeCodes))('after %s: %s', (code, action) => {
    expect(closeAction(Number(code))).toBe(action);
    const drive = new Drive().live().put({ type: 'gone', code: Number(code), reason: 'why' });
    expect(drive.state.phase).toBe(action === 'final' ? 'closed' : 'waiting');
    if (action === 'final')
      expect(drive.of('status').at(-1)?.status).toEqual({ status: 'closed', code: Number(code), reason: 'why' });
    else {
      drive.toDeadline();
      expect(drive.state.phase).toBe(action === 'newToken' ? 'token' : 'opening');
    }
  });

  it.each([
    [1000, 'resume'],
    [1011, 'resume'],
    [3000, 'resume'],
    [4000, 'resume'],
    [4450, 'final'],
    [4500, 'resume'],
  ])('an unknown code %i means %s', (code, action) => expect(closeAction(code)).toBe(action));

  it('closes subscriptions and calls with the client', () => {
    const drive = new Drive().live().put(inputs.subscribe, { type: 'call', ref: 5, body: { op: 'ping' } }, inputs.stop);
    expect(drive.types()).toEqual(['drop', 'fail', 'refused', 'status']);
    expect(nextDeadline(drive.state)).toBe(Infinity);
  });
});

describe('6: calls', () => {
  const settled = (drive: Drive, ref: number) => [
    ...drive.of('settle').filter((effect) => effect.ref === ref),
    ...drive.of('fail').filter((effect) => effect.ref === ref),
  ];

  it('waits for a connection', () => {
    const drive = new Drive().put({ type: 'call', ref: 1, body: { op: 'seen', ids: ['1'] } }).live();
    drive.answer('seen', { seq: 11, unseen: 0, unread: 0 });
    expect(settled(drive, 1)).toEqual([{ type: 'settle', ref: 1, ok: { seq: 11, unseen: 0, unread: 0 } }]);
  });

  it('repeats a mark whose answer was lost, but not a publish', () => {
    const drive = new Drive().live();
    drive.put({ type: 'call', ref: 1, body: { op: 'read', through: 9 } });
    drive.put({ type: 'call', ref: 2, body: { op: 'publish', channel: 'r', event: 'e' } });
    drive.put({ type: 'gone', code: 1006, reason: '' });
    expect(settled(drive, 2)).toMatchObject([{ error: { code: 'disconnected', retry: true } }]);
    drive.again();
    drive.answer('read', { seq: 10, unseen: 0, unread: 0 });
    expect(settled(drive, 1)).toHaveLength(1);
  });

  it('gives up after 30 s, sent or not, and ignores a late answer', () => {
    const drive = new Drive().put({ type: 'call', ref: 1, body: { op: 'ping' } }).pass(29_999);
    expect(settled(drive, 1)).toEqual([]);
    expect(settled(drive.pass(2), 1)).toMatchObject([{ error: { code: 'timeout' } }]);
    const sent = new Drive().live().put({ type: 'call', ref: 2, body: { op: 'presence', users: ['1'] } });
    sent.frame({ event: 'badge', data: {} });
    for (let i = 0; i < 31; i++) sent.pass(1000).frame({ event: 'badge', data: {} });
    expect(settled(sent.answer('presence', {}), 2)).toMatchObject([{ error: { code: 'timeout' } }]);
  });

  it('bounds how many wait', () => {
    const drive = new Drive();
    for (let ref = 0; ref <= MAX_CALLS; ref++) drive.put({ type: 'call', ref, body: { op: 'ping' } });
    expect(settled(drive, MAX_CALLS)).toMatchObject([{ error: { code: 'overflow', retry: true } }]);
  });

  it('hands on the error of the server', () => {
    const drive = new Drive().live().put({ type: 'call', ref: 1, body: { op: 'publish', channel: 'x', event: 'e' } });
    expect(settled(drive.refuse('publish', 'forbidden'), 1)).toMatchObject([
      { error: { code: 'forbidden', retry: false } },
    ]);
  });
});

describe('7: backoff', () => {
  const wait = (drive: Drive) => {
    const last = drive.of('status').at(-1)?.status;
    return last?.status === 'waiting' ? last.retryInMs : NaN;
  };

  it('is full jitter over a doubling range with a cap', () => {
    for (const random of [0, 0.5, 0.999999]) {
      const drive = new Drive().opening();
      for (let n = 0; n < 40; n++) {
        drive.random = random;
        drive.put({ type: 'gone', code: 1006, reason: '' });
        expect(wait(drive)).toBe(Math.floor(random * Math.min(30_000, 1000 * 2 ** n)));
        drive.toDeadline();
        expect(drive.state.phase).toBe('opening');
      }
    }
  });

  it('begins anew after 30 s of a standing session, not before', () => {
    const drive = new Drive().opening();
    drive.random = 0.999999;
    const lose = () => drive.put({ type: 'gone', code: 1006, reason: '' });
    const pass = (ms: number) => {
      for (let i = 0; i < ms / 10_000; i++) drive.pass(10_000).frame({ event: 'badge', data: {} });
    };
    for (let n = 0; n < 3; n++) lose().toDeadline();
    drive.put({ type: 'open' }).answer('auth', drive.authOk());
    pass(20_000);
    lose();
    expect(wait(drive)).toBe(7999);
    drive.again();
    pass(30_000);
    lose();
    expect(wait(drive)).toBe(999);
  });

  it.each([4429, 1013])('waits longer after %i', (code) => {
    const drive = new Drive().live();
    drive.random = 0.999999;
    drive.put({ type: 'gone', code, reason: '' });
    expect(wait(drive)).toBe(3999);
  });

  it('is cut short when the network is back, but not below a second', () => {
    const drive = new Drive().opening();
    drive.random = 0.9;
    for (let n = 0; n < 6; n++) drive.put({ type: 'gone', code: 1006, reason: '' }).toDeadline();
    drive.put({ type: 'gone', code: 1006, reason: '' });
    const began = drive.state.begunMs;
    drive.now = began + 300;
    drive.put(inputs.wake);
    expect(drive.state.phase).toBe('waiting');
    drive.toDeadline();
    expect(drive.now).toBe(began + 1000);
    expect(drive.state.phase).toBe('opening');
    drive.put({ type: 'gone', code: 1006, reason: '' });
    drive.now += 5000;
    expect(drive.put(inputs.wake).state.phase).toBe('opening');
  });
});

describe('8: deadlines', () => {
  it.each([
    ['token', 30_000, ['status']],
    ['opening', 10_000, ['drop', 'status']],
    ['authenticating', 10_000, ['drop', 'status']],
  ] as const)('%s ends after %i ms', (phase, ms, effects) => {
    const drive = phases[phase]();
    const began = drive.now;
    drive.toDeadline();
    expect(drive.now - began).toBe(ms);
    expect(drive.types()).toEqual(effects);
    expect(Object.keys(drive.state.deadlines)).toEqual(['retry']);
  });

  it('pings when nothing was heard for ping_s, and gives up after twice that', () => {
    const drive = new Drive().live({ ping_s: 10 });
    const began = drive.now;
    drive.toDeadline();
    expect(drive.now - began).toBe(10_000);
    expect(drive.sent('ping')).toBeDefined();
    drive.toDeadline();
    expect(drive.now - began).toBe(20_000);
    expect(drive.state.phase).toBe('waiting');
  });

  it('takes any frame for a sign of life', () => {
    const drive = new Drive().live({ ping_s: 10 });
    for (let i = 0; i < 5; i++) {
      drive.toDeadline();
      drive.now += 9_000;
      drive.frame({ event: 'badge', data: {} });
      expect(drive.state.phase).toBe('live');
    }
  });

  it('probes with 3 s when the page is looked at again', () => {
    const drive = new Drive().live().put(inputs.wake);
    const began = drive.now;
    expect(drive.put(inputs.wake).types()).toEqual([]);
    drive.toDeadline();
    expect(drive.now - began).toBe(3_000);
    expect(drive.state.phase).toBe('waiting');
    const alive = new Drive().live().put(inputs.wake);
    alive.answer('ping', {}).pass(4_000);
    expect(alive.state.phase).toBe('live');
  });
});

describe('9: tokens', () => {
  const tokens = (drive: Drive) =>
    drive.of('send').flatMap(({ frame }) => (frame['op'] === 'auth' ? [frame['token']] : []));

  it('keeps the token over reconnects while it holds', () => {
    const drive = new Drive().live().put({ type: 'gone', code: 1006, reason: '' }).again();
    expect(tokens(drive)).toEqual(['t1', 't1']);
    expect(drive.of('fetchToken')).toEqual([{ type: 'fetchToken', fresh: false }]);
  });

  it('asks for a fresh one after 4401, by close or by error', () => {
    const drive = new Drive().live().put({ type: 'gone', code: 4401, reason: '' }).again();
    expect(tokens(drive)).toEqual(['t1', 't2']);
    expect(drive.of('fetchToken')).toEqual([
      { type: 'fetchToken', fresh: false },
      { type: 'fetchToken', fresh: true },
    ]);
    const other = new Drive().authenticating().refuse('auth', 'unauthorized').toDeadline();
    expect(other.state.phase).toBe('token');
    expect(other.of('fetchToken').at(-1)?.fresh).toBe(true);
  });

  it('leaves it to the close what becomes of somebody who is refused', () => {
    const refused = (): Drive => new Drive().authenticating().refuse('auth', 'forbidden');
    expect(refused().state.phase).toBe('authenticating');
    expect(refused().toDeadline().state.phase).toBe('waiting');
    const gone = refused().put({ type: 'gone', code: 4403, reason: 'rollout' });
    expect(gone.last).toContainEqual({
      type: 'status',
      status: { status: 'closed', code: 4403, reason: 'rollout' },
    });
  });

  it('keeps the token when the server could not check it', () => {
    expect(new Drive().authenticating().refuse('auth', 'unavailable', true).toDeadline().state.phase).toBe('opening');
  });

  it('asks for another when the server will never take the one it was given', () => {
    expect(new Drive().authenticating().refuse('auth', 'bad_request').toDeadline().state.phase).toBe('token');
  });

  it('refreshes again when the server had no time for it', () => {
    const drive = new Drive().live();
    while (drive.of('fetchToken').length === 1) drive.toDeadline().frame({ event: 'badge', data: {} });
    drive.put({ type: 'token', token: 't2' }).refuse('auth', 'unavailable', true);
    const end = drive.state.expiresMs ?? 0;
    while (drive.now < end && drive.of('fetchToken').length === 2)
      drive.toDeadline().frame({ event: 'badge', data: {} });
    expect(drive.of('fetchToken')).toHaveLength(3);
    expect(drive.now).toBeLessThan(end);
    expect(drive.state.phase).toBe('live');
  });

  it('refreshes in band before the end, and again for the next', () => {
    const drive = new Drive().live();
    for (let i = 0; i < 3; i++) {
      const began = drive.now;
      const asked = drive.of('fetchToken').length;
      while (drive.of('fetchToken').length === asked) {
        drive.toDeadline();
        drive.frame({ event: 'badge', data: {} });
      }
      expect(drive.now - began).toBeGreaterThanOrEqual(0.75 * 3_600_000);
      expect(drive.now - began).toBeLessThan(0.95 * 3_600_000);
      drive.put({ type: 'token', token: `r${i}` });
      expect(drive.sent('auth')).toEqual({ id: expect.any(Number) as number, op: 'auth', token: `r${i}` });
      drive.answer('auth', drive.authOk({ seq: 99, recovered: false, unseen: i, unread: 7 }));
      expect(drive.state.phase).toBe('live');
      // The server counts them as told.
      expect(drive.of('push').at(-1)?.push).toEqual({ event: 'badge', data: { unseen: i, unread: 7 } });
    }
    // A refresh says nothing about positions.
    expect(drive.state.position?.seq).toBe(10);
    expect(drive.of('gap')).toEqual([]);
    // The next connection comes with the newest, and asks for none.
    drive.put({ type: 'gone', code: 1006, reason: '' }).toDeadline().put({ type: 'open' });
    expect(drive.sent('auth')).toMatchObject({ token: 'r2', since: 10 });
  });

  it('refreshes a token of a few seconds before its end', () => {
    const drive = new Drive();
    drive.live({ expires_at: new Date(drive.now + 4_000).toISOString() });
    const asked = drive.of('fetchToken').length;
    const end = drive.now + 4_000;
    while (drive.of('fetchToken').length === asked) drive.toDeadline();
    expect(drive.now).toBeLessThan(end);
    expect(drive.state.phase).toBe('live');
  });

  it('does not ask in a circle when it is given the same token', () => {
    const drive = new Drive();
    const expires_at = new Date(drive.now + 60_000).toISOString();
    drive.live({ expires_at });
    for (let i = 0; i < 12; i++) {
      drive.pass(5_000).frame({ event: 'badge', data: {} });
      if (drive.last.length > 0 && drive.state.deadlines.refresh === undefined) {
        drive.put({ type: 'token', token: 't1' }).answer('auth', drive.authOk({ expires_at }));
      }
    }
    expect(drive.of('fetchToken')).toHaveLength(2);
  });

  it('tries again when the application has no token', () => {
    const drive = new Drive().token().put({ type: 'tokenFailed', message: 'offline' });
    expect(drive.of('status').at(-1)?.status).toMatchObject({
      status: 'waiting',
      code: 4401,
      reason: 'no token: offline',
    });
    expect(drive.toDeadline().state.phase).toBe('token');
    const live = new Drive().live();
    const first = live.state.deadlines.refresh ?? 0;
    live.now = first;
    live.put({ type: 'tick' }, { type: 'tokenFailed', message: 'x' });
    expect(live.state.deadlines.refresh).toBeGreaterThan(first);
    expect(live.state.phase).toBe('live');
  });

  it('lets the server say when a token is over that its own clock takes for over', () => {
    const drive = new Drive().live({ expires_at: new Date(0).toISOString() });
    expect(drive.state.deadlines.refresh).toBeUndefined();
    expect(drive.state.phase).toBe('live');
  });
});

describe('what the server may send', () => {
  it.each([
    {},
    { id: 1 },
    { id: 1, ok: null },
    { id: 1, ok: 5 },
    { id: 1, error: 'x' },
    { id: 77, ok: {} },
    { id: {}, ok: {} },
    { event: 5 },
    { event: 'notification' },
    { event: 'notification', data: null },
    { event: 'synced' },
    { event: 'resync' },
    { event: 'x', channel: 5 },
    { event: 'x', channel: 'y', offset: 'z' },
    { event: 'notification', seq: 'x' },
  ])('%j does no harm', (frame) => {
    for (const phase of Object.values(phases)) expect(() => phase().frame(frame)).not.toThrow();
  });

  it('gives up a server that answers auth with neither ok nor error', () => {
    const drive = new Drive().authenticating();
    expect(drive.frame({ id: drive.sent('auth').id }).state.phase).toBe('waiting');
  });
});
