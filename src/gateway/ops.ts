/**
 * What a client may ask over its socket: one text frame → one answer.
 *
 * What must hold: every request is answered exactly once, in the order of the requests (but `ping`, which overtakes); a
 * refused one changes nothing; an error tells nothing of the database. Frames are copied before the first await.
 */

import type { Publication } from '../broker/broker.js';
import type { ErrorCode } from '../protocol/codes.js';
import {
  CHANNEL_ALL,
  type MarkRequest,
  type PresenceRequest,
  type PublishRequest,
  type Request,
  type RequestId,
  type SubscribeRequest,
} from '../protocol/frames.js';
import { parseClientFrame, splitChannel } from '../protocol/parse.js';
import type { Auth } from './sessions/auth.js';
import { badgeMissed } from './people/badges.js';
import type { ChannelHub, Subscription } from './channels/channels.js';
import type { Context } from './context.js';
import { errorFrame, okFrame } from './frames.js';
import { HandlerError } from './extensions/handler-thread.js';
import { rate, step, type Rate } from './limits.js';
import { isOutage, publicError } from './problem.js';
import { packBadge, type Session } from './sessions/session.js';

/** Beyond this many seconds' worth of messages at once, refused ones among them, the socket is closed; up to it they are refused one by one. */
const closeAfterSeconds = 3;

const states = { seen: 'seen', read: 'read', archive: 'archived' } as const;

/** A refusal that is no fault of the server. */
class Refusal extends Error {
  constructor(
    readonly code: ErrorCode,
    message: string,
  ) {
    super(message);
  }
}

export class Ops {
  readonly #rate: Rate;

  constructor(
    private readonly context: Context,
    private readonly auth: Auth,
  ) {
    this.#rate = rate(context.config.limits.messagesPerSecond);
  }

