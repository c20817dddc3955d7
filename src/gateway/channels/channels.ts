/**
 * Channels: a hub per channel with subscribers, which passes the channel's stream on.
 *
 * What must hold:
 * - Fan-out is a publish to the channel's topic: no work per subscriber. People with a block relation are in a second topic, "apart"; they
 *   are served one by one only for an event whose actor one of them must not see. Those whose position is ahead of the hub's are always
 *   served one by one.
 * - Dense order as for people (gaps.ts). A gap that cannot be filled is told as `resync`, never skipped.
 * - Nothing of a subscription goes out after it has ended.
 * - A subscription is registered before its recovery is read; it joins the topic in the same turn in which its position has
 *   reached the hub's, so that it gets each offset once, and then the counts that came meanwhile (counts.ts).
 * - `all` reaches everybody who is live; it needs no subscription. Sockets join its topics only when it is first used, since that costs
 *   memory for each and most applications never use it.
 */

import type { ChannelPublication, CounterPublication } from '../../broker/broker.js';
import type { Channels as ChannelStore } from '../../inbox/types.js';
import { CHANNEL_ALL } from '../../protocol/frames.js';
import { splitChannel } from '../../protocol/parse.js';
import { LatestCounts } from './counts.js';
import { counterFrame, frameFor, pushFrame, withoutActor } from '../frames.js';
import { Gaps } from '../recovery/gaps.js';
import type { Publisher } from '../listeners.js';
import type { Session } from '../sessions/session.js';

export interface Subscription {
  readonly session: Session;
  readonly hub: ChannelHub;
  /** Position up to which it was told; kept up to date only while it is replaying or individual. */
  offset: number;
  /** replaying: gets nothing live yet · topic, apart: served by that topic · individual: served one by one · ended. */
  mode: 'replaying' | 'topic' | 'apart' | 'individual' | 'ended';
  /** What `hub.counts` had seen when it joined. */
  readonly countsFrom: number;
}

export interface ChannelHub {
  readonly channel: string;
  readonly kind: string;
  readonly id: string;
  readonly subscriptions: Set<Subscription>;
  readonly individual: Set<Subscription>;
  readonly apart: Set<Subscription>;
  /** The topic of people with a block relation. */
  readonly apartTopic: string;
  position: number;
  ahead: Map<number, ChannelPublication> | null;
  recent: ChannelPublication[] | null;
  /** The latest counter updates, kept for those who are joining. */
  counts: LatestCounts | null;
  /** Subscriptions that are in no topic yet. */
  joining: number;
}

export interface ChannelsOwner {
  readonly store: ChannelStore;
  readonly topics: Publisher;
  /** All sockets. */
  readonly everybody: readonly Session[];
  /** Live sessions that get `all` by its topic for people with a block relation. */
  readonly apart: Set<Session>;
  pushed(kind: 'channel' | 'counter', count: number): void;
  failed(what: string, error: unknown): void;
  repaired(outcome: 'channel' | 'resync'): void;
}

/** Events that a hub keeps for those who join; what is older they fetch. */
const mostRecent = 512;

export class ChannelHubs {
  readonly hubs = new Map<string, ChannelHub>();
  /** Always there, without subscriptions unless somebody asks for a replay of it. */
  readonly all = makeHub(CHANNEL_ALL);
  readonly gaps: Gaps<ChannelHub, ChannelPublication>;
  /** Something was sent to `all`: from then on whoever becomes live is in one of its topics. */
  #allIsUsed = false;

  constructor(private readonly owner: ChannelsOwner) {
    this.hubs.set(CHANNEL_ALL, this.all);
    this.gaps = new Gaps({
      deliver: (hub, publication) => this.deliver(hub, publication),
      fetch: (hubs) => this.fetch(hubs),
      lost: (hub, upTo) => this.lost(hub, upTo),
      known: (hub) => this.hubs.get(hub.channel) === hub,
      failed: (error) => this.owner.failed('repair of channel streams', error),
    });
  }

