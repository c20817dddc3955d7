/** What the parts of the gateway share: made once by build.ts, in this order, and stopped by server.ts. */

import type { Broker } from '../broker/broker.js';
import type { Config } from '../config/types.js';
import type { ChannelRecovery, Channels, Inbox } from '../inbox/types.js';
import type { Logger } from '../log.js';
import type { GatewayMetrics } from '../metrics.js';
import type { AccessRules } from './access.js';
import type { Badges } from './badges.js';
import type { Blocks } from './blocks.js';
import type { ChannelHubs } from './channels.js';
import type { Coalescer } from './coalesce.js';
import type { Extensions } from './extensions.js';
import type { Addresses } from './limits.js';
import type { People } from './people.js';
import type { Presence } from './presence.js';
import type { Recheck } from './recheck.js';
import type { Recoveries } from './recoveries.js';
import type { Repair } from './repair.js';
import type { Sessions } from './sessions.js';
import type { SweepOwner } from './sweep.js';
import type { Together } from './together.js';
import type { Tokens } from './tokens.js';
import type { PushTraces } from './traces.js';

export interface ChannelRequest {
  readonly channel: string;
  readonly offset: number | null;
  readonly epoch: string | null;
}

export interface Context {
  readonly config: Config;
  readonly inbox: Inbox;
  readonly store: Channels;
  readonly broker: Broker;
  readonly log: Logger;
  readonly metrics: GatewayMetrics;
  readonly access: AccessRules;
  readonly tokens: Tokens;
  readonly addresses: Addresses;
  readonly sessions: Sessions;
  readonly people: People;
  readonly channels: ChannelHubs;
  readonly badges: Badges;
  readonly blocks: Blocks;
  readonly coalescer: Coalescer;
  readonly presence: Presence;
  readonly recheck: Recheck;
  readonly repair: Repair;
  readonly recoveries: Recoveries;
  /** Recoveries of channels, asked for together. */
  readonly channelRecoveries: Together<ChannelRequest, ChannelRecovery>;
  readonly sweepOwner: Omit<SweepOwner, 'resumeAll'>;
  readonly traces: PushTraces;
  /** Null without `extensions` in the config. */
  readonly extensions: Extensions | null;
}
