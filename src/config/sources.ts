/** The sources section: paths completed, channel templates and SQL taken apart, and what a source needs as a whole. */

import { RESERVED_EVENTS } from '../protocol/frames.js';
import { isOfObject } from './mapping.js';
import type { Path, Problems } from './problems.js';
import type { RawConfig, RawPath, RawSource } from './schema.js';
import type { Sound } from './shape.js';
import type { Actor, PathHop, Recipient, Source } from './types.js';
import { parseChannelTemplate, sqlParameters, sqlProblem } from './values.js';

/** What is wrong with each, and with them together. */
export function checkSources(sources: readonly (Sound<RawSource> | undefined)[], problems: Problems): void {
  const firstWith = new Map<string, number>();
  sources.forEach((source, index) => {
    if (source === undefined) return;
    const path = ['sources', index];
    const { name } = source;
    const first = name === undefined ? undefined : firstWith.get(name);
    if (first !== undefined) problems.add([...path, 'name'], `${name} is already the name of sources[${first}]`);
    else if (name !== undefined) firstWith.set(name, index);
    checkSource(source, path, problems);
  });
  checkFields(sources, problems);
}

/**
 * `state` has one number for a field, and an update that of one source: two sources may not count the same things under one field for the
 * same channels. Things of two kinds may, since their ids mostly differ.
 */
function checkFields(sources: readonly (Sound<RawSource> | undefined)[], problems: Problems): void {
  const firstWith = new Map<string, number>();
  sources.forEach((source, index) => {
    const field = source?.counter?.field;
    const { kind, id } = source?.object ?? {};
    if (field === undefined || kind === undefined || id === undefined) return;
    const templates = (source?.channels ?? []).map((text) => (text === undefined ? null : parseChannelTemplate(text)));
    for (const template of templates) {
      if (template === null || !isOfObject(template, { kind, id })) continue;
      const counted = JSON.stringify([template.kind, kind, field]);
      const first = firstWith.get(counted) ?? index;
      firstWith.set(counted, first);
      if (first === index) continue;
      const text = `is counted in ${template.kind}:{id} by sources[${first}] too, which would tell another number`;
      const what = `${field} of each ${kind} ${text}: give each a field of its own`;
      problems.add(['sources', index, 'counter', 'field'], what);
    }
  });
}

function checkSource(raw: Sound<RawSource>, path: Path, problems: Problems): void {
  const isGiven = (key: keyof RawSource): boolean => raw[key] !== undefined || problems.tells([...path, key]);
  checkDistinct(raw.key ?? [], [...path, 'key'], problems);
  checkDistinct(raw.include ?? [], [...path, 'include'], problems);
  if (raw.when !== undefined) checkSql(raw.when, 'condition', [], [...path, 'when'], problems);
  if (raw.visible !== undefined) checkSql(raw.visible, 'query', ['user', 'object_id'], [...path, 'visible'], problems);
  if (isGiven('visible') && !isGiven('object')) problems.add([...path, 'visible'], 'needs object: what is to be seen');
  if (isGiven('counter') && !isGiven('object')) problems.add([...path, 'counter'], 'needs object: what is counted');
  if (isGiven('counter') && raw.channels?.length === 0)
    problems.add([...path, 'counter'], 'needs channels: where the count is pushed');
  checkCounter(raw, path, problems);
  raw.channels?.forEach((text, index) => {
    if (text !== undefined && parseChannelTemplate(text) === null)
      problems.add(
        [...path, 'channels', index],
        'is not a channel such as post:{post_id}, with a plain word before the colon',
      );
  });
  for (const key of ['actor', 'recipient'] as const) {
    const way = raw[key];
    if (typeof way !== 'object') continue;
    const start = 'list' in way ? way.list : 'mentions' in way ? way.mentions : undefined;
    if ('path' in way && way.path !== undefined) checkHops(way.path, [...path, key, 'path'], problems, start);
    if ('query' in way) checkSql(way.query, 'query', 'any', [...path, key, 'query'], problems);
  }
}

/** What it is told by must stand for nothing else: neither its event, nor its field in what is told (relay/plan/decide.ts). */
function checkCounter(raw: Sound<RawSource>, path: Path, problems: Problems): void {
  const { event, field } = raw.counter ?? {};
  if (event !== undefined && RESERVED_EVENTS.includes(event))
    problems.add([...path, 'counter', 'event'], `${event} belongs to the protocol; take another name`);
  if (field === undefined) return;
  const hasSubject = raw.subject !== undefined || problems.tells([...path, 'subject']);
  const included = (raw.include ?? []).length === 0 ? undefined : hasSubject ? raw.subject?.kind : raw.type;
  const others: readonly (readonly [string | undefined, string])[] = [
    ['user_id', 'the actor'],
    [raw.object?.kind === undefined ? undefined : `${raw.object.kind}_id`, 'the object'],
    [included, 'the included columns'],
  ];
  const other = others.find(([key]) => key === field);
  if (other !== undefined)
    problems.add([...path, 'counter', 'field'], `${field} is ${other[1]} in the same push; take another name`);
}

