/**
 * The AsyncAPI and OpenAPI documents: valid by the official schemas, and true of what a running Belfry says, frame by frame and
 * answer by answer.
 */

import { Validator } from '@seriousme/openapi-schema-validator';
import { Ajv, type ValidateFunction } from 'ajv';
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormatsModule from 'ajv-formats';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import WebSocket from 'ws';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { startApp, type App } from '../../src/app.js';
import { parseConfig, type Config } from '../../src/config.js';
import { asks, pushes } from '../../src/gateway/http/documents/asyncapi.js';
import { httpCalls } from '../../src/gateway/http/documents/openapi.js';
import { routes } from '../../src/gateway/http/routes.js';
import { createLogger } from '../../src/log.js';
import { install } from '../capture/support.js';
import { createTestDatabase, type TestDatabase } from '../support/postgres.js';
import { addComment, addPost, addUsers, follow, like, socialConfig, socialSql, unlike } from '../support/social.js';
import { Client, tokenFor, type Frame } from './support.js';

vi.setConfig({ testTimeout: 60_000 });

type Json = Record<string, unknown>;

const addFormats = addFormatsModule.default;
let db: TestDatabase;
let app: App;
let config: Config;
let openapi: Json;
let asyncapi: Json;

beforeAll(async () => {
  db = await createTestDatabase({ prepare: socialSql });
  const text = socialConfig(
    db.url,
    `
channels:
  post: { read: public, publish: none }
  room: { read: public, publish: public }
  fans: { read: "select 1 from public.follows where follower_id = :user and followed_id = :id", recheck: [user_follow] }
presence: { read: "select 1 from public.users where id = :other and :user <> ''" }
auth: { secret: a-secret-for-tests-that-is-long-enough-0123456789, adminClaim: { role: admin } }`,
  );
  config = parseConfig(text, {}, { path: 'test.yaml' });
  await install(db, config);
  app = await startApp(config, { role: 'all', log: createLogger({ level: 'warn', name: 'test' }) });
  openapi = (await (await call('GET /api/openapi.json')).json()) as Json;
  asyncapi = (await (await call('GET /api/asyncapi.json')).json()) as Json;
});
afterAll(async () => {
  await app.stop();
  await db.drop();
});

function call(name: string, init: RequestInit = {}, query = ''): Promise<Response> {
  const [method = '', path = ''] = name.split(' ');
  return fetch(`http://127.0.0.1:${app.port}${path}${query}`, { method, ...init });
}

/** Every local reference within a document points at something. */
function expectReferences(document: Json): void {
  const visit = (value: unknown): void => {
    if (typeof value !== 'object' || value === null) return;
    const { $ref } = value as { $ref?: unknown };
    if (typeof $ref === 'string') {
      const steps = $ref.replace('#/', '').split('/');
      expect(
        steps.reduce<unknown>((at, step) => (at as Json | undefined)?.[step], document),
        $ref,
      ).toBeDefined();
    }
    Object.values(value).forEach(visit);
  };
  visit(document);
}

