/**
 * Puts triggers back that were dropped or switched off since `belfry migrate`, a table at a time, and says of which sources writes
 * may have been missed: that is recorded together with the triggers (deaf.ts), so that a crash forgets none of it.
 */

import type pg from 'pg';
import type { Config } from '../config.js';
import { withMigrationLock } from '../schema/migrate.js';
import { readCatalog } from './catalog.js';
import { capturedTables } from './desired.js';
import { runWithTableLock, type CaptureLog } from './locks.js';
import { qualified } from './names.js';
import { repairSteps } from './plan.js';

export interface Repair {
  /** What was put back, a line each. */
  readonly changed: readonly string[];
  /** Sources with writes that may have been missed. */
  readonly missed: readonly string[];
}

/**
 * The client must be in no transaction. Throws what Postgres says (42501: not the owner), and `lock_busy` (retry) for a table that
 * stays locked; what was put back until then stays.
 */
export async function repairCapture(
  client: pg.ClientBase,
  config: Config,
  options: { readonly log?: CaptureLog; readonly lockBoundMs?: number } = {},
): Promise<Repair> {
  return withMigrationLock(client, async () => {
    const changed: string[] = [];
    const missed = new Set<string>();
    for (const step of repairSteps(await readCatalog(client, capturedTables(config)), config)) {
      await runWithTableLock(client, step.table, step.statements, {
        ...(options.log === undefined ? {} : { log: options.log }),
        ...(options.lockBoundMs === undefined ? {} : { boundMs: options.lockBoundMs }),
      });
      changed.push(...step.changes);
      // A new partition that is empty now that it is captured has had no write of its own, only what came through the parent.
      if (!step.partition || (await hasRows(client, qualified(step.table)))) missed.add(step.source);
    }
    return { changed, missed: [...missed] };
  });
}

async function hasRows(client: pg.ClientBase, table: string): Promise<boolean> {
  const { rows } = await client.query<{ any: boolean }>(`select exists (select from ${table}) as any`);
  return rows[0]?.any === true;
}
