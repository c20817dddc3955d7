/** `belfry outbox`: what the triggers and the SQL functions wrote, newest first. */

import type { Command } from 'commander';
import { loadConfig } from '../config.js';
import { listOutbox, showOutbox } from '../relay/look/browse.js';
import type { OutboxItem } from '../relay/look/browse.js';
import { assertMigrated } from '../schema/migrate.js';
import { addGroup, addReadingCommand, notFound, outboxId, print, printJson, printTable, withClient } from './common.js';
import type { ReadingOptions } from './common.js';
import { addFilters, filterOf } from './events.js';
import type { FilterOptions } from './events.js';

export function registerOutbox(program: Command): void {
  const group = addGroup(program, 'outbox', 'events: what was written, and by whom');

  addFilters(addReadingCommand(group, 'list', 'list events, the newest first'), { most: 100_000, standard: 50 }).action(
    async (options: ReadingOptions & FilterOptions & { readonly limit: number }) => {
      const config = await loadConfig(options.config);
      const items = await withClient(config.database.url, async (client) => {
        await assertMigrated(client);
        return listOutbox(client, config, filterOf(options, config), options.limit);
      });
      if (options.json) return printJson({ items });
      if (items.length === 0) return print('there are none');
      printTable(['id', 'at', 'source', 'op', 'actor', 'object'], items.map(rowOf));
    },
  );

  addReadingCommand(group, 'show', 'show one event')
    .argument('<id>', 'its id', outboxId)
    .action(async (id: string, options: ReadingOptions) => {
      const config = await loadConfig(options.config);
      const item = await withClient(config.database.url, async (client) => {
        await assertMigrated(client);
        return showOutbox(client, config, id);
      });
      if (item === null) throw notFound(`event ${id} in the outbox: it never was, or is older than retention.outbox`);
      if (options.json) return printJson(item);
      for (const [key, value] of Object.entries(item)) {
        print(`${key.padEnd(10)}${typeof value === 'string' ? value : JSON.stringify(value)}`);
      }
    });
}

function rowOf({ id, at, source, op, actor_id, object }: OutboxItem): string[] {
  return [id, at, source, op, actor_id ?? '-', object === null ? '-' : `${object.kind}:${object.id}`];
}
