/** What a stored batch says to the gateways, in the order in which it must be heard. */

import { counterName } from '../broker/broker.js';
import type { Broker, Publication } from '../broker/broker.js';
import { announcementFrame, notificationFrame, withdrawnFrame } from '../inbox/render.js';
import type { Messages } from '../inbox/messages.js';
import type { StoredBatch } from '../inbox/store.js';
import type { MayRead } from './facts/may-read.js';
import type { CounterMove, Plan } from './plan/plan.js';

export interface StoredOutcome {
  readonly stored: StoredBatch;
  /** Names of the actors that are shown. */
  readonly names: ReadonlyMap<string, string | null>;
  /** Actors who are deleted or suspended: nobody is shown them. */
  readonly gone: ReadonlySet<string>;
  /** About notifications that were there before. */
  readonly mayRead: MayRead;
  readonly counts: readonly { readonly moved: CounterMove; readonly count: number }[];
  readonly plan: Plan;
  readonly messages: Messages;
  /** Of the recipients that are known. */
  readonly locales: ReadonlyMap<string, string | null>;
  readonly broker: Pick<Broker, 'mayHaveSessions' | 'mayHaveSubscribers'>;
}

/** What the pushes of a batch to one person mean for the badge. Their positions follow each other without a gap. */
interface BadgeChange {
  readonly from: number;
  readonly through: number;
  /** Something was taken away. */
  readonly falls: boolean;
  /** All of them are new notifications. */
  readonly onlyNew: boolean;
}

export function publicationsOf(outcome: StoredOutcome): Publication[] {
  const { stored, names, gone, mayRead, counts, plan, messages, locales, broker } = outcome;
  const publications: Publication[] = [];
  if (plan.blocksChanged.size > 0) {
    const pairs = plan.blocked.map(([userId, otherId]) => [userId, otherId] as const);
    publications.push({ to: 'control', kind: 'blocks', userIds: [...plan.blocksChanged], pairs });
  }
  const badges = new Map<string, BadgeChange>();
  for (const { draft, id, seq, state, alert, actors: sample, lastAtMs } of stored.pushed) {
    const { userId, type } = draft;
    if (!broker.mayHaveSessions(userId)) continue;
    const readable = mayRead.get(id);
    const actors = sample.filter((actor) => !gone.has(actor) && (readable === undefined || readable?.has(actor)));
    const actorCount = draft.actorCount - (sample.length - actors.length);
    const nobody = readable === null || (actorCount === 0 && sample.length > 0);
    const takenAway = draft.withdrawn || nobody;
    const frame = takenAway
      ? withdrawnFrame({ id, type }, seq)
      : notificationFrame({ ...draft, id, state, alert, actors, actorCount, lastAtMs }, seq, {
          names,
          messages,
          locale: locales.get(userId) ?? null,
        });
    const change = badges.get(userId) ?? { from: seq, through: seq, falls: false, onlyNew: true };
    badges.set(userId, {
      from: change.from,
      through: seq,
      falls: change.falls || takenAway,
      onlyNew: change.onlyNew && draft.id === null && !takenAway,
    });
    publications.push({ to: 'user', userId, seq, frame });
  }
  for (const userId of plan.mayCountOtherwise)
    if (broker.mayHaveSessions(userId)) badges.set(userId, { from: 0, through: 0, falls: true, onlyNew: false });
  for (const [userId, { from, through, falls, onlyNew }] of badges)
    publications.push({
      to: 'badge',
      userId,
      ...(falls ? {} : { onlyRises: true }),
      ...(onlyNew ? { rose: [from, through] } : {}),
    });

  const told = new Set<string>();
  for (const { channel, offset, event, data, actorId, dataWithoutActor, counter } of stored.logged) {
    if (counter !== null) told.add(`${channel}\0${counter}`);
    if (!broker.mayHaveSubscribers(channel)) continue;
    publications.push({ to: 'channel', channel, offset, event, data, actorId, dataWithoutActor, counter });
  }
  for (const { moved, count } of counts) {
    const { source, objectId, channels, actorId } = moved;
    if (source.counter === null || source.object === null) continue;
    const counter = counterName(source.name, objectId);
    for (const channel of channels) {
      // The event of a new comment carries the count already.
      if (told.has(`${channel}\0${counter}`) || !broker.mayHaveSubscribers(channel)) continue;
      const data = { [`${source.object.kind}_id`]: objectId, [source.counter.field]: count };
      publications.push({ to: 'counter', channel, event: source.counter.event, data, actorId, counter });
    }
  }
  for (const { id, message, data, at } of stored.announced) {
    publications.push({ to: 'everyone', frame: announcementFrame({ id, message, data, atMs: at.getTime() }) });
  }
  for (const { userId } of plan.revoked) publications.push({ to: 'control', kind: 'revoke', userId });
  for (const session of plan.revokedSessions) publications.push({ to: 'control', kind: 'revokeSession', session });
  if (plan.sources.size > 0) publications.push({ to: 'control', kind: 'recheck', sources: [...plan.sources] });
  return publications;
}
