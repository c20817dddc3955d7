/** Rates, addresses, order of streams and coalescing: pure parts, by example and by property. */

import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { inRollout } from '../../src/gateway/sessions/auth.js';
import { Coalescer } from '../../src/gateway/channels/coalesce.js';
import { LatestCounts } from '../../src/gateway/channels/counts.js';
import { Gaps } from '../../src/gateway/recovery/gaps.js';
import { Addresses, clientAddress, isLoopback, perMinute, rate, remaining, step } from '../../src/gateway/limits.js';
import { originAllowed } from '../../src/gateway/sessions/upgrade.js';

describe('a rate', () => {
  it('lets through at most what it says over any time', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 100 }),
        fc.array(fc.integer({ min: 0, max: 500 }), { maxLength: 500 }),
        (perSecond, gaps) => {
          const allowed = rate(perSecond);
          let [tat, now] = [0, 1_000_000];
          const times: number[] = [];
          for (const gap of gaps) {
            now += gap;
            const next = step(tat, now, allowed);
            if (next - now > allowed.burstMs) continue;
            tat = next;
            times.push(now);
          }
          // In any window of T seconds: a burst, and the rate over T.
          for (let from = 0; from < times.length; from++) {
            for (let to = from; to < times.length; to += 7) {
              expect(to - from + 1).toBeLessThanOrEqual(
                perSecond + ((times[to]! - times[from]!) / 1000) * perSecond + 1e-6,
              );
            }
          }
        },
      ),
    );
  });

  it('tells what is left', () => {
    const allowed = perMinute(3);
    const now = 5_000_000;
    let tat = 0;
    const left = [remaining(tat, now, allowed)];
    for (let i = 0; i < 3; i++) {
      tat = step(tat, now, allowed);
      left.push(remaining(tat, now, allowed));
    }
    expect(left).toEqual([3, 2, 1, 0]);
    expect(remaining(tat, now + 20_000, allowed)).toBe(1);
  });
});

describe('addresses', () => {
  const v4 = new Uint8Array([192, 0, 2, 7]).buffer;
  const v6 = new Uint8Array([0x20, 1, 0xd, 0xb8, 0, 1, 0, 2, 9, 9, 9, 9, 9, 9, 9, 9]).buffer;
  const mapped = new Uint8Array([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 7]).buffer;
  const loopback6 = new Uint8Array([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]).buffer;

  it.each([
    ['the peer', v4, '', 0, '192.0.2.7'],
    ['the peer, mapped into IPv6', mapped, '', 0, '192.0.2.7'],
    ['an IPv6 peer by its /64', v6, '', 0, '2001:db8:1:2::/64'],
    ['the peer when no proxy is trusted', v4, '203.0.113.1', 0, '192.0.2.7'],
    ['what the one proxy saw', v4, '6.6.6.6, 203.0.113.1', 1, '203.0.113.1'],
    ['what the outer of two proxies saw', v4, '6.6.6.6, 203.0.113.1, 10.0.0.1', 2, '203.0.113.1'],
    ['the first of too short a chain', v4, '203.0.113.1', 3, '203.0.113.1'],
    ['with a port', v4, '203.0.113.1:5555', 1, '203.0.113.1'],
    ['IPv6 with brackets and port', v4, '[2001:db8:1:2::1]:5555', 1, '2001:db8:1:2::/64'],
    ['IPv4 in IPv6', v4, '::ffff:203.0.113.1', 1, '203.0.113.1'],
    ['the peer for rubbish', v4, 'unknown', 1, '192.0.2.7'],
    ['loopback', loopback6, '', 0, '::1'],
  ])('takes %s', (_what, peer, forwarded, hops, expected) => {
    expect(clientAddress(peer, forwarded, hops)).toBe(expected);
  });

  it('never fails and never lets a header pass for loopback without a trusted proxy', () => {
    fc.assert(
      fc.property(fc.string(), fc.integer({ min: 0, max: 3 }), (forwarded, hops) => {
        const address = clientAddress(v4, forwarded, hops);
        if (hops === 0) expect(address).toBe('192.0.2.7');
        expect(address).not.toBe('');
      }),
    );
    expect(isLoopback('127.0.0.1') && isLoopback('::1')).toBe(true);
    expect(isLoopback('192.0.2.7') || isLoopback('::/64')).toBe(false);
  });

  it('are forgotten when idle, but never with a connection', () => {
    const addresses = new Addresses();
    addresses.use('a').connections = 1;
    addresses.use('b').httpTatMs = 1000;
    addresses.use('c');
    addresses.forgetIdle(500);
    expect(addresses.size).toBe(2);
    addresses.forgetIdle(1500);
    expect(addresses.size).toBe(1);
    expect(addresses.use('a').connections).toBe(1);
  });
});

describe('the origin', () => {
  it('is compared exactly', () => {
    expect(originAllowed('', 'x', [])).toBe(true);
    expect(originAllowed('https://a.example', 'b.example', ['https://a.example'])).toBe(true);
    expect(originAllowed('http://a.example', 'b.example', ['https://a.example'])).toBe(false);
    expect(originAllowed('https://b.example', 'b.example:443', [])).toBe(true);
    expect(originAllowed('https://b.example.evil', 'b.example', [])).toBe(false);
    expect(originAllowed('null', 'null', [])).toBe(false);
  });

  it.each([
    'https://a.example.evil',
    'https://evil-a.example',
    'https://evil.a.example',
    'https://a.exampl',
    'https://A.example',
    'https://a.example/',
    'https://a.example:444',
    'https://own.example.evil',
    'https://evil-own.example',
    'https://evil.own.example',
    'https://own.example:444',
    'https://own.example@evil',
  ])('%s is neither the one of the config nor our own', (origin) => {
    expect(originAllowed(origin, 'own.example', ['https://a.example'])).toBe(false);
  });
});

