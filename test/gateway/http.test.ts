/** The HTTP calls, on a real Postgres: answers, problems, limits, origins. */

import http from 'node:http';
import net from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createPool } from '../../src/postgres/connect.js';
import { startRig, tokenFor, type Rig } from './support.js';

let rig: Rig;
beforeAll(async () => {
  rig = await startRig({
    yaml: 'limits: { messageBytes: 2048 }',
    change: (config) => ({
      ...config,
      server: { ...config.server, origins: ['https://app.example'] },
      auth: { ...config.auth, adminClaim: { role: 'admin' } },
    }),
    gateway: { pages: (path) => (path === '/' ? { type: 'text/html', body: '<p>hello' } : null) },
  });
});
afterEach(() => rig.hangUp());
afterAll(() => rig.stop());

const post = (path: string, body: unknown, userId?: string): Promise<Response> =>
  rig.http(path, {
    method: 'POST',
    body: JSON.stringify(body),
    headers: { 'content-type': 'application/json' },
    ...(userId === undefined ? {} : { userId }),
  });

async function problemOf(response: Response): Promise<Record<string, unknown>> {
  expect(response.headers.get('content-type')).toBe('application/problem+json');
  const body = (await response.json()) as Record<string, unknown>;
  expect(Object.keys(body).sort()).toEqual(['code', 'detail', 'status', 'title', 'type']);
  expect(body['status']).toBe(response.status);
  return body;
}

describe('status', () => {
  it('is open to all and counts', async () => {
    await rig.login('1');
    await rig.login('1');
    const response = await rig.http('/api/ws/status');
    expect(response.status).toBe(200);
    expect(await response.json()).toMatchObject({
      status: 'ok',
      connections: 2,
      users: 1,
      version: '0.0.0-test',
      uptime_s: expect.any(Number) as number,
    });
  });

  it('says alive and ready', async () => {
    expect((await rig.http('/healthz')).status).toBe(200);
    expect((await rig.http('/readyz')).status).toBe(200);
    expect((await rig.http('/healthz', { method: 'HEAD' })).status).toBe(200);
  });
});

describe('notifications', () => {
  it('lists them page by page', async () => {
    for (let i = 0; i < 3; i++) await rig.notification('10', `n${i}`);
    const page = (await (await rig.http('/api/notifications?limit=2', { userId: '10' })).json()) as {
      items: { message: string }[];
      next: string;
    };
    expect(page).toMatchObject({ unseen: 3, unread: 3, hasMore: true, seq: 3 });
    expect(page.items.map(({ message }) => message)).toEqual(['n2', 'n1']);
    const rest = await (await rig.http(`/api/notifications?limit=2&before=${page.next}`, { userId: '10' })).json();
    expect(rest).toMatchObject({ hasMore: false, next: null, items: [{ message: 'n0' }] });
  });

  it.each(['limit=0', 'limit=101', 'limit=x', 'state=new', 'limit='])('refuses ?%s', async (query) => {
    const response = await rig.http(`/api/notifications?${query}`, { userId: '10' });
    expect(response.status).toBe(400);
    expect(await problemOf(response)).toMatchObject({ code: 'bad_request' });
  });

  it('marks and tells every socket of the user', async () => {
    const client = await rig.login('11');
    rig.broker.publish([await rig.notification('11')]);
    await client.push('notification');
    const response = await post('/api/notifications/read', { through: 1 }, '11');
    expect(response.status).toBe(200);
    expect(await response.json()).toEqual({ unseen: 0, unread: 0 });
    expect(await client.push('state')).toMatchObject({ seq: 2, data: { through: 1, state: 'read' } });
    const archived = await post(
      '/api/notifications/archive',
      { ids: [client.all.find((frame) => frame['event'] === 'notification')!.data!['id']] },
      '11',
    );
    expect(archived.status).toBe(200);
    expect((await client.push('state')).data).toMatchObject({ state: 'archived' });
  });

  it.each([[{}], [{ ids: [] }], [{ ids: [1] }], [{ through: -1 }], [{ ids: ['1'], through: 1 }], [[]], ['x']])(
    'refuses to mark %j',
    async (body) => {
      const response = await post('/api/notifications/seen', body, '11');
      expect(response.status).toBe(400);
      expect(await problemOf(response)).toMatchObject({ code: 'bad_request' });
    },
  );

  it('keeps preferences', async () => {
    const put = (body: unknown): Promise<Response> =>
      rig.http('/api/notifications/preferences', { method: 'PUT', userId: '12', body: JSON.stringify(body) });
    expect(await (await rig.http('/api/notifications/preferences', { userId: '12' })).json()).toMatchObject({
      like: 'on',
    });
    expect(await (await put({ like: 'off' })).json()).toMatchObject({ like: 'off', comment: 'on' });
    const refused = await put({ like: 'off', comment: 'maybe' });
    expect(refused.status).toBe(400);
    expect((await problemOf(refused))['detail']).toBe('comment: must be "on", "off" or "following".');
    expect((await put({ no_such_type: 'off' })).status).toBe(400);
  });

  it('sends a test notification into the outbox', async () => {
    const response = await post('/api/ws/test-notification', { message: 'Test' }, '13');
    expect(response.status).toBe(202);
    const { id } = (await response.json()) as { id: string };
    const { rows } = await rig.db.pool.query('select source, new from belfry.outbox where id = $1', [id]);
    expect(rows).toMatchObject([{ source: 'belfry.notify', new: { user_id: '13', type: 'system', message: 'Test' } }]);
    expect((await post('/api/ws/test-notification', { message: '' }, '13')).status).toBe(400);
    expect((await post('/api/ws/test-notification', {}, '13')).status).toBe(400);
  });
});

