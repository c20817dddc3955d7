/** The demo's social app as tests use it: its tables, a config for them, and people who do things. */
import { readFileSync } from 'node:fs';
import type pg from 'pg';
import { parse, stringify } from 'yaml';

export const socialSql = readFileSync(new URL('../../src/embedded/social.sql', import.meta.url), 'utf8');

const socialYaml = readFileSync(new URL('../../src/embedded/social.yaml', import.meta.url), 'utf8');

export const testSecret = 'a-secret-for-tests-that-is-long-enough-0123456789';

/**
 * The demo's Belfry config for another database, as YAML text; its server takes a free port. `overrides` (YAML text or the value)
 * replace or add top-level keys.
 */
export function socialConfig(databaseUrl: string, overrides: string | Readonly<Record<string, unknown>> = {}): string {
  const config = parse(socialYaml) as Record<string, unknown>;
  return stringify({
    ...config,
    database: { url: databaseUrl },
    server: { host: '127.0.0.1', port: 0 },
    auth: { secret: testSecret },
    ...(typeof overrides === 'string' ? (parse(overrides) as Record<string, unknown> | null) : overrides),
  });
}

type Db = pg.Pool | pg.ClientBase;

/** Inserts people; returns their ids in the order of the names. */
export async function addUsers(db: Db, ...names: readonly string[]): Promise<string[]> {
  const { rows } = await db.query<{ id: string }>(
    `insert into public.users (full_name)
     select name from unnest($1::text[]) with ordinality as t (name, n) order by n
     returning id`,
    [names],
  );
  return rows.map((row) => row.id);
}

/** Inserts a post; returns its id. */
export async function addPost(db: Db, userId: string, body = 'a post'): Promise<string> {
  return id(
    await db.query<{ id: string }>('insert into public.posts (user_id, body) values ($1, $2) returning id', [
      userId,
      body,
    ]),
  );
}

/** Inserts a comment; returns its id. */
export async function addComment(db: Db, postId: string, userId: string, content = 'a comment'): Promise<string> {
  return id(
    await db.query<{ id: string }>(
      'insert into public.comments (post_id, user_id, content) values ($1, $2, $3) returning id',
      [postId, userId, content],
    ),
  );
}

export async function like(db: Db, userId: string, postId: string): Promise<void> {
  await db.query('insert into public.likes (user_id, post_id) values ($1, $2)', [userId, postId]);
}

export async function unlike(db: Db, userId: string, postId: string): Promise<void> {
  await db.query('delete from public.likes where user_id = $1 and post_id = $2', [userId, postId]);
}

export async function follow(db: Db, followerId: string, followedId: string): Promise<void> {
  await db.query('insert into public.follows (follower_id, followed_id) values ($1, $2)', [followerId, followedId]);
}

export async function block(db: Db, blockerId: string, blockedId: string): Promise<void> {
  await db.query('insert into public.blocks (blocker_id, blocked_id) values ($1, $2)', [blockerId, blockedId]);
}

function id(result: pg.QueryResult<{ id: string }>): string {
  const row = result.rows[0];
  if (row === undefined) throw new Error('nothing was inserted');
  return row.id;
}
