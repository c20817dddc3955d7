/**
 * Who may and wants to hear of what.
 *
 * Never: oneself, across a block in either direction, a person with notifications off or with that type off, a muted
 * actor or thread, an object that the recipient may not see, a deleted or suspended actor. The first rule that applies
 * is the reason that is kept.
 */

import type { Person, SuppressRule } from './event.js';

/** What is asked about one event and one recipient. */
export interface Delivery {
  readonly recipientId: string;
  readonly actorId: string | null;
  readonly type: string;
  readonly objectKind: string | null;
  readonly objectId: string | null;
}

/** Facts about the people of a batch, loaded in one statement. */
export interface PrivacyFacts {
  /** Null where the config names no table of people: then everybody exists and wants to hear. */
  readonly people: ReadonlyMap<string, Person> | null;
  /** `directedKey(a, b)` where a block keeps what b does from a; both ways for one that works in both directions. */
  readonly blocks: ReadonlySet<string>;
  /** `directedKey(recipient, actor)` of mutes in force. */
  readonly mutes: ReadonlySet<string>;
  /** `threadKey(recipient, kind, id)`. */
  readonly threadMutes: ReadonlySet<string>;
  /** `directedKey(user, type)` to the setting; missing means on. */
  readonly preferences: ReadonlyMap<string, 'on' | 'off' | 'following'>;
  /** `directedKey(recipient, actor)` where the recipient follows the actor; only asked for preference `following`. */
  readonly follows: ReadonlySet<string>;
  /** `hiddenKey(source, recipient, objectId)` where the source's `visible` says that the recipient may NOT see the object. */
  readonly hidden: ReadonlySet<string>;
  /** `ownerKey(recipient, actor or '', kind, id)` where a block stands between the object's owner and one of the two. */
  readonly ownerBlocks: ReadonlySet<string>;
}

export function directedKey(a: string, b: string): string {
  return `${a}\0${b}`;
}

export function threadKey(user: string, kind: string, id: string): string {
  return `${user}\0${kind}\0${id}`;
}

export function hiddenKey(source: string, user: string, objectId: string): string {
  return `${source}\0${user}\0${objectId}`;
}

export function ownerKey(user: string, actor: string, kind: string, id: string): string {
  return `${user}\0${actor}\0${kind}\0${id}`;
}

/** Whether an account was deleted or suspended; it must have been asked for. */
export function isActorGone(actorId: string, { people }: PrivacyFacts): boolean {
  return people !== null && people.get(actorId)?.active !== true;
}

/** The rule that keeps this event from this recipient, or null when it may be delivered. */
export function suppressedBy(source: string, delivery: Delivery, facts: PrivacyFacts): SuppressRule | null {
  const { recipientId, actorId, type, objectKind, objectId } = delivery;
  if (actorId === recipientId) return 'self';
  if (facts.people !== null) {
    const recipient = facts.people.get(recipientId);
    if (recipient === undefined || !recipient.active) return 'recipient_gone';
    if (actorId !== null && isActorGone(actorId, facts)) return 'actor_gone';
    if (!recipient.enabled) return 'notifications_off';
  }
  const setting = facts.preferences.get(directedKey(recipientId, type));
  if (setting === 'off') return 'type_off';
  if (actorId !== null) {
    if (facts.blocks.has(directedKey(recipientId, actorId))) return 'blocked';
    if (facts.mutes.has(directedKey(recipientId, actorId))) return 'muted';
  }
  if (objectKind !== null && objectId !== null) {
    if (facts.ownerBlocks.has(ownerKey(recipientId, actorId ?? '', objectKind, objectId))) return 'blocked';
    if (facts.threadMutes.has(threadKey(recipientId, objectKind, objectId))) return 'thread_muted';
    if (facts.hidden.has(hiddenKey(source, recipientId, objectId))) return 'not_visible';
  }
  if (setting === 'following' && (actorId === null || !facts.follows.has(directedKey(recipientId, actorId))))
    return 'policy';
  return null;
}