describe('problems', () => {
  it.each([
    ['no token', {}, 401],
    ['a bad token', { authorization: 'Bearer rubbish' }, 401],
    ['an expired token', { authorization: `Bearer ${tokenFor('1', { exp: 1 })}` }, 401],
  ])('refuses %s', async (_what, headers, status) => {
    const response = await rig.http('/api/notifications', { headers: headers as Record<string, string> });
    expect(response.status).toBe(status);
    expect(response.headers.get('www-authenticate')).toMatch(/^Bearer/);
    expect(await problemOf(response)).toMatchObject({ code: 'unauthorized' });
  });

  it('answers unknown paths, methods and bodies', async () => {
    const nothing = await rig.http('/nothing');
    expect(nothing.headers.get('cache-control')).toBe('no-store');
    expect(await problemOf(nothing)).toMatchObject({ code: 'not_found', status: 404 });
    const method = await rig.http('/api/notifications', { method: 'DELETE', userId: '1' });
    expect(method.headers.get('allow')).toBe('GET');
    expect(method.headers.get('ratelimit')).toMatch(/^"default";r=\d+;t=\d+$/);
    expect(await problemOf(method)).toMatchObject({ status: 405 });
    const raw = (body: string, type: string): Promise<Response> =>
      rig.http('/api/notifications/seen', { method: 'POST', userId: '1', body, headers: { 'content-type': type } });
    expect(await problemOf(await raw('{', 'application/json'))).toMatchObject({ status: 400 });
    expect(await problemOf(await raw('through=1', 'application/x-www-form-urlencoded'))).toMatchObject({ status: 400 });
    expect(await problemOf(await raw(`{"x":"${'x'.repeat(3000)}"}`, 'application/json'))).toMatchObject({
      status: 413,
      code: 'too_large',
    });
  });

  it('says unavailable, and nothing of the database, when that is away', async () => {
    const nobody = createPool('postgres://secret-user@127.0.0.1:1/x', { applicationName: 'belfry-test', max: 1 });
    const broken = await startRig({ db: rig.db, gateway: { pool: nobody } });
    const response = await broken.http('/api/ws/test-notification', {
      method: 'POST',
      userId: '1',
      body: '{"message":"x"}',
    });
    expect(response.status).toBe(503);
    expect(response.headers.get('retry-after')).toBe('1');
    expect(JSON.stringify(await problemOf(response))).not.toMatch(/secret|127|refused/i);
    expect((await broken.http('/readyz')).status).toBe(503);
    expect((await broken.http('/healthz')).status).toBe(200);
    await broken.stop();
    await nobody.end();
  });

  it('survives a client that leaves in the middle of a body or of an answer', async () => {
    for (const bytes of [
      'POST /api/notifications/seen HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"ids',
      `GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n`,
    ]) {
      const socket = net.connect(rig.port, '127.0.0.1');
      await new Promise<void>((resolve) => socket.write(bytes, () => resolve()));
      socket.destroy();
    }
    expect((await rig.http('/readyz')).status).toBe(200);
  });
});

