/**
 * How often somebody may do something (GCRA: a token bucket in one number), and what each client address uses.
 *
 * What must hold: asking costs no timer and no allocation; the table of addresses is bounded, and an address with an open
 * connection is never forgotten, so that its count stays true.
 */

import type { HttpRequest, TemplatedApp } from 'uWebSockets.js';

/** A rate: one step every `intervalMs`, and as many at once as fit into `burstMs`. */
export interface Rate {
  readonly intervalMs: number;
  readonly burstMs: number;
}

/** `perSecond` steps a second, that many at once. */
export function rate(perSecond: number): Rate {
  return { intervalMs: 1000 / perSecond, burstMs: 1000 };
}

export function perMinute(count: number): Rate {
  return { intervalMs: 60_000 / count, burstMs: 60_000 };
}

/**
 * The theoretical arrival time after one more step at `nowMs`. The step is within the rate if
 * `next - nowMs <= burstMs`; whoever refuses it may keep the old value (refusals are free) or the new one (they count).
 */
export function step(tatMs: number, nowMs: number, { intervalMs }: Rate): number {
  return Math.max(tatMs, nowMs) + intervalMs;
}

/** How many more steps are allowed now. */
export function remaining(tatMs: number, nowMs: number, { intervalMs, burstMs }: Rate): number {
  return Math.max(0, Math.floor((burstMs - Math.max(0, tatMs - nowMs)) / intervalMs + 1e-9));
}

/** What one client address uses. */
export interface AddressUse {
  readonly address: string;
  connections: number;
  handshakesTatMs: number;
  httpTatMs: number;
  connectsTatMs: number;
}

/** Most addresses that are remembered; beyond it those without a connection are forgotten first. */
const mostAddresses = 100_000;

export class Addresses {
  readonly #uses = new Map<string, AddressUse>();

  /** The entry of an address, made where there is none. */
  use(address: string): AddressUse {
    let use = this.#uses.get(address);
    if (use === undefined) {
      if (this.#uses.size >= mostAddresses) this.forgetIdle(Infinity);
      use = { address, connections: 0, handshakesTatMs: 0, httpTatMs: 0, connectsTatMs: 0 };
      this.#uses.set(address, use);
    }
    return use;
  }

  /** Forgets addresses that have no connection and whose rates have recovered at `nowMs`. */
  forgetIdle(nowMs: number): void {
    for (const [address, use] of this.#uses) {
      const busyUntilMs = Math.max(use.handshakesTatMs, use.httpTatMs, use.connectsTatMs);
      if (use.connections === 0 && busyUntilMs <= nowMs) this.#uses.delete(address);
    }
  }

  get size(): number {
    return this.#uses.size;
  }
}

/**
 * TCP connections, which need say nothing at all for as long as uWebSockets waits (10 s and a bit). An address may open twice as
 * many as its handshakes and calls can need, so that 429 is heard before this is felt. While all addresses together open fewer
 * than one of them might, nobody asks whose they are.
 */
export class Connects {
  readonly #rate: Rate;
  #allTatMs = 0;

  constructor(limits: { readonly handshakesPerSecond: number; readonly httpPerMinute: number }) {
    const intervalMs = 500 / (limits.handshakesPerSecond + limits.httpPerMinute / 60);
    this.#rate = { intervalMs, burstMs: 2 * (limits.handshakesPerSecond + limits.httpPerMinute) * intervalMs };
  }

