/** The sources section: paths completed, channel templates and SQL taken apart, and what a source needs as a whole. */

import type { Path, Problems } from './problems.js';
import type { RawConfig, RawPath, RawSource } from './schema.js';
import type { Actor, ChannelTemplate, PathHop, Recipient, Source } from './types.js';
import { parseChannelTemplate, sqlParameters, sqlProblem } from './values.js';

/** Broken sources (undefined) are left out; `channels` is undefined when that section is broken. */
export function resolveSources(
  raw: readonly (RawSource | undefined)[],
  channels: RawConfig['channels'] | undefined,
  problems: Problems,
  warnings: string[],
): Source[] {
  const firstWith = new Map<string, number>();
  const rechecking = new Set(Object.values(channels ?? {}).flatMap((rule) => rule.recheck));
  const silentKinds = new Set<string>();
  const sources = raw.flatMap((source, index) => {
    if (source === undefined) return [];
    const path = ['sources', index];
    const first = firstWith.get(source.name);
    if (first === undefined) firstWith.set(source.name, index);
    else problems.add([...path, 'name'], `${source.name} is already the name of sources[${first}]`);
    const resolved = resolveSource(source, path, problems);
    for (const { kind, text } of resolved.channels) {
      if (text !== 'all' && channels !== undefined && !Object.hasOwn(channels, kind)) silentKinds.add(kind);
    }
    if (resolved.recipient === null && resolved.channels.length === 0 && !rechecking.has(source.name)) {
      warnings.push(`sources[${index}] (${source.name}) has neither recipient nor channels: its events reach nobody.`);
    }
    return [resolved];
  });
  for (const kind of silentKinds) {
    warnings.push(`Sources name channels of kind ${kind}, which channels does not: nobody may subscribe to them.`);
  }
  return sources;
}

function resolveSource(raw: RawSource, path: Path, problems: Problems): Source {
  checkDistinct(raw.key, [...path, 'key'], problems);
  checkDistinct(raw.include, [...path, 'include'], problems);
  if (raw.when !== undefined) checkSql(raw.when, 'condition', [], [...path, 'when'], problems);
  if (raw.visible !== undefined) checkSql(raw.visible, 'query', ['user', 'object_id'], [...path, 'visible'], problems);
  if (raw.visible !== undefined && raw.object === undefined)
    problems.add([...path, 'visible'], 'needs object: what is to be seen');
  if (raw.counter !== undefined && raw.object === undefined)
    problems.add([...path, 'counter'], 'needs object: what is counted');
  if (raw.counter !== undefined && raw.channels.length === 0) {
    problems.add([...path, 'counter'], 'needs channels: where the count is pushed');
  }
  return {
    name: raw.name,
    type: raw.type,
    table: raw.table,
    key: raw.key,
    actor: raw.actor === undefined ? null : resolveActor(raw.actor, [...path, 'actor'], problems),
    object: raw.object ?? null,
    subject: raw.subject ?? null,
    recipient: raw.recipient === undefined ? null : resolveRecipient(raw.recipient, [...path, 'recipient'], problems),
    channels: raw.channels.flatMap((text, index) => resolveTemplate(text, [...path, 'channels', index], problems)),
    counter: raw.counter ?? null,
    include: raw.include,
    when: raw.when ?? null,
    time: raw.time === undefined ? null : typeof raw.time === 'string' ? { column: raw.time, zone: 'UTC' } : raw.time,
    visible: raw.visible ?? null,
    capture: raw.capture,
    onError: raw.onError,
  };
}

function resolveTemplate(text: string, path: Path, problems: Problems): ChannelTemplate[] {
  const template = parseChannelTemplate(text);
  if (template !== null) return [template];
  problems.add(path, 'is not a channel such as post:{post_id}, with a plain word before the colon');
  return [];
}

function resolveActor(raw: string | { path: RawPath }, path: Path, problems: Problems): Actor {
  if (typeof raw === 'string') return { kind: 'column', column: raw };
  return { kind: 'path', hops: resolveHops(raw.path, [...path, 'path'], problems) };
}

function resolveRecipient(raw: NonNullable<RawSource['recipient']>, path: Path, problems: Problems): Recipient {
  if (typeof raw === 'string') return { kind: 'column', column: raw };
  if ('mentions' in raw) {
    const hops = resolveHops(raw.path, [...path, 'path'], problems, raw.mentions);
    return { kind: 'mentions', column: raw.mentions, hops };
  }
  if ('list' in raw) {
    const hops = raw.path === undefined ? [] : resolveHops(raw.path, [...path, 'path'], problems, raw.list);
    return { kind: 'list', column: raw.list, at: raw.at, hops };
  }
  if ('path' in raw) return resolveActor(raw, path, problems);
  checkSql(raw.query, 'query', 'any', [...path, 'query'], problems);
  return { kind: 'query', sql: raw.query, parameters: sqlParameters(raw.query) };
}

/** `start` is the column that the first hop starts from, where the config says so elsewhere. */
function resolveHops(raw: RawPath, path: Path, problems: Problems, start?: string): [PathHop, ...PathHop[]] {
  const hops = raw.map((hop, index): PathHop => {
    const before = index === 0 ? start : raw[index - 1]?.take;
    if (before === undefined && hop.from === undefined)
      problems.add([...path, index, 'from'], 'is missing: the column of the source to start from');
    if (before !== undefined && hop.from !== undefined && hop.from !== before) {
      const what = index === 0 ? 'the column with the values' : 'the take of the hop before';
      problems.add([...path, index, 'from'], `must be ${before}, ${what}, or be left out`);
    }
    return { from: hop.from ?? before ?? '', table: hop.table, match: hop.match, take: hop.take };
  });
  return hops as [PathHop, ...PathHop[]];
}

function checkSql(
  sql: string,
  shape: 'query' | 'condition',
  allowed: readonly string[] | 'any',
  path: Path,
  problems: Problems,
): void {
  const problem = sqlProblem(sql, shape, allowed);
  if (problem !== null) problems.add(path, problem);
}

function checkDistinct(names: readonly string[], path: Path, problems: Problems): void {
  names.forEach((name, index) => {
    if (names.indexOf(name) < index) problems.add([...path, index], `${name} stands there twice`);
  });
}
