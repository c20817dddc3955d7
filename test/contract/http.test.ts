/** CONTRACT §4: HTTP. */

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { http, Raw, startRig, token, until, type Rig } from './rig.js';

let rig: Rig;
beforeAll(async () => {
  rig = await startRig();
});
afterAll(() => rig.stop());

const comment = (user: string, post: string, content: string) =>
  rig.db.query('insert into public.comments (user_id, post_id, content) values ($1, $2, $3)', [user, post, content]);

/** An author with this many comments in the inbox. */
async function inboxOf(count: number): Promise<{ author: string; ada: string; post: string }> {
  const author = await rig.user('Grace');
  const ada = await rig.user('Ada');
  const post = await rig.post(author);
  await rig.db.query(
    `insert into public.comments (user_id, post_id, content) select $1, $2, 'c' || n from generate_series(1, $3::int) n`,
    [ada, post, count],
  );
  await until(
    'all are in',
    async () => (await http(rig, 'GET', '/api/notifications', { as: author })).body['seq'] === count,
  );
  return { author, ada, post };
}

const problem = (status: number) => ({
  type: expect.any(String) as string,
  title: expect.any(String) as string,
  status,
  detail: expect.any(String) as string,
  code: expect.any(String) as string,
});

describe('errors', () => {
  const calls: [string, string][] = [
    ['GET', '/api/notifications'],
    ['POST', '/api/ws/test-notification'],
    ['POST', '/api/notifications/seen'],
    ['GET', '/api/notifications/preferences'],
    ['PUT', '/api/notifications/preferences'],
    ['GET', '/api/presence?users=1'],
  ];
  it.each(calls)('%s %s without or with a bad token: 401, as problem+json', async (method, path) => {
    for (const bad of [undefined, 'garbage', token('1', -5)]) {
      const answer = await http(rig, method, path, bad === undefined ? {} : { token: bad });
      expect(answer.status).toBe(401);
      expect(answer.headers.get('content-type')).toMatch(/^application\/problem\+json/);
      expect(answer.body).toMatchObject({ ...problem(401), code: 'unauthorized' });
    }
  });

  it('an unknown path: 404', async () => {
    const answer = await http(rig, 'GET', '/api/nothing', { as: '1' });
    expect(answer.status).toBe(404);
    expect(answer.body).toMatchObject({ ...problem(404), code: 'not_found' });
  });
});

describe('a query that cannot be meant', () => {
  it.each(['limit=0', 'limit=101', 'limit=many', 'state=gone', 'before=garbage', 'before=-1'])(
    'GET /api/notifications?%s: 400',
    async (query) => {
      const answer = await http(rig, 'GET', `/api/notifications?${query}`, { as: '1' });
      expect(answer.status).toBe(400);
      expect(answer.body).toMatchObject({ ...problem(400), code: 'bad_request' });
    },
  );
});

describe('GET /api/ws/status', () => {
  it('is open to all and counts connections and users', async () => {
    const user = await rig.user();
    const before = (await http(rig, 'GET', '/api/ws/status')).body as { connections: number; users: number };
    const sessions = [await Raw.session(rig, user), await Raw.session(rig, user)];
    const { status, body } = await http(rig, 'GET', '/api/ws/status');
    expect(status).toBe(200);
    expect(body).toEqual({
      status: 'ok',
      connections: before.connections + 2,
      users: before.users + 1,
      version: expect.any(String) as string,
      uptime_s: expect.any(Number) as number,
    });
    for (const raw of sessions) raw.end();
  });
});

describe('POST /api/ws/test-notification', () => {
  it('notifies the caller', async () => {
    const user = await rig.user();
    const raw = await Raw.session(rig, user);
    const { status, body } = await http(rig, 'POST', '/api/ws/test-notification', {
      as: user,
      body: { message: 'Test notification' },
    });
    expect(status).toBe(202);
    expect(body).toEqual({ id: expect.stringMatching(/^\d+$/) as string });
    expect((await raw.event('notification')).data).toMatchObject({ type: 'system', message: 'Test notification' });
    raw.end();
  });

  it.each([{}, { message: 5 }, 'x'])('%j: 400', async (body) => {
    const answer = await http(rig, 'POST', '/api/ws/test-notification', { as: await rig.user(), body });
    expect(answer.status).toBe(400);
    expect(answer.body).toMatchObject(problem(400));
  });
});

