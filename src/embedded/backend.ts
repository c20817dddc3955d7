/**
 * The backend of the demo's social app. It knows nothing of Belfry: it answers HTTP and writes its own tables, and that is
 * all. What rings on the page afterwards comes from the database alone.
 *
 * What must hold: every write is one statement, committed when it returns; every input is checked; a foreign Origin is
 * refused, since there is no login (`?as=ID` says who acts; the demo binds to the loopback address only).
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import pg from 'pg';
import { nowMs } from '../clock.js';
import { allowOrigin, readJson, Refusal, sendJson, sendRefusal } from './http.js';

/** One committed write, for whoever measures: an access log, in effect. Times: by `nowMs`. */
export interface Write {
  /** As the request gave it (`?request=…`), or null. */
  readonly requestId: string | null;
  readonly table: 'likes' | 'comments' | 'follows' | 'blocks';
  readonly op: 'insert' | 'delete';
  readonly actorId: string;
  readonly receivedAtMs: number;
  /** When the statement had returned, so after its commit. */
  readonly committedAtMs: number;
}

export interface BackendOptions {
  readonly pool: pg.Pool;
  /** The feed shows the posts of these people, and how one stands to them. */
  readonly feedOf: readonly string[];
  /** Origins of pages that may call; a request without an Origin (curl) may too. */
  readonly origins: readonly string[];
  readonly onWrite: (write: Write) => void;
}

interface WriteRoute extends Pick<Write, 'table' | 'op'> {
  readonly method: 'POST' | 'DELETE';
  readonly path: RegExp;
  /** $1 is who acts, $2 the id in the path, $3 the content where there is one. */
  readonly sql: string;
  readonly withContent?: true;
  /** For routes where nothing changed means that the request was wrong. */
  readonly unlessChanged?: string;
  readonly notOneself?: true;
}

const maxCommentLength = 280;

const writeRoutes: readonly WriteRoute[] = [
  {
    method: 'POST',
    path: /^\/demo\/posts\/(\d{1,18})\/like$/,
    table: 'likes',
    op: 'insert',
    sql: 'insert into likes (user_id, post_id) values ($1, $2) on conflict do nothing',
  },
  {
    method: 'POST',
    path: /^\/demo\/posts\/(\d{1,18})\/unlike$/,
    table: 'likes',
    op: 'delete',
    sql: 'delete from likes where user_id = $1 and post_id = $2',
  },
  {
    method: 'POST',
    path: /^\/demo\/posts\/(\d{1,18})\/comment$/,
    table: 'comments',
    op: 'insert',
    sql: 'insert into comments (user_id, post_id, content) values ($1, $2, $3) returning id',
    withContent: true,
  },
  {
    method: 'DELETE',
    path: /^\/demo\/comments\/(\d{1,18})$/,
    table: 'comments',
    op: 'delete',
    sql: 'delete from comments where user_id = $1 and id = $2',
    unlessChanged: 'There is no such comment of yours.',
  },
  {
    method: 'POST',
    path: /^\/demo\/users\/(\d{1,18})\/follow$/,
    table: 'follows',
    op: 'insert',
    sql: 'insert into follows (follower_id, followed_id) values ($1, $2) on conflict do nothing',
    notOneself: true,
  },
  {
    method: 'POST',
    path: /^\/demo\/users\/(\d{1,18})\/unfollow$/,
    table: 'follows',
    op: 'delete',
    sql: 'delete from follows where follower_id = $1 and followed_id = $2',
  },
  {
    method: 'POST',
    path: /^\/demo\/users\/(\d{1,18})\/block$/,
    table: 'blocks',
    op: 'insert',
    sql: 'insert into blocks (blocker_id, blocked_id) values ($1, $2) on conflict do nothing',
    notOneself: true,
  },
  {
    method: 'POST',
    path: /^\/demo\/users\/(\d{1,18})\/unblock$/,
    table: 'blocks',
    op: 'delete',
    sql: 'delete from blocks where blocker_id = $1 and blocked_id = $2',
  },
];

