/** Collects everything that is wrong with a config file, each with its path and line, so that all of it is told at once. */

import { isMap, isNode, isSeq } from 'yaml';
import type { Document, LineCounter } from 'yaml';
import type * as z from 'zod';
import { BelfryError } from '../errors.js';

export type Path = readonly (string | number)[];

/** `['sources', 0, 'key']` as `sources[0].key`. */
export function pathText(path: Path): string {
  return path.reduce<string>((text, step) => {
    if (typeof step === 'number') return `${text}[${step}]`;
    return text === '' ? step : `${text}.${step}`;
  }, '');
}

export class Problems {
  readonly #found: { readonly path: Path; readonly text: string }[] = [];

  add(path: Path, text: string): void {
    this.#found.push({ path, text });
  }

  /**
   * Adds what zod found under `path`, in words that name the key and not the schema; nothing of a value that could not be read and is
   * told already.
   */
  addIssues(path: Path, issues: readonly z.core.$ZodIssue[], data: unknown): void {
    const told = new Set(this.#found.map((problem) => pathText(problem.path)));
    for (const issue of issues) {
      const at = [...path, ...issue.path.map((step) => (typeof step === 'symbol' ? String(step) : step))];
      if (told.has(pathText(at))) continue;
      if (issue.code === 'unrecognized_keys') {
        for (const key of issue.keys) this.add([...at, key], 'is not a known key');
      } else if (issue.code === 'invalid_union') {
        this.#addUnion(at, issue, valueAt(data, issue.path));
      } else if (issue.code === 'invalid_key') {
        this.add(at, issue.issues[0]?.message ?? 'is not a valid name');
      } else {
        this.add(at, describe(issue, valueAt(data, issue.path)));
      }
    }
  }

  /** Hands over those problems whose path `wanted` accepts. */
  moveTo(others: Problems, wanted: (path: Path) => boolean): void {
    for (const { path, text } of this.#found.splice(0)) if (wanted(path)) others.add(path, text);
  }

  /** Whether something is wrong at this path or below it. */
  tells(path: Path): boolean {
    return this.#found.some(({ path: found }) => path.every((step, index) => found[index] === step));
  }

  get empty(): boolean {
    return this.#found.length === 0;
  }

  /**
   * One line per path, in the order of the file, with all that is wrong there. `origins` names the environment variable that a value came
   * from, by path.
   */
  toError(file: string, document: Document, lines: LineCounter, origins: ReadonlyMap<string, string>): BelfryError {
    const places = new Map<string, { readonly offset: number; readonly texts: Set<string> }>();
    for (const { path, text } of this.#found) {
      const name = pathText(path);
      const place = places.get(name) ?? { offset: offsetOf(document, path), texts: new Set() };
      places.set(name, place);
      place.texts.add(text);
    }
    const told = [...places]
      .sort(([, one], [, other]) => one.offset - other.offset)
      .map(([name, { offset, texts }]) => {
        const variable = origins.get(name);
        const where = variable ? ` (from ${variable})` : offset < 0 ? '' : ` (line ${lines.linePos(offset).line})`;
        return `  ${name === '' ? 'the file' : name}: ${[...texts].join('; ')}${where}`;
      });
    const count = told.length === 1 ? 'one problem' : `${told.length} problems`;
    return new BelfryError('config_invalid', `${file} has ${count}\n${told.join('\n')}`);
  }

  // Of a union only the branch that was meant is of interest: the one whose outer shape fits; of two objects the one with the
  // fewer unknown keys.
  #addUnion(path: Path, issue: z.core.$ZodIssueInvalidUnion, data: unknown): void {
    const branches = issue.errors.filter(
      (errors) =>
        !errors.some(
          (error) => error.path.length === 0 && (error.code === 'invalid_type' || error.code === 'invalid_value'),
        ),
    );
    const unknownKeys = (errors: readonly z.core.$ZodIssue[]): number =>
      errors.reduce(
        (sum, error) => sum + (error.code === 'unrecognized_keys' && error.path.length === 0 ? error.keys.length : 0),
        0,
      );
    const [best] = [...branches].sort((one, other) => unknownKeys(one) - unknownKeys(other));
    const isGuess = best === undefined || (branches.length > 1 && unknownKeys(best) > 0);
    if (isGuess) this.add(path, issue.message);
    else this.addIssues(path, best, data);
  }
}

function describe(issue: z.core.$ZodIssue, value: unknown): string {
  switch (issue.code) {
    case 'invalid_type':
      if (!issue.message.startsWith('Invalid input')) return issue.message;
      if (value === undefined || value === null) return `is missing (${expected(issue.expected)})`;
      return `must be ${expected(issue.expected)}, not ${nameOf(value)}`;
    case 'invalid_value':
      if (value === undefined) return `is missing (${issue.values.join(' or ')})`;
      return `must be ${issue.values.join(', ')}, not ${nameOf(value)}`;
    case 'too_small':
      return isNumber(issue.origin) ? `must be at least ${issue.minimum}` : issue.message;
    case 'too_big':
      return isNumber(issue.origin) ? `must be at most ${issue.maximum}` : issue.message;
    default:
      return issue.message;
  }
}

function isNumber(origin: string): boolean {
  return origin === 'number' || origin === 'int';
}

function expected(type: string): string {
  if (type === 'string') return 'text';
  if (type === 'boolean') return 'true or false';
  if (type === 'array') return 'a list';
  if (type === 'object' || type === 'record') return 'a mapping of keys';
  return type === 'int' ? 'a whole number' : 'a number';
}

/** What a value is. Numbers and booleans are safe to show; text may be a secret. */
export function nameOf(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  if (value === null || value === undefined) return 'nothing';
  return typeof value === 'object' ? 'a mapping' : 'this text';
}

function valueAt(data: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((value, step) => {
    if (typeof value !== 'object' || value === null) return undefined;
    return (value as Record<PropertyKey, unknown>)[step];
  }, data);
}

// Where a path begins in the file, or the nearest thing around it that exists; -1 where the file has nothing of it.
function offsetOf(document: Document, path: Path): number {
  let node: unknown = document.contents;
  let offset = -1;
  for (const step of path) {
    let begin: unknown;
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => String(key) === String(step));
      begin = pair?.key;
      node = pair?.value;
    } else if (isSeq(node) && typeof step === 'number') {
      node = node.items[step];
      begin = node;
    }
    if (!isNode(begin)) break;
    offset = begin.range?.[0] ?? offset;
  }
  return offset;
}
