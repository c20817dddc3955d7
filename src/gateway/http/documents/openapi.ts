/** The HTTP calls (routes.ts) as an OpenAPI 3.1 document, served at /api/openapi.json. */

import {
  anyObject,
  badge,
  errorCode,
  markTarget,
  object,
  page,
  position,
  statuses,
  text,
  type Schema,
} from './schemas.js';

interface Operation {
  readonly summary: string;
  /** Null: open to all. */
  readonly access: 'user' | 'admin' | null;
  readonly parameters?: readonly Schema[];
  readonly body?: Schema;
  readonly answer: { readonly status: 200 | 202; readonly schema: Schema; readonly type?: string };
  /** Further statuses, besides those that follow from access and body. */
  readonly also?: readonly (404 | 503)[];
  /** Answered whatever the rate. */
  readonly unlimited?: boolean;
}

const problems: Readonly<Record<number, string>> = {
  400: 'A field is missing, of the wrong type or out of bounds; `detail` names it.',
  401: 'No token, or a bad one.',
  403: 'Not for this caller.',
  404: 'What the request names does not exist.',
  413: 'The body is larger than limits.messageBytes.',
  429: 'Too many requests of this address; wait as long as Retry-After says.',
  500: 'A fault of the server; it is logged.',
  503: 'Not available just now; wait as long as Retry-After says.',
};

const answers = (schema: Schema, status: 200 | 202 = 200): Operation['answer'] => ({ status, schema });
const query = (name: string, description: string, schema: Schema, required = false): Schema => ({
  ...{ name, in: 'query', description, required, schema },
});

const preferences: Schema = {
  type: 'object',
  description: 'Type of notification → whether it comes; following: only from whom one follows.',
  additionalProperties: { enum: ['on', 'off', 'following'] },
};

const mark = (what: string): Operation => ({
  summary: `Marks notifications as ${what}; every socket of the user is told.`,
  access: 'user',
  body: markTarget,
  answer: answers(badge),
});

/** `METHOD path` → what it does. */
export const httpCalls: Readonly<Record<string, Operation>> = {
  'GET /healthz': {
    summary: 'Whether the process lives.',
    access: null,
    unlimited: true,
    answer: answers(object({ status: { const: 'ok' } })),
  },
  'GET /readyz': {
    summary: 'Whether sessions are accepted; 503 before that and while draining.',
    access: null,
    unlimited: true,
    answer: answers(object({ status: { const: 'ready' } })),
    also: [503],
  },
  'GET /metrics': {
    summary: 'Prometheus; for this machine, and for admins (auth.adminClaim).',
    access: 'admin',
    unlimited: true,
    answer: { status: 200, type: 'text/plain', schema: text() },
  },
  'GET /api/openapi.json': {
    summary: 'This document.',
    access: null,
    answer: answers(anyObject),
  },
  'GET /api/asyncapi.json': {
    summary: 'The frames of /ws, as an AsyncAPI 3 document.',
    access: null,
    answer: answers(anyObject),
  },
  'GET /api/ws/status': {
    summary: 'Who is connected to this process.',
    access: null,
    answer: answers(
      object({
        status: { const: 'ok' },
        connections: position('Open sockets.'),
        users: position('People with a session.'),
        version: text(),
        uptime_s: position('Seconds since the start.'),
      }),
    ),
  },
  'POST /api/ws/test-notification': {
    summary: 'A system notification to the caller.',
    access: 'user',
    body: object({ message: text(undefined, { minLength: 1, maxLength: 1000 }) }),
    answer: answers(object({ id: text('Outbox id.') }), 202),
  },
  'GET /api/notifications': {
    summary: 'The caller’s inbox, newest seq first; withdrawn and archived left out unless asked for.',
    access: 'user',
    parameters: [
      query('limit', 'How many.', { type: 'integer', minimum: 1, maximum: 100, default: 20 }),
      query('before', '`next` of the page before.', text()),
      query('state', 'Only these.', { enum: ['unseen', 'unread', 'archived'] }),
    ],
    answer: answers(page),
  },
  'POST /api/notifications/seen': mark('seen'),
  'POST /api/notifications/read': mark('read'),
  'POST /api/notifications/archive': mark('archived'),
  'GET /api/notifications/preferences': {
    summary: 'Which types the caller wants.',
    access: 'user',
    answer: answers(preferences),
  },
  'PUT /api/notifications/preferences': {
    summary: 'Sets some of them; answers all.',
    access: 'user',
    body: preferences,
    answer: answers(preferences),
  },
  'GET /api/presence': {
    summary: 'Who of these is online.',
    access: 'user',
    parameters: [query('users', 'Ids, separated by commas, or several times one; at most 500.', text(), true)],
    answer: answers(statuses),
  },
};

export function openapiDocument(version: string): Schema {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const [call, operation] of Object.entries(httpCalls)) {
    const [method = '', path = ''] = call.split(' ');
    paths[path] = { ...paths[path], [method.toLowerCase()]: operationObject(operation) };
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Belfry',
      version,
      description: 'Beside the WebSocket at /ws, which /api/asyncapi.json describes.',
    },
    servers: [{ url: '/' }],
    paths,
    components: {
      securitySchemes: { token: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' } },
      schemas: {
        Problem: object({
          type: text(),
          title: text(),
          status: { type: 'integer' },
          detail: text('What to do about it.'),
          code: errorCode,
        }),
      },
      headers: {
        RateLimit: header('Requests that are left, and the seconds until all are: `"default";r=599;t=1`.'),
        'RateLimit-Policy': header('`"default";q=600;w=60`.'),
        'Retry-After': header('Seconds.'),
      },
    },
  };
}

function header(description: string): Schema {
  return { description, schema: text() };
}

function operationObject(operation: Operation): Schema {
  const { summary, access, parameters, body, answer, also, unlimited } = operation;
  const statuses = new Set<number>(also);
  if (parameters !== undefined || body !== undefined) statuses.add(400);
  if (body !== undefined) statuses.add(413);
  if (access !== null) statuses.add(401).add(500).add(503);
  if (access === 'admin') statuses.add(403);
  if (unlimited !== true) statuses.add(429);
  const limits =
    unlimited === true ? {} : { headers: { RateLimit: reference('headers', 'RateLimit'), ...policyHeader } };
  const failures = [...statuses].sort((a, b) => a - b).map((status) => [String(status), failure(status)]);
  return {
    summary,
    security: access === null ? [] : access === 'admin' ? [{}, { token: [] }] : [{ token: [] }],
    ...(parameters === undefined ? {} : { parameters }),
    ...(body === undefined
      ? {}
      : { requestBody: { required: true, content: { 'application/json': { schema: body } } } }),
    responses: {
      [answer.status]: {
        description: 'Done.',
        ...limits,
        content: { [answer.type ?? 'application/json']: { schema: answer.schema } },
      },
      ...Object.fromEntries(failures),
    },
  };
}

const policyHeader = { 'RateLimit-Policy': reference('headers', 'RateLimit-Policy') };

function failure(status: number): Schema {
  const later = status === 429 || status === 503;
  return {
    description: problems[status] ?? '',
    ...(later ? { headers: { 'Retry-After': reference('headers', 'Retry-After') } } : {}),
    content: { 'application/problem+json': { schema: reference('schemas', 'Problem') } },
  };
}

function reference(kind: string, name: string): Schema {
  return { $ref: `#/components/${kind}/${name}` };
}