describe('the rollout', () => {
  it('is stable, grows, and hits about the share', () => {
    const users = Array.from({ length: 5000 }, (_, i) => String(i));
    for (const percent of [0, 1, 25, 50, 99, 100]) {
      const within = users.filter((user) => inRollout(user, percent));
      expect(within.length / users.length).toBeGreaterThanOrEqual(percent / 100 - 0.03);
      expect(within.length / users.length).toBeLessThanOrEqual(percent / 100 + 0.03);
      expect(within.every((user) => inRollout(user, Math.min(100, percent + 10)))).toBe(true);
    }
    expect(inRollout('42', 0)).toBe(false);
  });
});

describe('a dense stream', () => {
  interface Item {
    readonly seq: number;
  }
  it('is passed on in order, each once, whatever order, loss and repetition the broker adds', async () => {
    vi.useFakeTimers();
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 60 }),
        fc.array(fc.integer({ min: 0, max: 1000 }), { maxLength: 120 }),
        fc.array(fc.boolean(), { minLength: 60, maxLength: 60 }),
        async (last, arrivals, failures) => {
          const stream = { position: 0, ahead: null as Map<number, Item> | null };
          const got: number[] = [];
          let fetches = 0;
          const gaps = new Gaps<typeof stream, Item>({
            deliver: (of, item) => {
              of.position = item.seq;
              got.push(item.seq);
            },
            // What Postgres holds: everything, at most ten at a time; sometimes it is away.
            fetch: (streams) => {
              if (failures[fetches++ % 60] === true && fetches < 20) return Promise.reject(new Error('away'));
              return Promise.resolve(
                new Map(
                  streams.map((of) => [
                    of,
                    Array.from({ length: Math.min(10, last - of.position) }, (_, i) => ({ seq: of.position + 1 + i })),
                  ]),
                ),
              );
            },
            lost: () => expect.unreachable('nothing is lost here'),
            known: () => true,
            failed: () => undefined,
          });
          for (const arrival of arrivals) {
            const seq = 1 + (arrival % last);
            gaps.receive(stream, seq, { seq });
            if (arrival % 5 === 0) await vi.advanceTimersByTimeAsync(10);
          }
          gaps.behind(stream, last);
          await vi.advanceTimersByTimeAsync(60_000);
          expect(got).toEqual(Array.from({ length: last }, (_, i) => i + 1));
          gaps.stop();
        },
      ),
      { numRuns: 200 },
    );
    vi.useRealTimers();
  });
});

describe('coalescing', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  // By the channel, by what is counted in it, and by event where the relay is of an older version that does not say what is counted.
  it.each([
    ['channel', (which: number) => ({ channel: `post:${which}`, event: 'e', counter: 'likes 1' })],
    ['counter', (which: number) => ({ channel: 'all', event: 'e', counter: `likes ${which}` })],
    ['event', (which: number) => ({ channel: 'all', event: `e${which}` })],
  ])('sends at most one per %s in 250 ms, in order, and the latest always', (_what, named) => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 120 }), fc.integer({ min: 0, max: 2 })), { maxLength: 100 }),
        (steps) => {
          const sent: { which: number; count: number; atMs: number }[] = [];
          const latest = new Map<number, number>();
          const coalescer = new Coalescer(({ data }) =>
            sent.push({ which: Number(data['which']), count: Number(data['n']), atMs: performance.now() }),
          );
          steps.forEach(([wait, which], n) => {
            vi.advanceTimersByTime(wait);
            latest.set(which, n);
            coalescer.add({ to: 'counter', ...named(which), data: { n, which }, actorId: null });
          });
          vi.advanceTimersByTime(1000);
          for (const [which, n] of latest) {
            const own = sent.filter((one) => one.which === which);
            expect(own.at(-1)?.count).toBe(n);
            for (let i = 1; i < own.length; i++) {
              expect(own[i]!.atMs - own[i - 1]!.atMs).toBeGreaterThanOrEqual(249);
              expect(own[i]!.count).toBeGreaterThan(own[i - 1]!.count);
            }
          }
          coalescer.stop();
        },
      ),
    );
  });

  it('has one timer at most, however long the updates go on', () => {
    let sent = 0;
    const coalescer = new Coalescer(() => sent++);
    for (let i = 0; i < 400; i++) {
      for (const channel of ['post:1', 'post:2', 'post:3'])
        coalescer.add({ to: 'counter', channel, event: 'e', data: { n: i }, actorId: null });
      expect(vi.getTimerCount()).toBe(1);
      vi.advanceTimersByTime(25);
    }
    expect(sent).toBe(3 * (1 + 10_000 / 250));
    vi.advanceTimersByTime(1000);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('counts for those who join', () => {
  const count = (n: number, counter = 'likes 1') =>
    ({ to: 'counter', channel: 'post:1', event: 'e', data: { n }, actorId: null, counter }) as const;

  it('are the latest of each counter that changed since somebody joined', () => {
    const counts = new LatestCounts();
    counts.add(count(1));
    counts.add(count(2, 'likes 2'));
    const { now } = counts;
    counts.add(count(3));
    counts.add(count(4));
    expect(counts.since(0)).toEqual([count(2, 'likes 2'), count(4)]);
    expect(counts.since(now)).toEqual([count(4)]);
    expect(counts.since(counts.now)).toEqual([]);
  });

  it('are not known to be whole where some were dropped, but for who joined after those', () => {
    const counts = new LatestCounts();
    for (let n = 0; n < 513; n++) counts.add(count(n, `likes ${n}`));
    expect(counts.since(0)).toBe(null);
    expect(counts.since(1)).toHaveLength(512);
  });
});
