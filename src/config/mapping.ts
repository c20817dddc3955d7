/** Which columns of a source's table Belfry reads: what triggers store in the outbox, and nothing else. */

import type { ChannelTemplate, Source } from './types.js';

/**
 * The columns of the table that end up in the outbox, each once, in this order: key, actor, object, subject, recipient, channels,
 * include. For a path it is the column that the first hop starts from, for a query its parameters, for a list or mentions its column. `when` is judged by the trigger and `visible`
 * knows only :user and :object_id, so neither adds any.
 */
export function mappedColumns(source: Source): readonly string[] {
  const columns = new Set<string>(source.key);
  const { actor, object, subject, recipient } = source;
  if (actor !== null) columns.add(actor.kind === 'column' ? actor.column : actor.hops[0].from);
  if (object !== null) columns.add(object.id);
  if (subject !== null) columns.add(subject.id);
  if (recipient?.kind === 'column') columns.add(recipient.column);
  if (recipient?.kind === 'path') columns.add(recipient.hops[0].from);
  if (recipient?.kind === 'query') for (const parameter of recipient.parameters) columns.add(parameter);
  if (recipient?.kind === 'list' || recipient?.kind === 'mentions') columns.add(recipient.column);
  for (const template of source.channels) for (const column of channelColumns(template)) columns.add(column);
  for (const column of source.include) columns.add(column);
  return [...columns];
}

/** The columns that a channel's name is made of. */
export function channelColumns(template: ChannelTemplate): readonly string[] {
  return template.parts.flatMap((part) => (typeof part === 'string' ? [] : [part.column]));
}
