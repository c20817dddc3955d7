/** `belfry pause` and `belfry resume`: the relay stops and starts reading; writers are untouched. */

import type { Command } from 'commander';
import type pg from 'pg';
import { assertMigrated } from '../schema/migrate.js';
import { addCommand, databaseUrl, print, withClient } from './common.js';
import type { CommonOptions } from './common.js';

export function registerPause(program: Command): void {
  addCommand(program, 'pause', 'let the relay stop reading; events wait in the outbox').action(
    (options: CommonOptions) => setPaused(options, true),
  );
}

export function registerResume(program: Command): void {
  addCommand(program, 'resume', 'let the relay read again').action((options: CommonOptions) =>
    setPaused(options, false),
  );
}

async function setPaused(options: CommonOptions, paused: boolean): Promise<void> {
  const changed = await withClient(await databaseUrl(options), async (client) => {
    await assertMigrated(client);
    const { rowCount } = await client.query(
      `update belfry.relay set paused = $1 where name = 'main' and paused is distinct from $1`,
      [paused],
    );
    if (rowCount === 1) await heardByLeader(client);
    return rowCount === 1;
  });
  if (paused) print(changed ? 'paused' : 'it was paused already');
  else print(changed ? 'resumed' : 'it was not paused');
}

/** A leader reads the row whenever it renews its lease, every 3 s. Resolves when it has, when nobody leads, or after 5 s. */
async function heardByLeader(client: pg.ClientBase): Promise<void> {
  const read = async () =>
    (
      await client.query<{ lease: string; leads: boolean }>(
        `select lease_until::text as lease, lease_until > clock_timestamp() as leads from belfry.relay where name = 'main'`,
      )
    ).rows[0];
  const before = await read();
  for (let waited = 0; waited < 5_000; waited += 100) {
    const now = await read();
    if (now?.leads !== true || now.lease !== before?.lease) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
