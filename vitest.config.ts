import { writeFileSync } from 'node:fs';
import { defineConfig } from 'vitest/config';
import type { Reporter } from 'vitest/node';

/** Loaded with --configLoader runner, which writes nothing: node_modules may belong to somebody else. */

/** Tests that take minutes run with `npm run test:long` only; the rest says at the end what it left out. */
const long = process.env['BELFRY_TEST_LONG'] === '1';

/** Where to leave the results as JSON as well (.ci/run adds them up). */
const report = process.env['BELFRY_TEST_REPORT'];

/** Errors outside of any test fail a run, but are in no report of its tests: left beside it, as a list in JSON. */
const unhandled: Reporter = {
  onTestRunEnd(_modules, errors) {
    if (report === undefined || errors.length === 0) return;
    const told = errors.map(({ name, message, stack, VITEST_TEST_PATH, VITEST_TEST_NAME }) => ({
      file: VITEST_TEST_PATH,
      test: VITEST_TEST_NAME,
      message: stack ?? `${name}: ${message}`,
    }));
    writeFileSync(`${report}.errors`, JSON.stringify(told));
  },
};

/**
 * Files in these folders have a process each: many run a gateway, a browser or a demo, and some of them hung in a process where others
 * had run before. The rest share theirs, which saves them a fifth of their CPU (processes, and the same imports again).
 */
const apart = ['app', 'client', 'demo', 'embedded', 'examples', 'faults', 'gateway', 'support'].map(
  (folder) => `test/${folder}/**/*.test.ts`,
);

/** For every project; the server of global.ts is the root's, and there once. */
const common = {
  pool: 'forks' as const,
  // Tests mostly wait (for a doorbell, a window, a server): three keep two cores busy.
  maxWorkers: 3,
  testTimeout: 30_000,
  hookTimeout: 60_000,
  // A machine shared with strangers may stall for seconds; the report names what needed a second try.
  retry: process.env['CI'] === undefined ? 0 : 1,
};

export default defineConfig({
  test: {
    globalSetup: ['test/support/global.ts'],
    reporters: report === undefined ? ['default'] : ['default', ['json', { outputFile: report }], unhandled],
    projects: [
      { test: { ...common, name: 'apart', include: long ? [...apart, 'test/**/*.long.ts'] : apart } },
      { test: { ...common, name: 'together', include: ['test/**/*.test.ts'], exclude: apart, isolate: false } },
    ],
  },
});
