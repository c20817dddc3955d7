// Adds up vitest's JSON reports and names what failed. A run that left no report failed as a whole, and counts as one failure.
import { readFileSync } from 'node:fs';

let passed = 0;
let failed = 0;
const failures = [];
for (const file of process.argv.slice(2)) {
  try {
    const report = JSON.parse(readFileSync(file, 'utf8'));
    passed += report.numPassedTests;
    // A file that fails before its first test has no failed test.
    failed += report.success ? report.numFailedTests : Math.max(1, report.numFailedTests);
    for (const { name, status, message, assertionResults } of report.testResults) {
      const tests = assertionResults.filter((test) => test.status === 'failed');
      for (const test of tests) failures.push([name, test.fullName, test.failureMessages.join('\n')]);
      if (status === 'failed' && tests.length === 0) failures.push([name, 'before its first test', message]);
    }
  } catch (error) {
    console.error(`no report of a run: ${error.message}`);
    failed += 1;
  }
}
// At the end, where they are still read when the middle of a long output is cut.
for (const [file, test, message] of failures)
  console.log(`FAILED ${file.replace(/^.*\/test\//, 'test/')}: ${test}\n${message.slice(0, 800)}\n`);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