describe('OpenAPI', () => {
  it('is valid, and describes exactly the calls that there are', async () => {
    const result = await new Validator().validate(openapi);
    expect(result).toMatchObject({ valid: true });
    expect(openapi['openapi']).toBe('3.1.0');
    expectReferences(openapi);
    const owner = { context: {}, state: () => 'ready' } as unknown as Parameters<typeof routes>[0];
    const there = routes(owner).map(({ method, path }) => `${method} ${path}`);
    expect(Object.keys(httpCalls).sort()).toEqual(there.sort());
    for (const route of routes(owner)) {
      const described = httpCalls[`${route.method} ${route.path}`];
      expect([route.path, described?.access === null]).toEqual([route.path, route.access === 'open']);
      expect([route.path, described?.unlimited !== true]).toEqual([route.path, route.limited]);
    }
  });

  it('is true of answers, good and bad', async () => {
    const ajv = addFormats(new Ajv2020({ strict: false }));
    const [ada = '', bob = ''] = await addUsers(db.pool, 'Ada', 'Bob');
    await like(db.pool, bob, await addPost(db.pool, ada));
    const authorization = `Bearer ${tokenFor(ada)}`;
    await vi.waitFor(
      async () => {
        const page = await call('GET /api/notifications', { headers: { authorization } });
        expect(((await page.json()) as { items: unknown[] }).items).toHaveLength(1);
      },
      { timeout: 20_000 },
    );
    const tried = new Set<string>();
    const check = async (name: string, status: number, body?: unknown, query = '', auth = authorization) => {
      const headers: Record<string, string> = auth === '' ? {} : { authorization: auth };
      const response = await call(
        name,
        { headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) },
        query,
      );
      expect([name, response.status]).toEqual([name, status]);
      const [method = '', path = ''] = name.split(' ');
      const { responses } = (openapi['paths'] as Record<string, Record<string, Json>>)[path]![method.toLowerCase()]!;
      const described = (responses as Record<string, { content: Json; headers?: Json } | undefined>)[String(status)];
      expect(described, `${name} ${status}`).toBeDefined();
      const type = response.headers.get('content-type')?.split(';')[0] ?? '';
      expect(Object.keys(described!.content)).toContain(type);
      for (const header of Object.keys(described!.headers ?? {}))
        expect([name, header, response.headers.has(header)]).toEqual([name, header, true]);
      const schema = (described!.content[type] as { schema: Json }).schema;
      const valid = ajv.compile({ ...schema, components: openapi['components'] });
      const answer: unknown = type === 'text/plain' ? await response.text() : await response.json();
      expect(valid(answer), `${name}: ${JSON.stringify(valid.errors)} ${JSON.stringify(answer)}`).toBe(true);
      if (status < 400) tried.add(name);
    };
    for (const open of ['/healthz', '/readyz', '/api/openapi.json', '/api/asyncapi.json', '/api/ws/status'])
      await check(`GET ${open}`, 200, undefined, '', '');
    await check('GET /metrics', 200, undefined, '', `Bearer ${tokenFor(ada, { role: 'admin' })}`);
    await check('POST /api/ws/test-notification', 202, { message: 'hello' });
    await check('POST /api/ws/test-notification', 400, { message: '' });
    await check('POST /api/ws/test-notification', 413, { message: 'x'.repeat(20_000) });
    await check('GET /api/notifications', 200, undefined, '?limit=1');
    await check('GET /api/notifications', 400, undefined, '?limit=0');
    await check('GET /api/notifications', 400, undefined, '?before=x');
    await check('GET /api/notifications', 401, undefined, '', 'Bearer nonsense');
    for (const op of ['seen', 'read', 'archive']) await check(`POST /api/notifications/${op}`, 200, { through: 1 });
    await check('POST /api/notifications/seen', 400, {});
    await check('GET /api/notifications/preferences', 200);
    await check('PUT /api/notifications/preferences', 200, { like: 'off' });
    await check('PUT /api/notifications/preferences', 400, { like: 'maybe' });
    await check('PUT /api/notifications/preferences', 400, { hiccup: 'off' });
    await check('GET /api/presence', 200, undefined, `?users=${ada},${bob}`);
    await check('GET /api/presence', 400);
    await check('GET /api/presence', 401, undefined, '', '');
    expect([...tried].sort()).toEqual(Object.keys(httpCalls).sort());
  });
});

