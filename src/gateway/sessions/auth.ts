/**
 * From a token to a live session: verify, admit, answer, replay, `synced`; and the refresh of a session's token in band.
 *
 * What must hold: a session is counted against its user's limit from the moment it is admitted; its recovery is read after it
 * is registered; `synced` follows every first answer; a refresh by another subject ends the session; a session that could not
 * be served for want of the database is told `unavailable` and closed with 1013, to come again.
 */

import { createHash } from 'node:crypto';
import { noBadge } from '../../inbox/types.js';
import type { Recovery } from '../../inbox/types.js';
import { byLabel } from '../../metrics.js';
import type { AuthOk, AuthRequest, RequestId } from '../../protocol/frames.js';
import { badgeMissed } from '../people/badges.js';
import type { Context } from '../context.js';
import { errorFrame, helloFrame, okFrame, pushFrame } from '../frames.js';
import type { PersonHub } from '../people/people.js';
import { isOutage, publicError } from '../problem.js';
import { packBadge, type Greeting, type Session } from './session.js';
import { pingSeconds, ticksAt } from './ticks.js';
import type { Identity } from './tokens.js';
import type { Announcements } from '../people/announcements.js';

interface Reply {
  ok(answer: AuthOk): void;
  refuse(code: 'unauthorized' | 'forbidden' | 'unavailable' | 'internal', message: string): void;
}

export class Auth {
  readonly #counted: (outcome: string) => void;

  constructor(
    private readonly context: Context,
    private readonly announcements: Announcements,
  ) {
    this.#counted = byLabel(context.metrics.auths, 'outcome');
  }

  /** The op `auth`. Never throws. */
  frame(session: Session, id: RequestId, request: AuthRequest): Promise<void> {
    return this.authenticate(session, request, {
      ok: (answer) => session.send(okFrame(id, answer)),
      refuse: (code, message) => session.send(errorFrame(id, code, message)),
    });
  }

  /** A token that came with the upgrade. Never throws. */
  greet(session: Session, greeting: Greeting): Promise<void> {
    return this.authenticate(session, greeting, {
      ok: (answer) => session.send(helloFrame(answer)),
      refuse: () => undefined,
    });
  }

  /** In a storm of handshakes this path is what costs: it waits once, for the recovery. */
  private authenticate(session: Session, request: Greeting, reply: Reply): Promise<void> {
    try {
      const identity = this.context.tokens.verifyNow(request.token);
      if (identity !== null) return this.identified(session, identity, request, reply);
    } catch (error) {
      this.refuse(session, reply, error);
      return Promise.resolve();
    }
    return this.context.tokens.verify(request.token).then(
      (identity) => this.identified(session, identity, request, reply),
      (error: unknown) => this.refuse(session, reply, error),
    );
  }

  private identified(session: Session, identity: Identity, request: Greeting, reply: Reply): Promise<void> {
    if (!session.open) return Promise.resolve();
    if (session.hub === null) return this.admit(session, identity, request, reply);
    if (session.userId === identity.userId) return this.refresh(session, identity, reply);
    this.#counted('refused');
    reply.refuse('unauthorized', 'The token was refused: it belongs to another user than the session.');
    session.close(4401, 'another user');
    return Promise.resolve();
  }

  private refuse(session: Session, reply: Reply, error: unknown): void {
    const known = publicError(error);
    if (known?.code === 'unauthorized') {
      this.#counted('refused');
      reply.refuse('unauthorized', known.message);
      session.close(4401, 'bad token');
      return;
    }
    this.#counted('unavailable');
    if (known === null) this.context.log.error({ err: error }, 'authentication failed');
    else if (!isOutage(error)) this.context.log.warn({ err: error }, 'authentication is not possible');
    reply.refuse(known === null ? 'internal' : 'unavailable', known?.message ?? 'Something went wrong; it was logged.');
    session.close(1013, 'try again later');
  }

