/**
 * What the environment adds to a config file: `${NAME}` and `${NAME:-default}` in its texts, and variables that win over it.
 *
 * Works on parsed values, never on the text of the file, so that no variable can change its structure.
 */

import type { Problems } from './problems.js';
import type { Path } from './problems.js';

export type Environment = Readonly<Record<string, string | undefined>>;

const REFERENCE = /\$(\$?)\{([^{}]*)\}/g;
const NAME = /^([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?$/s;

/** Replaces references in every text; `$${NAME}` gives `${NAME}`. A missing name is a problem, and the value becomes null. */
export function interpolate(value: unknown, env: Environment, problems: Problems, path: Path = []): unknown {
  if (typeof value === 'string') return interpolateText(value, env, problems, path);
  if (Array.isArray(value)) return value.map((item, index) => interpolate(item, env, problems, [...path, index]));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, interpolate(item, env, problems, [...path, key])]),
  );
}

function interpolateText(text: string, env: Environment, problems: Problems, path: Path): string | null {
  let missing = false;
  const result = text.replace(REFERENCE, (whole, escape: string, reference: string) => {
    if (escape !== '') return `\${${reference}}`;
    const match = NAME.exec(reference);
    if (match === null) {
      problems.add(path, `${whole} is neither \${NAME} nor \${NAME:-default}`);
      missing = true;
      return '';
    }
    const [, name = '', fallback] = match;
    const value = env[name];
    if (fallback !== undefined) return value === undefined || value === '' ? fallback : value;
    if (value === undefined) {
      problems.add(path, `\${${name}} is not set in the environment`);
      missing = true;
    }
    return value ?? '';
  });
  return missing ? null : result;
}

export interface Override {
  readonly path: Path;
  readonly variable: string;
  readonly value: string;
}

/** The variables that win over the file `data`, with where they go. An empty variable counts as unset. */
export function overridesFor(data: unknown, env: Environment, problems: Problems, warnings: string[]): Override[] {
  const overrides: Override[] = [];
  const add = (variable: string, path: Path): void => {
    const value = env[variable];
    if (value !== undefined && value !== '') overrides.push({ path, variable, value });
  };
  add('DATABASE_URL', ['database', 'url']);
  add('PORT', ['server', 'port']);
  const auth = fieldOf(data, 'auth');
  if (fieldOf(auth, 'publicKey') === undefined && fieldOf(auth, 'jwksUri') === undefined) {
    add('JWT_SECRET', ['auth', 'secret']);
  } else if (env['JWT_SECRET']) {
    warnings.push(
      'JWT_SECRET is not used: auth names a public key, and a secret beside it would let tokens be forged.',
    );
  }
  const given = fieldOf(data, 'broker');
  const broker = typeof given === 'string' ? given : 'memory';
  if (env['REDIS_URL'] && env['NATS_URL'] && !/^(?:rediss?|nats):/.test(broker)) {
    problems.add(['broker'], 'REDIS_URL and NATS_URL are both set: unset one');
  } else if (env['NATS_URL'] && (broker.startsWith('nats:') || !env['REDIS_URL'])) {
    add('NATS_URL', ['broker']);
  } else {
    add('REDIS_URL', ['broker']);
  }
  return overrides;
}

/** `data` with the overrides put in. Where the file has something else than a mapping in the way, it is left for the schema to tell. */
export function applyOverrides(data: unknown, overrides: readonly Override[]): unknown {
  return overrides.reduce<unknown>((result, { path, value }) => withValue(result, path, value), data);
}

function withValue(data: unknown, path: Path, value: string): unknown {
  const [step, ...rest] = path;
  if (step === undefined) return value;
  const isMapping = typeof data === 'object' && data !== null && !Array.isArray(data);
  if (!isMapping && data !== undefined && data !== null) return data;
  return { ...data, [step]: withValue(fieldOf(data, String(step)), rest, value) };
}

/** `data[key]` if `data` is a mapping that has the key. */
export function fieldOf(data: unknown, key: string): unknown {
  if (typeof data !== 'object' || data === null || !Object.hasOwn(data, key)) return undefined;
  return (data as Record<string, unknown>)[key];
}
