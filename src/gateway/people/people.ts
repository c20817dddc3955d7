/**
 * Who is connected: a hub per person, through which the pushes of that person's stream reach their sockets.
 *
 * What must hold:
 * - A hub passes on its stream in dense order: what comes early waits, what comes twice is dropped, what is missing is
 *   fetched from the inbox (gaps.ts). A live socket never sees a hole: where the inbox can only give the present form with
 *   holes, the person's sockets are closed with 1012 and resume.
 * - A session is in its hub before its recovery is read, so that nothing can fall between the two; it becomes live in the
 *   same turn in which its position has reached the hub's.
 */

import type { UserPublication } from '../../broker/broker.js';
import type { Inbox, StreamFrame } from '../../inbox/types.js';
import { Gaps } from '../recovery/gaps.js';
import type { Session } from '../sessions/session.js';

export interface PersonHub {
  readonly userId: string;
  readonly sessions: Session[];
  /** Position up to which live sockets were told; below 0 until a recovery of this epoch was read. */
  position: number;
  /** `packBadge` of the inbox as it was at position `counted` of the stream (badges.ts). */
  numbers: number;
  counted: number;
  /** Pushes that came before one they must follow; bounded by Gaps. */
  ahead: Map<number, UserPublication> | null;
  /** The newest pushes, kept while sessions join; bounded by `mostRecent`. */
  recent: UserPublication[] | null;
  /** Sessions that are not live yet. */
  joining: number;
  /** Everybody whom this person blocks or is blocked by; null: nobody. */
  blocks: Blocked | null;
  blocksKnown: boolean;
  /** Answers that belong behind a position of the stream. */
  waiting: Waiting[] | null;
}

/** People who are hidden from somebody. */
export type Blocked = Pick<ReadonlySet<string>, 'has' | 'size'>;

interface Waiting {
  readonly seq: number;
  readonly tell: () => void;
  readonly timer: NodeJS.Timeout;
}

/** How long an answer waits for the stream to reach it: a broker may have lost what it waits for. */
const waitMs = 1000;

/** Pushes that a hub keeps for those who join; what is older they fetch. */
const mostRecent = 128;

export interface PeopleOwner {
  readonly inbox: Inbox;
  /** Counts frames that were sent. */
  pushed(kind: 'notification', count: number): void;
  /** A push went to so many sockets. */
  traced(userId: string, seq: number, sockets: number): void;
  failed(what: string, error: unknown): void;
  repaired(outcome: 'person' | 'closed'): void;
}

export class People {
  readonly hubs = new Map<string, PersonHub>();
  /** Authenticated sessions of everybody. */
  sessions = 0;
  readonly gaps: Gaps<PersonHub, UserPublication>;

  constructor(private readonly owner: PeopleOwner) {
    this.gaps = new Gaps({
      deliver: (hub, publication) => this.deliver(hub, publication),
      fetch: (hubs) => this.fetch(hubs),
      lost: (hub) => this.lost(hub),
      known: (hub) => this.hubs.get(hub.userId) === hub,
      failed: (error) => this.owner.failed('repair of inbox streams', error),
    });
  }

  /** Registers a session that begins to join. */
  join(session: Session, userId: string): PersonHub {
    let hub = this.hubs.get(userId);
    if (hub === undefined) {
      // Most people have one session: a list made with it takes no more memory than it needs.
      hub = {
        userId,
        sessions: [session],
        position: -1,
        numbers: -1,
        counted: -1,
        ahead: null,
        recent: null,
        joining: 0,
        blocks: null,
        blocksKnown: false,
        waiting: null,
      };
      this.hubs.set(userId, hub);
    } else {
      hub.sessions.push(session);
    }
    this.sessions++;
    hub.joining++;
    hub.recent ??= [];
    session.hub = hub;
    return hub;
  }

  leave(session: Session): void {
    const { hub } = session;
    if (hub === null) return;
    const at = hub.sessions.indexOf(session);
    if (at < 0) return;
    hub.sessions.splice(at, 1);
    this.sessions--;
    if (hub.sessions.length === 0) this.hubs.delete(hub.userId);
  }

  /** Must be called exactly once for each `join`, when the session is live or gone. */
  joined(hub: PersonHub): void {
    if (--hub.joining === 0) hub.recent = null;
  }

  /** Sets where the hub's stream stands, which its first recovery says. */
  begin(hub: PersonHub, position: number): void {
    if (hub.position >= 0) return;
    hub.position = position;
    this.gaps.settle(hub);
  }

