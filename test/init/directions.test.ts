/** Who does it to whom, by the names of two columns; null where two readings are possible. */

import { expect, it } from 'vitest';
import type { Column } from '../../src/init/database.js';
import { directionOf } from '../../src/init/directions.js';
import { wordsOf } from '../../src/init/words.js';

const person = (name: string) => ({ column: { name } as Column, hops: [], reason: '', byName: false });

function direction(table: string, first: string, second: string): string | null {
  const found = directionOf([person(first), person(second)], wordsOf(table));
  const turned = directionOf([person(second), person(first)], wordsOf(table));
  // The order of the columns must not matter.
  expect(turned && [turned.actor, turned.target].map(({ column }) => column.name)).toEqual(
    found && [found.actor, found.target].map(({ column }) => column.name),
  );
  return found === null ? null : `${found.actor.column.name} > ${found.target.column.name}`;
}

it.each([
  ['follows', 'follower_id', 'followed_id', 'follower_id > followed_id'],
  ['follows', 'followerId', 'followingId', 'followerId > followingId'],
  ['follows', 'following_user_id', 'followed_user_id', 'following_user_id > followed_user_id'],
  ['follows', 'user_id', 'following_id', 'user_id > following_id'],
  ['followers', 'user_id', 'follower_id', 'follower_id > user_id'],
  ['follows', 'account_id', 'target_account_id', 'account_id > target_account_id'],
  ['follow', 'creator', 'subjectDid', 'creator > subjectDid'],
  ['follows', 'from_user', 'to_user', 'from_user > to_user'],
  ['mentions', 'origin_account_id', 'target_account_id', 'origin_account_id > target_account_id'],
  ['userfollow', 'user_from_id', 'user_to_id', 'user_from_id > user_to_id'],
  ['subscriptions', 'subscriber_id', 'creator_id', 'subscriber_id > creator_id'],
  ['subscriptions', 'subscriber_id', 'author_id', 'subscriber_id > author_id'],
  ['artist_fans', 'fan_id', 'artist_id', 'fan_id > artist_id'],
  ['blocks', 'user_id', 'blocked_user_id', 'user_id > blocked_user_id'],
  ['mute', 'mutedByDid', 'subjectDid', 'mutedByDid > subjectDid'],
  ['blocked_users', 'blocked_by', 'user_id', 'blocked_by > user_id'],
  ['friendships', 'user_id', 'friend_id', 'user_id > friend_id'],
  ['friend_requests', 'requester_id', 'addressee_id', 'requester_id > addressee_id'],
  ['invites', 'inviter_id', 'invitee_id', 'inviter_id > invitee_id'],
  ['messages', 'sender_id', 'receiver_id', 'sender_id > receiver_id'],
])('%s(%s, %s): %s', (table, first, second, expected) => {
  expect(direction(table, first, second)).toBe(expected);
});

it.each([
  ['_UserFollows', 'A', 'B'],
  ['friends', 'user1_id', 'user2_id'],
  ['follow_pairs', 'user_a', 'user_b'],
  ['profile_followers', 'from_profile_id', 'to_profile_id'],
  ['followers', 'user_id', 'target_user_id'],
  // Does the user subscribe to the creator, or did the creator make it for the user?
  ['subscriptions', 'user_id', 'creator_id'],
  ['follows', 'user_id', 'account_id'],
  ['connections', 'left_id', 'right_id'],
  ['follows', 'follower_id', 'subscriber_id'],
])('%s(%s, %s) could be either', (table, first, second) => {
  expect(direction(table, first, second)).toBeNull();
});
