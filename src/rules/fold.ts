/**
 * What a page of events comes to, per row of a source.
 *
 * A row that was deleted and inserted again has not changed, but came back; one that came and went never was. However a stream is cut
 * into pages the inbox ends up the same: what one page folds, two pages do and undo (tested as a property).
 *
 * A trigger of the application that changes the very row for which it fires (AFTER … FOR EACH ROW: one that moderates what was written,
 * say) writes its event before that of the statement that fired it: statement triggers come last. The lower id is then the later
 * change, which is told by what the rows say: the higher one ends where the lower one begins.
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
      /** It was gone in between: what a block took away meanwhile may have come after the block. */
      readonly cameBack: boolean;
      /** Between two transactions. In one it may also be a row that a trigger deleted as it was inserted, whose event comes last. */
      readonly wasSeenGone: boolean;
    };

interface Run {
  last: SourceEvent;
  /** The row before the page, null when it was not there. */
  before: Side | null;
  /** The row now, null when it is gone. */
  after: Side | null;
  /** It was there before the page, and gone for a while; for others to see. */
  away: boolean;
  seenGone: boolean;
  /** It does not count, but is still there: an update made `when` false. */
  hidden: boolean;
  /** Where the last part of the run began, within which every event begins where the one before it ends. */
  begun: Side | null;
  /** The last part is all of it. */
  whole: boolean;
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
      step(runs, event, before, after, firedFirst);
    }
  }
  const changes: NetChange[] = [];
  for (const run of runs.values()) {
    const change = net(run);
    if (change !== null) changes.push(change);
  }
  return changes;
}

/** `isLater`: whether what the run did came after this event all the same. */
function step(
  runs: Map<string, Run>,
  event: SourceEvent,
  before: Side | null,
  after: Side | null,
  isLater: typeof firedFirst = () => false,
): void {
  const side = after ?? before;
  if (side === null) return;
  const id = `${event.source}\0${side.key}`;
  const run = runs.get(id);
  const hidden = after === null && event.op === 'removed' && event.after !== null;
  // Put at the end again, so that the order is that of the last event.
  runs.delete(id);
  if (run === undefined) {
    runs.set(id, { last: event, before, after, away: false, seenGone: false, hidden, begun: before, whole: true });
  } else if (isLater(run, event)) {
    // Where it no longer counts, what was there is taken back: it may have been another row, if nothing keeps keys apart.
    const was = run.after === null ? (before ?? run.before) : before;
    runs.set(id, { ...run, last: event, before: run.whole ? was : run.before, begun: before });
  } else {
    const goesOn = before === null ? run.after === null : run.after !== null && follows(before, run.after);
    const part = goesOn ? { begun: run.begun, whole: run.whole } : { begun: before, whole: false };
    const back = run.before !== null && run.after === null;
    const away = run.away || back;
    const seenGone = run.seenGone || (back && run.last.xid !== event.xid);
    runs.set(id, { last: event, before: run.before, after, away, seenGone, hidden, ...part });
  }
}

/** Whether what the run did last was done by a trigger that the statement of this event fired. */
function firedFirst({ begun, after, hidden }: Run, event: SourceEvent): boolean {
  if (event.op === 'removed' || event.after === null || begun === null || !follows(begun, event.after)) return false;
  if (event.op === 'changed') return after === null || event.before === null || !follows(event.before, after);
  // An undelete comes after the delete, an insert of a row that is there does not.
  return after !== null || (hidden && event.before === null);
}

/** Whether a change may begin with `before` where one ended with `after`. Over a path the actor of `before` is not always known. */
function follows(before: Side, after: Side): boolean {
  return sameSide(before.actorId === null ? { ...before, actorId: after.actorId } : before, after);
}

function net({ last, before, after, away, seenGone }: Run): NetChange | null {
  const { source } = last;
  if (after === null) return before === null ? null : { kind: 'removed', source, event: last, before };
  if (before === null) {
    return { kind: 'created', source, event: last, after, byUpdate: last.op === 'changed' || last.before !== null };
  }
  if (last.op === 'created' && sameSide(before, after) && !away) return null;
  return { kind: 'changed', source, event: last, before, after, cameBack: away, wasSeenGone: seenGone };
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
