import { appendFileSync } from 'node:fs';
import { defineConfig } from 'vitest/config';
import type { Reporter } from 'vitest/node';

/** Loaded with --configLoader runner, which writes nothing: node_modules may belong to somebody else. */

/** Tests that take minutes run with `npm run test:long` only; the rest says at the end what it left out. */
const long = process.env['BELFRY_TEST_LONG'] === '1';

/** Where to leave the results as JSON as well (.ci/run adds them up). */
const report = process.env['BELFRY_TEST_REPORT'];

/** Errors outside of any test fail a run, but are in no report of its tests: left beside it, one per line as JSON. */
const unhandled: Reporter = {
  onTestRunEnd(_modules, errors) {
    if (report === undefined) return;
    for (const { name, message, stack, VITEST_TEST_PATH, VITEST_TEST_NAME } of errors) {
      const where = { file: VITEST_TEST_PATH, test: VITEST_TEST_NAME };
      appendFileSync(`${report}.errors`, `${JSON.stringify({ ...where, message: stack ?? `${name}: ${message}` })}\n`);
    }
  },
};

const tests = (folder: string): string[] => [`test/${folder}.test.ts`, ...(long ? [`test/${folder}.long.ts`] : [])];

/**
 * These have a process for each file: a gateway or a browser runs within many of them. All others share theirs, which saves a fifth of
 * the CPU (a process and the same imports a hundred times).
 */
const apart = ['app', 'client', 'demo', 'embedded', 'examples', 'faults', 'gateway', 'long', 'support'].flatMap(
  (folder) => tests(`${folder}/**/*`),
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
    ...common,
    globalSetup: ['test/support/global.ts'],
    reporters: report === undefined ? ['default'] : ['default', ['json', { outputFile: report }], unhandled],
    projects: [
      { test: { ...common, name: 'apart', include: apart } },
      { test: { ...common, name: 'together', include: tests('**/*'), exclude: apart, isolate: false } },
    ],
  },
});
