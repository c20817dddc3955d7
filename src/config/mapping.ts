/** Which columns of a source's table Belfry reads: what triggers store in the outbox, and nothing else. */

import type { Actor, ChannelTemplate, Recipient, Source, Thing } from './types.js';

export interface ColumnPlace {
  /** Where it stands within the source: `key[0]`, `object.id`. */
  readonly place: string;
  readonly column: string;
}

/**
 * The columns of the table that end up in the outbox, each once, in this order: key, actor, object, subject, recipient, channels,
 * include. For a path it is the column that the first hop starts from, for a query its parameters, for a list or mentions its column. `when` is judged by the trigger and `visible`
 * knows only :user and :object_id, so neither adds any.
 */
export function mappedColumns(source: Source): readonly string[] {
  return [...new Set(columnPlaces(source).map(({ column }) => column))];
}

/** Likewise, at each place where one is named. */
export function columnPlaces({ key, actor, object, subject, recipient, channels, include }: Source): ColumnPlace[] {
  const all = (place: string, columns: readonly string[]): ColumnPlace[] =>
    columns.map((column) => ({ place, column }));
  const each = (place: string, columns: readonly string[]): ColumnPlace[] =>
    columns.map((column, i) => ({ place: `${place}[${String(i)}]`, column }));
  return [
    ...each('key', key),
    ...(actor === null ? [] : placesOf('actor', actor)),
    ...(object === null ? [] : [{ place: 'object.id', column: object.id }]),
    ...(subject === null ? [] : [{ place: 'subject.id', column: subject.id }]),
    ...(recipient === null ? [] : placesOf('recipient', recipient)),
    ...channels.flatMap((template, i) => all(`channels[${String(i)}]`, channelColumns(template))),
    ...each('include', include),
  ];
}

function placesOf(key: 'actor' | 'recipient', person: Actor | Recipient): ColumnPlace[] {
  switch (person.kind) {
    case 'column':
      return [{ place: key, column: person.column }];
    case 'path':
      return [{ place: `${key}.path[0].from`, column: person.hops[0].from }];
    case 'query':
      return person.parameters.map((column) => ({ place: `${key}.query`, column }));
    case 'list':
    case 'mentions':
      return [{ place: `${key}.${person.kind}`, column: person.column }];
  }
}

/** The columns that a channel's name is made of. */
export function channelColumns(template: ChannelTemplate): readonly string[] {
  return template.parts.flatMap((part) => (typeof part === 'string' ? [] : [part.column]));
}

/** Whether channels of this name are those of one object each: their `state` holds its counters. */
export function isOfObject({ kind, parts }: ChannelTemplate, { id }: Thing): boolean {
  const [prefix, last] = parts;
  return parts.length === 2 && prefix === `${kind}:` && typeof last === 'object' && last.column === id;
}
