/**
 * The gateway: a uWebSockets.js server for sockets and HTTP, and everything behind it, built, started and stopped here.
 *
 * What must hold: `start` fails fast with a BelfryError; when it resolves, sessions can be accepted. `stop` is idempotent and
 * waits: unready at once, no new sockets, every session closed with 1012 spread over a grace time, HTTP answered to the end
 * (each answer the last one on its connection), then nothing of it is left, within the deadline; behind a proxy not before that
 * had time to see that this process is unready.
 */

import { randomBytes } from 'node:crypto';
import type { Pool } from 'pg';
import type { Broker } from '../broker/broker.js';
import type { Config } from '../config/types.js';
import type { Channels, Inbox } from '../inbox/types.js';
import type { Logger } from '../log.js';
import { byLabel, type Metrics } from '../metrics.js';
import { Announcements } from './people/announcements.js';
import { Auth } from './sessions/auth.js';
import { build } from './build.js';
import type { Context } from './context.js';
import { Http, type Pages, type Route } from './http/http.js';
import { Listeners, type Front } from './listeners.js';
import { Connects } from './limits.js';
import { Ops } from './ops.js';
import { Receiver } from './receive.js';
import { Revocations } from './people/revocations.js';
import { routes, type ProcessState } from './http/routes.js';
import type { Session, SocketData } from './sessions/session.js';
import { Sweep } from './recovery/sweep.js';
import { pingSeconds } from './sessions/ticks.js';
import { upgrade } from './sessions/upgrade.js';

export interface GatewayOptions {
  readonly config: Config;
  readonly broker: Broker;
  readonly inbox: Inbox;
  readonly channels: Channels;
  readonly pool: Pool;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly version: string;
  /** Extra static pages (console, demo). */
  readonly pages?: Pages;
  readonly extraRoutes?: readonly Route[];
}

export interface StopOptions {
  /** Over how long sessions are closed, at most. */
  readonly graceMs?: number;
  /** When everything must be over. */
  readonly deadlineMs?: number;
}

/** Over how long all sessions are closed, at most. */
const defaultGraceMs = 8000;
/** A drain takes this long per session, but not longer than its grace time. */
const drainMsPerSession = 2;
const drainStepMs = 25;
/**
 * A drain behind a proxy takes at least this long: one that asks `/readyz` every second has then sent everybody elsewhere. One
 * that still sends calls when the port closes loses some, since it cannot know whether they were begun.
 */
const noticedMs = 2500;
/** Messages up to this size are read, to be refused with a close code; beyond it uWebSockets cuts the connection. */
const readableBytes = 2 * 1024 * 1024;
/** Codes that are counted where they are not ours: a client may close with any. */
const peerCodes: ReadonlySet<number> = new Set([1000, 1001, 1005, 1006]);

export class Gateway {
  readonly context: Context;
  readonly sweep: Sweep;
  readonly #ops: Ops;
  readonly #http: Http;
  readonly #receiver: Receiver;
  readonly #announcements: Announcements;
  readonly #listeners: Listeners;
  readonly #connects: Connects;
  #state: ProcessState = 'starting';
  #stopping: Promise<void> | null = null;
  #idleAddresses: NodeJS.Timeout | null = null;

