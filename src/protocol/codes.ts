/**
 * The closed tables of error codes and close codes (CONTRACT §5), and what a client does about each.
 *
 * What must hold: a code is never reused for something else; every error code and every close code the gateway sends
 * stands here; a client that knows only the number of a close code can act rightly (`closeAction` is total).
 */

/** Codes of `error` in an answer. The answer also says `retry`: whether the very same request may succeed later. */
export const errorCodes = {
  /** The object's `op` is none that this server knows. */
  unknown_op: { retry: false },
  /** A field is missing, of the wrong type or out of bounds; the message names it. */
  bad_request: { retry: false },
  /** The token is bad or expired (close 4401 follows), or an op came before `auth`. */
  unauthorized: { retry: false },
  /** The user may not do this, or the channel's kind is not configured; after `auth` the close that follows says why. */
  forbidden: { retry: false },
  /** What the request names does not exist. */
  not_found: { retry: false },
  /** `limits.subscriptions` is reached; unsubscribe from something first. */
  too_many_subscriptions: { retry: false },
  /** Too often; wait a second. */
  rate_limited: { retry: true },
  /** The request is well formed but too large. */
  too_large: { retry: false },
  /** The server cannot reach what it needs just now; wait a little. */
  unavailable: { retry: true },
  /** A fault of the server, logged there. */
  internal: { retry: true },
} as const satisfies Record<string, { readonly retry: boolean }>;

export type ErrorCode = keyof typeof errorCodes;

/**
 * What a client does after a close:
 * - `resume`: reconnect with full jitter and resume from the positions it holds;
 * - `newToken`: fetch a new token first, then the same;
 * - `final`: stop, since the same attempt would end the same way.
 */
export type CloseAction = 'resume' | 'newToken' | 'final';

/** Close codes that the gateway sends, and those of RFC 6455 that a client may see instead. */
export const closeCodes = {
  /** The server is going away. */
  1001: 'resume',
  /** Lost: no close frame arrived (never sent by anybody). */
  1006: 'resume',
  /** Far too large a message: refused before it was read. */
  1009: 'final',
  /** The server restarts. */
  1012: 'resume',
  /** Try again later. */
  1013: 'resume',
  /** Not JSON, not an object with an op, too large, or binary. */
  4400: 'final',
  /** No token, a bad one, or an expired one. */
  4401: 'newToken',
  /** Reason `revoked` or `rollout`. */
  4403: 'final',
  /** Too many connections of this user: the newest is refused. */
  4409: 'final',
  /** Too many messages. */
  4429: 'resume',
  /** Reads too slowly: what was dropped comes again on resume. */
  4508: 'resume',
} as const satisfies Record<number, CloseAction>;

export type CloseCode = keyof typeof closeCodes;

/** Close codes that the gateway itself sends. */
export type ServerCloseCode = Exclude<CloseCode, 1006>;

/**
 * What to do after a close with this code: the table above as a rule, which holds for codes to come as well. 4400 to
 * 4499 mean "you did something that will not work again", anything else is worth another attempt.
 */
export function closeAction(code: number): CloseAction {
  if (code === 4401) return 'newToken';
  if (code === 4429) return 'resume';
  return code === 1009 || (code >= 4400 && code < 4500) ? 'final' : 'resume';
}

/** Reasons that come with 4403. */
export type ForbiddenReason = 'revoked' | 'rollout';
