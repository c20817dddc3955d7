/** A gateway on a real Postgres, and clients that show every frame they get. */

import net from 'node:net';
import jwt from 'jsonwebtoken';
import WebSocket from 'ws';
import type { ClientOptions } from 'ws';
import type { BrokerHandler, Publication } from '../../src/broker/broker.js';
import { MemoryBroker } from '../../src/broker/memory.js';
import { parseConfig, type Config } from '../../src/config.js';
import { Gateway, type GatewayOptions } from '../../src/gateway/server.js';
import { PostgresChannels } from '../../src/inbox/channels.js';
import { PostgresInbox } from '../../src/inbox/inbox.js';
import { createLogger } from '../../src/log.js';
import { createMetrics, type Metrics } from '../../src/metrics.js';
import { loadColumnTypes } from '../../src/schema/columns.js';
import { createTestDatabase, type TestDatabase } from '../support/postgres.js';
import { socialConfig, socialSql, testSecret } from '../support/social.js';

export interface Rig {
  readonly gateway: Gateway;
  readonly port: number;
  readonly broker: TestBroker;
  readonly db: TestDatabase;
  readonly config: Config;
  readonly metrics: Metrics;
  connect(options?: ConnectOptions): Promise<Client>;
  /** Connects and authenticates in a frame; the answer and all up to `synced` have been read. */
  login(userId: string, options?: LoginOptions): Promise<Client>;
  http(path: string, init?: RequestInit & { userId?: string }): Promise<Response>;
  /** A notification as the relay would make it: a row, and its publication, which is returned unsent. */
  notification(userId: string, message?: string): Promise<Publication & { to: 'user' }>;
  /** A channel event as the relay would log it, unsent. */
  event(
    channel: string,
    event: string,
    data?: Record<string, unknown>,
    more?: EventMore,
  ): Promise<Publication & { to: 'channel' }>;
  metric(name: string, labels?: Record<string, string>): Promise<number>;
  /** Closes all clients, and waits until the gateway knows. */
  hangUp(): Promise<void>;
  stop(): Promise<void>;
}

/** What it carries was published after a commit, or never is: that is how messages get lost here. */
class TestBroker extends MemoryBroker {
  /** Says that its connection was lost and is back. */
  reconnected: () => void = () => undefined;

  override subscribe(handler: BrokerHandler): void {
    this.reconnected = () => handler.reconnected();
    super.subscribe(handler);
  }
}

interface EventMore {
  readonly actorId?: string;
  readonly dataWithoutActor?: Record<string, unknown> | null;
}

export interface ConnectOptions {
  readonly query?: string;
  readonly protocols?: string[];
  readonly ws?: ClientOptions;
}

export interface LoginOptions extends ConnectOptions {
  readonly since?: number;
  readonly epoch?: string;
  readonly token?: string;
}

export interface RigOptions {
  /** Further top-level keys of the config, as YAML. */
  readonly yaml?: string;
  /** Changes to the parsed config. */
  readonly change?: (config: Config) => Config;
  readonly db?: TestDatabase;
  readonly gateway?: Partial<GatewayOptions>;
  /** SQL after the social app's. */
  readonly sql?: string;
}

/** A whole handshake as bytes, with the token in its header. */
export function shakeHands(port: number, userId: string, query = ''): net.Socket {
  const socket = net.connect(port, '127.0.0.1');
  const lines = [
    `GET /ws${query} HTTP/1.1`,
    `Host: 127.0.0.1:${port}`,
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
    `Authorization: Bearer ${tokenFor(userId)}`,
  ];
  socket.write(`${lines.join('\r\n')}\r\n\r\n`);
  return socket;
}