  /** Another epoch has begun: every hub begins anew with its next recovery; who was told before is to resume. */
  restart(): void {
    for (const hub of this.hubs.values()) {
      this.gaps.restart(hub);
      hub.counted = -1;
      if (hub.recent !== null) hub.recent.length = 0;
    }
  }

  receive(publication: UserPublication): void {
    const hub = this.hubs.get(publication.userId);
    if (hub !== undefined) this.gaps.receive(hub, publication.seq, publication);
  }

  /**
   * Tells a session what came since its position, then `synced`, and makes it live, with whatever `live` does, in that same
   * turn; without a word when the session ended meanwhile.
   */
  async goLive(session: Session, hub: PersonHub, live: () => void): Promise<void> {
    while (session.open && session.seq < hub.position) {
      const frames = recentAfter(hub, session.seq) ?? (await this.framesAfter(hub.userId, session.seq));
      // The stream has moved, but what it moved by was pruned: only the position is left to be told.
      if (frames.length === 0) session.seq = Math.max(session.seq, hub.position);
      if (!(await session.sendPaced(frames, ({ frame }) => frame))) return;
      session.seq = Math.max(session.seq, frames.at(-1)?.seq ?? -1);
    }
    this.liveNow(session, hub, live);
  }

  /** Makes a session live if it has been told everything; false if it is behind or has ended. */
  liveNow(session: Session, hub: PersonHub, live: () => void): boolean {
    if (!session.open || session.seq < hub.position) return false;
    session.send(`{"event":"synced","seq":${session.seq}}`);
    session.stage = 'live';
    live();
    return true;
  }

  /** Calls `tell` once the session's socket has been told everything up to `seq`, so that positions never seem to jump. */
  tellAt(session: Session, seq: number, tell: () => void): void {
    const { hub } = session;
    if (hub === null || session.stage !== 'live' || session.seq >= seq) return tell();
    const waiting: Waiting = {
      seq,
      tell,
      timer: setTimeout(() => {
        hub.waiting = (hub.waiting ?? []).filter((other) => other !== waiting);
        tell();
      }, waitMs),
    };
    hub.waiting ??= [];
    hub.waiting.push(waiting);
  }

  private async framesAfter(userId: string, seq: number): Promise<StreamFrame[]> {
    return (await this.owner.inbox.framesAfter(new Map([[userId, seq]]))).get(userId) ?? [];
  }

  private deliver(hub: PersonHub, publication: UserPublication): void {
    const { seq, frame } = publication;
    hub.position = seq;
    if (hub.recent !== null) {
      if (hub.recent.length >= mostRecent) hub.recent.shift();
      hub.recent.push(publication);
    }
    let sent = 0;
    for (const session of hub.sessions) {
      if (session.stage !== 'live' || seq <= session.seq) continue;
      session.seq = seq;
      if (publication.exceptSession !== undefined && publication.exceptSession === session.id) continue;
      session.send(frame);
      sent++;
    }
    if (sent > 0) {
      this.owner.pushed('notification', sent);
      this.owner.traced(hub.userId, seq, sent);
    }
    if (hub.waiting !== null) tellReached(hub);
  }

  private async fetch(hubs: readonly PersonHub[]): Promise<Map<PersonHub, UserPublication[]>> {
    const found = await this.owner.inbox.framesAfter(new Map(hubs.map((hub) => [hub.userId, hub.position])));
    return new Map(
      hubs.map((hub) => [
        hub,
        (found.get(hub.userId) ?? []).map(({ seq, frame }) => ({ to: 'user', userId: hub.userId, seq, frame })),
      ]),
    );
  }

  /** The inbox gives its present form, with holes, which only a resume may show: the sockets are closed and resume. */
  private lost(hub: PersonHub): void {
    this.owner.repaired('closed');
    for (const session of [...hub.sessions]) session.close(1012, 'resume');
  }
}

function tellReached(hub: PersonHub): void {
  const reached = hub.waiting?.filter(({ seq }) => seq <= hub.position) ?? [];
  hub.waiting = hub.waiting?.filter(({ seq }) => seq > hub.position) ?? null;
  if (hub.waiting?.length === 0) hub.waiting = null;
  for (const { timer, tell } of reached) {
    clearTimeout(timer);
    tell();
  }
}

/** The pushes right after a position, without a gap; null where the hub no longer holds all of them. */
function recentAfter(hub: PersonHub, seq: number): StreamFrame[] | null {
  const recent = hub.recent ?? [];
  const first = recent[0];
  if (first === undefined || first.seq > seq + 1) return null;
  const frames = recent.filter((publication) => publication.seq > seq);
  return frames.length > 0 ? frames : null;
}
