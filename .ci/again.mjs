// Names the test files that failed in a report of vitest, one per line, to be run once more in processes of their own: a machine
// that is shared may stall for longer than a test waits. More than a few failures are no accident: then it names none.
import { readFileSync } from 'node:fs';

const most = 2;
const { testResults } = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const failed = testResults.filter(({ status }) => status === 'failed').map(({ name }) => name);
if (failed.length <= most) for (const name of failed) console.log(name);
