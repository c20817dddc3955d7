/** What commands share: options that every one has, a connection for one piece of work, output for people and for programs. */

import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline/promises';
import { InvalidArgumentError } from 'commander';
import type { Command } from 'commander';
import type pg from 'pg';
import { databaseUrlOf, DEFAULT_PATH, loadConfig, parseDuration } from '../config.js';
import type { Config } from '../config.js';
import { BelfryError } from '../errors.js';

export interface CommonOptions {
  readonly config: string;
}

export interface ReadingOptions extends CommonOptions {
  readonly json?: true;
}

/** Adds a command with `--config`. */
export function addCommand(parent: Command, usage: string, description: string): Command {
  return parent.command(usage).description(description).option('-c, --config <file>', 'the config file', DEFAULT_PATH);
}

/** Adds a command that has others below it. Its `--config` is theirs, where they have none of their own. */
export function addGroup(parent: Command, name: string, description: string): Command {
  return addCommand(parent, name, description)
    .enablePositionalOptions()
    .hook('preSubcommand', (group, command) => {
      if (group.getOptionValueSource('config') === 'cli')
        command.setOptionValue('config', group.getOptionValue('config'));
    });
}

/** Likewise, and with `--json`: one document on stdout. */
export function addReadingCommand(parent: Command, usage: string, description: string): Command {
  return addCommand(parent, usage, description).option('--json', 'print one JSON document');
}

/**
 * The database of the config; where there is no config file, that of DATABASE_URL, for commands that need nothing else.
 * Throws BelfryError `config_invalid`.
 */
export async function databaseUrl(options: CommonOptions): Promise<string> {
  return (await configIfAny(options))?.database.url ?? databaseUrlOf();
}

/** The same past any pooler, for what needs a session of its own. Throws BelfryError `config_invalid`. */
export async function directUrl(options: CommonOptions): Promise<string> {
  const config = await configIfAny(options);
  if (config === null) return databaseUrlOf();
  const { assertOneDatabase } = await import('../schema/one-database.js');
  await assertOneDatabase(config);
  return config.database.listenUrl;
}

/** Null when the default file is not there, but DATABASE_URL is. Throws BelfryError `config_invalid`. */
export async function configIfAny(options: CommonOptions): Promise<Config | null> {
  const isOptional = options.config === DEFAULT_PATH && !existsSync(DEFAULT_PATH) && databaseUrlOf() !== '';
  return isOptional ? null : loadConfig(options.config);
}

/** Runs `work` on a connection of its own. */
export async function withClient<Result>(url: string, work: (client: pg.Client) => Promise<Result>): Promise<Result> {
  // Loaded here, since not every command needs a driver.
  const { connect } = await import('../postgres/connect.js');
  const client = await connect(url, { applicationName: 'belfry cli' });
  try {
    return await work(client);
  } finally {
    // A connection that is broken can't say goodbye.
    await client.end().catch(() => undefined);
  }
}

export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** A note for people that does not belong to the result. */
export function note(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** What a long job does, a line each on stdout; what keeps it waiting on stderr. */
export const progress = {
  info: (details: object, message: string): void => print(sentence(details, message)),
  warn: (details: object, message: string): void => note(`belfry: ${sentence(details, message)}`),
};

function sentence(details: object, message: string): string {
  const values = Object.values(details).map((value: unknown) =>
    typeof value === 'string' ? value : JSON.stringify(value),
  );
  return values.length === 0 ? message : `${message}: ${values.join(', ')}`;
}

export function printJson(document: unknown): void {
  print(JSON.stringify(document));
}

/** Columns side by side, each as wide as its widest cell; numbers of columns must agree. */
export function printTable(head: readonly string[], rows: readonly (readonly string[])[]): void {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => (row[column] ?? '').length)));
  for (const row of [head, ...rows]) {
    print(row.map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column] ?? 0))).join('  '));
  }
}

/** For commander: a whole number within bounds. */
export function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^\d+$/.test(text) ? Number(text) : NaN;
    if (!(value >= min && value <= max))
      throw new InvalidArgumentError(`It must be a whole number from ${min} to ${max}.`);
    return value;
  };
}

/** For commander: a text, since an empty one mostly is a variable that was not set. */
export function nonEmpty(text: string): string {
  if (text === '') throw new InvalidArgumentError('It must not be empty.');
  return text;
}

/** For commander: a duration in milliseconds. */
export function duration(text: string): number {
  const ms = parseDuration(text);
  if (ms === null) throw new InvalidArgumentError('It must be a duration such as 90s, 30m, 1h or 7d.');
  return ms;
}

/** For commander: a point in time, ISO 8601 or how long ago. */
export function pointInTime(text: string): Date {
  const agoMs = parseDuration(text.replace(/ +ago$/, ''));
  const time = agoMs === null ? isoTime(text) : new Date(Date.now() - agoMs);
  if (time === null || Number.isNaN(time.getTime())) {
    throw new InvalidArgumentError('It must be a time such as 2026-01-15T12:00:00Z, or 2h for two hours ago.');
  }
  return time;
}

// Without a zone a time is UTC, as all times that Belfry prints.
function isoTime(text: string): Date | null {
  const match = /^\d{4}-\d\d-\d\d(?:([T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)(Z|[+-]\d\d:?\d\d)?)?$/i.exec(text);
  if (match === null) return null;
  const [, time, zone] = match;
  // JavaScript takes the 30th of February for the 2nd of March.
  const [year = 0, month = 0, day = 0] = text.slice(0, 10).split('-').map(Number);
  if (new Date(Date.UTC(year, month - 1, day)).getUTCDate() !== day) return null;
  return new Date(time !== undefined && zone === undefined ? `${text.replace(' ', 'T')}Z` : text.replace(' ', 'T'));
}

/** For commander: the id of an outbox row. */
export function outboxId(text: string): string {
  if (!/^[1-9]\d{0,18}$/.test(text) || BigInt(text) > 9_223_372_036_854_775_807n) {
    throw new InvalidArgumentError('It must be the id of an event.');
  }
  return text;
}

interface Terminal {
  readonly input: NodeJS.ReadableStream & { readonly isTTY?: boolean };
  readonly output: NodeJS.WritableStream & { readonly isTTY?: boolean };
}

/** Asks a person; throws unless the answer is yes, and `config_invalid` where nobody can be asked. */
export async function confirm(
  question: string,
  command: string,
  otherwise: string,
  { input, output }: Terminal = { input: process.stdin, output: process.stderr },
): Promise<void> {
  if (input.isTTY !== true || output.isTTY !== true) {
    throw new BelfryError(
      'config_invalid',
      `${command} asks first (${question}), and here is nobody to ask: add --yes.`,
    );
  }
  const lines = createInterface({ input, output });
  // Ctrl-C, Ctrl-D and a terminal that is closed are a no; readline alone would leave the question open for some of them.
  const stopped = new AbortController();
  lines.once('close', () => stopped.abort());
  const answer = await lines.question(`${question} [y/N] `, { signal: stopped.signal }).catch(() => '');
  lines.close();
  if (!/^y(?:es)?$/i.test(answer.trim())) throw new BelfryError('unavailable', otherwise);
}

export function notFound(what: string): BelfryError {
  return new BelfryError('not_found', `There is no ${what}.`);
}
