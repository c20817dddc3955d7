// Adds up vitest's JSON reports and names what failed. A run that left no report failed as a whole, and counts as one failure; so does
// each error outside of any test (the list beside the report, `.errors`). Where the failed files passed when they were run again (the
// report beside it, `.again`), their tests count as passed, and are named too.
import { existsSync, readFileSync } from 'node:fs';

let passed = 0;
let failed = 0;
const failures = [];
const read = (file) => JSON.parse(readFileSync(file, 'utf8'));

const unhandled = (file) => (existsSync(`${file}.errors`) ? read(`${file}.errors`) : []);

for (const file of process.argv.slice(2)) {
  try {
    const report = read(file);
    const second = !report.success && existsSync(`${file}.again`) && read(`${file}.again`).success;
    passed += report.numPassedTests + (second ? report.numFailedTests : 0);
    // A file that fails before its first test has no failed test.
    failed += report.success || second ? 0 : Math.max(1, report.numFailedTests);
    const what = second ? 'PASSED ONLY IN A SECOND RUN' : 'FAILED';
    for (const { name, status, message, assertionResults } of report.testResults) {
      const title = `${what} ${name.replace(/^.*\/test\//, 'test/')}`;
      const tests = assertionResults.filter((test) => test.status === 'failed');
      for (const test of tests) failures.push([`${title}: ${test.fullName}`, test.failureMessages.join('\n')]);
      if (status === 'failed' && tests.length === 0) failures.push([`${title}: before its first test`, message]);
    }
    for (const error of [...unhandled(file), ...unhandled(`${file}.again`)]) {
      failed += 1;
      failures.push([
        `FAILED outside of any test: ${error.file ?? 'no file'}: ${error.test ?? 'no test'}`,
        error.message,
      ]);
    }
  } catch (error) {
    console.error(`no report of a run: ${error.message}`);
    failed += 1;
  }
}
// At the end, where they are still read when the middle of a long output is cut.
for (const [title, message] of failures) console.log(`${title}\n${message.slice(0, 800)}\n`);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
