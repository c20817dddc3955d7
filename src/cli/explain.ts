/** `belfry explain`: what became of an event, for each person it could have been for. */

import type { Command } from 'commander';
import { loadConfig } from '../config.js';
import type { EventTimes } from '../relay/look/explain-times.js';
import { assertMigrated } from '../schema/migrate.js';
import { addReadingCommand, nonEmpty, notFound, outboxId, print, printJson, printTable, withClient } from './common.js';
import type { ReadingOptions } from './common.js';

export function registerExplain(program: Command): void {
  addReadingCommand(program, 'explain', 'tell what became of an event, and why, for everybody it could have been for')
    .argument('<event>', 'its outbox id', outboxId)
    .option('--user <id>', 'for this user only', nonEmpty)
    .action(async (id: string, options: ReadingOptions & { readonly user?: string }) => {
      const config = await loadConfig(options.config);
      const explained = await withClient(config.database.url, async (client) => {
        await assertMigrated(client);
        const { explainEvent } = await import('../relay/look/explain.js');
        return explainEvent(client, config, id, options.user ?? null);
      });
      if (explained === null)
        throw notFound(`event ${id} in the outbox: it never was, or is older than retention.outbox`);
      const { event, times, read, error, notes, recipients } = explained;
      if (options.json) return printJson({ event, times, read, error, notes, recipients });
      print(`event ${event}: ${explained.source}, ${explained.op}, written ${explained.writtenAt}`);
      if (times !== null) print(way(times));
      if (!read) print('the relay has not read it yet');
      if (error !== null) print(`a dead letter: ${error}`);
      for (const note of notes) print(note);
      if (recipients.length === 0) {
        if (!explained.recipientsKnown) return;
        return print(options.user === undefined ? 'it is for nobody' : `it has nothing to do with ${options.user}`);
      }
      printTable(
        ['user', 'verdict', 'rule', 'notification', 'seq', 'at', 'sockets'],
        recipients.map((one) =>
          [one.user_id, one.verdict, one.rule, one.notification_id, one.seq, one.at, one.sockets].map((value) =>
            value === 0 ? '0 (offline)' : String(value ?? '-'),
          ),
        ),
      );
    });
}

/** `written, committed after 0.4 ms, read after 1.9 ms, …`: each step counted from the writing. */
function way({ written, committed, read, stored, pushed, batches }: EventTimes): string {
  const writtenAt = microseconds(written);
  const step = (name: string, at: string | null): string =>
    at === null ? '' : `, ${name} after ${((microseconds(at) - writtenAt) / 1_000).toFixed(1)} ms`;
  const measured = read === null ? ', not measured further' : '';
  const together = (batches ?? 1) > 1 ? ` (${String(batches)} batches, measured together)` : '';
  return `written${step('committed', committed)}${step('read', read)}${step('stored', stored)}${step('pushed', pushed)}${measured}${together}`;
}

/** Of an ISO time with six places, which a Date would cut to three. */
function microseconds(iso: string): number {
  return Math.floor(Date.parse(iso) / 1_000) * 1_000_000 + Number(/\.(\d{6})Z$/.exec(iso)?.[1] ?? '0');
}