describe('pages, metrics, CORS', () => {
  it('serves pages, and problems beside them', async () => {
    const response = await rig.http('/');
    expect(response.headers.get('content-type')).toBe('text/html');
    expect(await response.text()).toBe('<p>hello');
    expect((await rig.http('/', { method: 'POST', body: '{}' })).status).toBe(404);
  });

  it('shows metrics to this machine, and to admins only when a proxy stands between', async () => {
    const text = await (await rig.http('/metrics')).text();
    expect(text).toContain('belfry_gateway_connections');
    expect(text).toContain('belfry_relay_lag_seconds');
    const proxied = { 'x-forwarded-for': '203.0.113.9' };
    expect((await rig.http('/metrics', { headers: proxied })).status).toBe(401);
    expect((await rig.http('/metrics', { headers: proxied, userId: '1' })).status).toBe(403);
    const admin = { ...proxied, authorization: `Bearer ${tokenFor('1', { role: 'admin' })}` };
    expect((await rig.http('/metrics', { headers: admin })).status).toBe(200);
  });

  it('allows the origins of the config, and no others', async () => {
    const ours = await rig.http('/api/ws/status', { headers: { origin: 'https://app.example' } });
    expect(ours.headers.get('access-control-allow-origin')).toBe('https://app.example');
    const foreign = await rig.http('/api/ws/status', { headers: { origin: 'https://evil.example' } });
    expect(foreign.headers.get('access-control-allow-origin')).toBe(null);
    expect(foreign.headers.get('vary')).toBe('Origin');
    const preflight = await rig.http('/api/notifications', {
      method: 'OPTIONS',
      headers: { origin: 'https://app.example', 'access-control-request-method': 'GET' },
    });
    expect(preflight.status).toBe(204);
    expect(preflight.headers.get('access-control-allow-headers')).toContain('authorization');
  });
});

describe('limits', () => {
  it('counts requests per address, says what is left, and when to come again', async () => {
    const small = await startRig({
      db: rig.db,
      yaml: 'limits: { httpPerMinute: 5 }',
      change: (config) => ({ ...config, server: { ...config.server, trustProxy: 1 } }),
    });
    const from = (address: string): Promise<Response> =>
      small.http('/api/ws/status', { headers: { 'x-forwarded-for': `1.1.1.1, ${address}` } });
    const left: (string | null)[] = [];
    for (let i = 0; i < 5; i++) left.push((await from('203.0.113.1')).headers.get('ratelimit-remaining'));
    expect(left).toEqual(['4', '3', '2', '1', '0']);
    const refused = await from('203.0.113.1');
    expect(refused.status).toBe(429);
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(5);
    expect(refused.headers.get('ratelimit')).toMatch(/^"default";r=0;t=\d+$/);
    expect(refused.headers.get('ratelimit-policy')).toBe('"default";q=5;w=60');
    expect(await problemOf(refused)).toMatchObject({ code: 'rate_limited' });
    expect((await from('203.0.113.2')).status).toBe(200);
    expect((await small.http('/healthz')).status).toBe(200);
    await small.stop();
  });
});

