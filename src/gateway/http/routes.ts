/** The HTTP calls of CONTRACT §4: what each takes, checks and answers. */

import type { Pool } from 'pg';
import type { ListQuery, MarkState, Preference } from '../../inbox/types.js';
import { parseMarkTarget } from '../../protocol/parse.js';
import type { Registry } from 'prom-client';
import type { Context } from '../context.js';
import { asyncapiDocument } from './documents/asyncapi.js';
import { openapiDocument } from './documents/openapi.js';
import type { Call, Route } from './http.js';
import { json, problem, type Answer } from '../problem.js';

export type ProcessState = 'starting' | 'ready' | 'draining' | 'stopped';

export interface ProbesOwner {
  /** To see whether Postgres answers. */
  readonly pool: Pool;
  readonly registry: Registry;
  readonly state: () => ProcessState;
}

export interface RoutesOwner extends ProbesOwner {
  readonly context: Context;
  /** For `belfry.notify`, too. */
  readonly pool: Pool;
  readonly version: string;
}

/** Characters of a test notification. */
const messageChars = 1000;
const usersAtOnce = 500;
const preferencesAtOnce = 100;
/** How long Postgres may take to answer before this process counts as not ready. */
const readyTimeoutMs = 2000;

/** What every process answers, whatever its role. */
export function probeRoutes(owner: ProbesOwner): Route[] {
  return [
    open('/healthz', false, () => json(200, { status: 'ok' })),
    open('/readyz', false, () => ready(owner)),
    {
      method: 'GET',
      path: '/metrics',
      access: 'internal',
      limited: false,
      handle: async () => ({ status: 200, type: owner.registry.contentType, body: await owner.registry.metrics() }),
    },
  ];
}

export function routes(owner: RoutesOwner): Route[] {
  const startedMs = performance.now();
  const { context } = owner;
  const { inbox } = context;
  return [
    ...probeRoutes(owner),
    open('/api/openapi.json', true, () => json(200, openapiDocument(owner.version))),
    open('/api/asyncapi.json', true, () => json(200, asyncapiDocument(owner.version))),
    open('/api/ws/status', true, () => {
      const uptime = Math.floor((performance.now() - startedMs) / 1000);
      const connections = context.sessions.all.length;
      const users = context.people.hubs.size;
      return json(200, { status: 'ok', connections, users, version: owner.version, uptime_s: uptime });
    }),
    user('POST', '/api/ws/test-notification', (call, userId) => testNotification(owner.pool, userId, call.body)),
    user('GET', '/api/notifications', async ({ query }, userId) => {
      const parsed = listQuery(query);
      return 'status' in parsed ? parsed : json(200, await inbox.list(userId, parsed));
    }),
    ...(['seen', 'read', 'archive'] as const).map((op) =>
      user('POST', `/api/notifications/${op}`, ({ body }, userId) => mark(context, userId, op, body)),
    ),
    user('GET', '/api/notifications/preferences', async (_call, userId) => json(200, await inbox.preferences(userId))),
    user('PUT', '/api/notifications/preferences', async ({ body }, userId) => {
      const parsed = preferences(body);
      return typeof parsed === 'string'
        ? problem(400, 'bad_request', parsed)
        : json(200, await inbox.setPreferences(userId, parsed));
    }),
    user('GET', '/api/presence', async ({ query }, userId) => {
      const named = query.getAll('users').flatMap((list) => list.split(','));
      const users = [...new Set(named.filter((id) => id !== ''))];
      if (users.length === 0) return problem(400, 'bad_request', 'users: name at least one, separated by commas.');
      if (users.length > usersAtOnce) return problem(400, 'bad_request', `users: at most ${usersAtOnce}.`);
      return json(200, await context.presence.statuses(userId, users));
    }),
  ];
}

function open(path: string, limited: boolean, handle: () => Answer | Promise<Answer>): Route {
  return { method: 'GET', path, access: 'open', limited, handle };
}

function user(method: Route['method'], path: string, handle: (call: Call, userId: string) => Promise<Answer>): Route {
  return { method, path, access: 'user', limited: true, handle: (call) => handle(call, call.identity?.userId ?? '') };
}

async function ready({ pool, state }: ProbesOwner): Promise<Answer> {
  const now = state();
  if (now !== 'ready') return problem(503, 'unavailable', `This process is ${now}.`, { 'Retry-After': '1' });
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), readyTimeoutMs);
  });
  const answered = pool.query('select 1').then(
    () => true,
    () => false,
  );
  const alive = await Promise.race([answered, timeout]);
  clearTimeout(timer);
  if (!alive) return problem(503, 'unavailable', 'Postgres does not answer.', { 'Retry-After': '1' });
  // It may have begun to drain meanwhile.
  return state() === 'ready'
    ? json(200, { status: 'ready' })
    : problem(503, 'unavailable', 'This process is draining.');
}

async function testNotification(pool: Pool, userId: string, body: unknown): Promise<Answer> {
  const message = typeof body === 'object' && body !== null && 'message' in body ? body.message : undefined;
  if (typeof message !== 'string' || message === '' || message.length > messageChars || message.includes('\u0000')) {
    return problem(400, 'bad_request', `message: must be a text of 1 to ${messageChars} characters.`);
  }
  const { rows } = await pool.query<{ id: string }>(`select belfry.notify($1, 'system', $2) as id`, [userId, message]);
  return json(202, { id: rows[0]?.id });
}

async function mark(context: Context, userId: string, op: 'seen' | 'read' | 'archive', body: unknown): Promise<Answer> {
  const target = parseMarkTarget(body);
  if ('problem' in target) return problem(400, 'bad_request', target.problem);
  const state: MarkState = op === 'archive' ? 'archived' : op;
  const { unseen, unread, publications } = await context.inbox.mark(userId, state, target, null);
  context.broker.publish(publications);
  return json(200, { unseen, unread });
}

function listQuery(query: URLSearchParams): ListQuery | Answer {
  const limit = query.get('limit') ?? '20';
  if (!/^\d{1,3}$/.test(limit) || Number(limit) < 1 || Number(limit) > 100) {
    return problem(400, 'bad_request', 'limit: must be an integer from 1 to 100.');
  }
  const state = query.get('state');
  if (state !== null && state !== 'unseen' && state !== 'unread' && state !== 'archived') {
    return problem(400, 'bad_request', 'state: must be unseen, unread or archived.');
  }
  return { limit: Number(limit), before: query.get('before'), state };
}

/** Or what is wrong with them. */
function preferences(body: unknown): Record<string, Preference> | string {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    return 'The body must be an object of types, each "on", "off" or "following".';
  }
  const entries = Object.entries(body);
  if (entries.length > preferencesAtOnce) return `The body: at most ${preferencesAtOnce} types at once.`;
  const bad = entries.find(([, value]) => value !== 'on' && value !== 'off' && value !== 'following');
  return bad === undefined ? (body as Record<string, Preference>) : `${bad[0]}: must be "on", "off" or "following".`;
}
