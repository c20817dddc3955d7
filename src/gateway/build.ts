/** The parts of the gateway and what each is given of the others; the one place that knows how they hang together. */

import type { Broker } from '../broker/broker.js';
import type { Pool } from 'pg';
import type { Config } from '../config/types.js';
import type { ChannelRecovery, Channels, Inbox } from '../inbox/types.js';
import type { Logger } from '../log.js';
import { byLabel, type Metrics } from '../metrics.js';
import { AccessRules } from './channels/access.js';
import { Badges } from './people/badges.js';
import { Blocks } from './people/blocks.js';
import { ChannelHubs } from './channels/channels.js';
import { Coalescer } from './channels/coalesce.js';
import type { ChannelRequest, Context } from './context.js';
import { Extensions } from './extensions/extensions.js';
import { Addresses } from './limits.js';
import type { Publisher } from './listeners.js';
import { People } from './people/people.js';
import { Presence } from './presence/presence.js';
import { isOutage } from './problem.js';
import { Recheck } from './channels/recheck.js';
import { Recoveries } from './recovery/recoveries.js';
import { Repair } from './recovery/repair.js';
import type { Session } from './sessions/session.js';
import { Sessions } from './sessions/sessions.js';
import { Together } from './recovery/together.js';
import { Tokens } from './sessions/tokens.js';
import { PushTraces } from './traces.js';

export interface Materials {
  readonly config: Config;
  readonly broker: Broker;
  readonly inbox: Inbox;
  readonly channels: Channels;
  readonly pool: Pool;
  readonly log: Logger;
  readonly metrics: Metrics;
}

/** Channels that one batch asks for. */
const channelsAtOnce = 500;

export function build(materials: Materials, topics: Publisher, sessionPrefix: string): Context {
  const { config, broker, inbox, log } = materials;
  const metrics = materials.metrics.gateway;
  const store = materials.channels;
  const failed = reporter(log);
  const pushed = byLabel(metrics.pushes, 'kind');
  const repaired = (outcome: string): void => metrics.repairs.inc({ outcome });

  const access = new AccessRules(config.database.url);
  const addresses = new Addresses();
  const traces = new PushTraces(materials.pool, sessionPrefix, log);
  const people = new People({ inbox, pushed, traced: traces.add.bind(traces), failed, repaired });
  const sessions = new Sessions(
    {
      sendQueueBytes: config.limits.sendQueueBytes,
      left: (session) => leave(session),
      fellBehind: () => metrics.slowReaders.inc(),
      gone: (session) => {
        session.use.connections--;
      },
    },
    sessionPrefix,
  );
  const channels = new ChannelHubs({
    ...{ store, topics, pushed, failed, repaired },
    ...{ everybody: sessions.all, apart: sessions.apart },
  });
  const presence = new Presence({
    read: config.presence.read,
    ...{ access, people, inbox },
    mostWatched: config.limits.subscriptions,
    publish: broker.kind === 'memory' ? null : (publications) => broker.publish(publications),
    pushed,
    failed,
  });
  const recheck = new Recheck({
    rules: config.channels,
    access,
    channels,
    presence: (who) => presence.recheck(who === 'all' ? presence.watching : who),
    left: (session, hub) => {
      presence.leftChannel(session, hub);
      presence.unwatchChannel(session, hub.channel);
    },
    failed,
  });
  const blocks = new Blocks({
    inbox,
    people,
    configured: config.blocks !== null,
    place: (hub) => {
      for (const session of hub.sessions) {
        channels.placeAll(session);
        channels.placeImplicit(session);
      }
    },
    changed: (hub) => recheck.sessions(hub.sessions),
    failed,
  });
  const badges = new Badges({ inbox, people, asked: () => metrics.badgeQueries.inc(), pushed, failed });
  const coalescer = new Coalescer(
    (publication) => channels.count(publication),
    (channel) => channels.hubs.get(channel),
  );
  const repair = new Repair({
    ...{ store, people, channels, blocks, recheck, badges, failed },
    count: (publication) => coalescer.add(publication),
  });

  /** A session leaves everything it is in. */
  function leave(session: Session): void {
    // In the middle of its stream nothing more may reach it but the close frame.
    if (session.stage === 'slow')
      for (const topic of session.socket?.getTopics() ?? []) session.socket?.unsubscribe(topic);
    for (const subscription of [...(session.subscriptions?.values() ?? [])]) {
      channels.leave(subscription);
      presence.leftChannel(session, subscription.hub);
    }
    people.leave(session);
    presence.left(session);
  }

  const channelRecoveries = new Together(
    (requests: readonly ChannelRequest[]) => recoverChannels(store, requests),
    channelsAtOnce,
  );
  metrics.census = () => ({ connections: sessions.all.length, sessions: people.sessions, users: people.hubs.size });
  const sweepOwner = { inbox, people, channels, repaired, failed };
  const tokens = new Tokens(config.auth);
  const extensions =
    config.extensions === null
      ? null
      : new Extensions({
          ...{ file: config.extensions, store, broker, pool: materials.pool, log },
          called: (outcome) => metrics.handlers.inc({ outcome }),
        });
  return {
    ...{ config, inbox, store, broker, log, metrics, access, tokens, addresses, sessions },
    ...{
      people,
      channels,
      badges,
      blocks,
      coalescer,
      presence,
      recheck,
      repair,
      recoveries: new Recoveries(inbox, blocks),
      channelRecoveries,
      sweepOwner,
      traces,
      extensions,
    },
  };
}

/** Those who want the same of a channel, e.g. all who come back to it after a restart, share one answer. */
function recoverChannels(store: Channels, requests: readonly ChannelRequest[]): Promise<ChannelRecovery[]> {
  const asked = new Map<string, Promise<ChannelRecovery>>();
  return Promise.all(
    requests.map(({ channel, offset, epoch }) => {
      const key = `${offset ?? ''} ${epoch ?? ''} ${channel}`;
      const answer = asked.get(key) ?? store.recover(channel, offset, epoch);
      asked.set(key, answer);
      return answer;
    }),
  );
}

/** A failure that repeats every second is told once in ten; an outage of Postgres in one line. */
function reporter(log: Logger): (what: string, error: unknown) => void {
  const toldAtMs = new Map<string, number>();
  return (what, error) => {
    const now = performance.now();
    if (now - (toldAtMs.get(what) ?? -Infinity) < 10_000) return;
    toldAtMs.set(what, now);
    if (isOutage(error)) log.warn({ what }, 'not possible just now, is tried again');
    else log.error({ err: error, what }, 'failed, is tried again');
  };
}