  /** Registers a subscription that begins with a replay. */
  join(session: Session, channel: string): Subscription {
    let hub = this.hubs.get(channel);
    if (hub === undefined) {
      hub = makeHub(channel);
      this.hubs.set(channel, hub);
    }
    hub.joining++;
    hub.recent ??= [];
    hub.counts ??= new LatestCounts();
    const subscription: Subscription = { session, hub, offset: -1, mode: 'replaying', countsFrom: hub.counts.now };
    hub.subscriptions.add(subscription);
    session.subscriptions ??= new Map();
    session.subscriptions.set(channel, subscription);
    return subscription;
  }

  /** Sets where the hub's stream stands, which its first recovery says. */
  begin(hub: ChannelHub, position: number): void {
    if (hub.position >= 0) return;
    hub.position = position;
    this.gaps.settle(hub);
  }

  /** Another epoch has begun: every hub begins anew with its next recovery, `all` at the given position; who was told before is to resume. */
  restart(positionOfAll: number | null): void {
    for (const hub of this.hubs.values()) this.forget(hub);
    if (positionOfAll !== null) this.begin(this.all, positionOfAll);
  }

  /** A restore took the log back behind what was told: everybody is told so, and the stream goes on from its head. */
  rewind(hub: ChannelHub, head: number): void {
    if (hub.position <= head) return;
    // What they were told, and are being told, is partly from before.
    for (const { session, mode } of [...hub.subscriptions]) if (isJoining(mode)) session.close(1012, 'resume');
    this.forget(hub);
    this.tellLost(hub);
    this.begin(hub, head);
  }

  /** Ends a subscription; idempotent. */
  leave(subscription: Subscription): void {
    const { hub, session, mode } = subscription;
    if (mode === 'ended') return;
    if (isJoining(mode)) this.joined(hub);
    this.takeOut(subscription);
    subscription.mode = 'ended';
    hub.subscriptions.delete(subscription);
    session.subscriptions?.delete(hub.channel);
    if (hub.subscriptions.size === 0 && hub !== this.all) this.hubs.delete(hub.channel);
  }

  /** Sends what came since the subscription's position and makes it live; ends early when it was left. */
  async goLive(subscription: Subscription): Promise<void> {
    const { hub, session } = subscription;
    while (subscription.mode === 'replaying' && session.open && subscription.offset < hub.position) {
      const events =
        recentAfter(hub, subscription.offset) ?? (await this.eventsAfter(hub.channel, subscription.offset));
      if (subscription.mode !== 'replaying') return;
      if (!isDense(events, subscription.offset)) {
        session.send(pushFrame('resync', { reason: 'channel', channel: hub.channel }));
        subscription.offset = hub.position;
        break;
      }
      if (!(await this.replay(subscription, events))) return;
    }
    if (subscription.mode !== 'replaying' || !session.open) return;
    subscription.mode = 'individual';
    hub.individual.add(subscription);
    this.place(subscription);
    // The answer knew of events that the hub has not heard of: they may be lost, and the counts wait for them.
    this.gaps.behind(hub, subscription.offset);
  }

  /** Sends logged events at the socket's pace; stops, and gives false, when the subscription ends. */
  async replay(subscription: Subscription, events: readonly ChannelPublication[]): Promise<boolean> {
    const { session } = subscription;
    const sent = await session.sendPaced(
      events,
      (event) => frameFor(event, session.hub?.blocks ?? null),
      () => subscription.mode === 'replaying',
    );
    if (sent) subscription.offset = Math.max(subscription.offset, events.at(-1)?.offset ?? -1);
    return sent;
  }

  /** Whom a session blocks has changed: moves its subscriptions into or out of the topics. */
  placeAll(session: Session): void {
    for (const subscription of session.subscriptions?.values() ?? []) this.place(subscription);
  }

