/** What is to be done about notifications for one event: to deliver it, or to take it back. Pure. */

import type { Source } from '../../config.js';
import type { Side, SourceEvent } from '../../rules/event.js';
import { samePlace, sameSide } from '../../rules/fold.js';
import type { NetChange } from '../../rules/fold.js';
import { groupKeyOf } from '../../rules/group.js';
import { directedKey } from '../../rules/privacy.js';
import type { OtherEvent } from './resolved.js';

/** An event and everybody it may be for. */
export interface DeliverStep {
  readonly kind: 'deliver';
  readonly eventId: string;
  readonly atMs: number;
  readonly source: string;
  readonly key: string;
  readonly type: string;
  readonly actorId: string | null;
  readonly objectKind: string | null;
  readonly objectId: string | null;
  readonly subjectKind: string | null;
  readonly subjectId: string | null;
  readonly groupKey: string;
  readonly recipients: readonly string[];
  readonly message: string | null;
  readonly data: string | null;
  readonly byUpdate: boolean;
  readonly fresh: boolean;
  /** Only when the row is held: it was created without a recipient. */
  readonly ifHeld: boolean;
  /** A recipient was expected and could not be told yet. */
  readonly unresolved: boolean;
  /** More recipients than a batch takes: none is listed. */
  readonly wide: boolean;
  /** Others than those listed may have it, too many to look at what they have. */
  readonly alone: boolean;
}

export interface RetractStep {
  readonly kind: 'retract';
  readonly source: string;
  readonly key: string;
  /** Absent: from everybody. */
  readonly onlyUser?: string;
  /** From whom nothing is taken: a text was edited that still names them. */
  readonly keep?: readonly string[];
  /** The event whose row says from whom nothing is taken, for where they are too many to be listed (outbox id). */
  readonly keepBy?: string;
  /** They are too many. */
  readonly wide?: boolean;
}

export type Step = DeliverStep | RetractStep;

export interface StepRules {
  /** Types that group. */
  readonly groups: (type: string) => boolean;
}

/** What a row comes to. */
export function stepsOf(change: NetChange, source: Source, rules: StepRules): Step[] {
  if (change.kind === 'removed') return [{ kind: 'retract', source: source.name, key: change.before.key, keep: [] }];
  if (change.kind === 'created')
    return [
      deliverStep(change.event, change.after, source, rules, {
        byUpdate: change.byUpdate,
        fresh: false,
        ifHeld: false,
      }),
    ];
  const { before, after, cameBack, wasSeenGone } = change;
  // Who has what it brought before keeps that; who does not, since a rule kept it from them then or took it away, is told as by a new row. Of a wide
  // event those would have to be looked for among all who have it.
  if (wasSeenGone && samePlace(before, after) && after.wide !== true)
    return [deliverStep(change.event, after, source, rules, { byUpdate: false, fresh: false, ifHeld: false })];
  if (cameBack && change.event.op === 'created' && sameSide(before, after)) return [];
  if (samePlace(before, after) || before.route === null) {
    return [deliverStep(change.event, after, source, rules, { byUpdate: true, fresh: false, ifHeld: true })];
  }
  if (!isOne(source) && samePlace({ ...before, route: after.route }, after)) {
    const keep = { keep: after.recipients, keepBy: change.event.id, wide: after.wide === true };
    return [
      { kind: 'retract', source: source.name, key: before.key, ...keep },
      deliverStep(change.event, after, source, rules, { byUpdate: true, fresh: false, ifHeld: false }),
    ];
  }
  return [
    { kind: 'retract', source: source.name, key: before.key, keep: [] },
    deliverStep(change.event, after, source, rules, { byUpdate: true, fresh: true, ifHeld: false }),
  ];
}

/**
 * A row that came back as it was has not changed, but a block of the page takes away what it brought (`blocked`); for whom the block came
 * first, it is told again. `apart`: the directed pairs of those blocks.
 */
export function againSteps(
  change: NetChange,
  source: Source,
  rules: StepRules,
  apart: ReadonlySet<string>,
): DeliverStep[] {
  if (apart.size === 0 || change.kind !== 'changed' || !change.cameBack || change.wasSeenGone) return [];
  const { before, after, event } = change;
  if (!samePlace(before, after)) return [];
  const step = deliverStep(event, after, source, rules, { byUpdate: false, fresh: false, ifHeld: false });
  return after.recipients
    .filter((userId) => apart.has(directedKey(userId, after.actorId ?? '')))
    .map((userId) => ({ ...step, recipients: [userId], alone: true }));
}

function deliverStep(
  event: SourceEvent,
  side: Side,
  source: Source,
  rules: StepRules,
  how: { readonly byUpdate: boolean; readonly fresh: boolean; readonly ifHeld: boolean },
): DeliverStep {
  const objectKind = source.object?.kind ?? null;
  return {
    kind: 'deliver',
    eventId: event.id,
    atMs: event.at.getTime(),
    source: source.name,
    key: side.key,
    type: source.type,
    actorId: side.actorId,
    objectKind,
    objectId: side.objectId,
    subjectKind: source.subject?.kind ?? null,
    subjectId: side.subjectId,
    groupKey: groupKeyOf(rules.groups(source.type), {
      source: source.name,
      key: side.key,
      objectKind,
      objectId: side.objectId,
    }),
    recipients: side.recipients,
    message: null,
    data: null,
    ...how,
    unresolved: isOne(source) && side.recipients.length === 0 && side.wide !== true,
    wide: side.wide === true,
    alone: side.alone === true,
  };
}

/** Exactly one recipient is expected: nobody is then an owner who is not known yet. A query or a list may give nobody. */
function isOne({ recipient }: Source): boolean {
  return recipient?.kind === 'column' || recipient?.kind === 'path';
}

/** What a call of `belfry.notify` comes to. */
export function notifyStep(event: OtherEvent): DeliverStep {
  const { row } = event;
  const type = textOf(row['type']);
  const dedupe = row['dedupe_key'];
  const key = typeof dedupe === 'string' ? JSON.stringify([type, dedupe]) : JSON.stringify([event.id]);
  const recipient = textOf(row['user_id']);
  return {
    kind: 'deliver',
    eventId: event.id,
    atMs: event.at.getTime(),
    source: event.source,
    key,
    type,
    actorId: typeof row['actor_id'] === 'string' ? row['actor_id'] : null,
    objectKind: null,
    objectId: null,
    subjectKind: null,
    subjectId: null,
    groupKey: `${event.source} ${key}`,
    recipients: recipient === '' ? [] : [recipient],
    message: typeof row['message'] === 'string' ? row['message'] : null,
    data: typeof row['data'] === 'string' ? row['data'] : null,
    byUpdate: false,
    fresh: false,
    ifHeld: false,
    unresolved: false,
    wide: false,
    // The same dedupe_key may have been given for everybody.
    alone: true,
  };
}

/** A value of a call of the SQL API as text; '' for none. */
export function textOf(value: unknown): string {
  return typeof value === 'string' ? value : value === null || value === undefined ? '' : JSON.stringify(value);
}