  constructor(private readonly options: GatewayOptions) {
    this.#listeners = new Listeners(options.config.server, (front) => this.equip(front));
    this.context = build(options, this.#listeners, randomBytes(6).toString('base64url') + '-');
    this.#connects = new Connects(options.config.limits);
    this.#announcements = new Announcements({
      inbox: options.inbox,
      tell: (frame) => this.#receiver.receive([{ to: 'everyone', frame }]),
    });
    const sweepOwner = { ...this.context.sweepOwner, resumeAll: (epoch: string) => this.resumeAll(epoch) };
    const revocations = new Revocations({ ...this.context, failed: sweepOwner.failed });
    this.sweep = new Sweep(sweepOwner, this.#announcements, revocations);
    this.#ops = new Ops(this.context, new Auth(this.context, this.#announcements));
    this.#receiver = new Receiver(this.context, this.#announcements, revocations, {
      epoch: (epoch) => this.sweep.told(epoch),
      sweep: () => void this.sweep.run(),
    });
    const own = routes({
      context: this.context,
      pool: options.pool,
      registry: options.metrics.registry,
      version: options.version,
      state: () => this.#state,
    });
    this.#http = new Http(
      { ...this.context, pages: options.pages ?? (() => null), draining: () => this.#state !== 'ready' },
      [...own, ...(options.extraRoutes ?? [])],
    );
  }

  /** Throws BelfryError `port_in_use`, or what Postgres raised. */
  async start(): Promise<{ port: number }> {
    const { context } = this;
    await this.sweep.begin();
    await context.extensions?.start();
    this.options.broker.subscribe(this.#receiver);
    const port = await this.#listeners.start();
    context.sessions.start();
    context.recheck.start();
    context.blocks.start();
    context.presence.start();
    this.sweep.start();
    context.badges.start();
    this.#idleAddresses = setInterval(() => context.addresses.forgetIdle(Date.now()), 10_000);
    this.#state = 'ready';
    return { port };
  }

  /** Reads the files of `server.tls` again, for new connections; those that are open go on. Throws BelfryError. */
  async reload(): Promise<void> {
    await this.#listeners.renew();
  }

  stop(options: StopOptions = {}): Promise<void> {
    this.#stopping ??= this.drain(options.graceMs ?? defaultGraceMs, options.deadlineMs ?? 20_000);
    return this.#stopping;
  }

  private async drain(graceMs: number, deadlineMs: number): Promise<void> {
    const begun = performance.now();
    const deadline = begun + deadlineMs;
    const noticed = this.options.config.server.trustProxy > 0 ? begun + noticedMs : begun;
    this.#state = 'draining';
    await this.closeAll(Math.min(graceMs, deadlineMs / 2));
    const busy = (): boolean => this.#http.pending > 0 || this.context.sessions.all.length > 0;
    while ((busy() || performance.now() < noticed) && performance.now() < deadline - 500) await sleep(drainStepMs);
    // For close frames and answers that are on their way out.
    await sleep(100);
    this.#state = 'stopped';
    this.stopParts();
    this.#listeners.stop();
    await this.context.extensions?.stop();
    await this.context.access.stop();
    await this.context.traces.stop();
  }

  private stopParts(): void {
    const { sessions, recheck, repair, badges, blocks, coalescer, presence, people, channels } = this.context;
    coalescer.stop();
    for (const part of [sessions, recheck, repair, badges, blocks, presence, people.gaps, channels.gaps, this.sweep])
      part.stop();
    if (this.#idleAddresses !== null) clearInterval(this.#idleAddresses);
  }

  private resumeAll(epoch: string): void {
    this.options.log.info({ epoch }, 'the epoch of all streams has changed: every session resumes');
    void this.closeAll(defaultGraceMs);
  }

  /** Closes every socket with 1012, in random order, evenly spread. */
  private async closeAll(mostMs: number): Promise<void> {
    const sessions = [...this.context.sessions.all];
    shuffle(sessions);
    const steps = Math.max(1, Math.floor(Math.min(mostMs, sessions.length * drainMsPerSession) / drainStepMs));
    const size = Math.ceil(sessions.length / steps);
    for (let from = 0; from < sessions.length; from += size) {
      for (const session of sessions.slice(from, from + size)) session.close(1012, 'restart');
      if (from + size < sessions.length) await sleep(drainStepMs);
    }
  }

  private equip(front: Front): void {
    const { config, metrics, addresses, sessions } = this.context;
    const closed = byLabel(metrics.closes, 'code');
    const counted = byLabel(metrics.handshakes, 'outcome');
    const handshakes = {
      ...{ config, counted, addresses, sessions },
      draining: () => this.#state !== 'ready',
      begun: (session: Session) => {
        session.use.connections++;
        front.sockets++;
        sessions.add(session);
        this.#ops.greet(session);
      },
    };
    front.app.ws<SocketData>('/ws', {
      maxPayloadLength: Math.max(readableBytes, 16 * config.limits.messageBytes),
      maxBackpressure: config.limits.sendQueueBytes,
      closeOnBackpressureLimit: false,
      // The clock of sessions.ts pings and ends; this is the net under it, for sockets that wait for their last bytes to go.
      idleTimeout: 4 * Math.ceil((2 * pingSeconds + 10) / 4),
      sendPingsAutomatically: false,
      upgrade: (res, req, context) => upgrade(handshakes, res, req, context),
      open: (socket) => {
        socket.getUserData().session.socket = socket;
      },
      message: (socket, message, isBinary) => this.#ops.receive(socket.getUserData().session, message, isBinary),
      pong: (socket) => {
        socket.getUserData().session.heard(Date.now());
      },
      drain: (socket) => socket.getUserData().session.onDrain(),
      dropped: (socket) => socket.getUserData().session.fallBehind(),
      close: (socket, code) => {
        const { session } = socket.getUserData();
        closed(session.stage === 'closed' || peerCodes.has(code) ? String(code) : 'other');
        front.sockets--;
        session.closed();
      },
    });
    // Behind a proxy every connection is the proxy's.
    if (config.server.trustProxy === 0) this.#connects.guard(front.app, addresses, () => counted('cut'));
    front.app.any('/*', (res, req) => this.#http.handle(res, req));
  }
}

function shuffle(list: unknown[]): void {
  for (let i = list.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [list[i], list[j]] = [list[j], list[i]];
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
