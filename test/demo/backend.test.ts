/** The demo's backend: what it writes, what it refuses, and that it has no right on anything of Belfry's. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { createBackend, type Write } from '../../src/embedded/backend.js';
import { backendRole, type People, settlePeople } from '../../src/embedded/people.js';
import { createPool } from '../../src/postgres/connect.js';
import { createTestDatabase, type TestDatabase } from '../support/postgres.js';

const page = 'http://localhost:10000';
let database: TestDatabase;
let people: People;
let pool: pg.Pool;
let server: Server;
let base: string;
let writes: Write[] = [];

beforeAll(async () => {
  database = await createTestDatabase();
  people = await settlePeople(await database.client());
  pool = createPool(database.url, { applicationName: 'test', max: 2, session: { role: backendRole } });
  const backend = createBackend({
    pool,
    feedOf: people.cast.map(({ id }) => id),
    origins: [page],
    onWrite: (write) => writes.push(write),
  });
  server = createServer((request, response) => void backend(request, response));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

afterAll(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await pool.end();
  await database.drop();
});

beforeEach(() => {
  writes = [];
});

async function call(method: string, path: string, body?: string, headers: Record<string, string> = {}) {
  const response = await fetch(base + path, {
    method,
    headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
    ...(body === undefined ? {} : { body }),
  });
  return { status: response.status, headers: response.headers, body: await response.json().catch(() => null) };
}

interface Post {
  readonly id: string;
  readonly name: string;
  readonly liked: boolean;
  readonly likes_count: number;
  readonly comments_count: number;
  readonly comments: readonly { id: string; name: string; content: string }[];
}

async function postOf(author: string, as: string): Promise<Post> {
  const { body } = await call('GET', `/demo/feed?as=${as}`);
  const posts = body.posts as Post[];
  return posts.find(({ name }) => name === author)!;
}

describe('writes', () => {
  test('a like is one row, told once, and taken back', async () => {
    const ada = people.cast[0]!.id;
    const before = await postOf('Bo', ada);
    expect(before.liked).toBe(false);
    expect(await call('POST', `/demo/posts/${before.id}/like?as=${ada}&request=r1`)).toMatchObject({
      status: 200,
      body: { changed: true },
    });
    expect(await call('POST', `/demo/posts/${before.id}/like?as=${ada}`)).toMatchObject({ body: { changed: false } });
    expect(await postOf('Bo', ada)).toMatchObject({ liked: true, likes_count: before.likes_count + 1 });
    expect(writes).toMatchObject([{ requestId: 'r1', table: 'likes', op: 'insert', actorId: ada }]);
    expect(writes[0]!.committedAtMs).toBeGreaterThan(writes[0]!.receivedAtMs);
    await call('POST', `/demo/posts/${before.id}/unlike?as=${ada}`);
    expect(await postOf('Bo', ada)).toMatchObject({ liked: false, likes_count: before.likes_count });
    expect(writes[1]).toMatchObject({ op: 'delete' });
  });

  test('a comment is stored as it was written, and deleted by its author only', async () => {
    const [ada, bo] = people.cast.map(({ id }) => id);
    const post = await postOf('Cleo', ada!);
    const content = `<b>'; drop table users; --</b> ünïcode 🔔`;
    const made = await call('POST', `/demo/posts/${post.id}/comment?as=${ada}`, JSON.stringify({ content }));
    expect(made).toMatchObject({ status: 200, body: { changed: true } });
    expect((await postOf('Cleo', ada!)).comments.at(-1)).toMatchObject({ name: 'Ada', content });
    expect(await call('DELETE', `/demo/comments/${made.body.id}?as=${bo}`)).toMatchObject({ status: 404 });
    expect(await call('DELETE', `/demo/comments/${made.body.id}?as=${ada}`)).toMatchObject({ status: 200 });
    expect((await postOf('Cleo', ada!)).comments_count).toBe(post.comments_count);
  });

  test('follow and block go there and back', async () => {
    const [ada, bo] = people.cast.map(({ id }) => id);
    const stands = async () => (await call('GET', `/demo/feed?as=${ada}`)).body.people[0];
    expect(await stands()).toMatchObject({ id: bo, following: false, blocked: false });
    await call('POST', `/demo/users/${bo}/follow?as=${ada}`);
    await call('POST', `/demo/users/${bo}/block?as=${ada}`);
    expect(await stands()).toMatchObject({ following: true, blocked: true });
    await call('POST', `/demo/users/${bo}/unfollow?as=${ada}`);
    await call('POST', `/demo/users/${bo}/unblock?as=${ada}`);
    expect(await stands()).toMatchObject({ following: false, blocked: false });
  });
});

describe('refusals', () => {
  const refused: readonly [what: string, status: number, method: string, path: string, body?: string][] = [
    ['nobody acts', 400, 'POST', '/demo/posts/1/like'],
    ['no id', 400, 'POST', '/demo/posts/1/like?as=ada'],
    ['an id beyond bigint', 400, 'POST', '/demo/posts/1/like?as=99999999999999999999'],
    ['no such post', 404, 'POST', '/demo/posts/999999/like?as=1'],
    ['no such person', 404, 'POST', '/demo/posts/1/like?as=999999'],
    ['no such page', 404, 'POST', '/demo/posts/1/poke?as=1'],
    ['wrong method', 405, 'GET', '/demo/posts/1/like?as=1'],
    ['oneself', 400, 'POST', '/demo/users/1/follow?as=1'],
    ['an empty comment', 400, 'POST', '/demo/posts/1/comment?as=1', '{"content":"  "}'],
    ['a comment too long', 400, 'POST', '/demo/posts/1/comment?as=1', JSON.stringify({ content: 'x'.repeat(281) })],
    ['a comment with NUL', 400, 'POST', '/demo/posts/1/comment?as=1', '{"content":"a\\u0000b"}'],
    ['a comment that is no text', 400, 'POST', '/demo/posts/1/comment?as=1', '{"content":7}'],
    ['no JSON', 400, 'POST', '/demo/posts/1/comment?as=1', '{'],
    ['no object', 400, 'POST', '/demo/posts/1/comment?as=1', '[]'],
    ['a body too large', 413, 'POST', '/demo/posts/1/comment?as=1', `{"content":"${'x'.repeat(5000)}"}`],
    ['a body of another type', 415, 'POST', '/demo/posts/1/comment?as=1'],
  ];
  test.each(refused)('%s: %i', async (_what, status, method, path, body) => {
    const answer = await call(method, path, body);
    expect(answer).toMatchObject({ status, body: { error: expect.any(String) } });
    expect(writes).toEqual([]);
  });

  test('a page of a foreign origin may not call; the demo’s own may', async () => {
    expect(await call('POST', '/demo/posts/1/like?as=2', undefined, { origin: 'http://evil.example' })).toMatchObject({
      status: 403,
    });
    expect(writes).toEqual([]);
    const allowed = await call('GET', '/demo/feed?as=1', undefined, { origin: page });
    expect(allowed.status).toBe(200);
    expect(allowed.headers.get('access-control-allow-origin')).toBe(page);
    const preflight = await call('OPTIONS', '/demo/comments/1', undefined, { origin: page });
    expect(preflight.status).toBe(204);
    expect(preflight.headers.get('access-control-allow-methods')).toContain('DELETE');
  });
});

test('the backend’s role can’t reach schema belfry', async () => {
  await expect(pool.query('select from belfry.outbox')).rejects.toThrow(/permission denied/);
});

test('people are settled once', async () => {
  const again = await settlePeople(await database.client());
  expect(again).toEqual(people);
  expect(people.cast.map(({ name }) => name)).toEqual(['Ada', 'Bo', 'Cleo']);
  expect(people.crowd).toHaveLength(300);
});