/** Answers every request under `/demo/`; all else is 404. Never throws. */
export function createBackend(
  options: BackendOptions,
): (request: IncomingMessage, response: ServerResponse) => Promise<void> {
  return async (request, response) => {
    const receivedAtMs = nowMs();
    if (!allowOrigin(request, response, options.origins)) return;
    try {
      const url = new URL(request.url ?? '/', 'http://localhost');
      const as = url.searchParams.get('as') ?? '';
      if (!/^\d{1,18}$/.test(as)) throw new Refusal(400, 'as: the id of a person is needed.');
      if (request.method === 'GET' && url.pathname === '/demo/feed') {
        sendJson(response, 200, await readFeed(options.pool, as, options.feedOf));
        return;
      }
      const { route, id } = findRoute(request.method ?? '', url.pathname);
      if (route.notOneself === true && as === id) throw new Refusal(400, 'Not oneself.');
      const values = route.withContent === true ? [as, id, contentOf(await readJson(request))] : [as, id];
      const result = await options.pool.query<{ id?: string }>(route.sql, values);
      const changed = (result.rowCount ?? 0) > 0;
      if (changed) {
        const { table, op } = route;
        options.onWrite({
          requestId: url.searchParams.get('request'),
          table,
          op,
          actorId: as,
          receivedAtMs,
          committedAtMs: nowMs(),
        });
      } else if (route.unlessChanged !== undefined) {
        throw new Refusal(404, route.unlessChanged);
      }
      sendJson(response, 200, { changed, ...result.rows[0] });
    } catch (error) {
      sendRefusal(response, missingReference(error));
    }
  };
}

function findRoute(method: string, path: string): { route: WriteRoute; id: string } {
  const fitting = writeRoutes.filter((route) => route.path.test(path));
  const route = fitting.find((candidate) => candidate.method === method);
  if (route === undefined)
    throw fitting.length > 0 ? new Refusal(405, 'Wrong method.') : new Refusal(404, 'There is no such page.');
  return { route, id: route.path.exec(path)?.[1] ?? '' };
}

function contentOf(body: Readonly<Record<string, unknown>>): string {
  const { content } = body;
  const text = typeof content === 'string' ? content.trim() : '';
  if (text === '' || text.length > maxCommentLength || text.includes('\0')) {
    throw new Refusal(400, `content: 1 to ${maxCommentLength} letters are needed.`);
  }
  return text;
}

/** A foreign key that does not hold (23503) means that the post or the person is not there. */
function missingReference(error: unknown): unknown {
  if (error instanceof pg.DatabaseError && error.code === '23503')
    return new Refusal(404, 'There is no such post or person.');
  return error;
}

async function readFeed(pool: pg.Pool, as: string, of: readonly string[]): Promise<object> {
  const posts = await pool.query(
    `select p.id, p.user_id, u.full_name as name, p.body, p.created_at,
            (select count(*)::int from likes l where l.post_id = p.id)                                     as likes_count,
            (select count(*)::int from comments c where c.post_id = p.id and c.deleted_at is null)         as comments_count,
            exists (select from likes l where l.post_id = p.id and l.user_id = $1)                         as liked,
            coalesce((select json_agg(c order by c.id::bigint)
                      from (select c.id::text, c.user_id::text, a.full_name as name, c.content
                            from comments c join users a on a.id = c.user_id
                            where c.post_id = p.id and c.deleted_at is null
                            order by c.id desc limit 3) c), '[]')                                          as comments
     from posts p join users u on u.id = p.user_id
     where p.user_id = any($2)
     order by p.id desc`,
    [as, of],
  );
  const people = await pool.query(
    `select u.id, u.full_name as name,
            exists (select from follows f where f.follower_id = $1 and f.followed_id = u.id) as following,
            exists (select from blocks b where b.blocker_id = $1 and b.blocked_id = u.id)    as blocked
     from users u
     where u.id = any($2) and u.id <> $1
     order by u.id`,
    [as, of],
  );
  return { posts: posts.rows, people: people.rows };
}
