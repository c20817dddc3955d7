/**
 * What a page of events comes to, per row of a source.
 *
 * A row that was deleted and inserted again has not changed; one that came and went never was. However a stream is cut
 * into pages the inbox ends up the same: what one page folds, two pages do and undo (tested as a property).
 *
 * Counters are not folded: every event counts, since natural keys need not be unique in the table.
 */

import type { Side, SourceEvent } from './event.js';

/** The net effect of a page on one row (source and natural key). */
export type NetChange =
  | {
      readonly kind: 'created';
      readonly source: string;
      readonly event: SourceEvent;
      readonly after: Side;
      /** An update brought it back or into being, not an insert. */
      readonly byUpdate: boolean;
    }
  | { readonly kind: 'removed'; readonly source: string; readonly event: SourceEvent; readonly before: Side }
  | {
      readonly kind: 'changed';
      readonly source: string;
      readonly event: SourceEvent;
      readonly before: Side;
      readonly after: Side;
    };

interface Run {
  first: SourceEvent;
  last: SourceEvent;
  /** The row before the page, null when it was not there. */
  before: Side | null;
  /** The row now, null when it is gone. */
  after: Side | null;
}

/** Folds events of one page, given in order of id. The result keeps the order of the last event of each row. */
export function foldPage(events: readonly SourceEvent[]): NetChange[] {
  const runs = new Map<string, Run>();
  for (const event of events) {
    if (event.countersOnly) continue;
    if (
      event.op === 'changed' &&
      event.before !== null &&
      event.after !== null &&
      event.before.key !== event.after.key
    ) {
      if (!event.keyStands) step(runs, event, event.before, null);
      step(runs, event, null, event.after);
    } else if (event.op === 'removed' && event.keyStands) {
      continue;
    } else {
      const before = event.op === 'created' ? null : event.before;
      const after = event.op === 'removed' ? null : event.after;
      step(runs, event, before, after);
    }
  }
  const changes: NetChange[] = [];
  for (const run of runs.values()) {
    const change = net(run);
    if (change !== null) changes.push(change);
  }
  return changes;
}

function step(runs: Map<string, Run>, event: SourceEvent, before: Side | null, after: Side | null): void {
  const side = after ?? before;
  if (side === null) return;
  const id = `${event.source}\0${side.key}`;
  const run = runs.get(id);
  if (run === undefined) {
    runs.set(id, { first: event, last: event, before, after });
    return;
  }
  // Put at the end again, so that the order is that of the last event.
  runs.delete(id);
  runs.set(id, { first: run.first, last: event, before: run.before, after });
}

function net({ last, before, after }: Run): NetChange | null {
  const { source } = last;
  if (after === null) return before === null ? null : { kind: 'removed', source, event: last, before };
  if (before === null) {
    return { kind: 'created', source, event: last, after, byUpdate: last.op === 'changed' || last.before !== null };
  }
  if (last.op === 'created' && sameSide(before, after)) return null;
  return { kind: 'changed', source, event: last, before, after };
}

/** Whether both sides say the same in everything that a mapping names. */
export function sameSide(a: Side, b: Side): boolean {
  return samePlace(a, b) && a.include === b.include;
}

/** Whether actor, object, subject, recipients' route and channels agree: else a change is a removal and another event. */
export function samePlace(a: Side, b: Side): boolean {
  return (
    a.actorId === b.actorId &&
    a.objectId === b.objectId &&
    a.subjectId === b.subjectId &&
    a.route === b.route &&
    a.channels.length === b.channels.length &&
    a.channels.every((channel, i) => channel === b.channels[i])
  );
}
