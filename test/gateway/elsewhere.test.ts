/** What gateways tell each other of who is present, however much of it is lost on the way. */

import fc from 'fast-check';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import type { PresencePublication } from '../../src/broker/broker.js';
import { beatMs, Elsewhere, placeIn, placeOf, silentMs } from '../../src/gateway/presence/elsewhere.js';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** Gateways that hear each other, as long as nothing is lost. */
class Installation {
  readonly gateways: { readonly elsewhere: Elsewhere; readonly told: string[] }[] = [];
  lost: () => boolean = () => false;
  messages = 0;

  open(): (typeof this.gateways)[number] {
    const told: string[] = [];
    const elsewhere = new Elsewhere({
      // One that was killed says nothing more.
      publish: (publications) => void (this.gateways.includes(gateway) && this.carry(publications)),
      changed: (place, present) => void told.push(`${present ? '+' : '-'}${place}`),
    });
    const gateway = { elsewhere, told };
    this.gateways.push(gateway);
    elsewhere.start();
    return gateway;
  }

  /** To everybody, as brokers do: also to who said it. */
  private carry(publications: readonly PresencePublication[]): void {
    for (const publication of publications) {
      this.messages += 1;
      for (const { elsewhere } of this.gateways) if (!this.lost()) elsewhere.receive(publication);
    }
  }
}

/** Longer than changes are gathered. */
const said = (): void => void vi.advanceTimersByTime(100);

it('who comes and goes is there and gone everywhere else, and nowhere twice', () => {
  const all = new Installation();
  const [one, two, three] = [all.open(), all.open(), all.open()];
  one.elsewhere.set(placeOf('7'), true);
  two.elsewhere.set(placeOf('7'), true);
  two.elsewhere.set(placeIn('post:1', '7\n8'), true);
  said();
  expect(one.told).toEqual(['+u7', '+cpost:1\n7\n8']);
  expect([...three.elsewhere.membersOf('post:1')]).toEqual(['7\n8']);
  expect([...two.elsewhere.membersOf('post:1')]).toEqual([]);
  one.elsewhere.set(placeOf('7'), false);
  said();
  // Still there at the second.
  expect(three.told).toEqual(['+u7', '+cpost:1\n7\n8']);
  two.elsewhere.set(placeOf('7'), false);
  two.elsewhere.set(placeIn('post:1', '7\n8'), false);
  said();
  expect(three.told.slice(2)).toEqual(['-u7', '-cpost:1\n7\n8']);
  expect([...three.elsewhere.membersOf('post:1')]).toEqual([]);
  expect(two.told).toEqual(['+u7', '-u7']);
});

it('of who came and went at once nothing is said; thousands are one message', () => {
  const all = new Installation();
  const [one, two] = [all.open(), all.open()];
  all.messages = 0;
  one.elsewhere.set('u1', true);
  one.elsewhere.set('u1', false);
  for (let i = 0; i < 3_000; i++) one.elsewhere.set(`u${i + 2}`, true);
  said();
  expect(two.told).toHaveLength(3_000);
  expect(all.messages).toBe(1);
});

it('one that comes later learns of everybody, in parts where they are many', () => {
  const all = new Installation();
  const one = all.open();
  for (let i = 0; i < 12_000; i++) one.elsewhere.set(`u${i}`, true);
  said();
  const two = all.open();
  expect(new Set(two.told).size).toBe(12_000);
  expect(two.elsewhere.has('u11999')).toBe(true);
});

it('one that has ended has nobody at once, one that fell silent soon', () => {
  const all = new Installation();
  const [one, two, three] = [all.open(), all.open(), all.open()];
  one.elsewhere.set('u1', true);
  two.elsewhere.set('u2', true);
  said();
  one.elsewhere.stop();
  expect(three.told).toEqual(['+u1', '+u2', '-u1']);
  all.gateways.splice(1, 1);
  vi.advanceTimersByTime(silentMs - beatMs);
  expect(three.elsewhere.has('u2')).toBe(true);
  vi.advanceTimersByTime(2 * beatMs);
  expect(three.told).toEqual(['+u1', '+u2', '-u1', '-u2']);
});

it('whatever was lost is made good: beats later everybody knows the same', () => {
  const step = fc.record({
    at: fc.nat(2),
    user: fc.nat(5),
    present: fc.boolean(),
    wait: fc.nat(200),
    lost: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      vi.clearAllTimers();
      const all = new Installation();
      for (let i = 0; i < 3; i++) all.open();
      const there = [new Set<string>(), new Set<string>(), new Set<string>()];
      for (const { at, user, present, wait, lost } of steps) {
        all.lost = () => lost;
        all.gateways[at]?.elsewhere.set(`u${user}`, present);
        if (present) there[at]?.add(`u${user}`);
        else there[at]?.delete(`u${user}`);
        vi.advanceTimersByTime(wait);
      }
      all.lost = () => false;
      vi.advanceTimersByTime(2 * beatMs + 100);
      all.gateways.forEach(({ elsewhere, told }, i) => {
        for (let user = 0; user <= 5; user++) {
          const place = `u${user}`;
          const expected = there.some((places, j) => j !== i && places.has(place));
          expect(elsewhere.has(place)).toBe(expected);
          // Told in turns, and the last word is true.
          const heard = told.filter((text) => text.endsWith(place)).map((text) => text[0]);
          expect(heard).toEqual(heard.map((_, n) => (n % 2 === 0 ? '+' : '-')));
          expect(heard.at(-1) === '+').toBe(expected);
        }
      });
    }),
    { numRuns: 200 },
  );
});
