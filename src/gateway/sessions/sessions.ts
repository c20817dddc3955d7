/**
 * The table of sockets and its one clock: deadlines, expiry and pings of all sessions.
 *
 * What must hold: a session ends within a second after its token's `exp`, an unauthenticated socket after its deadline; every
 * socket is pinged once per `pingSeconds`, spread over that time, and one that gave no sign of life for twice that is gone.
 */

import type { Session } from './session.js';
import { pingSeconds, tickMs, ticksAt } from './ticks.js';

const pingTicks = (pingSeconds * 1000) / tickMs;

export interface SessionsOwner {
  readonly sendQueueBytes: number;
  left(session: Session): void;
  fellBehind(session: Session): void;
  /** The socket is closed. */
  gone(session: Session): void;
}

export class Sessions {
  readonly sendQueueBytes: number;
  readonly all: Session[] = [];
  /** Live sessions that are not in the topic of `all`, since their people have block relations. */
  readonly apart = new Set<Session>();
  #timer: NodeJS.Timeout | null = null;
  #ticks = 0;
  #added = 0;
  #emptied: (() => void) | null = null;
  /** Names sessions uniquely among all processes, in few characters. */
  readonly #prefix: string;
  #numbered = 0;

  constructor(
    private readonly owner: SessionsOwner,
    prefix: string,
  ) {
    this.sendQueueBytes = owner.sendQueueBytes;
    this.#prefix = prefix;
  }

  start(): void {
    this.#timer = setInterval(() => this.tick(), tickMs);
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
  }

  nextNumber(): number {
    return this.#numbered++;
  }

  nameOf(number: number): string {
    return this.#prefix + number.toString(36);
  }

  /** The session of this name, if it is one of ours. Rarely asked: an index of all names would cost every socket memory. */
  named(id: string): Session | undefined {
    if (!id.startsWith(this.#prefix)) return undefined;
    const number = parseInt(id.slice(this.#prefix.length), 36);
    return this.nameOf(number) === id ? this.all.find((session) => session.number === number) : undefined;
  }

  add(session: Session): void {
    session.index = this.all.push(session) - 1;
    session.phase = this.#added++ % pingTicks;
  }

  left(session: Session): void {
    this.apart.delete(session);
    this.owner.left(session);
  }

  fellBehind(session: Session): void {
    this.owner.fellBehind(session);
  }

  gone(session: Session): void {
    const last = this.all.pop();
    if (last !== undefined && last !== session) {
      this.all[session.index] = last;
      last.index = session.index;
    }
    this.owner.gone(session);
    if (this.all.length === 0) this.#emptied?.();
  }

  /** When no socket is left. */
  emptied(): Promise<void> {
    if (this.all.length === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#emptied = resolve;
    });
  }

  private tick(): void {
    const now = ticksAt(Date.now());
    const phase = this.#ticks++ % pingTicks;
    // Backwards: closing moves the last one, which has been looked at, into the place of the closed one.
    for (let i = this.all.length - 1; i >= 0; i--) {
      const session = this.all[i];
      if (session === undefined) continue;
      if (session.endsAtTick <= now) this.end(session);
      else if (session.phase === phase) this.ping(session, now);
    }
  }

  private end(session: Session): void {
    if (session.stage === 'slow') session.terminate();
    else session.close(4401, session.stage === 'opening' ? 'no token in time' : 'token expired');
  }

  private ping(session: Session, nowTick: number): void {
    if (session.heardAtTick + 2 * pingTicks <= nowTick) session.terminate();
    else if (session.open) session.socket?.ping();
  }
}
