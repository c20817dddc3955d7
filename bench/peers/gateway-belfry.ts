/**
 * Belfry's own gateway in the gateway bench: everything that `belfry start --role gateway` has, over a real database, and
 * publications handed to its broker as the relay does, a page at a time.
 *
 * Of what is sent only the positions are stored, after each job, so that who connects later begins where the streams are.
 */

import { MemoryBroker } from '../../src/broker/memory.js';
import type { Publication } from '../../src/broker/broker.js';
import { parseConfig } from '../../src/config.js';
import { Gateway } from '../../src/gateway/server.js';
import { PostgresChannels } from '../../src/inbox/channels.js';
import { PostgresInbox } from '../../src/inbox/inbox.js';
import { createLogger } from '../../src/log.js';
import { createMetrics } from '../../src/metrics.js';
import { createPool } from '../../src/postgres/connect.js';
import { loadColumnTypes } from '../../src/schema/columns.js';
import { socialConfig } from '../lib/social.js';
import { payload, type GatewayServerConfig, type Sender } from './gateway-kinds.js';

const CHANNEL = 'post:1';

export async function belfrySender({ url, secret, sendQueueBytes }: GatewayServerConfig): Promise<Sender> {
  const parsed = parseConfig(socialConfig({ url, port: 0, wakeup: 'notify', secret }), {});
  const limits = { ...parsed.limits, sendQueueBytes: sendQueueBytes ?? parsed.limits.sendQueueBytes };
  const config = { ...parsed, limits };
  const pool = createPool(url, { applicationName: 'belfry bench', max: 8 });
  const types = await loadColumnTypes(pool, config);
  const broker = new MemoryBroker();
  const gateway = new Gateway({
    config,
    broker,
    inbox: new PostgresInbox(pool, config, types),
    channels: new PostgresChannels(pool, config),
    pool,
    log: createLogger({ level: 'warn', name: 'bench' }),
    metrics: createMetrics(),
    version: 'bench',
  });
  // An earlier round's positions are in the database, and nobody is connected.
  await pool.query('truncate belfry.head, belfry.channel_head');
  const positions = new Map<string, number>();
  const { port } = await gateway.start();
  const next = (stream: string): number => {
    const position = (positions.get(stream) ?? 0) + 1;
    positions.set(stream, position);
    return position;
  };
  let page: Publication[] = [];
  const event = (data: Readonly<Record<string, unknown>>): Publication => ({
    to: 'channel',
    channel: CHANNEL,
    offset: next(CHANNEL),
    event: 'like_update',
    data,
    actorId: null,
    dataWithoutActor: null,
  });
  return {
    port,
    publish: (n) => void page.push(event(payload(n) as Record<string, unknown>)),
    publishData: (data) => broker.publish([event(data)]),
    send(user, n) {
      const seq = next(user);
      page.push({
        to: 'user',
        userId: user,
        seq,
        frame: JSON.stringify({ event: 'notification', seq, data: payload(n) }),
      });
    },
    turn(job) {
      page = [];
      job();
      broker.publish(page);
    },
    async settle() {
      const entries = [...positions].filter(([stream]) => stream !== CHANNEL);
      await pool.query(
        `insert into belfry.head (user_id, seq) select * from unnest($1::text[], $2::bigint[])
         on conflict (user_id) do update set seq = excluded.seq`,
        [entries.map(([user]) => user), entries.map(([, seq]) => seq)],
      );
      await pool.query(
        `insert into belfry.channel_head (channel, "offset") values ($1, $2)
         on conflict (channel) do update set "offset" = excluded."offset"`,
        [CHANNEL, positions.get(CHANNEL) ?? 0],
      );
    },
  };
}
