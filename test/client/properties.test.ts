/**
 * Invariants 1 to 4 of the client's machine, whatever the network does: every position at most once and ascending unless
 * a gap was announced, and in the end the application holds exactly what the server has.
 */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { upTo, World } from './world.js';

type Step = readonly [name: string, run: (world: World) => void];

const step = (name: string, run: (world: World) => void) => fc.constant<Step>([name, run]);
const counted = (name: string, most: number, run: (world: World, n: number) => void) =>
  fc.integer({ min: 1, max: most }).map((n): Step => [`${name} ${n}`, (world) => run(world, n)]);

/** A hole is seen, and what comes before the answer to the question for it is overtaken by that answer: chance alone hardly makes it. */
function overtaken(world: World): void {
  world.dropNext = true;
  world.channelEvent('a');
  world.channelEvent('a');
  world.deliver(100);
  world.swapNext = true;
  world.channelEvent('a');
}

/** Weights, so that most runs have live stretches with trouble in between. */
const steps = fc.oneof(
  { weight: 8, arbitrary: counted('event', 4, (world, item) => world.event(item)) },
  {
    weight: 6,
    arbitrary: fc.constantFrom('a', 'b').map((name): Step => [`event in ${name}`, (world) => world.channelEvent(name)]),
  },
  { weight: 8, arbitrary: counted('serve', 6, (world, n) => world.serve(n)) },
  { weight: 10, arbitrary: counted('deliver', 6, (world, n) => world.deliver(n)) },
  {
    weight: 4,
    arbitrary: fc.constantFrom(300, 3_000, 31_000).map((ms): Step => [`pass ${ms}`, (world) => world.pass(ms)]),
  },
  { weight: 3, arbitrary: step('settle', (world) => world.settle()) },
  { weight: 3, arbitrary: step('drop next', (world) => (world.dropNext = true)) },
  { weight: 3, arbitrary: step('swap next', (world) => (world.swapNext = true)) },
  { weight: 1, arbitrary: step('overtaken by an answer', overtaken) },
  { weight: 3, arbitrary: step('double next', (world) => (world.doubleNext = true)) },
  {
    weight: 2,
    arbitrary: fc.constantFrom(1006, 1012, 4401, 4508).map((code): Step => [`cut ${code}`, (world) => world.cut(code)]),
  },
  { weight: 2, arbitrary: step('mark', (world) => world.mark()) },
  { weight: 1, arbitrary: step('wake', (world) => world.wake()) },
  { weight: 1, arbitrary: step('prune', (world) => world.prune()) },
  { weight: 1, arbitrary: step('failover', (world) => world.failover()) },
);

describe('1 to 4: for any interleaving', () => {
  // Fifteen hundred histories, without a wait in any of them: how long that takes is the processor's matter.
  it(
    'each position is handed out at most once and ascending, or a gap was announced; nothing is lost',
    { timeout: 120_000 },
    () => {
      fc.assert(
        fc.property(fc.array(steps, { maxLength: 80 }), (run) => {
          const world = new World();
          world.settle();
          for (const stream of [null, ...world.channels.keys()]) world.fetch(stream);
          for (const [, act] of run) act(world);
          // The last event of a stream may have been dropped: the next one shows it.
          world.settle();
          world.event(1);
          for (const name of world.channels.keys()) world.channelEvent(name);
          world.settle();

          const names = run.map(([name]) => name).join(', ');
          expect(world.problem, names).toBeNull();
          expect([...world.view].sort(), names).toEqual([...world.items].sort());
          for (const [name, { head }] of world.channels) {
            expect([...(world.channelView.get(name) ?? [])], `${name}: ${names}`).toEqual(upTo(head));
          }
        }),
        { numRuns: Number(process.env['BELFRY_FUZZ_RUNS'] ?? 1500) },
      );
    },
  );
});