  private async admit(session: Session, identity: Identity, request: Greeting, reply: Reply): Promise<void> {
    const { config, people, sessions } = this.context;
    if (!inRollout(identity.userId, config.rollout)) {
      this.#counted('rollout');
      reply.refuse('forbidden', 'This user is not served here yet (rollout): poll instead.');
      return session.close(4403, 'rollout');
    }
    const present = people.hubs.get(identity.userId)?.sessions.length ?? 0;
    if (present >= config.limits.connectionsPerUser) {
      this.#counted('too_many');
      reply.refuse('forbidden', 'This user has too many connections.');
      return session.close(4409, 'too many connections');
    }
    session.stage = 'joining';
    session.number = sessions.nextNumber();
    session.sinceTick = ticksAt(Date.now());
    session.endsAt(identity.expiresAt * 1000);
    const hub = people.join(session, identity.userId);
    const announced = this.announcements.mark;
    try {
      const { since, epoch } = request;
      const recovery = await this.context.recoveries.ask({ session, hub, since, epoch });
      if (recovery !== null) people.begin(hub, recovery.seq);
      if (recovery === null || !session.open) return people.joined(hub);
      const nothing = recovery.frames.length + recovery.announcements.length === 0;
      let live = false;
      session.corked(() => {
        this.answer(session, hub, identity, recovery, reply);
        live = nothing && people.liveNow(session, hub, () => this.live(session, recovery, announced));
      });
      if (live) people.joined(hub);
      // Not waited for: other ops may come while it is paced by the socket.
      else void this.replay(session, hub, recovery, announced);
    } catch (error) {
      people.joined(hub);
      this.refuse(session, reply, error);
    }
  }

  private answer(session: Session, hub: PersonHub, identity: Identity, recovery: Recovery, reply: Reply): void {
    const missedBadge = session.badge === badgeMissed;
    session.badge = packBadge(recovery);
    session.seq = recovery.seq;
    session.stage = 'replaying';
    this.#counted('ok');
    reply.ok({
      session: session.id,
      user_id: hub.userId,
      seq: recovery.seq,
      epoch: recovery.epoch,
      recovered: recovery.recovered,
      unseen: recovery.unseen,
      unread: recovery.unread,
      ping_s: pingSeconds,
      expires_at: new Date(identity.expiresAt * 1000).toISOString(),
    });
    if (missedBadge) this.context.badges.touch(hub.userId);
    this.context.badges.known(hub, recovery);
  }

  /** What was missed, what came meanwhile, `synced`. Never throws. */
  private async replay(session: Session, hub: PersonHub, recovery: Recovery, announced: number): Promise<void> {
    const { people, log } = this.context;
    try {
      const frames = recovery.recovered ? recovery.frames : [];
      if (!(await session.sendPaced(frames, ({ frame }) => frame))) return;
      if (!(await session.sendPaced(recovery.announcements, (frame) => frame))) return;
      await people.goLive(session, hub, () => this.live(session, recovery, announced));
    } catch (error) {
      if (!isOutage(error)) log.error({ err: error }, 'replay failed');
      session.close(1013, 'try again later');
    } finally {
      people.joined(hub);
    }
  }

  /** What belongs into the turn in which a session becomes live. */
  private live(session: Session, recovery: Recovery, announced: number): void {
    this.context.channels.placeImplicit(session);
    this.context.presence.arrived(session);
    for (const frame of this.announcements.since(announced, recovery.announcements)) session.send(frame);
    if (session.missed !== null) session.send(pushFrame('resync', { reason: session.missed }));
    session.missed = null;
  }

  /** A new token for the same session: replays nothing. */
  private async refresh(session: Session, identity: Identity, reply: Reply): Promise<void> {
    const { inbox, recheck } = this.context;
    const told = session.badge;
    try {
      const [epoch, badges] = await Promise.all([inbox.epoch(), inbox.badges([identity.userId])]);
      if (!session.open) return;
      session.endsAt(identity.expiresAt * 1000);
      this.#counted('refreshed');
      const badge = badges.get(identity.userId) ?? noBadge;
      // A badge that came meanwhile may be newer than what was just read.
      if (session.badge !== told) this.context.badges.touch(identity.userId);
      session.badge = packBadge(badge);
      if (session.hub !== null) this.context.badges.known(session.hub, badge);
      reply.ok({
        session: session.id,
        user_id: identity.userId,
        seq: session.seq,
        epoch,
        recovered: true,
        ...{ unseen: badge.unseen, unread: badge.unread },
        ping_s: pingSeconds,
        expires_at: new Date(identity.expiresAt * 1000).toISOString(),
      });
      recheck.sessions([session]);
    } catch (error) {
      const known = publicError(error);
      if (known === null) this.context.log.error({ err: error }, 'refresh failed');
      // The session goes on with its old token until that expires.
      reply.refuse(
        known === null ? 'internal' : 'unavailable',
        known?.message ?? 'Something went wrong; it was logged.',
      );
    }
  }
}

/** Whether a user is among the first `percent`, by a hash that is the same everywhere and for ever. */
export function inRollout(userId: string, percent: number): boolean {
  if (percent >= 100) return true;
  const hash = createHash('sha256').update(userId, 'utf8').digest().readUInt32BE(0);
  return hash / 2 ** 32 < percent / 100;
}
