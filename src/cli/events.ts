/** The filters that commands over events share. */

import type { Command } from 'commander';
import { BelfryError } from '../errors.js';
import type { OutboxFilter } from '../relay/filter.js';
import { pointInTime, wholeNumber } from './common.js';

export interface FilterOptions {
  readonly source?: string;
  readonly type?: string;
  readonly user?: string;
  readonly object?: string;
  readonly since?: Date;
  readonly until?: Date;
  readonly limit?: number;
}

export function addFilters(command: Command, limit: { readonly most: number; readonly standard?: number }): Command {
  return command
    .option('--source <name>', 'of this source')
    .option('--type <type>', 'of this type')
    .option('--user <id>', 'with this user as actor or recipient')
    .option('--object <kind:id>', 'about this object')
    .option('--since <time>', 'not older: ISO 8601 (UTC), or 2h for two hours ago', pointInTime)
    .option('--until <time>', 'older than this', pointInTime)
    .option('--limit <n>', 'at most this many, the newest', wholeNumber(1, limit.most), limit.standard);
}

/** Only what was given. Throws `config_invalid` when nothing can fit. */
export function filterOf(options: FilterOptions): OutboxFilter & { readonly limit?: number } {
  const { source, type, user, object, since, until, limit } = options;
  if (since !== undefined && until !== undefined && since >= until) {
    throw new BelfryError('config_invalid', '--since must be before --until: nothing is both.');
  }
  return {
    ...(source === undefined ? {} : { source }),
    ...(type === undefined ? {} : { type }),
    ...(user === undefined ? {} : { user }),
    ...(object === undefined ? {} : { object }),
    ...(since === undefined ? {} : { since }),
    ...(until === undefined ? {} : { until }),
    ...(limit === undefined ? {} : { limit }),
  };
}
