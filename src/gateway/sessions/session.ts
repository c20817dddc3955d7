/**
 * One socket and what the gateway knows of it.
 *
 * What must hold:
 * - Lean: thousands of them idle; no timers and no closures of its own, collections are made when first needed.
 * - Nothing is dropped silently: a send that does not fit into `sendQueueBytes` ends the session with 4508, and from that
 *   moment it gets nothing more, so that what it has received is a prefix of what was sent.
 * - `seq` is the position up to which this socket has been told, in order.
 * - After `closed` nothing touches the socket: uWebSockets throws when one does.
 */

import type { WebSocket } from 'uWebSockets.js';
import type { ServerCloseCode } from '../../protocol/codes.js';
import type { AddressUse } from '../limits.js';
import type { PersonHub } from '../people/people.js';
import type { Subscription } from '../channels/channels.js';
import { tickAfter, ticksAt } from './ticks.js';

export interface SocketData {
  readonly session: Session;
}
export type Socket = WebSocket<SocketData>;

/**
 * opening: no valid token yet · joining: the token is good, the answer is not out · replaying: answered, not yet `synced` ·
 * live · slow: fell behind, waits for room for its close frame · closed.
 */
export type Stage = 'opening' | 'joining' | 'replaying' | 'live' | 'slow' | 'closed';

/** What came with the upgrade, until it was used. */
export interface Greeting {
  readonly token: string;
  readonly since: number | null;
  readonly epoch: string | null;
}

/** Called when a session leaves everything it is in; the socket may still be open. */
export interface SessionOwner {
  readonly sendQueueBytes: number;
  nameOf(number: number): string;
  left(session: Session): void;
  fellBehind(session: Session): void;
  gone(session: Session): void;
}

/** How long a session that fell behind may take to make room for its close frame. */
const slowGraceMs = 10_000;
/** Frames of a replay go out in corked pieces of about this size. */
const pieceBytes = 8192;

export class Session {
  socket: Socket | null = null;
  stage: Stage = 'opening';
  /** Its number among the sessions of this process; below 0 until authenticated. Its name is made when it is asked for. */
  number = -1;
  hub: PersonHub | null = null;
  seq = -1;
  /** `packBadge` of what this socket was told; below 0: nothing yet. */
  badge = -1;
  /** The tick at which this stage is over: the deadline for a token, the token's expiry, or the grace of a slow session. */
  endsAtTick: number;
  /** The tick in which it was authenticated. */
  sinceTick = 0;
  /** The tick at which the socket last gave a sign of life. */
  heardAtTick: number;
  /** Rate of messages that were taken, and of all, see limits.ts; null until the first one. */
  takenTatMs: number | null = null;
  allTatMs: number | null = null;
  /** Which second of the ping interval is this one's. */
  phase = 0;
  /** Index in the gateway's table of sockets. */
  index = -1;
  greeting: Greeting | null;
  subscriptions: Map<string, Subscription> | null = null;
  /** People and channels whose presence it wants to hear of. */
  watching: Set<string> | null = null;
  /** A `resync` that came before `synced`, to be told after it. */
  missed: string | null = null;
  #tail: Promise<void> | null = null;
  #queued = 0;
  /** Replays that wait for room: a person's, and one of each channel that was resumed. */
  #waiting: (() => void)[] | null = null;
  #detached = false;

  constructor(
    private readonly owner: SessionOwner,
    readonly use: AddressUse,
    greeting: Greeting | null,
    deadlineMs: number,
    nowMs: number,
  ) {
    this.greeting = greeting;
    this.endsAtTick = tickAfter(deadlineMs);
    this.heardAtTick = ticksAt(nowMs);
  }

  /** Names it uniquely among all processes; empty until authenticated. */
  get id(): string {
    return this.number < 0 ? '' : this.owner.nameOf(this.number);
  }

  get userId(): string {
    return this.hub?.userId ?? '';
  }

  /** Whether it is authenticated and can be sent to. */
  get active(): boolean {
    return this.stage === 'live' || this.stage === 'replaying' || this.stage === 'joining';
  }

  /** Whether frames may be sent. */
  get open(): boolean {
    return this.stage !== 'slow' && this.stage !== 'closed';
  }

  /** Sets when its stage ends, in ms since 1970. */
  endsAt(ms: number): void {
    this.endsAtTick = tickAfter(ms);
  }

  /** The socket gave a sign of life. */
  heard(nowMs: number): void {
    this.heardAtTick = ticksAt(nowMs);
  }

