/**
 * The log: a line of JSON per entry, on stdout unless that is for a command's result. What must hold: it is written before the call returns,
 * so that a crash loses none; no secrets are in it.
 */

import { pino } from 'pino';
import type { Logger, LoggerOptions } from 'pino';
import type { LogLevel } from './config/types.js';

export type { Logger } from 'pino';

// Whatever carries these names is never written, wherever it stands in the first two levels of an entry.
const SECRET = ['token', 'secret', 'password', 'authorization', 'databaseUrl', 'connectionString'];

/** `name` says which part of Belfry speaks. `to`: stderr where a command prints what it came to. */
export function createLogger(options: {
  readonly level: LogLevel;
  readonly name: string;
  readonly to?: 'stdout' | 'stderr';
}): Logger {
  const settings: LoggerOptions = {
    level: options.level,
    base: { name: options.name, pid: process.pid },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    redact: { paths: SECRET.flatMap((key) => [key, `*.${key}`]), censor: '[hidden]' },
  };
  // By default pino writes in the background, and at the end of a process the last entries may overtake each other.
  return pino(settings, pino.destination({ dest: options.to === 'stderr' ? 2 : 1, sync: true }));
}
