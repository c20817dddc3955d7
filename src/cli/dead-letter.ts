/** `belfry dead-letter`: events that could not be processed and were set aside. */

import type { Command } from 'commander';
import type pg from 'pg';
import { loadConfig } from '../config.js';
import type { Config } from '../config.js';
import { BelfryError } from '../errors.js';
import { cellsSql, withCells } from '../relay/look/cells.js';
import { fingerprint, requestJob } from '../relay/replay/jobs.js';
import { loadColumnTypes } from '../schema/columns.js';
import { assertMigrated } from '../schema/migrate.js';
import { assertOneDatabase } from '../schema/one-database.js';
import {
  addGroup,
  addReadingCommand,
  configIfAny,
  databaseUrl,
  notFound,
  outboxId,
  print,
  printJson,
  printTable,
  wholeNumber,
  withClient,
} from './common.js';
import type { CommonOptions, ReadingOptions } from './common.js';
import { addFilters, filterOf } from './events.js';
import type { FilterOptions } from './events.js';
import { followJob } from './follow.js';

interface DeadLetter {
  readonly id: string;
  readonly source: string;
  readonly op: string;
  readonly at: Date;
  readonly failed_at: Date;
  readonly attempts: number;
  readonly sqlstate: string | null;
  readonly error: string;
  readonly waits_for: readonly string[];
  readonly new: unknown;
  readonly old: unknown;
}

export function registerDeadLetter(program: Command): void {
  const group = addGroup(program, 'dead-letter', 'events that could not be processed');

  addReadingCommand(group, 'list', 'list them, the newest first')
    .option('--limit <n>', 'at most this many', wholeNumber(1, 10_000), 50)
    .action(async (options: ReadingOptions & { readonly limit: number }) => {
      const items = await read(options, 'order by d.id desc limit $1', [options.limit]);
      if (options.json) return printJson({ items });
      if (items.length === 0) return print('there are none');
      const rows = items.map(({ id, source, op, failed_at, attempts, error }) => [
        id,
        source,
        op,
        failed_at.toISOString(),
        String(attempts),
        error,
      ]);
      printTable(['id', 'source', 'op', 'failed', 'tries', 'error'], rows);
    });

  addReadingCommand(group, 'show', 'show one')
    .argument('<id>', 'its id', outboxId)
    .action(async (id: string, options: ReadingOptions) => {
      const [item] = await read(options, 'where d.id = $1', [id]);
      if (item === undefined) throw notFound(`dead letter ${id}`);
      if (options.json) return printJson(item);
      for (const [key, value] of Object.entries(item)) {
        print(
          `${key.padEnd(10)}${value instanceof Date ? value.toISOString() : typeof value === 'string' ? value : JSON.stringify(value)}`,
        );
      }
    });

  chosen(addReadingCommand(group, 'retry', 'process some again, now: by id, by filters, or all')).action(
    async (ids: readonly string[], options: ReadingOptions & Choice) => {
      const config = await loadConfig(options.config);
      await assertOneDatabase(config);
      await withClient(config.database.url, async (client) => {
        await assertMigrated(client);
        const { withWaiting } = await import('../relay/replay/retry.js');
        const wanted = await withWaiting(client, await choose(client, config, ids, options));
        if (wanted.length > 0) {
          const request = { mode: 'retry', filter: { ids: wanted }, rate: null, mapping: fingerprint(config) } as const;
          await followJob(client, config, await requestJob(client, request), 'the retry');
        }
        tellRetried(await stillDead(client, wanted), wanted, options);
      });
    },
  );

  chosen(addReadingCommand(group, 'discard', 'throw some away for good: by id, by filters, or all'))
    .option('--reason <text>', 'why, for whoever asks later')
    .action(async (ids: readonly string[], options: ReadingOptions & Choice & { readonly reason?: string }) => {
      const byId = ids.length > 0 && options.all === undefined;
      const config = byId ? await configIfAny(options) : await loadConfig(options.config);
      const [gone, wanted] = await withMigrated(options, async (client) => {
        const found = byId || config === null ? ids : await choose(client, config, ids, options);
        return [await discard(client, found, options.reason ?? null), found] as const;
      });
      const missing = wanted.filter((id) => !gone.includes(id));
      if (options.json) printJson({ items: gone.map((id) => ({ id })) });
      else for (const id of gone) print(`discarded ${id}`);
      if (missing.length > 0) throw notFound(`dead letter ${missing.join(', ')}`);
    });
}

