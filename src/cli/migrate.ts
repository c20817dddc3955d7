/**
 * `belfry migrate`: schema belfry, the days of the outbox, triggers, and the count of what was there before. It may be stopped
 * anywhere and run again; what is as it should be is not touched.
 */

import type { Command } from 'commander';
import type pg from 'pg';
import { readCatalog } from '../capture/catalog.js';
import { capturedSources } from '../capture/desired.js';
import { assertInstallable, assertRoles, capturedTables, captureSql, installCapture } from '../capture/install.js';
import { configProblems } from '../capture/problems.js';
import { loadConfig } from '../config.js';
import type { Config } from '../config.js';
import { seedCounters, seedScript } from '../inbox/seed.js';
import { ensurePartitions, partitionsSql } from '../outbox/partitions.js';
import { assertSuitable, serverInfo } from '../postgres/server.js';
import { assertOwnSession } from '../schema/session.js';
import { migrate, migrationSql, restoreOutbox, restoreOutboxSql } from '../schema/migrate.js';
import { assertOneDatabase } from '../schema/one-database.js';
import { addCommand, note, print, progress, withClient } from './common.js';
import type { CommonOptions } from './common.js';

export function registerMigrate(program: Command): void {
  addCommand(program, 'migrate', 'install or upgrade schema belfry and the triggers')
    .option('--dry-run', 'change nothing; print the SQL, for psql -v ON_ERROR_STOP=1')
    .action(async (options: CommonOptions & { readonly dryRun?: true }) => {
      const config = await loadConfig(options.config);
      await assertOneDatabase(config);
      await withClient(config.database.listenUrl, async (client) => {
        assertSuitable(await serverInfo(client));
        await assertOwnSession(client, config.database.listenUrl);
        // Before anything is changed: a mapping that can't work, or the wrong user, to whom the schema would then belong.
        const catalog = await readCatalog(client, capturedTables(config));
        await assertInstallable(client, config, catalog, await configProblems(client, config, catalog));
        if (options.dryRun) return print(await dryRun(client, config));
        assertRoles(catalog);
        await install(client, config);
      });
    });
}

async function install(client: pg.ClientBase, config: Config): Promise<void> {
  const applied = await migrate(client, { log: progress });
  const restored = await restoreOutbox(client, sourceNames(config));
  if (restored) note('belfry: belfry.outbox was gone and is made anew; the relay repairs what can be repaired');
  // Nobody writes events yet into a schema that was made just now.
  const { made } = await ensurePartitions(client, { today: applied.some((name) => name.startsWith('0001_')) });
  const { changed, warnings } = await installCapture(client, config, { log: progress });
  const counted = await seedCounters(client, config, progress);
  for (const warning of warnings) note(`belfry: ${warning}`);
  const leader = changed.length === 0 ? null : await leaderNow(client);
  if (leader !== null)
    note(
      `belfry: ${leader} goes on with the config that it was started with: if that has changed, restart \`belfry start\``,
    );
  const nothing = !restored && applied.length + made.length + changed.length + counted.length === 0;
  print(nothing ? 'everything was there already' : 'done: `belfry start` runs the relay and the gateway');
}

/** The relay that leads, as host:pid; null where none does. */
async function leaderNow(client: pg.ClientBase): Promise<string | null> {
  const { rows } = await client.query<{ leader: string | null }>(
    `select regexp_replace(leader, ':[^:]*$', '') as leader from belfry.relay where lease_until > clock_timestamp()`,
  );
  return rows[0]?.leader ?? null;
}

async function dryRun(client: pg.ClientBase, config: Config): Promise<string> {
  // The days before the triggers: once there are writers, a day whose rows are in the default partition is no longer made unnoticed.
  const schema =
    (await migrationSql(client)) +
    (await restoreOutboxSql(client, sourceNames(config))) +
    (await partitionsSql(client));
  const capture = captureSql(await readCatalog(client, capturedTables(config)), config);
  const counts = await seedScript(client, config);
  return [
    schema === '' ? '-- schema belfry: nothing to do\n' : schema,
    capture,
    ...(counts === '' ? [] : [counts]),
  ].join('\n');
}

function sourceNames(config: Config): string[] {
  return capturedSources(config).map(({ name }) => name);
}
