/**
 * Text from a client → a typed request, or what is wrong with it. Pure; throws for no input (fuzzed).
 *
 * What must hold: nothing that passes can surprise what comes after: text is well-formed Unicode without control
 * characters (Postgres refuses U+0000), numbers are safe integers, lists are bounded. Unknown fields are ignored, so
 * that newer clients can talk to older servers; a field that is null counts as absent.
 */

import type { ErrorCode } from './codes.js';
import {
  RESERVED_EVENTS,
  type JsonObject,
  type MarkTarget,
  type PresenceRequest,
  type Request,
  type RequestId,
} from './frames.js';

/** Bounds of the fields of a request; the frame as a whole is bounded by `limits.messageBytes`. */
export const bounds = {
  /** Characters of a request's `id` where it is a string. */
  idChars: 64,
  epochChars: 64,
  /** Bytes in UTF-8. */
  channelBytes: 256,
  eventChars: 64,
  ids: 500,
  users: 500,
  /** Characters of one notification id or user id in a list. */
  listedIdChars: 256,
  /** Levels of nesting within `data`. */
  dataDepth: 32,
} as const;

export type ParsedFrame =
  | { readonly kind: 'request'; readonly id: RequestId; readonly request: Request }
  /** Answer with this error and stay open; `id` is null where the frame had no usable one. */
  | {
      readonly kind: 'error';
      readonly id: RequestId | null;
      readonly code: Extract<ErrorCode, 'bad_request' | 'unknown_op'>;
      readonly message: string;
    }
  /** Not a frame of this protocol: close with 4400 and this reason. */
  | { readonly kind: 'fatal'; readonly reason: string };

/** Never throws. */
export function parseClientFrame(text: string): ParsedFrame {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { kind: 'fatal', reason: 'not JSON' };
  }
  if (!isObject(value) || typeof value['op'] !== 'string') return { kind: 'fatal', reason: 'not an object with an op' };
  const id = requestId(value['id']);
  try {
    const request = parseRequest(value['op'], value);
    if (request === null) {
      return {
        kind: 'error',
        id,
        code: 'unknown_op',
        message: `unknown op ${JSON.stringify(value['op'].slice(0, 64))}`,
      };
    }
    if (id === null) throw new Problem(`id: must be a number, or a string of at most ${bounds.idChars} characters`);
    return { kind: 'request', id, request };
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    return { kind: 'error', id, code: 'bad_request', message: error.message };
  }
}

/** The body of `POST /api/notifications/seen|read|archive`: a target, or what is wrong with it. Never throws. */
export function parseMarkTarget(body: unknown): MarkTarget | { readonly problem: string } {
  if (!isObject(body)) return { problem: 'the body must be an object with ids or through' };
  try {
    return markTarget(body);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    return { problem: error.message };
  }
}

/** `kind:id`, split at the first colon; a channel without a colon is a room. */
export function splitChannel(channel: string): { readonly kind: string; readonly id: string } {
  const colon = channel.indexOf(':');
  return colon < 0 ? { kind: 'room', id: channel } : { kind: channel.slice(0, colon), id: channel.slice(colon + 1) };
}

type Fields = Readonly<Record<string, unknown>>;

class Problem extends Error {}

/** Null for an unknown op; throws Problem. */
function parseRequest(op: string, fields: Fields): Request | null {
  switch (op) {
    case 'auth':
      return {
        op,
        token: tokenText(fields),
        since: position(fields, 'since'),
        epoch: optionalText(fields, 'epoch', bounds.epochChars),
      };
    case 'subscribe':
      return {
        op,
        channel: channel(fields),
        offset: position(fields, 'offset'),
        epoch: optionalText(fields, 'epoch', bounds.epochChars),
      };
    case 'unsubscribe':
      return { op, channel: channel(fields) };
    case 'seen':
    case 'read':
    case 'archive':
      return { op, target: markTarget(fields) };
    case 'presence':
      return { op, of: presenceOf(fields) };
    case 'publish':
      return { op, channel: channel(fields), event: eventName(fields), data: dataObject(fields) };
    case 'ping':
      return { op };
    default:
      return null;
  }
}

/** Null where it cannot be echoed faithfully. */
function requestId(value: unknown): RequestId | null {
  if (typeof value === 'string') return value.length <= bounds.idChars && !unclean.test(value) ? value : null;
  // An integer beyond 2^53 has already lost digits, and infinity (1e999) has no JSON.
  return typeof value === 'number' && Math.abs(value) <= Number.MAX_SAFE_INTEGER ? value : null;
}

/** Any text: one that can't be a token is a bad token, which is for those to say who check it. */
function tokenText(fields: Fields): string {
  const value = present(fields, 'token');
  if (value === undefined) throw new Problem('token: is required');
  if (typeof value !== 'string') throw new Problem('token: must be a string');
  return value;
}