describe('GET /api/notifications', () => {
  it('gives pages, newest first, that neither repeat nor skip while new ones arrive', async () => {
    const { author, ada, post } = await inboxOf(45);
    const first = await http(rig, 'GET', '/api/notifications', { as: author });
    expect(first.status).toBe(200);
    expect(first.body).toMatchObject({
      unseen: 45,
      unread: 45,
      seq: 45,
      epoch: expect.any(String) as string,
    });
    expect(first.body['items']).toHaveLength(20);
    const contents: string[] = [];
    let page = first;
    for (;;) {
      contents.push(...(page.body['items'] as { id: string }[]).map(({ id }) => id));
      const next = page.body['next'] as string | null;
      if (next === null) break;
      await comment(ada, post, 'late');
      page = await http(rig, 'GET', `/api/notifications?before=${encodeURIComponent(next)}`, { as: author });
    }
    expect(contents).toHaveLength(45);
    expect(new Set(contents).size).toBe(45);
    expect([...contents].sort((a, b) => Number(b) - Number(a))).toEqual(contents);
  });

  it('is for no cache', async () => {
    const { headers } = await http(rig, 'GET', '/api/notifications', { as: await rig.user('Uma') });
    expect(headers.get('cache-control')).toBe('no-store');
  });

  it('counts at most 100 and says that there are more', async () => {
    const { author } = await inboxOf(120);
    const { body } = await http(rig, 'GET', '/api/notifications?limit=1', { as: author });
    expect(body).toMatchObject({ unseen: 100, unread: 100, hasMore: true });
    expect(body['items']).toHaveLength(1);
  });

  it.each(['limit=0', 'limit=101', 'limit=x', 'before=nonsense', 'state=odd'])('%s: refused', async (query) => {
    const answer = await http(rig, 'GET', `/api/notifications?${query}`, { as: await rig.user() });
    expect(answer.status).toBe(400);
    expect(answer.body).toMatchObject({ ...problem(400), code: 'bad_request' });
  });

  it('filters by state, and leaves out what is archived unless asked', async () => {
    const { author } = await inboxOf(4);
    const list = async (state: string) =>
      ((await http(rig, 'GET', `/api/notifications${state}`, { as: author })).body['items'] as { id: string }[]).map(
        ({ id }) => id,
      );
    const [a = '', b = '', c = '', d = ''] = await list('');
    await http(rig, 'POST', '/api/notifications/seen', { as: author, body: { ids: [b] } });
    await http(rig, 'POST', '/api/notifications/read', { as: author, body: { ids: [c] } });
    await http(rig, 'POST', '/api/notifications/archive', { as: author, body: { ids: [d] } });
    expect((await list('')).sort()).toEqual([a, b, c].sort());
    expect(await list('?state=unseen')).toEqual([a]);
    expect((await list('?state=unread')).sort()).toEqual([a, b].sort());
    expect(await list('?state=archived')).toEqual([d]);
  });
});

describe('POST /api/notifications/seen|read|archive', () => {
  it('answers with the numbers, and tells every socket of the user', async () => {
    const { author } = await inboxOf(3);
    const raw = await Raw.session(rig, author);
    const answer = await http(rig, 'POST', '/api/notifications/read', { as: author, body: { through: 2 } });
    expect(answer.status).toBe(200);
    expect(answer.body).toEqual({ unseen: 1, unread: 1 });
    expect(await raw.event('state')).toMatchObject({ seq: 4, data: { through: 2, state: 'read' } });
    expect((await raw.event('badge')).data).toEqual({ unseen: 1, unread: 1 });
    raw.end();
  });

  it.each([{}, { ids: 'x' }, { through: -1 }, { ids: ['1'], through: 1 }])('%j: 400', async (body) => {
    const answer = await http(rig, 'POST', '/api/notifications/seen', { as: await rig.user(), body });
    expect(answer.status).toBe(400);
    expect(answer.body).toMatchObject(problem(400));
  });
});

