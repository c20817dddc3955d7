/** What must be known before a batch can be decided: who is asked about, and which groups, rows and counters. Pure. */

import { pageRows } from '../../outbox/reader.js';
import type { Config } from '../../config.js';
import type { GroupFact } from '../../rules/group.js';
import type { GroupQuestions } from '../facts/group-facts.js';
import type { Plan } from './plan.js';
import type { DeliverStep, Step } from './steps.js';
import type { Question } from '../facts/privacy-facts.js';

/** The kinds of thread that can be muted: `threadMutes.kind` itself or, where that is a column, the kinds of all objects. */
export function threadKindsOf(config: Config): readonly string[] {
  if (config.threadMutes === null) return [];
  const kinds = [config.threadMutes.kind, ...config.sources.map(({ object }) => object?.kind)];
  return [...new Set(kinds)].filter((kind) => kind !== undefined);
}

export interface Thread {
  readonly userId: string;
  readonly kind: string;
  readonly id: string;
}

/** The threads that were muted, once per kind that they may have; of a wrong kind nothing is found. */
export function mutedThreads(plan: Plan, threadKinds: readonly string[]): Thread[] {
  return plan.threadsMuted.flatMap(([userId, id]) => threadKinds.map((kind) => ({ userId, kind, id })));
}

/** A question for every event and recipient, one for each new mute: whether it is in force, and one for whoever did what a channel is told. */
export function privacyQuestionsOf(plan: Plan, threads: readonly Thread[]): Question[] {
  const about = (recipientId: string, more: Partial<Question['delivery']>): Question => ({
    source: '',
    delivery: { recipientId, actorId: null, type: '', objectKind: null, objectId: null, ...more },
  });
  const delivers = deliversOf(plan);
  // Most are asked about already, as those who did what somebody is notified of.
  const asked = new Set(delivers.flatMap(({ actorId, recipients }) => (recipients.length === 0 ? [] : [actorId])));
  const authors = plan.notes.flatMap(({ side: { actorId } }) =>
    actorId === null || asked.has(actorId) ? [] : [actorId],
  );
  return [
    ...deliveryQuestions(delivers),
    ...authors.map((actorId) => about(actorId, {})),
    ...plan.muted.map(([userId, actorId]) => about(userId, { actorId })),
    ...threads.map(({ userId, kind, id }) => about(userId, { objectKind: kind, objectId: id })),
  ];
}

/** A question for each actor that a notification shows. */
export function questionsOfGroup(group: GroupFact, sources: Config['sources']): Question[] {
  const { userId: recipientId, type, objectKind, objectId, actors } = group;
  const alike = sources.filter((source) => source.type === type && (source.object?.kind ?? null) === objectKind);
  const source = (alike.find(({ visible }) => visible !== null) ?? alike[0])?.name ?? '';
  const of = (actorId: string | null): Question => ({
    source,
    delivery: { recipientId, actorId, type, objectKind, objectId },
  });
  return actors.length === 0 ? [of(null)] : actors.map(of);
}

export function deliversOf(plan: Plan): DeliverStep[] {
  return plan.steps.filter((step) => step.kind === 'deliver');
}

/** The size by which Postgres plans are chosen: a batch of few events may have many recipients. */
export function sizeOf(events: number, plan: Plan): number {
  return deliversOf(plan).reduce((more, { recipients }) => more + Math.max(0, recipients.length - 1), events);
}

/** How much a transaction may take back: as many events of people as a page has rows. */
export const mostShares = pageRows;

/** Questions of a batch. One of several events is halved where they find too much. */
export function pageQuestionsOf(plan: Plan, events: number): GroupQuestions {
  return { ...groupQuestionsOf(plan, null), ...(events > 1 ? { mostShares } : {}) };
}

/** `recipients`: of the one step of a wide event, which are asked about alone. */
export function groupQuestionsOf(plan: Plan, recipients: readonly string[] | null): GroupQuestions {
  return {
    wanted: deliversOf(plan).flatMap((step) =>
      step.recipients.map((userId) => ({
        userId,
        type: step.type,
        groupKey: step.groupKey,
        actorId: step.actorId,
      })),
    ),
    rows: recipients === null ? plan.steps.filter((step) => aloneIn(step) === null) : [],
    shares: plan.steps.flatMap((step) => (recipients ?? aloneIn(step) ?? []).map((userId) => ({ ...step, userId }))),
    mayBeHeld: plan.steps.filter((step) => step.kind === 'retract' || step.ifHeld),
    between: [...plan.blocked, ...plan.muted].map(([userId, actorId]) => ({ userId, actorId })),
    // Only counters whose value a channel event carries; storing adds to all others without knowing them.
    counters: plan.notes.map(({ source, side }) => ({ source: source.name, objectId: side.objectId ?? '' })),
  };
}

/** The people whom a step is about, of all who have its row; null for all of them. */
function aloneIn(step: Step): readonly string[] | null {
  if (step.kind === 'retract') return step.onlyUser === undefined ? null : [step.onlyUser];
  return step.alone ? step.recipients : null;
}

export function deliveryQuestions(steps: readonly DeliverStep[]): Question[] {
  return steps.flatMap((step) =>
    step.recipients.map((userId) => ({ source: step.source, delivery: deliveryOf(step, userId) })),
  );
}

export function deliveryOf(step: DeliverStep, recipientId: string): Question['delivery'] {
  const { actorId, type, objectKind, objectId } = step;
  return { recipientId, actorId, type, objectKind, objectId };
}
