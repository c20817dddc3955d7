/** Privacy never widens: whatever happened, nobody is shown what they must not see, on any way out of Belfry. */

import { itNeverShows } from './never-shown.js';

itNeverShows({ numRuns: 3, seed: 20_261_125 }, 120_000);