describe('preferences', () => {
  it('are read, changed, and heeded', async () => {
    const author = await rig.user('Grace');
    const ada = await rig.user('Ada');
    const post = await rig.post(author);
    const before = await http(rig, 'GET', '/api/notifications/preferences', { as: author });
    expect(before.status).toBe(200);
    expect(before.body).toMatchObject({ like: 'on', comment: 'on', follow: 'on' });
    const changed = await http(rig, 'PUT', '/api/notifications/preferences', { as: author, body: { comment: 'off' } });
    expect(changed.status).toBe(200);
    expect((await http(rig, 'GET', '/api/notifications/preferences', { as: author })).body).toMatchObject({
      like: 'on',
      comment: 'off',
    });
    const raw = await Raw.session(rig, author);
    await comment(ada, post, 'unheard');
    await rig.db.query('insert into public.likes values ($1, $2)', [ada, post]);
    expect((await raw.event('notification')).data).toMatchObject({ type: 'like' });
    raw.end();
  });

  it.each([{ like: 'maybe' }, { like: 1 }, { nonsense: 'on' }, [], 'x'])('%j is refused', async (body) => {
    const answer = await http(rig, 'PUT', '/api/notifications/preferences', { as: await rig.user(), body });
    expect([400, 404]).toContain(answer.status);
    expect(answer.body).toMatchObject(problem(answer.status));
  });
});

describe('GET /api/presence', () => {
  it('tells whom the caller may see; everybody else is offline', async () => {
    const [follower, followed, stranger] = [await rig.user(), await rig.user(), await rig.user()];
    await rig.db.query('insert into public.follows values ($1, $2)', [follower, followed]);
    const sessions = [await Raw.session(rig, followed), await Raw.session(rig, stranger)];
    const { status, body } = await http(rig, 'GET', `/api/presence?users=${followed},${stranger},999999`, {
      as: follower,
    });
    expect(status).toBe(200);
    expect(body).toEqual({ [followed]: 'online', [stranger]: 'offline', 999999: 'offline' });
    for (const raw of sessions) raw.end();
  });
});

describe('operations', () => {
  it('/healthz and /readyz answer 200', async () => {
    expect((await http(rig, 'GET', '/healthz')).status).toBe(200);
    expect((await http(rig, 'GET', '/readyz')).status).toBe(200);
  });

  it('/metrics speaks Prometheus to loopback', async () => {
    const answer = await http(rig, 'GET', '/metrics');
    expect(answer.status).toBe(200);
    expect(answer.headers.get('content-type')).toMatch(/text\/plain/);
    expect(answer.body as unknown as string).toMatch(/^# HELP belfry_/m);
  });

  it('CORS for server.origins, and for nobody else', async () => {
    const preflight = (origin: string) =>
      http(rig, 'OPTIONS', '/api/notifications', {
        headers: { origin, 'access-control-request-method': 'GET', 'access-control-request-headers': 'authorization' },
      });
    const allowed = await preflight('https://app.example');
    expect(allowed.status).toBeLessThan(300);
    expect(allowed.headers.get('access-control-allow-origin')).toBe('https://app.example');
    expect(allowed.headers.get('access-control-allow-headers')?.toLowerCase()).toContain('authorization');
    expect((await preflight('https://evil.example')).headers.get('access-control-allow-origin')).toBeNull();
  });
});

describe('limits and the end', () => {
  it('httpPerMinute: 429 with Retry-After', async () => {
    const own = await startRig('limits: { httpPerMinute: 30 }');
    try {
      const user = await own.user();
      const answers = [];
      for (let i = 0; i < 60; i++) answers.push(await http(own, 'GET', '/api/notifications', { as: user }));
      const refused = answers.find(({ status }) => status === 429);
      expect(refused?.body).toMatchObject({ ...problem(429), code: 'rate_limited' });
      expect(Number(refused?.headers.get('retry-after'))).toBeGreaterThan(0);
      expect(answers[0]?.status).toBe(200);
    } finally {
      await own.stop();
    }
  });

  it('SIGTERM: unready at once, sessions sent away with 1012, over within 30 s, exit 0', async () => {
    const own = await startRig();
    try {
      const raw = await Raw.session(own, await own.user());
      const seen: number[] = [];
      own.program.child.kill('SIGTERM');
      await until('gone', async () => {
        const answer = await fetch(`${own.http}/readyz`).catch(() => null);
        if (answer !== null) seen.push(answer.status);
        return answer === null;
      });
      expect(new Set(seen.slice(1))).toEqual(seen.length > 1 ? new Set([503]) : new Set());
      expect([1001, 1012, 1006]).toContain((await raw.close()).code);
      expect(await own.program.exit).toEqual({ code: 0, signal: null });
    } finally {
      await own.stop();
    }
  }, 40_000);
});
