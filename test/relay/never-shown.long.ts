/** As never-shown.test.ts, with histories that differ each time; a failure prints the seed. */

import { itNeverShows } from './never-shown.js';

itNeverShows({ numRuns: 60 }, 600_000);
