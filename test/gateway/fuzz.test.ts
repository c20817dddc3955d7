/** The gateway against what no client would send, for some seconds; fuzz.long.ts is the same for minutes. */

import { afterAll, beforeAll, expect, it } from 'vitest';
import { fuzzBytes, fuzzJson, fuzzTokens, startFuzzed } from './fuzz.js';
import type { Rig } from './support.js';

const budgetMs = 2_000;
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
    expect(await fuzz(rig, budgetMs)).toBeGreaterThan(3);
  },
  120_000,
);
