/**
 * The handshake of `/ws`.
 *
 * What must hold: everything is read from the request before it returns (uWebSockets takes it away); a foreign browser
 * (`Origin`) is refused with 403, too many connections or handshakes of an address with 429, all before any token is looked at;
 * a bad token is not refused here, since a browser cannot see a 401: the socket is accepted and closed with 4401; a handshake
 * with a token is answered together with its `hello` (a write costs more than all else that we do for it), or after
 * a second without it.
 */

import type { HttpRequest, HttpResponse, us_socket_context_t } from 'uWebSockets.js';
import type { Config } from '../config/types.js';
import { BEARER_PREFIX, SUBPROTOCOL } from '../protocol/frames.js';
import { write } from './http.js';
import { clientAddress, forwardedFor, rate, step, type Addresses, type AddressUse } from './limits.js';
import { problem, type Answer } from './problem.js';
import { Session, type Greeting, type Handshake, type SessionOwner, type SocketData } from './session.js';

export interface UpgradeOwner {
  readonly config: Config;
  /** Counts handshakes by outcome. */
  readonly counted: (outcome: string) => void;
  readonly addresses: Addresses;
  readonly sessions: SessionOwner;
  readonly draining: () => boolean;
  /** A session begins: without a socket until its handshake is answered. */
  begun(session: Session): void;
  /** The peer has gone before that. */
  aborted(session: Session): void;
}

/** How long a socket may take to show a valid token; CONTRACT §5. */
export const tokenDeadlineMs = 5000;

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
  const held = new Held(
    res,
    req.getHeader('sec-websocket-key'),
    offered.includes(SUBPROTOCOL) ? SUBPROTOCOL : '',
    req.getHeader('sec-websocket-extensions'),
    context,
  );
  if (greeting === null) {
    held.upgrade(session);
    return owner.begun(session);
  }
  session.handshake = held;
  res.onAborted(() => owner.aborted(session));
  owner.begun(session);
}

class Held implements Handshake {
  constructor(
    private readonly res: HttpResponse,
    private readonly key: string,
    private readonly protocol: string,
    private readonly extensions: string,
    private readonly context: us_socket_context_t,
  ) {}

  accept(session: Session, work: () => void): void {
    this.res.cork(() => {
      this.upgrade(session);
      work();
    });
  }

  drop(): void {
    this.res.close();
  }

  /** The `open` of server.ts comes within it. */
  upgrade(session: Session): void {
    this.res.upgrade<SocketData>({ session }, this.key, this.protocol, this.extensions, this.context);
  }
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
  // What is no position cannot be resumed from: the answer says `recovered: false`.
  if (!/^\d+$/.test(since) || !Number.isSafeInteger(position)) return { token, since: 0, epoch: null };
  return { token, since: position, epoch: req.getQuery('epoch') ?? null };
}