export async function startRig(options: RigOptions = {}): Promise<Rig> {
  const db = options.db ?? (await createTestDatabase({ prepare: `${socialSql};${options.sql ?? ''}` }));
  const parsed = parseConfig(socialConfig(db.url, options.yaml ?? ''), { PORT: '0' }, { path: 'belfry.yaml' });
  const local = { ...parsed, server: { ...parsed.server, host: '127.0.0.1' } };
  const config = options.change?.(local) ?? local;
  const broker = new TestBroker();
  const metrics = createMetrics();
  const columnTypes = await loadColumnTypes(db.pool, config);
  const gateway = new Gateway({
    config,
    broker,
    inbox: new PostgresInbox(db.pool, config, columnTypes),
    channels: new PostgresChannels(db.pool, config),
    pool: db.pool,
    log: createLogger({ level: (process.env['LOG_LEVEL'] as 'debug' | undefined) ?? 'silent', name: 'test' }),
    metrics,
    version: '0.0.0-test',
    ...options.gateway,
  });
  const { port } = await gateway.start();
  const clients: Client[] = [];
  const rig: Rig = {
    ...{ gateway, port, broker, db, config, metrics },
    async connect(how = {}) {
      const url = `ws://127.0.0.1:${port}/ws${how.query === undefined ? '' : `?${how.query}`}`;
      const client = new Client(new WebSocket(url, how.protocols ?? [], how.ws));
      clients.push(client);
      await client.opened;
      return client;
    },
    async login(userId, how = {}) {
      const client = await rig.connect(how);
      const { since, epoch } = how;
      const answer = await client.request({ op: 'auth', token: how.token ?? tokenFor(userId), since, epoch });
      if (answer['error'] !== undefined) throw new Error(JSON.stringify(answer));
      await client.until((frame) => frame['event'] === 'synced');
      return client;
    },
    http(path, init = {}) {
      const { userId, headers, ...rest } = init;
      const authorization = userId === undefined ? {} : { authorization: `Bearer ${tokenFor(userId)}` };
      return fetch(`http://127.0.0.1:${port}${path}`, {
        ...rest,
        headers: { ...authorization, ...(headers as Record<string, string>) },
      });
    },
    async notification(userId, message = 'hello') {
      const { rows } = await db.pool.query<{ seq: string; id: string }>(
        `with head as (
           insert into belfry.head as h (user_id, seq) values ($1, 1) on conflict (user_id) do update set seq = h.seq + 1 returning seq),
         pushed as (
           insert into belfry.notification (user_id, seq, type, group_key, open, message, first_at, last_at)
           select $1, seq, 'system', 'test', false, $2, now(), now() from head
           returning seq, id)
         insert into belfry.stream_position (user_id, seq, notification_id) select $1, seq, id from pushed
         returning seq::text, notification_id::text as id`,
        [userId, message],
      );
      const seq = Number(rows[0]!.seq);
      return {
        to: 'user',
        userId,
        seq,
        frame: JSON.stringify({ event: 'notification', seq, data: { id: rows[0]!.id, message } }),
      };
    },
    async event(channel, event, data = {}, more = {}) {
      const publication = await new PostgresChannels(db.pool, config).append(channel, event, data, more.actorId ?? '0');
      await db.pool.query(
        'update belfry.channel_event set actor_id = $3, data_without_actor = $4 where channel = $1 and "offset" = $2',
        [channel, publication.offset, more.actorId ?? null, more.dataWithoutActor ?? null],
      );
      return {
        ...publication,
        actorId: more.actorId ?? null,
        dataWithoutActor: more.dataWithoutActor ?? null,
      };
    },
    async metric(name, labels = {}) {
      const metric = await metrics.registry.getSingleMetric(name)?.get();
      const found =
        metric?.values.filter((value) =>
          Object.entries(labels).every(([key, label]) => String(value.labels[key]) === label),
        ) ?? [];
      return found.reduce((sum, { value }) => sum + value, 0);
    },
    async hangUp() {
      for (const client of clients.splice(0)) client.socket.terminate();
      while (gateway.context.sessions.all.length > 0) await new Promise((resolve) => setTimeout(resolve, 5));
    },
    async stop() {
      for (const client of clients) client.socket.terminate();
      await gateway.stop({ graceMs: 0, deadlineMs: 3000 });
      if (options.db === undefined) await db.drop();
    },
  };
  return rig;
}

/** A token of this user; `claims` replace or add to the usual ones. */
export function tokenFor(userId: string, claims: Record<string, unknown> = {}, secret = testSecret): string {
  const all = { sub: userId, exp: Math.floor(Date.now() / 1000) + 3600, ...claims };
  return jwt.sign(Object.fromEntries(Object.entries(all).filter(([, claim]) => claim !== undefined)), secret, {
    algorithm: 'HS256',
  });
}

export type Frame = Record<string, unknown> & {
  readonly ok?: Record<string, unknown>;
  readonly data?: Record<string, unknown>;
};

export class Client {
  /** Everything that came and was not taken yet. */
  readonly frames: Frame[] = [];
  /** Everything that ever came. */
  readonly all: Frame[] = [];
  readonly opened: Promise<void>;
  readonly closed: Promise<{ code: number; reason: string }>;
  #wake: (() => void) | null = null;
  #next = 1;
  #isClosed = false;

  constructor(readonly socket: WebSocket) {
    this.opened = new Promise((resolve, reject) => {
      socket.once('open', resolve);
      socket.once('error', reject);
    });
    // A test that expects a refusal awaits `opened`; others must not die of it.
    this.opened.catch(() => undefined);
    socket.on('error', () => undefined);
    this.closed = new Promise((resolve) => {
      socket.once('close', (code, reason) => {
        this.#isClosed = true;
        this.#wake?.();
        resolve({ code, reason: reason.toString() });
      });
    });
    socket.on('message', (data: Buffer) => {
      const frame = JSON.parse(data.toString()) as Frame;
      this.frames.push(frame);
      this.all.push(frame);
      this.#wake?.();
    });
  }

  send(frame: unknown): void {
    this.socket.send(typeof frame === 'string' ? frame : JSON.stringify(frame));
  }

  /** Sends an op and waits for its answer; other frames stay. */
  async request(op: Record<string, unknown>): Promise<Frame> {
    const id = this.#next++;
    this.send({ id, ...op });
    return this.take((frame) => frame['id'] === id);
  }

  /** The first frame that fits, taken out; waits for it. */
  async take(fits: (frame: Frame) => boolean, timeoutMs = 10_000): Promise<Frame> {
    for (;;) {
      const at = this.frames.findIndex(fits);
      if (at >= 0) return this.frames.splice(at, 1)[0]!;
      await this.more(timeoutMs);
    }
  }

  push(event: string): Promise<Frame> {
    return this.take((frame) => frame['event'] === event);
  }

  /** All frames up to and with the first that fits, taken out. */
  async until(fits: (frame: Frame) => boolean): Promise<Frame[]> {
    for (;;) {
      const at = this.frames.findIndex(fits);
      if (at >= 0) return this.frames.splice(0, at + 1);
      await this.more(10_000);
    }
  }

  private async more(timeoutMs: number): Promise<void> {
    if (this.#isClosed) throw new Error(`closed; frames: ${JSON.stringify(this.frames).slice(0, 2000)}`);
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new Error(`nothing came; frames: ${JSON.stringify(this.frames).slice(0, 2000)}`)),
        timeoutMs,
      );
    });
    await Promise.race([new Promise<void>((resolve) => (this.#wake = resolve)), timeout]).finally(() =>
      clearTimeout(timer),
    );
  }
}