describe('AsyncAPI', () => {
  it.each([
    ['op', 'auth subscribe unsubscribe seen read archive presence publish ping'],
    [
      'event',
      'hello synced notification withdrawn state badge resync presence unsubscribed like_update comment_update message hidden',
    ],
    [
      'error code',
      'unknown_op bad_request unauthorized forbidden not_found too_many_subscriptions rate_limited too_large unavailable internal',
    ],
    ['close code', '1001 1006 1009 1012 1013 4400 4401 4403 4409 4429 4508'],
  ])('names every %s of the protocol', (_what, words) => {
    const text = JSON.stringify(asyncapi);
    for (const word of words.split(' ')) expect(text, word).toContain(`"${word}"`);
  });

  it('is valid by the official schema of 3.0.0', () => {
    const file = createRequire(import.meta.url).resolve('@asyncapi/specs/schemas/3.0.0-without-$id.json');
    const valid = addFormats(new Ajv({ strict: false })).compile(JSON.parse(readFileSync(file, 'utf8')) as Json);
    expect(valid(asyncapi), JSON.stringify(valid.errors?.slice(0, 5))).toBe(true);
    expectReferences(asyncapi);
  });

  it('is true of every frame of a busy session', async () => {
    const [ada = '', bob = '', cleo = ''] = await addUsers(db.pool, 'Ada', 'Bob', 'Cleo');
    const post = await addPost(db.pool, ada);
    await follow(db.pool, ada, bob);
    const sent: Json[] = [];
    const open = async (headers: Record<string, string> = {}): Promise<Client> => {
      const client = new Client(new WebSocket(`ws://127.0.0.1:${app.port}/ws`, { headers }));
      await client.opened;
      return client;
    };
    const [one, two] = [await open(), await open({ authorization: `Bearer ${tokenFor(ada)}` })];
    const ask = (client: Client, frame: Json): Promise<Frame> => {
      sent.push({ id: 1, ...frame });
      return client.request(frame);
    };
    await ask(one, { op: 'auth', token: tokenFor(ada), since: 0, epoch: 'another' });
    await two.push('synced');
    for (const channel of [`post:${post}`, 'lobby', `fans:${bob}`]) await ask(one, { op: 'subscribe', channel });
    await ask(one, { op: 'presence', users: [cleo, bob] });
    await ask(one, { op: 'presence', channel: 'lobby' });
    const other = await open({ authorization: `Bearer ${tokenFor(cleo)}` });
    await one.push('presence');
    await ask(one, { op: 'publish', channel: 'lobby', event: 'said', data: { n: 1 } });
    await one.push('said');
    await like(db.pool, cleo, post);
    await two.push('notification');
    await one.push('like_update');
    await addComment(db.pool, post, cleo);
    await one.push('comment_update');
    await unlike(db.pool, cleo, post);
    await two.push('withdrawn');
    await ask(one, { op: 'seen', through: 1000 });
    await two.push('state');
    await two.push('badge');
    await ask(one, { op: 'read', ids: ['1'] });
    await ask(one, { op: 'archive', ids: ['1'] });
    await db.pool.query(`select belfry.announce('all hands')`);
    await two.take((frame) => frame['event'] === 'notification' && frame['seq'] === undefined);
    await db.pool.query('delete from public.follows where follower_id = $1', [ada]);
    await one.push('unsubscribed');
    await ask(one, { op: 'unsubscribe', channel: 'lobby' });
    await ask(one, { op: 'ping' });
    expect((await ask(one, { op: 'subscribe', channel: 'nobody:1' }))['error']).toBeDefined();
    await db.pool.query('truncate public.likes');
    await one.push('resync');
    expect((await one.closed).code).toBe(1012);

    const { messages } = (asyncapi['channels'] as { ws: { messages: Record<string, { payload: Json }> } }).ws;
    const ajv = addFormats(new Ajv({ strict: false }));
    const validators = new Map<string, ValidateFunction>();
    for (const [name, { payload }] of Object.entries(messages)) validators.set(name, ajv.compile(payload));
    const seen = new Set<string>();
    const expectValid = (name: string, frame: unknown): void => {
      const valid = validators.get(name)!;
      expect(valid(frame), `${name}: ${JSON.stringify(valid.errors)} ${JSON.stringify(frame)}`).toBe(true);
      seen.add(name);
    };
    for (const frame of sent) expectValid(String(frame['op']), frame);
    const answered = one.all.filter((frame) => 'id' in frame);
    expect(answered).toHaveLength(sent.length);
    answered.forEach((frame, n) => expectValid('ok' in frame ? `${String(sent[n]!['op'])}_ok` : 'error', frame));
    for (const frame of [one, two, other].flatMap(({ all }) => all).filter((each) => !('id' in each))) {
      const event = String(frame['event']);
      expectValid(event in pushes ? `push_${event}` : 'push_channel', frame);
    }
    expect([...seen].sort()).toEqual(Object.keys(messages).sort());
    expect(Object.keys(messages)).toHaveLength(2 * Object.keys(asks).length + Object.keys(pushes).length + 2);
  });
});
