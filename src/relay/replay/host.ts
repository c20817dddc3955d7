/**
 * Who stores for a replay: the leader, in turns between its own batches.
 *
 * What must hold: what a replay stores is true when it is stored. It is read and decided beside live traffic, and an undo or a block may be
 * processed between that and the turn; nothing would take back afterwards what the replay then told. So it is read again in the turn
 * if anything live was processed since.
 */

import type pg from 'pg';
import type { Publication } from '../../broker/broker.js';
import { connect } from '../../postgres.js';
import type { BatchOutcome, Preparation } from '../batch.js';
import { replaySession } from './page.js';

export interface ReplayHost {
  readonly term: string;
  /** Another number whenever live events, or repairs, were processed. To be asked before what is prepared is read. */
  moved(): number;
  /**
   * Prepares, stores and publishes in a turn of its own: nothing live is processed meanwhile. Null: `prepare` gave nothing to store. Throws
   * what BatchProcessor.process throws; contention has been retried. `prepare` may not throw: that would end the term.
   */
  process(prepare: () => Promise<Preparation | null>): Promise<BatchOutcome | null>;
  /** Whether there was live traffic a moment ago. */
  busy(): boolean;
  publish(publications: readonly Publication[]): void;
}

/**
 * In a turn the relay waits: what can't be read at once (somebody alters a table) is left until later, and planning, which takes longer than
 * reading a few events, is done once.
 */
const turnSession = {
  ...replaySession,
  plan_cache_mode: 'force_generic_plan',
  lock_timeout: '100ms',
  statement_timeout: '2s',
} as const;

/** For what is read in a turn, which must not wait for a page that is being read. */
export function connectForTurns(url: string, applicationName: string): Promise<pg.Client> {
  return connect(url, { applicationName, session: turnSession });
}

/**
 * Stores what was prepared, or what `again` gives in the turn, if the host has `moved` since the first was begun. Throws what either does.
 */
export async function storeFresh(
  host: ReplayHost,
  moved: number,
  preparation: Preparation,
  again: () => Promise<Preparation>,
): Promise<BatchOutcome> {
  // Not in the turn: it may take a while, and if it fails that is not the host's concern.
  await preparation.privacy;
  let failure: unknown = null;
  const outcome = await host.process(async () => {
    if (host.moved() === moved) return preparation;
    try {
      const fresh = await again();
      // By the processor's hands its failure would end the term.
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
