/**
 * Who stores for a replay: the leader, in turns between its own batches.
 *
 * What must hold: what a replay stores is true at the moment it is stored. It is read and decided beside live traffic, and before its turn
 * comes an undo or a block may be processed, which then takes nothing back of what the replay is about to store. So if anything live was
 * processed meanwhile, it is read again in the turn.
 */

import type pg from 'pg';
import type { Publication } from '../../broker/broker.js';
import { connect } from '../../postgres/connect.js';
import type { BatchOutcome, Preparation } from '../batch.js';
import { replaySession } from './page.js';

export interface ReplayHost {
  readonly term: string;
  /** Changes whenever live events or repairs are processed. To be called before reading what is to be stored. */
  moved(): number;
  /**
   * Prepares, stores and publishes in a turn of its own, in which nothing live is processed. Null where `prepare` gives nothing to store.
   * Throws what BatchProcessor.process throws, after retries on contention. `prepare` must not throw: that would end the term.
   */
  process(prepare: () => Promise<Preparation | null>): Promise<BatchOutcome | null>;
  /** Whether there was live traffic a moment ago. */
  busy(): boolean;
  publish(publications: readonly Publication[]): void;
}

/**
 * The relay waits for a turn to end: what can't be read at once (somebody alters a table) is left until later, and statements are planned
 * once, since planning takes longer than reading a few events.
 */
const turnSession = {
  ...replaySession,
  plan_cache_mode: 'force_generic_plan',
  lock_timeout: '100ms',
  statement_timeout: '2s',
} as const;

/** A connection for reading within a turn, which must not wait behind a page that is being read. */
export function connectForTurns(url: string, applicationName: string): Promise<pg.Client> {
  return connect(url, { applicationName, session: turnSession });
}

/**
 * Stores what was prepared or, where the host has `moved` since that was begun, what `again` gives in the turn. Throws what either does.
 */
export async function storeFresh(
  host: ReplayHost,
  moved: number,
  preparation: Preparation,
  again: () => Promise<Preparation>,
): Promise<BatchOutcome> {
  // Before the turn: it may take a while, and its failure is no concern of the host's.
  await preparation.privacy;
  let failure: unknown = null;
  const outcome = await host.process(async () => {
    if (host.moved() === moved) return preparation;
    try {
      const fresh = await again();
      // Awaited here: if it failed within the processor, the term would end.
      await fresh.privacy;
      return fresh;
    } catch (error) {
      failure = error;
      return null;
    }
  });
  if (outcome === null) throw failure as Error;
  return outcome;
}
