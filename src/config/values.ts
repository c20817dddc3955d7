/** The small notations of the config file: durations, channel names and templates, table names, parameters in SQL. */

import type { ChannelTemplate } from './types.js';

const UNIT_MS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

export const DURATION_PATTERN = /^\d+(?:\.\d+)?(?:ms|s|m|h|d)$/;

/** Milliseconds of `500ms`, `5s`, `10m`, `12h` or `7d`; null for anything else. */
export function parseDuration(text: string): number | null {
  if (!DURATION_PATTERN.test(text)) return null;
  const unit = text.replace(/^[\d.]+/, '') as keyof typeof UNIT_MS;
  return Math.round(parseFloat(text) * UNIT_MS[unit]);
}

export interface ChannelName {
  readonly kind: string;
  readonly id: string;
}

/** Longest name of a channel, in characters. */
export const CHANNEL_LENGTH = 256;

/**
 * Splits `kind:id` at the first colon; a name without a colon is a room. Null if it names no channel: empty, without a kind or
 * an id, too long, or with control characters.
 */
export function parseChannel(channel: string): ChannelName | null {
  // eslint-disable-next-line no-control-regex
  if (channel === '' || channel.length > CHANNEL_LENGTH || /[\u0000-\u001f\u007f]/.test(channel)) return null;
  const colon = channel.indexOf(':');
  if (colon < 0) return { kind: 'room', id: channel };
  const id = channel.slice(colon + 1);
  return colon === 0 || id === '' ? null : { kind: channel.slice(0, colon), id };
}

/** Null if the braces do not match, a column is empty, or the kind is not a plain word. */
export function parseChannelTemplate(text: string): ChannelTemplate | null {
  const parts: (string | { column: string })[] = [];
  for (const piece of text.split(/(\{[^{}]+\})/)) {
    if (piece === '') continue;
    if (piece.startsWith('{')) parts.push({ column: piece.slice(1, -1) });
    else if (/[{}]/.test(piece)) return null;
    else parts.push(piece);
  }
  const example = parseChannel(parts.map((part) => (typeof part === 'string' ? part : '0')).join(''));
  if (example === null) return null;
  const [first] = parts;
  const literalKind = text.includes(':') ? typeof first === 'string' && first.includes(':') : true;
  return literalKind ? { text, kind: example.kind, parts } : null;
}

const IDENTIFIER = '(?:[A-Za-z_\\u0080-\\uffff][\\w$\\u0080-\\uffff]*|"(?:[^"\\u0000]|"")+")';

/** `likes`, `public.likes`, `public."Likes"`. */
export const TABLE_PATTERN = new RegExp(`^${IDENTIFIER}(?:\\.${IDENTIFIER})?$`);

// What is not code in SQL, and the parameters in it: strings, quoted names, dollar quotes, comments, :name. A colon after a colon,
// a word or a bracket is a cast or a slice of an array.
const SQL_TOKEN =
  /(?<!\w)[eE]'(?:[^'\\]|\\[\s\S]|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|\$([A-Za-z_]\w*|)\$[\s\S]*?\$\1\$|--[^\n]*|\/\*[\s\S]*?\*\/|(?<![\w:\])"]):([A-Za-z_]\w*)/g;

/** Replaces every `:name` outside strings, quoted names and comments. */
export function replaceParameters(sql: string, replacement: (name: string) => string): string {
  return sql.replace(SQL_TOKEN, (token: string, _dollar: unknown, name: string | undefined) =>
    name === undefined ? token : replacement(name),
  );
}

/** The distinct names of the `:name` parameters, in order of appearance. */
export function sqlParameters(sql: string): string[] {
  const names = new Set<string>();
  replaceParameters(sql, (name) => {
    names.add(name);
    return '';
  });
  return [...names];
}

/**
 * What is plainly wrong with a piece of SQL from the config, or null. Only a look at its shape; Postgres judges the rest when
 * `belfry migrate` or the relay uses it.
 */
export function sqlProblem(
  sql: string,
  shape: 'query' | 'condition',
  allowed: readonly string[] | 'any',
): string | null {
  const code = sql.replace(SQL_TOKEN, (token: string, _dollar: unknown, name: string | undefined) => {
    if (name !== undefined) return ' p ';
    return token.startsWith('--') || token.startsWith('/*') ? ' ' : " '' ";
  });
  if (code.trim() === '') return 'is empty SQL';
  if (code.includes(';')) return 'must be one piece of SQL without a semicolon';
  if (code.replaceAll("''", '').includes("'")) return 'has a quote that is not closed';
  if (!balanced(code)) return 'has parentheses that do not match';
  if (shape === 'query' && !/^[\s(]*(?:select|with|values|table)\b/i.test(code))
    return 'must be a query that begins with select';
  if (allowed === 'any') return null;
  const unknown = sqlParameters(sql).filter((name) => !allowed.includes(name));
  if (unknown.length === 0) return null;
  const known = allowed.length === 0 ? 'takes no parameters' : `knows only :${allowed.join(' and :')}`;
  return `${known}, not :${unknown.join(', :')}`;
}

function balanced(code: string): boolean {
  let depth = 0;
  for (const character of code) {
    if (character === '(') depth += 1;
    if (character === ')') depth -= 1;
    if (depth < 0) return false;
  }
  return depth === 0;
}
