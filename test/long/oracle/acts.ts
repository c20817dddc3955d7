/** What people do, as a backend would write it; what each statement really changed goes to the model. */

import type pg from 'pg';
import { followKey, type Effect, type Relation, type Row } from './model.js';

/** Numbers from 0 to 1. */
export type Random = () => number;

export const pick = <T>(random: Random, list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;

/** The people and posts of a round. */
export interface Town {
  readonly people: readonly string[];
  /** Post to its author; what is deleted is no longer in it. */
  readonly posts: Map<string, string>;
  /** Comments that were committed, hidden ones too. */
  readonly comments: Map<string, Row>;
}

type Pair = readonly [string, string];

/** Something to be done by a statement, within a transaction. */
export interface Act {
  readonly what: string;
  readonly sql: string;
  readonly values: readonly unknown[];
  /** What came of it, by the rows that the statement gave back. */
  readonly effects: (rows: readonly { readonly id: string }[]) => readonly Effect[];
}

/** Something of somebody among `actors` that changes rows and nobody's wishes, so that it may run beside the acts of others. */
export function rowAct(random: Random, town: Town, actors: readonly string[]): Act {
  const actor = pick(random, actors);
  const [post, author] = pick(random, [...town.posts]);
  const other = pick(random, town.people);
  const theirs = [...town.comments.values()].filter((row) => actors.includes(row.actor));
  const dice = random();
  if (dice < 0.5) return like(dice < 0.33, actor, post, author);
  if (dice < 0.66) return comment(actor, post, author);
  if (dice < 0.76 && theirs.length > 0) return comments(random, pick(random, theirs));
  return follow(dice < 0.9, actor, other);
}

/** Something that concerns what others did as well. */
export function wishAct(random: Random, town: Town): Act {
  const { people, posts } = town;
  const a = pick(random, people);
  const b = pick(
    random,
    people.filter((one) => one !== a),
  );
  const [post, author] = pick(random, [...posts]);
  const on = random() < 0.5;
  const dice = random();
  if (dice < 0.4) return stand(on, 'block', [a, b]);
  if (dice < 0.6) return stand(on, 'mute', [a, b]);
  if (dice < 0.72) return random() < 0.4 ? suspend(a) : reinstate(people);
  if (dice < 0.78) return stand(on, 'threadMute', [author, post]);
  if (dice < 0.87)
    return {
      what: `${a} turns notifications ${on ? 'on' : 'off'}`,
      sql: 'update users set notifications_enabled = $2 where id = $1',
      values: [a, on],
      effects: () => [{ does: 'enables', user: a, on }],
    };
  return {
    what: `${post} is deleted`,
    sql: 'delete from posts where id = $1',
    values: [post],
    effects: () => [{ does: 'removePost', post }],
  };
}

/** Somebody does something, is blocked (or blocks, or is suspended) for it, and is forgiven at once. */
export function quarrel(random: Random, town: Town): Act[] {
  const actor = pick(random, town.people);
  const [post, author] = pick(random, [...town.posts]);
  const cause = pick(random, [
    like(true, actor, post, author),
    comment(actor, post, author),
    follow(true, actor, author),
  ]);
  if (actor === author) return [cause];
  const sides: Pair = random() < 0.5 ? [author, actor] : [actor, author];
  const name = pick(random, ['block', 'block', 'mute', 'suspend'] as const);
  const [penalty, pardon] =
    name === 'suspend' ? [suspend(actor), reinstate([actor])] : [stand(true, name, sides), stand(false, name, sides)];
  // What it takes back meanwhile comes again after the quarrel.
  const again = random() < 0.3;
  const [first, last] = again ? [like(false, actor, post, author), [like(true, actor, post, author)]] : [cause, []];
  return [first, penalty, rowAct(random, town, town.people), pardon, ...last];
}

/** A row that is there or not: the tables of pairs, with the names of their columns. */
const pairs = {
  like: ['likes', 'user_id', 'post_id'],
  follow: ['follows', 'follower_id', 'followed_id'],
  block: ['blocks', 'blocker_id', 'blocked_id'],
  mute: ['mutes', 'muter_id', 'muted_id'],
  threadMute: ['thread_mutes', 'user_id', 'post_id'],
} as const;

function pairAct(on: boolean, name: keyof typeof pairs, [a, b]: Pair, effect: Effect): Act {
  const [table, from, to] = pairs[name];
  return {
    what: `${a} ${on ? '' : 'un'}${name}s ${b}`,
    sql: on
      ? `insert into ${table} (${from}, ${to}) values ($1, $2) on conflict do nothing returning ${to} as id`
      : `delete from ${table} where ${from} = $1 and ${to} = $2 returning ${to} as id`,
    values: [a, b],
    effects: (rows) => rows.map(() => effect),
  };
}

const stand = (on: boolean, relation: Relation, [from, to]: Pair): Act =>
  pairAct(on, relation, [from, to], { does: on ? 'set' : 'lift', relation, from, to });

/** No event tells of either: the application only marks the account. */
const suspend = (user: string): Act => ({
  what: `${user} is suspended`,
  sql: 'update users set deleted_at = now() where id = $1 and deleted_at is null returning id',
  values: [user],
  effects: (rows) => rows.map(() => ({ does: 'account', user, active: false })),
});

/** Whoever of these is suspended is so no longer. */
const reinstate = (people: readonly string[]): Act => ({
  what: `of ${people.join(', ')} nobody is suspended any more`,
  sql: 'update users set deleted_at = null where id = any($1) and deleted_at is not null returning id',
  values: [people],
  effects: (rows) => rows.map(({ id }) => ({ does: 'account', user: id, active: true })),
});

function like(on: boolean, actor: string, post: string, recipient: string): Act {
  const row: Row = { kind: 'like', key: `like ${actor} ${post}`, actor, recipient, post, comment: null };
  return pairAct(on, 'like', [actor, post], on ? { does: 'add', row } : { does: 'remove', key: row.key });
}

function follow(on: boolean, actor: string, recipient: string): Act {
  const row: Row = { kind: 'follow', key: followKey(actor, recipient), actor, recipient, post: null, comment: null };
  return pairAct(on, 'follow', [actor, recipient], on ? { does: 'add', row } : { does: 'remove', key: row.key });
}

const comment = (actor: string, post: string, recipient: string): Act => ({
  what: `${actor} comments ${post}`,
  sql: `insert into comments (user_id, post_id, content) values ($1, $2, 'hello') returning id`,
  values: [actor, post],
  effects: (rows) =>
    rows.map(({ id }) => ({
      does: 'add',
      row: { kind: 'comment', key: `comment ${id}`, actor, recipient, post, comment: id },
    })),
});

/** Deletes a comment, or hides it, or shows it again. */
function comments(random: Random, row: Row): Act {
  const id = row.comment;
  const [what, sql, effect] = pick(random, [
    ['is deleted', 'delete from comments where id = $1 returning id', 'remove'],
    ['is hidden', 'update comments set deleted_at = now() where id = $1 and deleted_at is null returning id', 'remove'],
    ['is shown', 'update comments set deleted_at = null where id = $1 and deleted_at is not null returning id', 'add'],
  ] as const);
  return {
    what: `comment ${id ?? ''} ${what}`,
    sql,
    values: [id],
    effects: (rows) => rows.map(() => (effect === 'add' ? { does: 'add', row } : { does: 'remove', key: row.key })),
  };
}

/** Runs it; returns what it changed once the transaction is committed. */
export async function run(client: pg.ClientBase, act: Act): Promise<readonly Effect[]> {
  const { rows } = await client.query<{ id: string }>(act.sql, [...act.values]);
  return act.effects(rows);
}