interface Choice extends FilterOptions {
  readonly all?: true;
}

function chosen(command: Command): Command {
  return addFilters(
    command.argument('[id...]', 'their ids', (id: string, before: readonly string[] = []) => [...before, outboxId(id)]),
    { most: 10_000 },
  ).option('--all', 'all of them');
}

/** Ids that are given must be there; filters and --all may mean none. Throws `config_invalid` when nothing says which. */
async function choose(
  client: pg.ClientBase,
  config: Config,
  ids: readonly string[],
  options: Choice,
): Promise<string[]> {
  const { limit, ...filter } = filterOf(options, config);
  const byFilter = Object.keys(filter).length > 0 || limit !== undefined;
  if ([ids.length > 0, byFilter, options.all === true].filter(Boolean).length !== 1)
    throw new BelfryError('config_invalid', 'Say which: ids, or filters such as --source, or --all.');
  const { deadLetters } = await import('../relay/replay/retry.js');
  const found = await deadLetters(client, config, ids.length > 0 ? { ids } : filter);
  const missing = ids.filter((id) => !found.includes(id));
  if (missing.length > 0) throw notFound(`dead letter ${missing.join(', ')}`);
  return limit === undefined ? found : found.slice(-limit);
}

async function stillDead(client: pg.ClientBase, ids: readonly string[]): Promise<Map<string, string>> {
  const { rows } = await client.query<{ id: string; error: string }>(
    'select event_id::text as id, error from belfry.dead_event where event_id = any($1::bigint[])',
    [ids],
  );
  return new Map(rows.map(({ id, error }) => [id, error]));
}

function tellRetried(dead: ReadonlyMap<string, string>, ids: readonly string[], options: ReadingOptions): void {
  if (options.json) {
    printJson({ items: ids.map((id) => ({ id, dead: dead.has(id), error: dead.get(id) ?? null })) });
  } else if (ids.length === 0) print('there are none');
  else for (const id of ids) if (!dead.has(id)) print(`processed ${id}`);
  const [first] = dead;
  if (first === undefined) return;
  throw new BelfryError('unavailable', `${dead.size} of ${ids.length} failed again; ${first[0]}: ${first[1]}`);
}

/**
 * Who threw what away stays in belfry.discarded_event. No count has it, whether it stands in the table by now or not: the counters of its source
 * are due to be counted anew.
 */
async function discard(client: pg.ClientBase, ids: readonly string[], reason: string | null): Promise<string[]> {
  const { rows } = await client.query<{ event_id: string }>(
    `with gone as (delete from belfry.dead_event where event_id = any($1::bigint[]) returning *),
          uncounted as (update belfry.source_state set due = true where source in (select source from gone))
     insert into belfry.discarded_event (event_id, source, op, event_at, attempts, sqlstate, error, reason)
     select event_id, source, op, event_at, attempts, sqlstate, error, $2 from gone
     returning event_id::text`,
    [ids, reason],
  );
  // A relay that sleeps counts now, not when it looks by itself.
  await client.query('select belfry.ring()');
  return rows.map(({ event_id }) => event_id);
}

function withMigrated<Result>(options: CommonOptions, work: (client: pg.Client) => Promise<Result>): Promise<Result> {
  return databaseUrl(options).then((url) =>
    withClient(url, async (client) => {
      await assertMigrated(client);
      return work(client);
    }),
  );
}

/** `which`: the end of a select from the dead letters `d`. */
async function read(options: CommonOptions, which: string, values: readonly unknown[]): Promise<DeadLetter[]> {
  const config = await configIfAny(options);
  return withMigrated(options, async (client) => {
    const cells = cellsSql(config && { config, types: await loadColumnTypes(client, config) }, 'd');
    const { rows } = await client.query<Omit<DeadLetter, 'new' | 'old'> & { new: string | null; old: string | null }>(
      `select d.id, d.source, d.op, d.at, d.failed_at, d.attempts, d.sqlstate, d.error, d.waits_for::text[] as waits_for, ${cells}
         from belfry.dead_letter d ${which}`,
      [...values],
    );
    return rows.map(withCells);
  });
}