describe('the handshake', () => {
  const upgrade = (headers: Record<string, string | string[]>, on: Rig = rig): Promise<number> =>
    new Promise((resolve, reject) => {
      const request = http.get({
        ...{ host: '127.0.0.1', port: on.port, path: '/ws' },
        headers: {
          connection: 'Upgrade',
          upgrade: 'websocket',
          'sec-websocket-version': '13',
          'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
          ...headers,
        },
      });
      request.on('upgrade', (_response, socket) => {
        held.push(socket);
        resolve(101);
      });
      request.on('response', (response) => {
        response.resume();
        resolve(response.statusCode ?? 0);
      });
      request.on('error', reject);
    });
  const held: { destroy(): void }[] = [];
  afterEach(() => {
    for (const socket of held.splice(0)) socket.destroy();
  });

  it.each([
    ['none', {}, 101],
    ['of the config', { origin: 'https://app.example' }, 101],
    ['of the server itself', { origin: 'http://belfry.example:8080', host: 'belfry.example:8080' }, 101],
    ['of the server itself behind a proxy with TLS', { origin: 'https://belfry.example', host: 'belfry.example' }, 101],
    ['foreign', { origin: 'https://evil.example' }, 403],
    ['similar', { origin: 'https://app.example.evil.example' }, 403],
    ['null', { origin: 'null' }, 403],
    ['another port', { origin: 'https://app.example:8443' }, 403],
  ])('with an origin: %s', async (_what, headers, status) => {
    expect(await upgrade(headers as Record<string, string>)).toBe(status);
  });

  it('limits connections and handshakes per address before any token is looked at', async () => {
    const small = await startRig({
      db: rig.db,
      yaml: 'limits: { connectionsPerAddress: 3, handshakesPerSecond: 50 }',
      change: (config) => ({ ...config, server: { ...config.server, trustProxy: 1 } }),
    });
    const from = (address: string): Promise<number> => upgrade({ 'x-forwarded-for': address }, small);
    expect(await Promise.all([from('9.9.9.9'), from('9.9.9.9'), from('9.9.9.9')])).toEqual([101, 101, 101]);
    expect(await from('9.9.9.9')).toBe(429);
    expect(await from('9.9.9.8')).toBe(101);
    held.shift()!.destroy();
    await expect.poll(() => small.gateway.context.addresses.use('9.9.9.9').connections).toBe(2);
    expect(await from('9.9.9.9')).toBe(101);
    await small.stop();
  });

  it('cuts connections that say nothing, where an address opens more than it can need', async () => {
    // At once: 2 * (1 + 4), by all together and then by one; and about two a second.
    const small = await startRig({ db: rig.db, yaml: 'limits: { handshakesPerSecond: 1, httpPerMinute: 4 }' });
    const silent = (localAddress: string): Promise<net.Socket> =>
      new Promise((resolve, reject) => {
        const socket = net.connect({ port: small.port, host: '127.0.0.1', localAddress }, () => resolve(socket));
        socket.on('error', reject);
      });
    const many = await Promise.all(Array.from({ length: 100 }, () => silent('127.0.0.1')));
    await expect.poll(() => many.filter((socket) => socket.closed).length, { timeout: 10_000 }).toBeGreaterThan(50);
    expect(many.filter((socket) => !socket.closed).length).toBeGreaterThanOrEqual(20);
    const other = await silent('127.0.0.2');
    const answered = new Promise<string>((resolve) => other.once('data', (chunk) => resolve(String(chunk))));
    other.write('GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n');
    expect(await answered).toMatch(/^HTTP\/1.1 200/);
    for (const socket of [...many, other]) socket.destroy();
    await small.stop();
  });

  it('believes the line of X-Forwarded-For that the proxy added, not the one above that the client sent', async () => {
    const small = await startRig({
      db: rig.db,
      yaml: 'limits: { connectionsPerAddress: 2, handshakesPerSecond: 50 }',
      change: (config) => ({ ...config, server: { ...config.server, trustProxy: 1 } }),
    });
    // As HAProxy has it: a line each.
    const claiming = (address: string): Promise<number> => upgrade({ 'x-forwarded-for': [address, '9.9.9.9'] }, small);
    expect([await claiming('1.1.1.1'), await claiming('2.2.2.2'), await claiming('3.3.3.3')]).toEqual([101, 101, 429]);
    const metrics = (lines: string[]): Promise<number | undefined> =>
      new Promise((resolve, reject) => {
        const options = { port: small.port, path: '/metrics', headers: { 'x-forwarded-for': lines } };
        http.get(options, (response) => resolve(response.resume().statusCode)).on('error', reject);
      });
    expect(await metrics(['127.0.0.1', '9.9.9.9'])).toBe(401);
    expect(await metrics(['9.9.9.9', '127.0.0.1'])).toBe(200);
    await small.stop();
  });

  it('limits handshakes per second and address, with as many at once', async () => {
    const small = await startRig({
      db: rig.db,
      yaml: 'limits: { connectionsPerAddress: 1000, handshakesPerSecond: 50 }',
    });
    const many = await Promise.all(Array.from({ length: 90 }, () => upgrade({}, small)));
    const accepted = many.filter((status) => status === 101).length;
    expect(accepted).toBeGreaterThanOrEqual(50);
    expect(accepted).toBeLessThan(85);
    expect(many.filter((status) => status === 429)).toHaveLength(90 - accepted);
    expect(await small.metric('belfry_gateway_handshakes_total', { outcome: 'limited' })).toBe(90 - accepted);
    await expect.poll(() => upgrade({}, small), { timeout: 5000 }).toBe(101);
    await small.stop();
  });

  it('answers a plain GET of /ws', async () => {
    expect((await rig.http('/ws')).status).toBe(404);
  });
});
