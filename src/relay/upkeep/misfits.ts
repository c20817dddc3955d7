/**
 * What of the config the database does not have, for the log of a relay that can't lead with it: what Postgres says of a statement that
 * is made of many names no place in the config.
 *
 * What must hold: the same problems are told once, however many terms begin and fail meanwhile.
 */

import { readCatalog } from '../../capture/catalog.js';
import { capturedTables } from '../../capture/install.js';
import { configProblems } from '../../capture/problems.js';
import type { Config } from '../../config.js';
import { BelfryError } from '../../errors.js';
import { blame } from '../failures.js';
import { onOwnConnection } from '../own-connection.js';

/** What was told last by those who look; lives longer than a term. */
export class Told {
  private readonly last = new Map<'term' | 'drift', string>();

  /** Whether these are others than before, which from now on are told; no problems are what is told of a sound database. */
  isNews(who: 'term' | 'drift', problems: readonly string[]): boolean {
    const now = problems.join('\n');
    if (now === (this.last.get(who) ?? '')) return false;
    this.last.set(who, now);
    return true;
  }

  /** The database fits: if it ceases to, that is news. */
  forget(): void {
    this.last.delete('term');
  }
}

/** The problems that `belfry migrate` would tell, where an error that ended a term may come of them; empty when it is another's fault. */
export async function misfits(error: unknown, config: Config): Promise<string[]> {
  // It says all there is to say: rows that decide who may hear what are hidden.
  if (error instanceof BelfryError && error.code === 'database_denied') return [error.message];
  const why = blame(error);
  if (why !== 'schema' && why !== 'event') return [];
  try {
    return await onOwnConnection(config, async (client) =>
      configProblems(client, config, await readCatalog(client, capturedTables(config))),
    );
  } catch {
    // What ended the term is told without them.
    return [];
  }
}
