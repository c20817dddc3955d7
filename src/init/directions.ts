/** Of two columns with people in them: who does it, and to whom. Pure; null where the names don't tell. */

import type { PersonColumn } from './people.js';
import { singular, wordsOf } from './words.js';

export interface Direction {
  readonly actor: PersonColumn;
  readonly target: PersonColumn;
  readonly reason: string;
}

/** What a name says of the person: `maker` and `friend` only beside a name that says more, `user` nothing. */
type Side = 'does' | 'suffers' | 'from' | 'to' | 'following' | 'maker' | 'friend' | 'plain' | 'unknown';

const NOUN = /^(?:id|uuid|guid|uri|did|key|user|account|member|person|profile|actor|fk|username)$/;
const DOES =
  /^(?:follower|subscriber|fan|watcher|blocker|muter|ignorer|requester|requestor|sender|inviter|initiator|applicant|liker|voter|mentioner|tagger|favoriter|reactor|by|originator|proposer)$/;
const SUFFERS =
  /^(?:followed|followee|subscribed|subscribee|blocked|blockee|muted|mutee|ignored|receiver|recipient|requestee|requested|addressee|invitee|invited|liked|mentioned|tagged)$/;

const byName = 'the names of the columns say who and whom';

/** Who does it with whom, and what to say of it. The first line that fits; `any` takes whatever the other is. */
const RULES: readonly (readonly [actor: Side | 'any', target: Side | 'any', reason: string])[] = [
  ['does', 'suffers', byName],
  ['does', 'following', 'a follower and whom they are following'],
  ['following', 'suffers', 'who is following and who is followed'],
  ['does', 'any', byName],
  ['any', 'suffers', byName],
  ['from', 'to', byName],
  ['maker', 'to', byName],
  ['plain', 'to', byName],
  ['plain', 'following', 'whom they are following'],
  ['plain', 'friend', 'a person and their friend: the person began it'],
];

/**
 * `tableWords` are the words of the table's name: `profile_followers(from_profile_id, to_profile_id)` may be from the follower or from
 * the followed, and a friend's friend is one too, so there only names of roles count.
 */
export function directionOf(columns: readonly PersonColumn[], tableWords: readonly string[]): Direction | null {
  const [first, second] = columns;
  if (first === undefined || second === undefined || columns.length > 2) return null;
  const sides = [sideOf(first.column.name), sideOf(second.column.name)] as const;
  if (sides[0] === sides[1]) return null;
  const isReversible = /^(?:follower|friend|fan|subscriber)$/.test(tableWords.at(-1) ?? '');
  for (const [actor, target, reason] of RULES) {
    if (isReversible && (target === 'to' || actor === 'from')) continue;
    if (fits(sides[0], actor) && fits(sides[1], target)) return { actor: first, target: second, reason };
    if (fits(sides[1], actor) && fits(sides[0], target)) return { actor: second, target: first, reason };
  }
  return null;
}

const fits = (side: Side, wanted: Side | 'any'): boolean => wanted === 'any' || side === wanted;

function sideOf(name: string): Side {
  const words = wordsOf(name, { verbs: false }).map(singular);
  const rest = words.filter((word) => !NOUN.test(word));
  const is = (pattern: RegExp): boolean => rest.some((word) => pattern.test(word));
  if (rest.length === 0) return 'plain';
  if (is(SUFFERS) && !rest.includes('by')) return 'suffers';
  if (is(DOES)) return 'does';
  if (is(/^(?:from|source|origin)$/)) return 'from';
  if (is(/^(?:to|target|subject|object|other)$/)) return 'to';
  if (rest.includes('following')) return 'following';
  if (is(/^(?:creator|owner|author|created)$/)) return 'maker';
  return is(/^(?:friend|contact)$/) ? 'friend' : 'unknown';
}
