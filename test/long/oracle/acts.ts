/** What people do, as a backend would write it; what each statement really changed goes to the model. */

import type pg from 'pg';
import type { Effect, Kind, Relation, Row } from './model.js';

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
  if (dice < 0.33) return like(actor, post, author);
  if (dice < 0.5) return unlike(actor, post);
  if (dice < 0.66) return comment(actor, post, author);
  if (dice < 0.76 && theirs.length > 0) return comments(random, pick(random, theirs));
  if (dice < 0.9) return follow(actor, other);
  return unfollow(actor, other);
}

/** Something that concerns what others did as well. */
export function wishAct(random: Random, town: Town): Act {
  const { people, posts } = town;
  const a = pick(random, people);
  const others = people.filter((one) => one !== a);
  const b = pick(random, others);
  const [post, author] = pick(random, [...posts]);
  const on = random() < 0.5;
  switch (Math.floor(random() * 8)) {
    case 0:
    case 1:
    case 2:
      return stand(on, 'block', [a, b]);
    case 3:
    case 4:
      return stand(on, 'mute', [a, b]);
    case 5:
      return stand(on, 'threadMute', [author, post]);
    case 6:
      return {
        what: `${a} turns notifications ${on ? 'on' : 'off'}`,
        sql: 'update users set notifications_enabled = $2 where id = $1 returning id',
        values: [a, on],
        effects: () => [{ does: 'wants', user: a, kind: null, on }],
      };
    default:
      return {
        what: `post ${post} is deleted`,
        sql: 'delete from posts where id = $1 returning id',
        values: [post],
        effects: () => [{ does: 'removePost', post }],
      };
  }
}

/** Somebody does something, is blocked (or blocks) for it, and is forgiven at once. */
export function quarrel(random: Random, town: Town): Act[] {
  const actor = pick(random, town.people);
  const [post, author] = pick(random, [...town.posts]);
  const cause = pick(random, [like(actor, post, author), comment(actor, post, author), follow(actor, author)]);
  if (actor === author) return [cause];
  const sides: readonly [string, string] = random() < 0.5 ? [author, actor] : [actor, author];
  const name = pick(random, ['block', 'block', 'mute'] as const);
  return [cause, stand(true, name, sides), rowAct(random, town, town.people), stand(false, name, sides)];
}

const like = (actor: string, post: string, author: string): Act => ({
  what: `${actor} likes ${post} of ${author}`,
  sql: 'insert into likes (user_id, post_id) values ($1, $2) on conflict do nothing returning post_id as id',
  values: [actor, post],
  effects: (rows) => rows.map(() => added('like', `like ${actor} ${post}`, actor, author, { post })),
});

const unlike = (actor: string, post: string): Act => ({
  what: `${actor} unlikes ${post}`,
  sql: 'delete from likes where user_id = $1 and post_id = $2 returning post_id as id',
  values: [actor, post],
  effects: (rows) => rows.map(() => ({ does: 'remove', key: `like ${actor} ${post}` })),
});

const follow = (actor: string, followed: string): Act => ({
  what: `${actor} follows ${followed}`,
  sql: 'insert into follows (follower_id, followed_id) values ($1, $2) on conflict do nothing returning followed_id as id',
  values: [actor, followed],
  effects: (rows) => rows.map(() => added('follow', `follow ${actor} ${followed}`, actor, followed, {})),
});

const unfollow = (actor: string, followed: string): Act => ({
  what: `${actor} unfollows ${followed}`,
  sql: 'delete from follows where follower_id = $1 and followed_id = $2 returning followed_id as id',
  values: [actor, followed],
  effects: (rows) => rows.map(() => ({ does: 'remove', key: `follow ${actor} ${followed}` })),
});

const comment = (actor: string, post: string, author: string): Act => ({
  what: `${actor} comments ${post} of ${author}`,
  sql: `insert into comments (user_id, post_id, content) values ($1, $2, 'hello') returning id`,
  values: [actor, post],
  effects: (rows) => rows.map(({ id }) => added('comment', `comment ${id}`, actor, author, { post, comment: id })),
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

const relations = {
  block: ['blocks', 'blocker_id', 'blocked_id'],
  mute: ['mutes', 'muter_id', 'muted_id'],
  threadMute: ['thread_mutes', 'user_id', 'post_id'],
} as const;

/** A block or mute begins or ends. */
function stand(on: boolean, name: Relation, [a, b]: readonly [string, string]): Act {
  const [table, from, to] = relations[name];
  return {
    what: `${name} of ${b} by ${a} ${on ? 'begins' : 'ends'}`,
    sql: on
      ? `insert into ${table} (${from}, ${to}) values ($1, $2) on conflict do nothing returning ${to} as id`
      : `delete from ${table} where ${from} = $1 and ${to} = $2 returning ${to} as id`,
    values: [a, b],
    effects: (rows) => rows.map(() => ({ does: on ? 'set' : 'lift', relation: name, from: a, to: b })),
  };
}

const added = (
  kind: Kind,
  key: string,
  actor: string,
  recipient: string,
  { post = null, comment = null }: { readonly post?: string | null; readonly comment?: string | null },
): Effect => ({ does: 'add', row: { kind, key, actor, recipient, post, comment } });

/** Runs it; returns what it changed once the transaction is committed. */
export async function run(client: pg.ClientBase, act: Act): Promise<readonly Effect[]> {
  const { rows } = await client.query<{ id: string }>(act.sql, [...act.values]);
  return act.effects(rows);
}
