/** The filters that commands over events share. */

import { InvalidArgumentError } from 'commander';
import type { Command } from 'commander';
import type { Config } from '../config.js';
import { BelfryError } from '../errors.js';
import type { OutboxFilter } from '../relay/look/filter.js';
import { nonEmpty, note, pointInTime, wholeNumber } from './common.js';

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
    .option('--source <name>', 'of this source', nonEmpty)
    .option('--type <type>', 'of this type', nonEmpty)
    .option('--user <id>', 'with this user as actor or recipient', nonEmpty)
    .option('--object <kind:id>', 'about this object', kindAndId)
    .option('--since <time>', 'not older: ISO 8601 (UTC), or 2h for two hours ago', pointInTime)
    .option('--until <time>', 'older than this', pointInTime)
    .option('--limit <n>', 'at most this many, the newest', wholeNumber(1, limit.most), limit.standard);
}

/**
 * Only what was given. Throws `config_invalid` when nothing can fit. Says on stderr when the config has no such source: events of one that
 * it had before may still be there, so it is no error.
 */
export function filterOf(options: FilterOptions, config: Config): OutboxFilter & { readonly limit?: number } {
  const { source, type, user, object, since, until, limit } = options;
  const names = config.sources.map(({ name }) => name);
  if (source !== undefined && !source.startsWith('belfry.') && !names.includes(source))
    note(`belfry: the config has no source ${source}; it has ${names.join(', ')}`);
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

/** An id alone is one of any kind. */
function kindAndId(text: string): string {
  if (!/^([^:]+:.|[^:]+$)/s.test(text)) throw new InvalidArgumentError('It must be kind:id, such as post:42.');
  return text;
}
