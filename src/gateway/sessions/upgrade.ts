/**
 * The handshake of `/ws`.
 *
 * What must hold:
 * - Everything is read from the request before it returns (uWebSockets takes it away).
 * - A foreign browser (`Origin`) is refused with 403, too many connections or handshakes of an address with 429, all before any token is
 *   looked at. A bad token is not refused here, since a browser can't see a 401: the socket is accepted and closed with 4401.
 * - The handshake is answered before this returns. Corking it, to go out in one write with `hello`, would be cheaper, but uWebSockets may
 *   then take the upgraded socket for an HTTP response and close it (uWebSockets#1929).
 */

import type { HttpRequest, HttpResponse, us_socket_context_t } from 'uWebSockets.js';
import type { Config } from '../../config/types.js';
import { BEARER_PREFIX, SUBPROTOCOL } from '../../protocol/frames.js';
import { write } from '../http/http.js';
import { clientAddress, forwardedFor, rate, step, type Addresses, type AddressUse } from '../limits.js';
import { problem, type Answer } from '../problem.js';
import { Session, type Greeting, type SessionOwner, type SocketData } from './session.js';

export interface UpgradeOwner {
  readonly config: Config;
  /** Counts handshakes by outcome. */
  readonly counted: (outcome: string) => void;
  readonly addresses: Addresses;
  readonly sessions: SessionOwner;
  readonly draining: () => boolean;
  /** A session begins. */
  begun(session: Session): void;
}

/** How long a socket may take to show a valid token; CONTRACT §5. */
const tokenDeadlineMs = 5000;

export function upgrade(owner: UpgradeOwner, res: HttpResponse, req: HttpRequest, context: us_socket_context_t): void {
  const { config } = owner;
  const { trustProxy } = config.server;
  const forwarded = trustProxy === 0 ? '' : forwardedFor(req, trustProxy);
  const use = owner.addresses.use(clientAddress(res.getRemoteAddress(), forwarded, trustProxy));
  const refused = refusal(owner, use, req);
  if (refused !== null) {
    owner.counted(refused.outcome);
    return write(res, refused.answer, { close: true });
  }
  const offered = protocolsOf(req);
  const now = Date.now();
  const greeting = greetingOf(req, offered, config.auth.queryToken);
  const session = new Session(owner.sessions, use, greeting, now + tokenDeadlineMs, now);
  owner.counted('accepted');
  // The `open` of server.ts comes within it.
  res.upgrade<SocketData>(
    { session },
    req.getHeader('sec-websocket-key'),
    offered.includes(SUBPROTOCOL) ? SUBPROTOCOL : '',
    req.getHeader('sec-websocket-extensions'),
    context,
  );
  owner.begun(session);
}

/** Whether a page of this origin may talk to us: none (no browser), our own host, or one of the config. */
export function originAllowed(origin: string, host: string, allowed: readonly string[]): boolean {
  if (origin === '' || allowed.includes(origin)) return true;
  // The scheme is left out: behind a proxy that ends TLS we do not know our own.
  const own = host.toLowerCase();
  if (own === '' || !URL.canParse(origin)) return false;
  const theirs = new URL(origin).host;
  return theirs === own || theirs === own.replace(/:(80|443)$/, '');
}

function refusal(owner: UpgradeOwner, use: AddressUse, req: HttpRequest): { outcome: string; answer: Answer } | null {
  const { server, limits } = owner.config;
  if (owner.draining()) {
    return { outcome: 'draining', answer: problem(503, 'unavailable', 'The server restarts.', { 'Retry-After': '1' }) };
  }
  const origin = req.getHeader('origin');
  if (origin !== '' && !originAllowed(origin, req.getHeader('host'), server.origins)) {
    return { outcome: 'origin', answer: problem(403, 'forbidden', 'This origin is not in server.origins.') };
  }
  const now = Date.now();
  const tat = step(use.handshakesTatMs, now, rate(limits.handshakesPerSecond));
  if (tat - now > 1000) {
    return { outcome: 'limited', answer: problem(429, 'rate_limited', 'Too many handshakes.', { 'Retry-After': '1' }) };
  }
  use.handshakesTatMs = tat;
  if (use.connections >= limits.connectionsPerAddress) {
    return {
      outcome: 'limited',
      answer: problem(429, 'rate_limited', 'Too many connections.', { 'Retry-After': '10' }),
    };
  }
  return null;
}

function protocolsOf(req: HttpRequest): string[] {
  const header = req.getHeader('sec-websocket-protocol');
  return header === '' ? [] : header.split(',').map((name) => name.trim());
}

function greetingOf(req: HttpRequest, offered: readonly string[], queryToken: boolean): Greeting | null {
  const header = /^Bearer +(\S+)$/i.exec(req.getHeader('authorization'))?.[1];
  const protocol = offered.find((name) => name.startsWith(BEARER_PREFIX))?.slice(BEARER_PREFIX.length);
  const query = queryToken ? req.getQuery('token') : undefined;
  const token = header ?? protocol ?? query;
  if (token === undefined || token === '') return null;
  const since = req.getQuery('since');
  if (since === undefined || since === '') return { token, since: null, epoch: null };
  const position = Number(since);
  // Nobody can resume from what is no position: the answer says `recovered: false`.
  if (!/^\d+$/.test(since) || !Number.isSafeInteger(position)) return { token, since: 0, epoch: null };
  return { token, since: position, epoch: req.getQuery('epoch') ?? null };
}