  /** A message of a client, as it came; the buffer is only valid during the call. */
  receive(session: Session, message: ArrayBuffer, isBinary: boolean): void {
    const now = Date.now();
    session.heard(now);
    if (!session.open) return;
    const { messageBytes } = this.context.config.limits;
    // Before anything is parsed. What is far too large uWebSockets has refused already.
    if (message.byteLength > 4 * messageBytes) return session.close(1009, 'far too large');
    if (message.byteLength > messageBytes) return session.close(4400, 'too large');
    if (isBinary) return session.close(4400, 'binary');
    const allMs = step(session.allTatMs ?? 0, now, this.#rate);
    session.allTatMs = allMs;
    if (allMs - now > closeAfterSeconds * 1000) return session.close(4429, 'too many messages');
    const takenMs = step(session.takenTatMs ?? 0, now, this.#rate);
    const taken = takenMs - now <= this.#rate.burstMs;
    // What is refused delays nothing, so that a second later the next is taken, as the error says.
    if (taken) session.takenTatMs = takenMs;
    const frame = parseClientFrame(Buffer.from(message).toString('utf8'));
    if (frame.kind === 'fatal') return session.close(4400, frame.reason);
    if (!taken) {
      return session.send(errorFrame(frame.id, 'rate_limited', 'Too many messages: wait a second.'));
    }
    if (frame.kind === 'error') return session.send(errorFrame(frame.id, frame.code, frame.message));
    this.dispatch(session, frame.id, frame.request);
  }

  /** A token that came with the upgrade goes first. */
  greet(session: Session): void {
    const { greeting } = session;
    session.greeting = null;
    if (greeting !== null) session.enqueue(() => this.auth.greet(session, greeting));
  }

  private dispatch(session: Session, id: RequestId, request: Request): void {
    if (request.op === 'ping' && session.active) return session.send(okFrame(id, {}));
    if (!session.enqueue(() => this.run(session, id, request))) {
      session.send(errorFrame(id, 'rate_limited', 'Too many requests wait already: wait for their answers.'));
    }
  }

  /** Never throws. */
  private async run(session: Session, id: RequestId, request: Request): Promise<void> {
    if (!session.open) return;
    try {
      if (request.op === 'auth') return await this.auth.frame(session, id, request);
      if (session.stage === 'opening') throw new Refusal('unauthorized', 'The first frame must be auth.');
      await this.handle(session, id, request);
    } catch (error) {
      this.refuse(session, id, request.op, error);
    }
  }

  private refuse(session: Session, id: RequestId, op: string, error: unknown): void {
    if (error instanceof Refusal || error instanceof HandlerError)
      return session.send(errorFrame(id, error.code, error.message));
    const known = publicError(error);
    if (known !== null) {
      if (known.code === 'unavailable' && !isOutage(error))
        this.context.log.warn({ err: error, op }, 'op is not available');
      return session.send(errorFrame(id, known.code, known.message));
    }
    this.context.log.error({ err: error, op }, 'op failed');
    session.send(errorFrame(id, 'internal', 'Something went wrong; it was logged.'));
  }

  private handle(session: Session, id: RequestId, request: Exclude<Request, { op: 'auth' }>): Promise<void> | void {
    switch (request.op) {
      case 'ping':
        return session.send(okFrame(id, {}));
      case 'subscribe':
        return this.subscribe(session, id, request);
      case 'unsubscribe':
        this.unsubscribe(session, request.channel);
        return session.send(okFrame(id, { channel: request.channel }));
      case 'seen':
      case 'read':
      case 'archive':
        return this.mark(session, id, request);
      case 'publish':
        return this.publish(session, id, request);
      case 'presence':
        return this.presence(session, id, request);
    }
  }

  private async subscribe(session: Session, id: RequestId, request: SubscribeRequest): Promise<void> {
    const { channel } = request;
    // Again: the client wants a replay from another position, and goes on watching who is there.
    this.leave(session, channel);
    try {
      await this.join(session, id, request);
    } catch (error) {
      this.unsubscribe(session, channel);
      throw error;
    }
  }

  private async join(session: Session, id: RequestId, request: SubscribeRequest): Promise<void> {
    const { channel } = request;
    const { channels, config, presence, recheck } = this.context;
    if ((session.subscriptions?.size ?? 0) >= config.limits.subscriptions) {
      throw new Refusal('too_many_subscriptions', `At most ${config.limits.subscriptions} channels at once.`);
    }
    const { kind } = splitChannel(channel);
    const mark = recheck.mark(kind);
    await this.mustBeAllowed(session, channel, 'read');
    if (!session.open) return;
    if (channel === CHANNEL_ALL) channels.leaveImplicit(session);
    const subscription = channels.join(session, channel);
    recheck.joined(subscription, mark);
    const recovery = await this.context.channelRecoveries.ask({
      channel,
      offset: request.offset,
      epoch: request.epoch,
    });
    channels.begin(subscription.hub, recovery.offset);
    // A re-check was faster than the recovery.
    if (subscription.mode === 'ended') throw new Refusal('forbidden', 'You may no longer read this channel.');
    const { offset, epoch, recovered, state } = recovery;
    session.send(okFrame(id, { channel, offset, epoch, recovered, state }));
    subscription.offset = recovered && request.offset !== null ? request.offset : offset;
    void this.replay(subscription, recovered ? recovery.events : [], offset);
    presence.joinedChannel(session, subscription.hub);
  }

  /** Never throws. */
  private async replay(
    subscription: Subscription,
    events: Parameters<Context['channels']['replay']>[1],
    offset: number,
  ): Promise<void> {
    const { channels, log } = this.context;
    try {
      if (!(await channels.replay(subscription, events))) return;
      subscription.offset = Math.max(subscription.offset, offset);
      await channels.goLive(subscription);
    } catch (error) {
      if (!isOutage(error)) log.error({ err: error }, 'replay of a channel failed');
      // The client resumes all it had, this channel included.
      subscription.session.close(1013, 'try again later');
    }
  }

  private unsubscribe(session: Session, channel: string): void {
    this.leave(session, channel);
    this.context.presence.unwatchChannel(session, channel);
  }

  private leave(session: Session, channel: string): void {
    const subscription = session.subscriptions?.get(channel);
    if (subscription === undefined) return;
    this.context.channels.leave(subscription);
    this.context.presence.leftChannel(session, subscription.hub);
    if (channel === CHANNEL_ALL) this.context.channels.placeImplicit(session);
  }

  private async mark(session: Session, id: RequestId, request: MarkRequest): Promise<void> {
    const { inbox, badges, broker, people } = this.context;
    const result = await inbox.mark(session.userId, states[request.op], request.target, session.id);
    const { seq, unseen, unread } = result;
    const unchanged = result.publications.length === 0 ? { unchanged: true } : {};
    people.tellAt(session, seq, () => {
      session.send(okFrame(id, { seq, unseen, unread, ...unchanged }));
      if (session.badge === packBadge(result)) return;
      // The client goes by the answer, which may be older than what it was told while the answer waited.
      session.badge = badgeMissed;
      badges.touch(session.userId);
    });
    // After it: what follows the mark may be here already, and must not come before the answer.
    broker.publish(result.publications);
  }

  private async publish(session: Session, id: RequestId, request: PublishRequest): Promise<void> {
    const { channel, event, data } = request;
    await this.mustBeAllowed(session, channel, 'publish');
    const { extensions } = this.context;
    if (extensions?.handles(event) === true) {
      const call = { userId: session.userId, session: session.id, channel, event, data };
      return session.send(okFrame(id, { channel, answer: await extensions.call(call, () => session.open) }));
    }
    const publication = await this.context.store.append(channel, event, data, session.userId);
    this.context.broker.publish([publication satisfies Publication]);
    session.send(okFrame(id, { channel, offset: publication.offset }));
  }

  private async presence(session: Session, id: RequestId, { of }: PresenceRequest): Promise<void> {
    const { presence, channels } = this.context;
    if ('users' in of) return session.send(okFrame(id, await presence.watchUsers(session, of.users)));
    const subscribed = session.subscriptions?.has(of.channel) === true;
    if (!subscribed) await this.mustBeAllowed(session, of.channel, 'read');
    const hub: ChannelHub | undefined = channels.hubs.get(of.channel);
    if (subscribed) presence.watchChannel(session, of.channel);
    session.send(okFrame(id, await presence.statusesIn(session, of.channel, hub)));
  }

  /** Throws Refusal `forbidden`, or BelfryError `unavailable`. */
  private async mustBeAllowed(session: Session, channel: string, what: 'read' | 'publish'): Promise<void> {
    const { kind, id } = splitChannel(channel);
    if (channel === CHANNEL_ALL && what === 'read') return;
    // Everybody's: only backends may (belfry.broadcast), whatever the config says of rooms.
    if (channel === CHANNEL_ALL) throw new Refusal('forbidden', 'Clients may not publish to this channel.');
    const { channels } = this.context.config;
    const rule = Object.hasOwn(channels, kind) ? channels[kind] : undefined;
    if (rule !== undefined && id !== '') {
      if (await this.context.access.allows(rule[what], 'id', { user: session.userId, other: id })) return;
    }
    throw new Refusal(
      'forbidden',
      what === 'read' ? 'You may not read this channel.' : 'You may not publish to this channel.',
    );
  }
}
