/**
 * HTTP beside the sockets: one entry for all routes.
 *
 * What must hold: a request is copied before the first await and an abort is noticed, since uWebSockets ends the process
 * otherwise; every answer, also an error, has the CORS and rate limit headers; errors are problem details (problem.ts) and tell
 * nothing of the database; a body is bounded before it is parsed.
 */

import type { HttpRequest, HttpResponse } from 'uWebSockets.js';
import type { Config } from '../../config/types.js';
import type { Logger } from '../../log.js';
import type { GatewayMetrics } from '../../metrics.js';
import {
  clientAddress,
  forwardedFor,
  isLoopback,
  perMinute,
  remaining,
  step,
  type Addresses,
  type AddressUse,
} from '../limits.js';
import { problem, problemOf, statusLine, type Answer } from '../problem.js';
import type { Identity, Tokens } from '../sessions/tokens.js';

/** What a route gets: copied, checked, parsed. */
export interface Call {
  readonly path: string;
  readonly query: URLSearchParams;
  /** Parsed JSON of POST and PUT; undefined where there was no body. */
  readonly body: unknown;
  /** Null for routes that are open to all and got no token. */
  readonly identity: Identity | null;
}

export interface Route {
  readonly method: 'GET' | 'POST' | 'PUT';
  readonly path: string;
  /** open: no token needed · user: a valid token · internal: loopback, or an admin's token. */
  readonly access: 'open' | 'user' | 'internal';
  /** Whether it counts against `limits.httpPerMinute`. */
  readonly limited: boolean;
  handle(call: Call): Answer | Promise<Answer>;
}

/** A static page, by its path. */
export type Pages = (path: string) => PageFile | null;
export interface PageFile {
  readonly type: string;
  readonly body: string | Uint8Array;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface HttpOwner {
  readonly config: Config;
  readonly log: Logger;
  readonly metrics: GatewayMetrics;
  readonly tokens: Tokens;
  readonly addresses: Addresses;
  readonly pages: Pages;
  /** Whether every answer is the last one on its connection. */
  readonly draining: () => boolean;
}

interface Copy {
  readonly method: string;
  readonly path: string;
  readonly query: string;
  readonly authorization: string;
  readonly origin: string;
  readonly loopback: boolean;
  readonly use: AddressUse;
}

export class Http {
  readonly #routes = new Map<string, Route[]>();
  /** Requests that are being answered. */
  pending = 0;

  constructor(
    private readonly owner: HttpOwner,
    routes: readonly Route[],
  ) {
    for (const route of routes) this.#routes.set(route.path, [...(this.#routes.get(route.path) ?? []), route]);
  }

  /** Any request but the handshake. */
  handle(res: HttpResponse, req: HttpRequest): void {
    let aborted = false;
    let onAbort = (): void => undefined;
    res.onAborted(() => {
      aborted = true;
      onAbort();
    });
    const copy = this.copy(res, req);
    const body =
      copy.method !== 'POST' && copy.method !== 'PUT'
        ? null
        : new Promise<Body>((resolve) => {
            onAbort = () => resolve(Buffer.alloc(0));
            readBody(res, this.owner.config.limits.messageBytes, resolve);
          });
    this.pending++;
    void this.answer(copy, body)
      .then(({ answer, label }) => {
        this.owner.metrics.http.inc({ route: label, status: answer.status });
        // Whoever kept a connection that we are about to close would send a call into the void.
        if (!aborted) write(res, answer, { head: copy.method === 'HEAD', close: this.owner.draining() });
      })
      .finally(() => {
        this.pending--;
      });
  }

  /** Never rejects. */
  private async answer(copy: Copy, body: Promise<Body> | null): Promise<{ answer: Answer; label: string }> {
    const routes = this.#routes.get(copy.path);
    const method = copy.method === 'HEAD' ? 'GET' : copy.method;
    const route = routes?.find((candidate) => candidate.method === method);
    const label = routes === undefined ? 'other' : copy.path;
    // A method that a path does not answer counts as what it answers, but for what browsers ask before a call.
    const limited =
      route?.limited ?? (routes === undefined || (copy.method !== 'OPTIONS' && routes.some((one) => one.limited)));
    const limit = limited ? this.limit(copy.use) : { headers: {}, refused: null };
    let answer: Answer;
    try {
      answer = limit.refused ?? (await this.inner(copy, routes, route, body));
    } catch (error) {
      const known = problemOf(error);
      if (known === null) this.owner.log.error({ err: error, route: label }, 'an HTTP call failed');
      answer = known ?? problem(500, 'internal', 'Something went wrong; it was logged.');
    }
    const headers = { ...limit.headers, ...this.cors(copy.origin), ...answer.headers };
    return { answer: { ...answer, headers }, label };
  }

  private async inner(
    copy: Copy,
    routes: readonly Route[] | undefined,
    route: Route | undefined,
    body: Promise<Body> | null,
  ): Promise<Answer> {
    if (copy.method === 'OPTIONS') return this.preflight(routes);
    if (routes === undefined) return this.page(copy);
    if (route === undefined) {
      const allow = routes.map(({ method }) => method).join(', ');
      return problem(405, 'bad_request', `This path answers ${allow}.`, { Allow: allow });
    }
    const identity = await this.identify(copy, route);
    if (identity instanceof Refused) return identity.answer;
    const read = body === null ? null : await body;
    if (read === 'too large') return problem(413, 'too_large', 'The body is too large.');
    const parsed = read === null ? { value: undefined } : parseBody(read);
    if (!('value' in parsed)) return parsed;
    return route.handle({ path: copy.path, query: new URLSearchParams(copy.query), body: parsed.value, identity });
  }

