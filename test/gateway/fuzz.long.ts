/** The gateway against what no client would send, two minutes for each kind. */

import { afterAll, beforeAll, expect, it } from 'vitest';
import { fuzzBytes, fuzzJson, fuzzTokens, startFuzzed } from './fuzz.js';
import type { Rig } from './support.js';

const budgetMs = 120_000;
let rig: Rig;
beforeAll(async () => {
  rig = await startFuzzed();
});
afterAll(() => rig?.stop());

it.each([
  ['bytes and frames', fuzzBytes],
  ['JSON', fuzzJson],
  ['tokens', fuzzTokens],
])(
  '%s',
  async (_, fuzz) => {
    const cases = await fuzz(rig, budgetMs);
    process.stdout.write(`${cases} cases\n`);
    expect(cases).toBeGreaterThan(1000);
  },
  600_000,
);