  /** A live session gets `all`, by one topic or the other, unless it has subscribed to it. */
  placeImplicit(session: Session): void {
    if (!this.#allIsUsed) return;
    if (session.stage !== 'live' || session.subscriptions?.has(CHANNEL_ALL) === true) return;
    if ((session.hub?.blocks?.size ?? 0) > 0) {
      session.socket?.unsubscribe(CHANNEL_ALL);
      session.socket?.subscribe(this.all.apartTopic);
      this.owner.apart.add(session);
    } else {
      if (this.owner.apart.delete(session)) session.socket?.unsubscribe(this.all.apartTopic);
      session.socket?.subscribe(CHANNEL_ALL);
    }
  }

  leaveImplicit(session: Session): void {
    if (this.owner.apart.delete(session)) session.socket?.unsubscribe(this.all.apartTopic);
    session.socket?.unsubscribe(CHANNEL_ALL);
  }

  /** A frame without a position to everybody who is live, also to those who join `all`. */
  tellAll(frame: string): void {
    this.publish(this.all, frame, null, () => frame);
    for (const { session, mode } of this.all.subscriptions) if (isJoining(mode)) session.send(frame);
  }

  receive(publication: ChannelPublication): void {
    const hub = this.hubs.get(publication.channel);
    if (hub === undefined) return;
    if (hub === this.all && hub.position < 0 && hub.joining === 0) hub.position = publication.offset - 1;
    // At once, and not when the event's turn has come: counts that come until then are newer.
    if (publication.offset > hub.position) hub.counts?.supersede(publication);
    this.gaps.receive(hub, publication.offset, publication);
  }

  /** The present value of a counter, already coalesced. Those who are joining get it after their replay, which is older. */
  count(publication: CounterPublication): void {
    const hub = this.hubs.get(publication.channel);
    if (hub === undefined) return;
    this.publish(hub, counterFrame(publication, true), publication.actorId, () => counterFrame(publication, false));
    hub.counts?.add(publication);
    this.owner.pushed('counter', 1);
  }

  /** Moves a subscription into the topic that it belongs to, or serves it individually while it is ahead of the hub. */
  private place(subscription: Subscription): void {
    const { hub, session, mode } = subscription;
    if (!session.open || session.socket === null || mode === 'replaying' || mode === 'ended') return;
    const ahead = mode === 'individual' && subscription.offset > hub.position;
    const wanted = ahead ? 'individual' : (session.hub?.blocks?.size ?? 0) > 0 ? 'apart' : 'topic';
    if (wanted === mode) return;
    this.takeOut(subscription);
    subscription.mode = wanted;
    if (wanted === 'apart') hub.apart.add(subscription);
    session.socket.subscribe(wanted === 'apart' ? hub.apartTopic : hub.channel);
    if (!isJoining(mode)) return;
    this.tellCounts(subscription);
    this.joined(hub);
  }

  private tellCounts({ hub, session, countsFrom }: Subscription): void {
    const counts = hub.counts?.since(countsFrom);
    if (counts === null) session.send(pushFrame('resync', { reason: 'channel', channel: hub.channel }));
    if (counts == null || counts.length === 0) return;
    session.corked(() => {
      for (const count of counts) session.send(counterFrame(count, !seesNot(session, count.actorId)));
    });
  }

  private takeOut(subscription: Subscription): void {
    const { hub, session, mode } = subscription;
    hub.individual.delete(subscription);
    hub.apart.delete(subscription);
    const topic = mode === 'topic' ? hub.channel : mode === 'apart' ? hub.apartTopic : null;
    if (topic !== null && session.stage !== 'closed') session.socket?.unsubscribe(topic);
  }

  private deliver(hub: ChannelHub, publication: ChannelPublication): void {
    if (hub === this.all) this.useAll();
    hub.position = publication.offset;
    if (hub.recent !== null) {
      if (hub.recent.length >= mostRecent) hub.recent.shift();
      hub.recent.push(publication);
    }
    const frame = frameFor(publication, null);
    this.owner.topics.publish(hub.channel, frame);
    this.tellApart(hub, frame, publication.actorId, () => withoutActor(publication));
    this.owner.pushed('channel', 1);
    for (const subscription of hub.individual) {
      if (publication.offset > subscription.offset) {
        subscription.offset = publication.offset;
        subscription.session.send(frameFor(publication, subscription.session.hub?.blocks ?? null));
      }
      this.place(subscription);
    }
  }

  /** Sends a frame to everybody in a topic of the channel; those who must not see the actor get `hidden` instead. */
  private publish(hub: ChannelHub, frame: string, actorId: string | null, hidden: () => string): void {
    if (hub === this.all) this.useAll();
    this.owner.topics.publish(hub.channel, frame);
    this.tellApart(hub, frame, actorId, hidden);
  }

  private useAll(): void {
    if (this.#allIsUsed) return;
    this.#allIsUsed = true;
    for (const session of this.owner.everybody) this.placeImplicit(session);
  }

  private tellApart(hub: ChannelHub, frame: string, actorId: string | null, hidden: () => string): void {
    const implicit = hub === this.all ? this.owner.apart : nobody;
    if (hub.apart.size + implicit.size === 0) return;
    let concerned = false;
    for (const { session } of hub.apart) concerned ||= seesNot(session, actorId);
    for (const session of implicit) concerned ||= seesNot(session, actorId);
    if (!concerned) return this.owner.topics.publish(hub.apartTopic, frame);
    for (const { session } of hub.apart) session.send(seesNot(session, actorId) ? hidden() : frame);
    for (const session of implicit) session.send(seesNot(session, actorId) ? hidden() : frame);
  }

  private async eventsAfter(channel: string, offset: number): Promise<ChannelPublication[]> {
    return (await this.owner.store.eventsAfter(new Map([[channel, offset]]))).get(channel) ?? [];
  }

  private async fetch(hubs: readonly ChannelHub[]): Promise<Map<ChannelHub, ChannelPublication[]>> {
    const found = await this.owner.store.eventsAfter(new Map(hubs.map((hub) => [hub.channel, hub.position])));
    this.owner.repaired('channel');
    return new Map(hubs.map((hub) => [hub, found.get(hub.channel) ?? []]));
  }

  /** A gap can't be filled: everybody is told, and the stream goes on behind it. */
  private lost(hub: ChannelHub, upTo: number): void {
    const frame = this.tellLost(hub);
    hub.position = hub.ahead === null ? upTo : Math.min(...hub.ahead.keys()) - 1;
    if (hub.recent !== null) hub.recent.length = 0;
    for (const subscription of hub.individual) {
      subscription.session.send(frame);
      subscription.offset = Math.max(subscription.offset, hub.position);
      this.place(subscription);
    }
    this.gaps.settle(hub);
  }

  /** Tells everybody in a topic that events were lost; gives the frame. */
  private tellLost(hub: ChannelHub): string {
    this.owner.repaired('resync');
    const frame = pushFrame('resync', { reason: 'channel', channel: hub.channel });
    this.publish(hub, frame, null, () => frame);
    return frame;
  }

  private forget(hub: ChannelHub): void {
    this.gaps.restart(hub);
    if (hub.recent !== null) hub.recent.length = 0;
  }

  private joined(hub: ChannelHub): void {
    if (--hub.joining > 0) return;
    hub.recent = null;
    hub.counts = null;
  }
}

const nobody: ReadonlySet<Session> = new Set();

function seesNot(session: Session, actorId: string | null): boolean {
  return actorId !== null && session.hub?.blocks?.has(actorId) === true;
}

function isJoining(mode: Subscription['mode']): boolean {
  return mode === 'replaying' || mode === 'individual';
}

function makeHub(channel: string): ChannelHub {
  const { kind, id } = splitChannel(channel);
  return {
    channel,
    kind,
    id,
    subscriptions: new Set(),
    individual: new Set(),
    apart: new Set(),
    apartTopic: `\u0001${channel}`,
    position: -1,
    ahead: null,
    recent: null,
    counts: null,
    joining: 0,
  };
}

/** The events right after a position, without a gap; null where the hub no longer holds all of them. */
function recentAfter({ recent }: ChannelHub, offset: number): ChannelPublication[] | null {
  const first = recent?.[0];
  if (recent === null || first === undefined || first.offset > offset + 1) return null;
  const events = recent.filter((event) => event.offset > offset);
  return events.length > 0 ? events : null;
}

function isDense(events: readonly ChannelPublication[], after: number): boolean {
  return events.length > 0 && events.every((event, i) => event.offset === after + 1 + i);
}
