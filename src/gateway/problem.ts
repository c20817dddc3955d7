/** Errors as HTTP answers: RFC 9457 problem details with a stable `code` (the error codes of the protocol). */

import { BelfryError, messageOf, sqlState } from '../errors.js';
import type { ErrorCode } from '../protocol/codes.js';

export interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string | Uint8Array;
  readonly headers?: Readonly<Record<string, string>>;
}

const statuses = {
  200: 'OK',
  202: 'Accepted',
  204: 'No Content',
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  405: 'Method Not Allowed',
  413: 'Content Too Large',
  429: 'Too Many Requests',
  500: 'Internal Server Error',
  503: 'Service Unavailable',
} as const;

export type Status = keyof typeof statuses;

/** `200 OK`, as uWebSockets wants it. */
export function statusLine(status: number): string {
  return `${status} ${statuses[status as Status] ?? 'Unknown'}`;
}

/** What somebody was told is not for a cache, which may serve others as well. */
export function json(status: Status, body: unknown, headers: Readonly<Record<string, string>> = {}): Answer {
  return {
    status,
    type: 'application/json',
    body: JSON.stringify(body),
    headers: { 'Cache-Control': 'no-store', ...headers },
  };
}

export function problem(
  status: Status,
  code: ErrorCode,
  detail: string,
  headers: Readonly<Record<string, string>> = {},
): Answer {
  return {
    status,
    type: 'application/problem+json',
    body: JSON.stringify({ type: 'about:blank', title: statuses[status], status, detail, code }),
    // A 404 or 405 may be kept by a cache that is told nothing (RFC 9111, 4.2.2).
    headers: { 'Cache-Control': 'no-store', ...headers },
  };
}

/** What an error of our own tells a client, and nothing of what lies behind it; null for a fault of the server. */
export function publicError(error: unknown): { code: ErrorCode; message: string } | null {
  if (isOutage(error)) return { code: 'unavailable', message: 'Not available just now: try again.' };
  if (!(error instanceof BelfryError)) return null;
  switch (error.code) {
    case 'token_invalid':
      return { code: 'unauthorized', message: error.message };
    case 'not_found':
    case 'bad_request':
      return { code: error.code, message: error.message };
    case 'unavailable':
    case 'broker_unavailable':
    case 'database_unreachable':
      return { code: 'unavailable', message: 'Not available just now: try again.' };
    default:
      return null;
  }
}

/** Postgres is away, stopping, out of connections, or took too long: the same call may succeed later. */
export function isOutage(error: unknown): boolean {
  const state = sqlState(error);
  if (state !== undefined) return /^(08|53|57)/.test(state) || state === '25006';
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') {
    if (/^(ECONN|EPIPE|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ENOENT|EHOST|ENET)/.test(error.code)) return true;
  }
  return /^(Connection terminated|timeout exceeded when trying to connect|Client has encountered a connection error)/.test(
    messageOf(error),
  );
}

/** Whether no single row is to blame: only values that the config's SQL can't take (class 22 and the like), and what it raises itself, are a row's fault. */
export function isOfNoRow(error: unknown): boolean {
  const state = sqlState(error);
  return state === undefined || !/^(2[0-3]|P0)/.test(state);
}

export function problemOf(error: unknown): Answer | null {
  const known = publicError(error);
  if (known === null) return null;
  switch (known.code) {
    case 'unauthorized':
      return problem(401, known.code, known.message, { 'WWW-Authenticate': 'Bearer error="invalid_token"' });
    case 'not_found':
      return problem(404, known.code, known.message);
    case 'bad_request':
      return problem(400, known.code, known.message);
    default:
      return problem(503, known.code, known.message, { 'Retry-After': '1' });
  }
}
