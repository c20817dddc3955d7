/**
 * The configuration: one YAML (or JSON) file and a few variables of the environment; the only place that reads either.
 *
 * Either a `Config` without a doubt in it comes out, or one error that names every problem with its path and line.
 */

import { readFile } from 'node:fs/promises';
import { LineCounter, parseDocument } from 'yaml';
import type { Document } from 'yaml';
import { applyOverrides, fieldOf, interpolate, overridesFor } from './config/environment.js';
import type { Environment } from './config/environment.js';
import { pathText, Problems } from './config/problems.js';
import { resolveConfig } from './config/resolve.js';
import { checkShape } from './config/shape.js';
import type { Config, LogLevel } from './config/types.js';
import { BelfryError, messageOf } from './errors.js';

export type * from './config/types.js';
export type { Environment } from './config/environment.js';
export { channelColumns, columnPlaces, isOfObject, mappedColumns } from './config/mapping.js';
export type { ColumnPlace } from './config/mapping.js';
export { CHANNEL_LENGTH, parseChannel, parseDuration, replaceParameters, sqlParameters } from './config/values.js';
export type { ChannelName } from './config/values.js';

export const DEFAULT_PATH = 'belfry.yaml';

const LOG_LEVELS: readonly LogLevel[] = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'];

/** Reads and checks a file. Throws BelfryError `config_invalid`: not there, not YAML, or every problem in it. */
export async function loadConfig(path: string = DEFAULT_PATH, env: Environment = process.env): Promise<Config> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw new BelfryError('config_invalid', explainMissing(path, error));
  }
  return parseConfig(text, env, { path });
}

/** Checks a text; `path` names it in messages, and its folder is where other files are looked for. Throws as `loadConfig`. */
export function parseConfig(
  text: string,
  env: Environment = process.env,
  options: { readonly path?: string } = {},
): Config {
  const path = options.path ?? DEFAULT_PATH;
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: true });
  const problems = new Problems();
  const warnings: string[] = [];
  const data = read(document, path);

  const logLevel = logLevelOf(env, problems);
  const overrides = overridesFor(data, env, problems, warnings);
  const overridden = new Map(overrides.map((override) => [pathText(override.path), override.variable]));
  const unresolved = new Problems();
  const filled = applyOverrides(interpolate(data, env, unresolved), overrides);
  unresolved.moveTo(problems, (problemPath) => !overridden.has(pathText(problemPath)));

  const shape = checkShape(filled, problems);
  const config = resolveConfig(shape, { path, logLevel, problems, warnings });
  if (config === null) throw problems.toError(path, document, lines, overridden);
  return config;
}

/** LOG_LEVEL, else `fallback`; for what is logged without a config. */
export function logLevelOf(env: Environment = process.env, problems?: Problems, fallback: LogLevel = 'info'): LogLevel {
  const text = env['LOG_LEVEL']?.toLowerCase() ?? '';
  const level = LOG_LEVELS.find((name) => name === text);
  if (level === undefined && text !== '') problems?.add(['LOG_LEVEL'], `must be one of ${LOG_LEVELS.join(', ')}`);
  return level ?? fallback;
}

/** DATABASE_URL, else empty; for what needs no more than a database. */
export function databaseUrlOf(env: Environment = process.env): string {
  return env['DATABASE_URL'] ?? '';
}

/** Whether JWT_SECRET says what tokens are signed with, so that no file has to. */
export function hasJwtSecret(env: Environment = process.env): boolean {
  return (env['JWT_SECRET'] ?? '') !== '';
}

/** PORT, else the default; for what runs without a config. Throws BelfryError `config_invalid`. */
export function portOf(env: Environment = process.env): number {
  const text = env['PORT'] || '10000';
  if (!/^\d{1,5}$/.test(text) || Number(text) > 65_535)
    throw new BelfryError('config_invalid', 'PORT must be a whole number from 0 to 65535');
  return Number(text);
}

function explainMissing(path: string, error: unknown): string {
  const code = fieldOf(error, 'code');
  if (code !== 'ENOENT') return `${path} can't be read: ${messageOf(error)}`;
  const where = path === DEFAULT_PATH ? `there is no ${path} here` : `there is no ${path}`;
  return `${where}: run \`belfry init\` to have one written, or write it (docs/configuration.md), or name another with --config`;
}

function read(document: Document, path: string): unknown {
  const [first] = document.errors;
  if (first === undefined) {
    try {
      return document.toJS({ maxAliasCount: 100 }) as unknown;
    } catch (error) {
      throw new BelfryError('config_invalid', `${path} is not YAML: ${messageOf(error)}`);
    }
  }
  const told = document.errors.map((error) => `  ${error.message.split('\n')[0]?.replace(/:$/, '') ?? ''}`);
  throw new BelfryError('config_invalid', `${path} is not YAML\n${told.join('\n')}`);
}