  /** Sends, unless it is closing. A frame that does not fit ends the session with 4508. */
  send(frame: string): void {
    if (!this.open) return;
    if (this.socket?.send(frame) === 2) this.fallBehind();
  }

  /** Whatever `work` sends goes out in one write. */
  corked(work: () => void): void {
    if (this.socket === null || !this.open) work();
    else this.socket.cork(work);
  }

  /**
   * Sends as fast as the socket takes it, so that a replay alone never ends in 4508, and resolves when there is room again for
   * what follows; false when the session has ended, or what is sent is no longer `wanted`. Frames are made when their turn has
   * come, so that they show what holds then.
   */
  async sendPaced<T>(
    items: readonly T[],
    frameOf: (item: T) => string,
    wanted: () => boolean = () => true,
  ): Promise<boolean> {
    const goesOn = (): boolean => this.open && wanted();
    const room = Math.min(65_536, this.owner.sendQueueBytes / 2);
    let next = 0;
    while (items.length > 0 && this.socket !== null && goesOn()) {
      if (this.socket.getBufferedAmount() > room) await this.drained();
      else if (next === items.length) break;
      else this.corked(() => (next = this.sendPiece(items, frameOf, next, Math.min(pieceBytes, room / 2))));
    }
    return goesOn();
  }

  /** Runs tasks of this session one after the other; they must not throw. False: too many wait already. */
  enqueue(task: () => Promise<void>): boolean {
    if (this.#queued >= 64) return false;
    this.#queued++;
    const turn: Promise<void> = (this.#tail === null ? task() : this.#tail.then(task)).then(() => {
      this.#queued--;
      if (this.#tail === turn) this.#tail = null;
    });
    this.#tail = turn;
    return true;
  }

  /** Whether an op is being worked on. */
  get busy(): boolean {
    return this.#queued > 0;
  }

  /** The socket has room again. */
  onDrain(): void {
    if (this.stage === 'slow') return this.endSlow();
    this.wake();
  }

  /** The socket did not take a frame: the session leaves everything at once, and is closed as soon as the close frame fits. */
  fallBehind(): void {
    if (!this.open) return;
    this.stage = 'slow';
    this.endsAt(Date.now() + slowGraceMs);
    this.owner.fellBehind(this);
    // In a later turn: uWebSockets may be iterating over its topics now.
    setImmediate(() => {
      this.detach();
      this.endSlow();
    });
  }

  /** Closes with a code and tells the owner; nothing is sent afterwards. Not from within a callback of a publish. */
  close(code: ServerCloseCode, reason: string): void {
    if (this.stage === 'closed') return;
    this.detach();
    // Set before uWebSockets reports the end, to tell it from a close by the client.
    this.stage = 'closed';
    this.socket?.end(code, reason);
  }

  /** Closes without a frame: for a peer that gives no sign of life or takes nothing. */
  terminate(): void {
    if (this.stage === 'closed') return;
    this.detach();
    this.socket?.close();
  }

  /** uWebSockets says that the socket is gone. */
  closed(): void {
    this.stage = 'closed';
    this.socket = null;
    this.detach();
    this.owner.gone(this);
    this.wake();
  }

  private endSlow(): void {
    if (this.stage !== 'slow' || this.socket === null) return;
    if (this.socket.getBufferedAmount() <= this.owner.sendQueueBytes) this.close(4508, 'reads too slowly');
  }

  private detach(): void {
    if (this.#detached) return;
    this.#detached = true;
    this.owner.left(this);
    this.wake();
  }

  /** Sends the next frames of about so many bytes together, at least one; returns the index of the first that is left. */
  private sendPiece<T>(items: readonly T[], frameOf: (item: T) => string, from: number, mostBytes: number): number {
    let next = from;
    for (let bytes = 0; next < items.length; next++) {
      const frame = frameOf(items[next] as T);
      bytes += Buffer.byteLength(frame);
      if (next > from && bytes > mostBytes) break;
      this.send(frame);
    }
    return next;
  }

  private drained(): Promise<void> {
    return new Promise((resolve) => {
      (this.#waiting ??= []).push(resolve);
    });
  }

  private wake(): void {
    const waiting = this.#waiting;
    this.#waiting = null;
    for (const goOn of waiting ?? []) goOn();
  }
}

/** Two counts of at most 100 as one small integer. */
export function packBadge(badge: { readonly unseen: number; readonly unread: number }): number {
  return badge.unseen * 128 + badge.unread;
}

export function unpackBadge(packed: number): { unseen: number; unread: number } {
  return { unseen: packed >> 7, unread: packed & 127 };
}
