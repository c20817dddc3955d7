/**
 * Who may be shown what, reckoned from the social tables alone: an oracle that shares nothing with the rules, neither
 * their SQL nor their words. Used on everything that comes out of Belfry, and on what stands in its tables.
 */

import type pg from 'pg';

/** A notification as it is told, in a list or a frame. */
export interface Told {
  readonly id: string;
  readonly type: string;
  readonly user_id?: string;
  readonly post_id?: string;
  readonly message?: string;
  readonly data: {
    readonly state: string;
    readonly actor_count: number;
    readonly event_count: number;
    readonly actors: readonly { readonly id: string; readonly name: string }[];
  };
}

/** Why something must not be shown to somebody. Those of `lasting` are taken back once the relay has heard of them. */
export type Reason =
  'self' | 'blocked' | 'muted' | 'actor gone' | 'thread muted' | 'post gone' | 'owner blocked' | 'not for them';

export const lasting: ReadonlySet<Reason> = new Set(['self', 'blocked', 'muted', 'thread muted', 'post gone']);

export interface Society {
  /** About one person's deed on a post, if it is about one. */
  reasons(about: { recipient: string; actor: string | null; type: string; post: string | null }): Reason[];
  /** What is wrong with something that this person is shown; empty when all is well. */
  wrongWith(recipient: string, told: Told): string[];
}

interface Tables {
  readonly people: { id: string; full_name: string; gone: boolean }[] | null;
  readonly blocks: [string, string][] | null;
  readonly mutes: [string, string][] | null;
  readonly thread_mutes: [string, string][] | null;
  readonly posts: { id: string; owner: string; audience: string }[] | null;
  readonly follows: [string, string][] | null;
}

/** How things are now between these people. */
export async function lookAtSociety(pool: pg.Pool, people: readonly string[]): Promise<Society> {
  const { rows } = await pool.query<Tables>(
    `select (select json_agg(json_build_object('id', id::text, 'full_name', full_name, 'gone', deleted_at is not null)) from users where id = any($1)) as people,
            (select json_agg(json_build_array(blocker_id::text, blocked_id::text)) from blocks where blocker_id = any($1)) as blocks,
            (select json_agg(json_build_array(muter_id::text, muted_id::text)) from mutes where muter_id = any($1) and coalesce(expires_at > clock_timestamp(), true)) as mutes,
            (select json_agg(json_build_array(user_id::text, post_id::text)) from thread_mutes where user_id = any($1)) as thread_mutes,
            (select json_agg(json_build_object('id', id::text, 'owner', user_id::text, 'audience', audience)) from posts where user_id = any($1)) as posts,
            (select json_agg(json_build_array(follower_id::text, followed_id::text)) from follows where follower_id = any($1)) as follows`,
    [people],
  );
  const [tables] = rows;
  const has = (pairs: readonly [string, string][] | null | undefined, a: string, b: string): boolean =>
    (pairs ?? []).some(([x, y]) => x === a && y === b);
  const blocked = (a: string, b: string): boolean => has(tables?.blocks, a, b) || has(tables?.blocks, b, a);
  const present = new Map((tables?.people ?? []).map((person) => [person.id, person]));

  const reasons: Society['reasons'] = ({ recipient, actor, type, post }) => {
    const found: Reason[] = [];
    if (actor !== null) {
      if (actor === recipient) found.push('self');
      if (blocked(recipient, actor)) found.push('blocked');
      if (has(tables?.mutes, recipient, actor)) found.push('muted');
      if (present.get(actor)?.gone !== false) found.push('actor gone');
    }
    if (post !== null) {
      const where = tables?.posts?.find(({ id }) => id === post);
      if (where === undefined) found.push('post gone');
      else {
        if (blocked(recipient, where.owner)) found.push('owner blocked');
        const public_ = where.audience === 'public' || where.owner === recipient;
        if (type === 'mention' && !public_ && !has(tables?.follows, recipient, where.owner)) found.push('not for them');
      }
      if (has(tables?.thread_mutes, recipient, post)) found.push('thread muted');
    }
    return found;
  };

  return {
    reasons,
    wrongWith(recipient, told) {
      const { type, post_id: post = null, user_id: latest, data, message = '' } = told;
      const shown = data.actors.map(({ id }) => id);
      const wrong = [...new Set([...shown, ...(latest === undefined ? [] : [latest])])].flatMap((actor) =>
        reasons({ recipient, actor, type, post }).map((reason) => `shows ${actor}: ${reason}`),
      );
      // Few enough that everybody is shown: nobody is counted who may not be seen, and nobody is named.
      if (data.actor_count !== shown.length)
        wrong.push(`counts ${String(data.actor_count)}, shows ${shown.join(', ')}`);
      for (const { id, full_name: name } of present.values())
        if (!shown.includes(id) && message.includes(name)) wrong.push(`names ${id}: ${message}`);
      return wrong;
    },
  };
}