  /** Counts one more; false if it is one too many. `useOf` says who it is. */
  allowed(nowMs: number, useOf: () => AddressUse): boolean {
    const all = step(this.#allTatMs, nowMs, this.#rate);
    if (all - nowMs <= this.#rate.burstMs) {
      this.#allTatMs = all;
      return true;
    }
    const use = useOf();
    const tatMs = step(use.connectsTatMs, nowMs, this.#rate);
    if (tatMs - nowMs > this.#rate.burstMs) return false;
    use.connectsTatMs = tatMs;
    return true;
  }

  /** Cuts what is beyond, with nothing of it read. Not for behind a proxy, where every connection is the proxy's. */
  guard(app: TemplatedApp, addresses: Addresses, cut: () => void): void {
    app.filter((res, count) => {
      const came = count > 0;
      if (!came || this.allowed(Date.now(), () => addresses.use(clientAddress(res.getRemoteAddress(), '', 0)))) return;
      cut();
      res.close();
    });
  }
}

/**
 * X-Forwarded-For as one list, as RFC 9110 §5.3 has it: HAProxy adds a line of its own below what the client sent, and who read
 * only the first would believe the client. All lines are read only where one of them counts.
 */
export function forwardedFor(req: HttpRequest, hops: number): string {
  const first = req.getHeader('x-forwarded-for');
  if (hops === 0 || first === '') return first;
  const lines: string[] = [];
  req.forEach((name, value) => {
    if (name === 'x-forwarded-for') lines.push(value);
  });
  return lines.join(',');
}

/**
 * The address that limits are counted for. `hops` proxies are trusted: the address that the outermost of them saw stands
 * that many places from the right of X-Forwarded-For; where it does not, the peer itself is taken. An IPv4 address counts
 * as such also when it comes mapped into IPv6, and an IPv6 address by its /64, which is what one customer gets.
 */
export function clientAddress(peer: ArrayBuffer, forwardedFor: string, hops: number): string {
  if (hops > 0 && forwardedFor !== '') {
    const chain = forwardedFor.split(',');
    const claimed = normalAddress(chain[Math.max(0, chain.length - hops)]?.trim() ?? '');
    if (claimed !== null) return claimed;
  }
  const bytes = new Uint8Array(peer);
  const [a, b, c, d] = bytes;
  if (bytes.length === 4) return `${a}.${b}.${c}.${d}`;
  const groups = Array.from({ length: 8 }, (_, i) => ((bytes[2 * i] ?? 0) << 8) | (bytes[2 * i + 1] ?? 0));
  return fromGroups(groups);
}

/** True for 127.0.0.0/8 and ::1, as `clientAddress` writes them. */
export function isLoopback(address: string): boolean {
  return address.startsWith('127.') || address === '::1';
}

/** As `clientAddress` writes it, from text; null for what is no address. */
function normalAddress(text: string): string | null {
  const bare = /^\[([^\]]+)\](?::\d+)?$/.exec(text)?.[1] ?? text.replace(/^(\d+\.\d+\.\d+\.\d+):\d+$/, '$1');
  if (/^\d{1,3}(\.\d{1,3}){3}$/.test(bare)) return bare;
  // An IPv4 tail, as in ::ffff:192.0.2.1, as two groups.
  const text6 = bare.replace(
    /(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/,
    (_whole, a: string, b: string, c: string, d: string) =>
      [Number(a) * 256 + Number(b), Number(c) * 256 + Number(d)].map((group) => group.toString(16)).join(':'),
  );
  if (!/^[0-9a-f:]{2,39}$/i.test(text6) || !text6.includes(':')) return null;
  const [head = '', tail] = text6.split('::', 2);
  const left = head === '' ? [] : head.split(':');
  const right = tail === undefined || tail === '' ? [] : tail.split(':');
  const missing = 8 - left.length - right.length;
  if (tail === undefined ? missing !== 0 : missing < 1) return null;
  const groups = [...left, ...Array<string>(missing).fill('0'), ...right].map((group) => parseInt(group || '0', 16));
  return groups.some((group) => group > 0xffff || Number.isNaN(group)) ? null : fromGroups(groups);
}

function fromGroups(groups: readonly number[]): string {
  const zeros = (from: number, to: number): boolean => groups.slice(from, to).every((group) => group === 0);
  const [, , , , , g5 = 0, g6 = 0, g7 = 0] = groups;
  if (zeros(0, 5) && g5 === 0xffff) return `${g6 >> 8}.${g6 & 255}.${g7 >> 8}.${g7 & 255}`;
  if (zeros(0, 7) && g7 === 1) return '::1';
  return `${groups
    .slice(0, 4)
    .map((group) => group.toString(16))
    .join(':')}::/64`;
}