function markTarget(fields: Fields): MarkTarget {
  const ids = present(fields, 'ids');
  const through = position(fields, 'through');
  if (ids !== undefined && through !== null) throw new Problem('ids, through: give one of the two, not both');
  if (through !== null) return { through };
  if (ids === undefined) throw new Problem('ids, through: one of the two is required');
  return { ids: list(ids, 'ids', bounds.ids) };
}

function presenceOf(fields: Fields): PresenceRequest['of'] {
  const users = present(fields, 'users');
  const named = present(fields, 'channel') !== undefined;
  if (users !== undefined && named) throw new Problem('users, channel: give one of the two, not both');
  if (named) return { channel: channel(fields) };
  if (users === undefined) throw new Problem('users, channel: one of the two is required');
  return { users: list(Array.isArray(users) ? users.map(idText) : users, 'users', bounds.users) };
}

function channel(fields: Fields): string {
  const value = text(fields, 'channel', bounds.channelBytes);
  if (utf8Bytes(value) > bounds.channelBytes) throw new Problem(`channel: is longer than ${bounds.channelBytes} bytes`);
  return value;
}

function eventName(fields: Fields): string {
  const value = text(fields, 'event', bounds.eventChars);
  if (RESERVED_EVENTS.includes(value)) throw new Problem(`event: ${value} belongs to the protocol; take another name`);
  return value;
}

function dataObject(fields: Fields): JsonObject {
  const value = present(fields, 'data');
  if (value === undefined) return {};
  if (!isObject(value)) throw new Problem('data: must be an object');
  checkJson(value);
  return value as JsonObject;
}

/** Level by level instead of recursively, so that deep nesting cannot exhaust the stack; throws Problem. */
function checkJson(root: object): void {
  let level: object[] = [root];
  for (let depth = 1; level.length > 0; depth++) {
    if (depth > bounds.dataDepth) throw new Problem(`data: is nested deeper than ${bounds.dataDepth} levels`);
    const next: object[] = [];
    for (const node of level) {
      for (const [key, value] of Object.entries(node) as [string, unknown][]) {
        if (unstorable.test(key) || (typeof value === 'string' && unstorable.test(value))) {
          throw new Problem('data: must not hold U+0000 or half surrogate pairs');
        }
        if (typeof value === 'number' && Math.abs(value) > Number.MAX_SAFE_INTEGER) {
          // It has lost digits already, and infinity (1e999) has no JSON.
          throw new Problem('data: must not hold numbers beyond 2^53: write them as strings');
        }
        if (typeof value === 'object' && value !== null) next.push(value);
      }
    }
    level = next;
  }
}

function list(value: unknown, name: string, most: number): readonly string[] {
  if (!Array.isArray(value)) throw new Problem(`${name}: must be a list of strings`);
  if (value.length === 0) throw new Problem(`${name}: must not be empty`);
  if (value.length > most) throw new Problem(`${name}: has ${value.length} entries, at most ${most} are allowed`);
  return value.map((entry: unknown, i) => checked(entry, `${name}[${i}]`, bounds.listedIdChars));
}

/** The ids of people are text here; in applications they are often numbers, and a whole one can only mean its digits. */
function idText(value: unknown): unknown {
  return Number.isSafeInteger(value) ? String(value) : value;
}

function position(fields: Fields, name: string): number | null {
  const value = present(fields, name);
  if (value === undefined) return null;
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
    throw new Problem(`${name}: must be an integer from 0`);
  }
  return value;
}

function text(fields: Fields, name: string, mostChars: number): string {
  const value = present(fields, name);
  if (value === undefined) throw new Problem(`${name}: is required`);
  return checked(value, name, mostChars);
}

function optionalText(fields: Fields, name: string, mostChars: number): string | null {
  const value = present(fields, name);
  return value === undefined ? null : checked(value, name, mostChars);
}

/** Control characters, and halves of surrogate pairs (with the flag u a whole pair is one code point, not two). */
// eslint-disable-next-line no-control-regex
const unclean = /[\u0000-\u001f\u007f]|\p{Surrogate}/u;

/** What jsonb cannot hold; other control characters may stand in `data`. */
// eslint-disable-next-line no-control-regex
const unstorable = /\u0000|\p{Surrogate}/u;

function checked(value: unknown, name: string, mostChars: number): string {
  if (typeof value !== 'string') throw new Problem(`${name}: must be a string`);
  if (value === '') throw new Problem(`${name}: must not be empty`);
  if (value.length > mostChars && [...value].length > mostChars) {
    throw new Problem(`${name}: is longer than ${mostChars} characters`);
  }
  if (unclean.test(value)) throw new Problem(`${name}: must not hold control characters or half surrogate pairs`);
  return value;
}

function present(fields: Fields, name: string): unknown {
  const value = fields[name];
  return value === null ? undefined : value;
}

/** Bytes in UTF-8 of well-formed text, without a TextEncoder's allocation. */
function utf8Bytes(value: string): number {
  let bytes = 0;
  for (const char of value) {
    const point = char.codePointAt(0) ?? 0;
    bytes += point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
  }
  return bytes;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
