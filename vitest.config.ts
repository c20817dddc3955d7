import { defineConfig } from 'vitest/config';

/** Loaded with --configLoader runner, which writes nothing: node_modules may belong to somebody else. */

/** Tests that take minutes run with `npm run test:long` only; the rest says at the end what it left out. */
const long = process.env['BELFRY_TEST_LONG'] === '1';

/** Where to leave the results as JSON as well (.ci/run adds them up). */
const report = process.env['BELFRY_TEST_REPORT'];

export default defineConfig({
  test: {
    include: long ? ['test/**/*.test.ts', 'test/**/*.long.ts'] : ['test/**/*.test.ts'],
    globalSetup: ['test/support/global.ts'],
    reporters: report === undefined ? ['default'] : ['default', ['json', { outputFile: report }]],
    pool: 'forks',
    // Tests mostly wait (for a doorbell, a window, a server): three keep two cores busy.
    maxWorkers: 3,
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // A machine shared with strangers may stall for seconds; the report names what needed a second try.
    retry: process.env['CI'] === undefined ? 0 : 1,
  },
});
