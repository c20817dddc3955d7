/**
 * belfry.ring(), in the two forms it has.
 *
 * `poll` never rings: NOTIFY makes PREPARE TRANSACTION fail, so it is chosen by itself where prepared transactions are allowed.
 */

import { DOORBELL_KEY } from './body.js';

export type Wakeup = 'notify' | 'poll';

/** What holds, given the config's `database.wakeup` and the server's max_prepared_transactions. */
export function effectiveWakeup(configured: Wakeup, maxPreparedTransactions: number): Wakeup {
  return configured === 'poll' || maxPreparedTransactions > 0 ? 'poll' : 'notify';
}

/**
 * Whoever gets the shared lock knows that the relay is awake and will look again before it sleeps. While the queue is more than half
 * full (a stuck listener of somebody else) it stays silent, since NOTIFY could fail the backend's COMMIT: the relay's
 * safety poll finds the row. No setting of its own: every name is qualified, and it runs with the rights of its caller.
 */
const RING = `
begin
  if not pg_catalog.pg_try_advisory_xact_lock_shared(${DOORBELL_KEY})
     and pg_catalog.pg_notification_queue_usage() operator(pg_catalog.<) 0.5 then
    perform pg_catalog.pg_notify('belfry', '');
  end if;
exception when others then
  null;
end
`;

const SILENT = `
begin
  -- wakeup: poll. Nobody rings, so that PREPARE TRANSACTION works and no session needs to listen.
  return;
end
`;

/** The source text of belfry.ring(). */
export function ringBody(wakeup: Wakeup): string {
  return wakeup === 'notify' ? RING : SILENT;
}

export function ringStatement(wakeup: Wakeup): string {
  return `create or replace function belfry.ring() returns void
  language plpgsql
as $$${ringBody(wakeup)}$$`;
}
