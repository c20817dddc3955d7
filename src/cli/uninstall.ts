/** `belfry uninstall`: takes the triggers away, then the schema with everything in it. Asks first. */

import type { Command } from 'commander';
import { uninstall } from '../capture/uninstall.js';
import { assertOwnSession } from '../schema/session.js';
import { addCommand, confirm, directUrl, note, print, progress, withClient } from './common.js';
import type { CommonOptions } from './common.js';

interface UninstallOptions extends CommonOptions {
  readonly keepData?: true;
  readonly yes?: true;
}

export function registerUninstall(program: Command): void {
  addCommand(program, 'uninstall', 'remove the triggers, then schema belfry with all notifications and events')
    .option('--keep-data', 'remove the triggers only')
    .option('--yes', 'do not ask')
    .action(async (options: UninstallOptions) => {
      const url = await directUrl(options);
      const keepData = options.keepData === true;
      await withClient(url, async (client) => {
        await assertOwnSession(client, url);
        const { rows } = await client.query<{ name: string }>('select current_database() as name');
        const what = keepData
          ? 'the triggers'
          : 'the triggers and schema belfry, with every notification and event in it,';
        if (options.yes !== true)
          await confirm(`Remove ${what} from database ${rows[0]?.name ?? ''}?`, 'uninstall', 'nothing was removed.');
        const { removed, warnings } = await uninstall(client, { keepData, log: progress });
        for (const thing of removed) print(`removed ${thing}`);
        for (const warning of warnings) note(`belfry: ${warning}`);
        if (removed.length === 0) print('there was nothing to remove');
      });
    });
}
