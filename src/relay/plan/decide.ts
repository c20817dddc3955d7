/**
 * What a batch comes to: notifications, counters, channel events, verdicts. Pure: all that is to be known of people, groups
 * and rows was loaded before.
 */

import { compareText } from '../../postgres/arrays.js';
import { counterName, shownCount } from '../../broker/broker.js';
import type { Aggregation as GroupRule } from '../../config.js';
import type { Batch, CursorStep, LoggedEvent, Verdict } from '../../inbox/store.js';
import { parseJson } from '../../postgres/json.js';
import { Aggregation } from '../../rules/aggregate.js';
import { HOLD_MS } from '../../rules/event.js';
import { directedKey, isActorGone, suppressedBy, threadKey } from '../../rules/privacy.js';
import type { PrivacyFacts } from '../../rules/privacy.js';
import { counterKey } from '../facts/group-facts.js';
import type { LoadedGroups } from '../facts/group-facts.js';
import { inOrder } from './plan.js';
import type { ChannelNote, Plan } from './plan.js';
import { deliveryOf } from './questions.js';
import type { Thread } from './questions.js';
import type { Told } from '../facts/subjects.js';

export interface Known {
  readonly plan: Plan;
  readonly privacy: PrivacyFacts;
  readonly groups: LoadedGroups;
  /** Threads that the batch mutes. */
  readonly mutedThreads: readonly Thread[];
  /** What people were told of the same subjects. */
  readonly told: Told;
}

export interface Decision {
  readonly batch: Batch;
  /** Events that reach somebody, one per recipient. */
  readonly deliveries: number;
}

/** `cursor`: where reading stands once the batch is stored; null leaves it. */
export function decide(
  rules: ReadonlyMap<string, GroupRule>,
  { plan, privacy, groups, mutedThreads, told }: Known,
  cursor: CursorStep | null,
): Decision {
  const aggregation = new Aggregation(rules, groups);
  const verdicts: Verdict[] = [];
  const held: { source: string; key: string; eventId: string; untilMs: number | null }[] = [];
  let deliveries = 0;
  const blocked = new Map(
    plan.blocked.map(([userId, actorId, eventId]) => [directedKey(userId, actorId), Number(eventId)]),
  );
  for (const { source, key, userId, actorId } of groups.fromBlocked) {
    const pair = directedKey(userId, actorId ?? '');
    if (blocked.has(pair) || privacy.mutes.has(pair)) aggregation.retract(source, key, userId);
  }
  const threads = new Set(mutedThreads.map(({ userId, kind, id }) => threadKey(userId, kind, id)));
  for (const { id, userId, objectKind, objectId } of threads.size === 0 ? [] : groups.groups) {
    const thread = threadKey(userId, objectKind ?? '', objectId ?? '');
    if (threads.has(thread) && privacy.threadMutes.has(thread)) aggregation.withdraw(id);
  }
  for (const step of plan.steps) {
    const isHeld = groups.held.has(counterKey(step.source, step.key));
    if (step.kind === 'retract') {
      aggregation.retract(step.source, step.key, step.onlyUser, step.keep);
      if (isHeld) held.push({ source: step.source, key: step.key, eventId: '0', untilMs: null });
      continue;
    }
    if (step.ifHeld && !isHeld) continue;
    if (step.unresolved) {
      if (!step.ifHeld)
        held.push({ source: step.source, key: step.key, eventId: step.eventId, untilMs: step.atMs + HOLD_MS });
      continue;
    }
    if (isHeld) held.push({ source: step.source, key: step.key, eventId: step.eventId, untilMs: null });
    for (const userId of step.recipients) {
      const before =
        blocked.size > 0 && (blocked.get(directedKey(userId, step.actorId ?? '')) ?? 0) > Number(step.eventId);
      const rule = before ? 'blocked' : suppressedBy(step.source, deliveryOf(step, userId), privacy);
      if (rule !== null) verdicts.push({ rule, eventId: step.eventId, userId });
      else if (told.elsewhere(step, userId) || !aggregation.add(step, userId))
        verdicts.push({ rule: 'duplicate', eventId: step.eventId, userId });
      else {
        told.add(step, userId);
        deliveries += 1;
      }
    }
  }
  const batch: Batch = {
    cursor,
    drafts: [...aggregation.drafts],
    added: [...aggregation.added.values()],
    removed: [...aggregation.removed.values()],
    counters: [...plan.counters.values()]
      .filter(({ delta }) => delta !== 0)
      .sort((a, b) => compareText(a.objectId, b.objectId))
      .map(({ source, objectId, delta }) => ({ source: source.name, objectId, delta })),
    logged: inOrder([
      ...plan.broadcasts.map(({ eventId, logged }) => ({ eventId, items: [logged] })),
      ...plan.notes.map((note) => ({ eventId: note.eventId, items: loggedOf(note, plan, groups, privacy) })),
    ]),
    held,
    verdicts,
    announcements: plan.announcements.map(({ id, at, row }) => ({
      eventId: id,
      at,
      message: typeof row['message'] === 'string' ? row['message'] : '',
      data: typeof row['data'] === 'string' ? row['data'] : '{}',
    })),
    dead: [],
    windowsEnded: null,
  };
  return { batch, deliveries };
}

/**
 * `comment_update` with its comment: the count of the object, who did it, and the included columns. Of an account that is gone everybody
 * gets what those get whom a block keeps from it.
 */
function loggedOf(
  { source, side, event }: ChannelNote,
  plan: Plan,
  groups: LoadedGroups,
  privacy: PrivacyFacts,
): LoggedEvent[] {
  const isGone = side.actorId !== null && isActorGone(side.actorId, privacy);
  const object =
    source.object === null || side.objectId === null ? {} : { [`${source.object.kind}_id`]: side.objectId };
  const count =
    source.counter === null || side.objectId === null
      ? {}
      : {
          [source.counter.field]: shownCount(
            countOf(groups, source.name, side.objectId) +
              (plan.counters.get(counterKey(source.name, side.objectId))?.delta ?? 0),
          ),
        };
  const included = parseJson(side.include ?? '{}') as Record<string, unknown>;
  const actor = side.actorId === null ? {} : { user_id: side.actorId };
  const counter = source.counter === null || side.objectId === null ? null : counterName(source.name, side.objectId);
  const dataWithoutActor = source.counter === null ? null : { ...object, ...count };
  const data = isGone
    ? dataWithoutActor
    : { ...object, ...count, ...actor, [source.subject?.kind ?? source.type]: included };
  if (data === null) return [];
  return side.channels.map((channel) => ({
    ...{ channel, event, counter, data, dataWithoutActor },
    actorId: isGone ? null : side.actorId,
  }));
}

function countOf(groups: LoadedGroups, source: string, objectId: string): number {
  return groups.counters.get(counterKey(source, objectId)) ?? 0;
}
