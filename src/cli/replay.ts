/** `belfry replay`: events that the outbox still holds go through today's rules again. */

import { InvalidArgumentError, Option } from 'commander';
import type { Command } from 'commander';
import type pg from 'pg';
import { loadConfig } from '../config.js';
import { counted } from '../counted.js';
import { fingerprint, requestJob, stopJob } from '../relay/replay/jobs.js';
import type { Job } from '../relay/replay/jobs.js';
import type { ReplayMode } from '../relay/replay/plan.js';
import { assertMigrated } from '../schema/migrate.js';
import { assertOneDatabase } from '../schema/one-database.js';
import { addReadingCommand, note, notFound, print, printJson, printTable, wholeNumber, withClient } from './common.js';
import type { ReadingOptions } from './common.js';
import { addFilters, filterOf } from './events.js';
import type { FilterOptions } from './events.js';
import { followJob, Progress } from './follow.js';

interface ReplayOptions extends ReadingOptions, FilterOptions {
  readonly mode: ReplayMode;
  readonly rate?: number;
  readonly dryRun?: true;
  readonly list?: true;
  readonly stop?: string;
  readonly resume?: string;
}

const mostEvents = 1_000_000_000;

/** Options that say what a new replay does; one that there is has been told. */
const ofNew = ['dryRun', 'rate', 'mode', 'source', 'type', 'user', 'object', 'since', 'until', 'limit'];

export function registerReplay(program: Command): void {
  addFilters(
    addReadingCommand(
      program,
      'replay',
      'process events again by the rules and the config of today: what somebody missed arrives, what they have does not come twice',
    ),
    { most: mostEvents },
  )
    .option('--dry-run', 'only tell how many; change nothing')
    .option('--rate <n>', 'at most so many events a second', wholeNumber(1, 1_000_000))
    .addOption(
      new Option(
        '--mode <mode>',
        'deliver what was missed; rebuild: also take back what should not be there, for --user alone if given',
      )
        .choices(['deliver', 'rebuild'])
        .default('deliver'),
    )
    .addOption(
      new Option('--list', 'list replays: what runs, and who had what done').conflicts([...ofNew, 'stop', 'resume']),
    )
    .addOption(new Option('--stop <id>', 'stop one').argParser(jobId).conflicts([...ofNew, 'resume']))
    .addOption(new Option('--resume <id>', 'let one that was stopped go on').argParser(jobId).conflicts(ofNew))
    .action(async (options: ReplayOptions) => {
      const config = await loadConfig(options.config);
      await assertOneDatabase(config);
      const { url } = config.database;
      const { mode, dryRun, rate } = options;
      const filter = filterOf(options, config);
      if (dryRun === true) {
        await withClient(url, assertMigrated);
        const progress = new Progress();
        const { countReplay } = await import('../relay/replay/work.js');
        const { counts, error } = await countReplay(url, config, { mode, filter }, (processed, total) =>
          progress.tell({ counts: { ...nothing, processed }, total, secondsLeft: null }),
        );
        progress.end();
        tellFailed(counts, error);
        return tell(options, counts, 'would be delivered');
      }
      await withClient(url, async (client) => {
        await assertMigrated(client);
        if (options.list === true) return list(client, options);
        if (options.stop !== undefined) return stop(client, options.stop, options);
        const id =
          options.resume === undefined
            ? await requestJob(client, { mode, filter, rate: rate ?? null, mapping: fingerprint(config) })
            : await resume(client, options.resume, fingerprint(config));
        const { counts, error } = await followJob(client, config, id, `replay ${id}`);
        tellFailed(counts, error);
        tell(options, counts, 'delivered');
      });
    });
}

const nothing: Job['counts'] = { processed: 0, delivered: 0, suppressed: 0, already: 0, withdrawn: 0, failed: 0 };

function tellFailed({ failed }: Job['counts'], error: string | null): void {
  if (failed === 0) return;
  process.exitCode = 1;
  note(`belfry: ${counted(failed, 'event')} could not be processed, the last one because: ${error ?? 'unknown'}`);
}

function tell({ json }: ReplayOptions, counts: Job['counts'], done: string): void {
  const { processed, delivered, suppressed, already, withdrawn, failed } = counts;
  if (json) {
    return printJson({
      processed,
      delivered,
      suppressed,
      already,
      ...(withdrawn > 0 ? { withdrawn } : {}),
      ...(failed > 0 ? { failed } : {}),
    });
  }
  print(
    `${counted(processed, 'event')}: ${counted(delivered, 'notification')} ${done}, ${suppressed} suppressed, ${already} there already` +
      (withdrawn > 0 ? `, ${withdrawn} withdrawn` : ''),
  );
}

async function list(client: pg.ClientBase, options: ReplayOptions): Promise<void> {
  const { rows } = await client.query<Record<string, unknown>>(
    `select id::text, mode, state, dry_run, filter, requested_by, requested_at, started_at, finished_at, worker, processed::float8, total::float8,
            delivered::float8, suppressed::float8, already::float8, withdrawn::float8, failed::float8, percent::float8, seconds_left::float8, error
       from belfry.replays r order by r.id desc limit $1`,
    [options.limit ?? 50],
  );
  if (options.json) return printJson({ items: rows });
  if (rows.length === 0) return print('there are none');
  const text = (value: unknown): string =>
    value === null
      ? '-'
      : value instanceof Date
        ? value.toISOString()
        : typeof value === 'string'
          ? value
          : JSON.stringify(value);
  const columns = [
    ...['id', 'mode', 'state', 'requested_by', 'requested_at', 'processed', 'percent', 'seconds_left'],
    ...['delivered', 'suppressed', 'already', 'filter', 'error'],
  ];
  const names = new Map([
    ['requested_by', 'by'],
    ['requested_at', 'at'],
    ['processed', 'events'],
    ['percent', '%'],
    ['seconds_left', 's left'],
  ]);
  printTable(
    columns.map((column) => names.get(column) ?? column),
    rows.map((row) => columns.map((column) => text(row[column]))),
  );
}

async function stop(client: pg.ClientBase, id: string, { json }: ReplayOptions): Promise<void> {
  if (!(await stopJob(client, id))) throw notFound(`replay ${id} under way`);
  if (json) printJson({ id });
  else print(`replay ${id} stops`);
}

/** It goes on by today's config. */
async function resume(client: pg.ClientBase, id: string, mapping: string): Promise<string> {
  await client.query(
    `update belfry.replay_job set mapping = $2 where id = $1 and mapping is not null and state in ('stopped', 'failed')`,
    [id, mapping],
  );
  const resumed = await client.query<{ done: boolean }>('select belfry.resume_replay($1) as done', [id]);
  if (resumed.rows[0]?.done !== true) throw notFound(`replay ${id} that was stopped or failed`);
  return id;
}

function jobId(text: string): string {
  if (!/^[1-9]\d{0,17}$/.test(text)) throw new InvalidArgumentError('It must be the id of a replay.');
  return text;
}
