/** `belfry roles`: roles with no more rights than they need, to be granted to who runs the relay, and to who only looks. */

import type { Command } from 'commander';
import { loadConfig } from '../config.js';
import { assertMigrated } from '../schema/migrate.js';
import {
  dropRoles,
  dropStatements,
  READER_ROLE,
  RELAY_ROLE,
  revokeStatements,
  roleStatements,
  runRoleStatements,
} from '../schema/roles.js';
import { addCommand, note, print, withClient } from './common.js';
import type { CommonOptions } from './common.js';

export function registerRoles(program: Command): void {
  addCommand(
    program,
    'roles',
    'make roles belfry_relay (to run `belfry start` as) and belfry_reader (for dashboards), and give them their rights',
  )
    .option('--dry-run', 'change nothing; print the SQL')
    .option('--drop', 'take the rights back, and remove the roles')
    .action(async (options: CommonOptions & { readonly dryRun?: true; readonly drop?: true }) => {
      const config = await loadConfig(options.config);
      await withClient(config.database.url, async (client) => {
        await assertMigrated(client);
        if (options.dryRun) {
          const statements = options.drop
            ? [...revokeStatements(config), ...dropStatements]
            : await roleStatements(client, config);
          return print(statements.map((sql) => `${sql};`).join('\n'));
        }
        if (options.drop) {
          const stay = await dropRoles(client, config);
          for (const why of stay) note(`belfry: ${why}`);
          return print(stay.length === 0 ? `${RELAY_ROLE} and ${READER_ROLE} are gone` : 'their rights here are gone');
        }
        await runRoleStatements(client, await roleStatements(client, config));
        print(`done: grant ${RELAY_ROLE} to the user of \`belfry start\`, ${READER_ROLE} to that of a dashboard`);
      });
    });
}
