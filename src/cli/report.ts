/** How a command ends when it failed: what it says on stderr, and with which exit code. */

import { CommanderError } from 'commander';
import { logLevelOf } from '../config.js';
import { BelfryError, messageOf, sqlState } from '../errors.js';

/** 0, 1 or 2 as in the contract. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  return error instanceof BelfryError && error.code === 'config_invalid' ? 2 : 1;
}

/** One clear line, or all problems of a config; a stack only where LOG_LEVEL asks for it. Commander has spoken for itself. */
export function tell(error: unknown): void {
  if (error instanceof CommanderError) return;
  process.stderr.write(`belfry: ${explain(error)}\n`);
  const level = logLevelOf();
  if ((level === 'debug' || level === 'trace') && error instanceof Error)
    process.stderr.write(`${error.stack ?? ''}\n`);
}

/** In a line, with what to do about it. */
export function explain(error: unknown): string {
  if (error instanceof BelfryError) return error.message;
  switch (sqlState(error)) {
    case '3F000':
    case '42P01':
    case '42703':
    case '42883':
      return `schema belfry is missing or older than this program (${messageOf(error)}): run \`belfry migrate\`.`;
    case '42501':
      return `${messageOf(error)}: use a member of belfry_relay (\`belfry roles\` makes it), or the role that ran \`belfry migrate\`.`;
    default:
      return messageOf(error).split('\n')[0] ?? '';
  }
}
