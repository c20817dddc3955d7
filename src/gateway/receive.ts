/**
 * What comes from the broker, handed to whoever it concerns, within the turn in which it came.
 *
 * What must hold: nothing here waits or throws; a whole page is published in one turn, which is what makes fan-out cheap;
 * what concerns nobody here costs a look into a map.
 */

import type { BrokerHandler, ControlPublication, Publication } from '../broker/broker.js';
import { CHANNEL_ALL } from '../protocol/frames.js';
import type { Announcements } from './people/announcements.js';
import type { Context } from './context.js';
import { pushFrame } from './frames.js';
import type { Revocations } from './people/revocations.js';

export interface Restart {
  /** The streams are in this epoch now. */
  epoch(epoch: string): void;
  /** Positions may be behind: compare them with Postgres now. */
  sweep(): void;
}

export class Receiver implements BrokerHandler {
  constructor(
    private readonly context: Context,
    private readonly announcements: Announcements,
    private readonly revocations: Revocations,
    private readonly restart: Restart,
  ) {}

  receive(publications: readonly Publication[]): void {
    for (const publication of publications) {
      try {
        this.one(publication);
      } catch (error) {
        this.context.log.error({ err: error, to: publication.to }, 'a publication could not be passed on');
      }
    }
  }

  reconnected(): void {
    this.restart.sweep();
    this.context.repair.wanted();
    this.context.presence.reconnected();
  }

  hasSessions(userId: string): boolean {
    return this.context.people.hubs.has(userId);
  }

  hasSubscribers(channel: string): boolean {
    if (channel === CHANNEL_ALL) return this.context.people.hubs.size > 0;
    return this.context.channels.hubs.has(channel);
  }

  private one(publication: Publication): void {
    const { people, badges, channels, coalescer, repair } = this.context;
    switch (publication.to) {
      case 'user':
        return people.receive(publication);
      case 'badge':
        return badges.receive(publication);
      case 'channel':
        coalescer.supersede(publication);
        repair.told(publication);
        return channels.receive(publication);
      case 'counter':
        if (!this.hasSubscribers(publication.channel)) return;
        repair.told(publication);
        return coalescer.add(publication);
      case 'everyone':
        return this.announce(publication.frame);
      case 'presence':
        return this.context.presence.heard(publication);
      case 'control':
        return this.control(publication);
    }
  }

  private announce(frame: string): void {
    const { metrics, people, badges } = this.context;
    if (!this.announcements.add(frame)) return;
    this.context.channels.tellAll(frame);
    metrics.pushes.inc({ kind: 'announcement' }, people.hubs.size);
    for (const userId of people.hubs.keys()) badges.touch(userId);
  }

  private control(publication: ControlPublication): void {
    const { blocks, recheck } = this.context;
    switch (publication.kind) {
      case 'revoke':
        return this.revocations.told(publication.userId);
      case 'revokeSession':
        return this.context.sessions.named(publication.session)?.close(4403, 'revoked');
      case 'blocks':
        return blocks.change(publication);
      case 'recheck':
        return recheck.sources(publication.sources);
      case 'resync':
        return this.resync(publication.reason, publication.userIds);
      case 'leader':
        return this.reconnected();
      case 'epoch':
        return this.restart.epoch(publication.epoch);
    }
  }

  private resync(reason: string, userIds: readonly string[] | null): void {
    const { people } = this.context;
    const frame = pushFrame('resync', { reason });
    const hubs = userIds === null ? people.hubs.values() : userIds.map((userId) => people.hubs.get(userId));
    for (const hub of hubs) {
      for (const session of hub?.sessions ?? []) {
        // Those who are not live yet may just be told what is older: they hear of it after `synced`.
        if (session.stage === 'live') session.send(frame);
        else session.missed = reason;
      }
    }
  }
}