/** `start` is the column that the first hop starts from, where the config says so elsewhere. */
function checkHops(raw: RawPath, path: Path, problems: Problems, start?: string): void {
  raw.forEach((hop, index) => {
    const before = beforeHop(raw, index, start);
    if (before === undefined && hop.from === undefined)
      problems.add([...path, index, 'from'], 'is missing: the column of the source to start from');
    if (before !== undefined && hop.from !== undefined && hop.from !== before) {
      const what = index === 0 ? 'the column with the values' : 'the take of the hop before';
      problems.add([...path, index, 'from'], `must be ${before}, ${what}, or be left out`);
    }
  });
}

function beforeHop(raw: RawPath, index: number, start: string | undefined): string | undefined {
  return index === 0 ? start : raw[index - 1]?.take;
}

/** Only of what was checked. */
export function resolveSources(
  raw: readonly RawSource[],
  channels: RawConfig['channels'],
  warnings: string[],
): readonly Source[] {
  const rechecking = new Set(Object.values(channels).flatMap((rule) => rule.recheck));
  const silentKinds = new Set<string>();
  const sources = raw.map(resolveSource);
  sources.forEach((source, index) => {
    for (const { kind, text } of source.channels) {
      if (text !== 'all' && !Object.hasOwn(channels, kind)) silentKinds.add(kind);
    }
    if (source.recipient === null && source.channels.length === 0 && !rechecking.has(source.name)) {
      warnings.push(`sources[${index}] (${source.name}) has neither recipient nor channels: its events reach nobody.`);
    }
    if (source.channels.length > 0 && source.counter === null && source.include.length === 0) {
      warnings.push(
        `sources[${index}] (${source.name}) has channels, but its channels hear nothing: give it a counter or include.`,
      );
    }
  });
  for (const kind of silentKinds) {
    warnings.push(`Sources name channels of kind ${kind}, which channels does not: nobody may subscribe to them.`);
  }
  return sources;
}

function resolveSource(raw: RawSource): Source {
  return {
    name: raw.name,
    type: raw.type,
    table: raw.table,
    key: raw.key,
    actor: raw.actor === undefined ? null : resolveActor(raw.actor),
    object: raw.object ?? null,
    subject: raw.subject ?? null,
    recipient: raw.recipient === undefined ? null : resolveRecipient(raw.recipient),
    channels: raw.channels.map(parseChannelTemplate).filter((template) => template !== null),
    counter: raw.counter ?? null,
    include: raw.include,
    when: raw.when ?? null,
    time: raw.time === undefined ? null : typeof raw.time === 'string' ? { column: raw.time, zone: 'UTC' } : raw.time,
    visible: raw.visible ?? null,
    capture: raw.capture,
    onError: raw.onError,
  };
}

function resolveActor(raw: string | { path: RawPath }): Actor {
  if (typeof raw === 'string') return { kind: 'column', column: raw };
  return { kind: 'path', hops: resolveHops(raw.path) };
}

function resolveRecipient(raw: NonNullable<RawSource['recipient']>): Recipient {
  if (typeof raw === 'string') return { kind: 'column', column: raw };
  if ('mentions' in raw) return { kind: 'mentions', column: raw.mentions, hops: resolveHops(raw.path, raw.mentions) };
  if ('list' in raw) {
    const hops = raw.path === undefined ? [] : resolveHops(raw.path, raw.list);
    return { kind: 'list', column: raw.list, at: raw.at, hops };
  }
  if ('path' in raw) return resolveActor(raw);
  return { kind: 'query', sql: raw.query, parameters: sqlParameters(raw.query) };
}

function resolveHops(raw: RawPath, start?: string): [PathHop, ...PathHop[]] {
  const hops = raw.map((hop, index): PathHop => {
    const from = hop.from ?? beforeHop(raw, index, start) ?? '';
    return { from, table: hop.table, match: hop.match, take: hop.take };
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

function checkDistinct(names: readonly (string | undefined)[], path: Path, problems: Problems): void {
  names.forEach((name, index) => {
    if (name !== undefined && names.indexOf(name) < index) problems.add([...path, index], `${name} stands there twice`);
  });
}
