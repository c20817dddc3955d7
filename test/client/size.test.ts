/** The promise of CONTRACT §6 that costs every visitor: `belfry/client` stays small and needs nothing else. */

import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { rolldown } from 'rolldown';
import { expect, it } from 'vitest';

const entry = fileURLToPath(new URL('../../src/client/index.ts', import.meta.url));

it('is under 6 KB minified and gzipped, in one piece without imports', async () => {
  const bundle = await rolldown({ input: entry, platform: 'neutral', resolve: { extensionAlias: { '.js': ['.ts'] } } });
  const { output } = await bundle.generate({ format: 'esm', minify: true });
  await bundle.close();
  expect(output).toHaveLength(1);
  expect(output[0].imports).toEqual([]);
  expect(output[0].code).not.toMatch(/node:|process\.|require\(/);
  const bytes = gzipSync(output[0].code, { level: 9 }).length;
  expect(bytes).toBeLessThan(6_000);
});
