/** What the parts of the gateway share: made once by build.ts, in this order, and stopped by server.ts. */

import type { Broker } from '../broker/broker.js';
import type { Config } from '../config/types.js';
import type { ChannelRecovery, Channels, Inbox } from '../inbox/types.js';
import type { Logger } from '../log.js';
import type { GatewayMetrics } from '../metrics.js';
import type { AccessRules } from './channels/access.js';
import type { Badges } from './people/badges.js';
import type { Blocks } from './people/blocks.js';
import type { ChannelHubs } from './channels/channels.js';
import type { Coalescer } from './channels/coalesce.js';
import type { Extensions } from './extensions/extensions.js';
import type { Addresses } from './limits.js';
import type { People } from './people/people.js';
import type { Presence } from './presence/presence.js';
import type { Recheck } from './channels/recheck.js';
import type { Recoveries } from './recovery/recoveries.js';
import type { Repair } from './recovery/repair.js';
import type { Sessions } from './sessions/sessions.js';
import type { SweepOwner } from './recovery/sweep.js';
import type { Together } from './recovery/together.js';
import type { Tokens } from './sessions/tokens.js';
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