  /** Throws BelfryError `token_invalid`. */
  private async identify(copy: Copy, route: Route): Promise<Identity | Refused | null> {
    if (route.access === 'open' || (route.access === 'internal' && copy.loopback)) return null;
    const token = /^Bearer +(\S+)$/i.exec(copy.authorization)?.[1];
    if (token === undefined) {
      const headers = { 'WWW-Authenticate': 'Bearer' };
      return new Refused(problem(401, 'unauthorized', 'Send a token: Authorization: Bearer …', headers));
    }
    const identity = await this.owner.tokens.verify(token);
    if (route.access !== 'internal' || identity.admin) return identity;
    return new Refused(problem(403, 'forbidden', 'This is for admins (auth.adminClaim), and for this machine.'));
  }

  private page(copy: Copy): Answer {
    const page = copy.method === 'GET' || copy.method === 'HEAD' ? this.owner.pages(copy.path) : null;
    if (page === null) return problem(404, 'not_found', 'There is nothing here.');
    return {
      status: 200,
      type: page.type,
      body: page.body,
      headers: { 'X-Content-Type-Options': 'nosniff', ...page.headers },
    };
  }

  private preflight(routes: readonly Route[] | undefined): Answer {
    const methods = (routes ?? []).map(({ method }) => method).join(', ');
    return {
      status: 204,
      type: '',
      body: '',
      headers: {
        Allow: methods,
        'Access-Control-Allow-Methods': methods,
        'Access-Control-Allow-Headers': 'authorization, content-type',
        'Access-Control-Max-Age': '600',
      },
    };
  }

  private cors(origin: string): Record<string, string> {
    if (origin === '' || !this.owner.config.server.origins.includes(origin)) return { Vary: 'Origin' };
    return {
      Vary: 'Origin',
      'Access-Control-Allow-Origin': origin,
      'Access-Control-Expose-Headers':
        'RateLimit, RateLimit-Policy, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, Retry-After',
    };
  }

  /** Headers as in draft-ietf-httpapi-ratelimit-headers, in the present form and in the one that most clients know. */
  private limit(use: AddressUse): { headers: Record<string, string>; refused: Answer | null } {
    const quota = this.owner.config.limits.httpPerMinute;
    const allowed = perMinute(quota);
    const now = Date.now();
    const tat = step(use.httpTatMs, now, allowed);
    const refused = tat - now > allowed.burstMs;
    if (!refused) use.httpTatMs = tat;
    const left = remaining(use.httpTatMs, now, allowed);
    const resetS = Math.max(0, Math.ceil((use.httpTatMs - now) / 1000));
    const headers = {
      'RateLimit-Policy': `"default";q=${quota};w=60`,
      RateLimit: `"default";r=${left};t=${resetS}`,
      'RateLimit-Limit': String(quota),
      'RateLimit-Remaining': String(left),
      'RateLimit-Reset': String(resetS),
    };
    if (!refused) return { headers, refused: null };
    const retryS = Math.max(1, Math.ceil((tat - now - allowed.burstMs) / 1000));
    return { headers, refused: problem(429, 'rate_limited', 'Too many requests.', { 'Retry-After': String(retryS) }) };
  }

  private copy(res: HttpResponse, req: HttpRequest): Copy {
    const { trustProxy } = this.owner.config.server;
    const forwarded = forwardedFor(req, trustProxy);
    const address = clientAddress(res.getRemoteAddress(), forwarded, trustProxy);
    return {
      method: req.getCaseSensitiveMethod(),
      path: req.getUrl(),
      query: req.getQuery(),
      authorization: req.getHeader('authorization'),
      origin: req.getHeader('origin'),
      // A proxy on this machine that the config does not name must not open what is internal to the world.
      loopback: isLoopback(address) && (trustProxy > 0 || forwarded === ''),
      use: this.owner.addresses.use(address),
    };
  }
}

/** Sends an answer; must be called within the request's turn, or later if `onAborted` was registered. */
export function write(res: HttpResponse, answer: Answer, options: { head?: boolean; close?: boolean } = {}): void {
  res.cork(() => {
    res.writeStatus(statusLine(answer.status));
    if (answer.type !== '') res.writeHeader('Content-Type', answer.type);
    for (const [name, value] of Object.entries(answer.headers ?? {})) res.writeHeader(name, value);
    if (options.head === true) res.endWithoutBody(Buffer.byteLength(answer.body), options.close ?? false);
    else res.end(answer.body, options.close ?? false);
  });
}

class Refused {
  constructor(readonly answer: Answer) {}
}

type Body = Buffer | 'too large';

function readBody(res: HttpResponse, most: number, done: (body: Body) => void): void {
  const chunks: Buffer[] = [];
  let size = 0;
  res.onData((chunk, isLast) => {
    size += chunk.byteLength;
    // Copied: uWebSockets takes the memory back. What is beyond the bound is read and thrown away.
    if (size <= most) chunks.push(Buffer.from(new Uint8Array(chunk)));
    if (isLast) done(size <= most ? Buffer.concat(chunks) : 'too large');
  });
}

/** Whatever its Content-Type says: the only thing that a body can be here is JSON. */
function parseBody(body: Buffer): Answer | { value: unknown } {
  if (body.length === 0) return { value: undefined };
  try {
    return { value: JSON.parse(body.toString('utf8')) as unknown };
  } catch {
    return problem(400, 'bad_request', 'The body is not JSON.');
  }
}
