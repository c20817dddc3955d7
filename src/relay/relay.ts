/**
 * The relay of a process: waits until it may lead, leads one term after another, and gives the lease back when it stops.
 *
 * Starting fails fast (wrong server, not migrated, a pooler where LISTEN must be); after that nothing that happens to
 * the database ends it: connections are made anew with jitter, and whoever leads then goes on from the cursor.
 */

import { hostname } from 'node:os';
import { randomBytes } from 'node:crypto';
import type pg from 'pg';
import type { Broker } from '../broker/broker.js';
import type { Config } from '../config.js';
import { messageOf } from '../errors.js';
import type { Logger } from '../log.js';
import { standBy } from '../metrics.js';
import type { RelayMetrics } from '../metrics.js';
import { unreadQuery } from '../outbox/cursor.js';
import { fullJitterMs, pause } from '../outbox/deadline.js';
import { Doorbell } from '../outbox/doorbell.js';
import { Lease } from '../outbox/lease.js';
import type { Leadership } from '../outbox/lease.js';
import { OutboxReader } from '../outbox/reader.js';
import { settlePast } from '../outbox/restore.js';
import { connect, createPool } from '../postgres/connect.js';
import { assertSuitable, serverInfo } from '../postgres/server.js';
import { assertMigrated } from '../schema/migrate.js';
import { adaptToPooler } from '../schema/session.js';
import { inTurn, letGo } from '../postgres/sending.js';
import { Chores } from './upkeep/chores.js';
import { writerSession } from './connections.js';
import { blame } from './failures.js';
import type { Blame } from './failures.js';
import { Leading } from './leading.js';
import { misfits, Told } from './upkeep/misfits.js';
import type { RelayObserver } from './observer.js';
import type { ReplayHost } from './replay/host.js';
import { Retention } from './upkeep/retention.js';
import { leaseApplication } from './replay/alone.js';
import { ReplayWork } from './replay/work.js';
import { BatchTraces } from './look/traces.js';

export interface RelayOptions {
  readonly config: Config;
  readonly broker: Broker;
  readonly log: Logger;
  readonly metrics: RelayMetrics;
  readonly observer?: RelayObserver;
}

/** How long work beside a leader (replays, retention, repairs) may take to end with its term. */
const othersMs = 8_000;

/** Pause before a term that ended in an error is tried again: full jitter from the first to the last. */
const retryMs = { first: 200, longest: 10_000 };

const tryingAgain = 'the term ended in an error; trying again';
const termEnded: Readonly<Record<Blame, string>> = {
  lease: 'another relay leads now',
  schema:
    'the database is not what the config says: correct one of them, then run `belfry migrate`. Events wait in the outbox; trying again',
  connection: tryingAgain,
  contention: tryingAgain,
  event: tryingAgain,
};

const doesNotFit =
  'the database does not fit the config, so nothing is delivered: correct the config or the tables, then run `belfry migrate`; `belfry doctor` tells the same. Events wait in the outbox; trying again';

interface Connections {
  readonly reader: pg.Client;
  readonly facts: pg.Client;
  readonly wide: pg.Client;
  readonly writer: pg.Client;
  readonly ahead: pg.Client;
  /** Their backends, which a takeover terminates. */
  readonly pids: readonly number[];
}

export class Relay {
  private readonly name = `${hostname()}:${String(process.pid)}:${randomBytes(4).toString('hex')}`;
  private readonly url: string;
  private readonly doorbell: Doorbell;
  private readonly leasePool: pg.Pool;
  private readonly lease: Lease;
  private readonly stopping = new AbortController();
  private readonly told = new Told();
  private connections: Connections | null = null;
  private leading: Leading | null = null;
  private running: Promise<void> | null = null;

  constructor(private readonly options: RelayOptions) {
    const { config, log, observer } = options;
    // All of the relay's sessions keep state (plans, settings, locks), so they go where LISTEN goes: past any pooler.
    this.url = config.database.listenUrl;
    this.leasePool = createPool(this.url, {
      applicationName: leaseApplication,
      max: 1,
      session: Lease.session,
      queryTimeoutMs: 3_000,
    });
    this.doorbell = new Doorbell({
      mode: config.database.wakeup,
      url: this.url,
      unread: () => unreadQuery(this.leading?.cursor ?? noCursor),
      log,
      ...(observer === undefined ? {} : { observer }),
    });
    options.metrics.doorbell = () => this.doorbell.counters;
    this.lease = new Lease({
      pool: this.leasePool,
      leader: this.name,
      backends: () => this.backends(),
      log,
    });
  }

  /** Whether this process leads now. */
  get leads(): boolean {
    return this.leading !== null && this.lease.trusted();
  }

  /** Throws `database_unreachable`, `database_denied`, `database_unsuitable`, `not_migrated`, and what bad SQL in the config causes. */
  async start(): Promise<void> {
    try {
      this.connections = await this.connect();
      assertSuitable(await serverInfo(this.connections.facts));
      await assertMigrated(this.connections.facts);
      await this.doorbell.start();
    } catch (error) {
      await this.close();
      throw error;
    }
    this.running = this.run();
  }

  /** Finishes the batch it is at, gives the lease back, closes everything. Idempotent. */
  async stop(): Promise<void> {
    this.stopping.abort();
    this.leading?.stop();
    await this.running;
    await this.close();
  }

  private async run(): Promise<void> {
    const { signal } = this.stopping;
    for (let failures = 0; !signal.aborted;) {
      try {
        this.connections ??= await this.connect();
        const leadership = await this.lease.campaign(signal);
        if (leadership === null) break;
        await this.lead(this.connections, leadership);
        failures = 0;
        // Statements are prepared for the columns as they were in that term.
        await this.closeConnections();
      } catch (error) {
        if (signal.aborted) break;
        await this.closeConnections();
        await this.tell(error);
        await pause(fullJitterMs(failures++, retryMs.first, retryMs.longest), signal);
      }
    }
  }

  /** Why a term ended. What does not fit is told by its places in the config, and once: it ends every term until it is corrected. */
  private async tell(error: unknown): Promise<void> {
    const { config, log } = this.options;
    const problems = await misfits(error, config);
    if (problems.length === 0) log.warn({ error: messageOf(error) }, termEnded[blame(error)]);
    else if (this.told.isNews('term', problems)) log.error({ problems, error: messageOf(error) }, doesNotFit);
  }

  private async lead(connections: Connections, leadership: Leadership): Promise<void> {
    const { config, broker, log, metrics, observer = {} } = this.options;
    const term = new AbortController();
    let { paused } = leadership;
    let kept: Promise<unknown> = Promise.resolve();
    const retention = new Retention({ config, url: this.url, log });
    const replays = new ReplayWork({
      config,
      url: this.url,
      client: connections.facts,
      worker: this.name,
      log,
    });
    let chores: Chores | null = null;
    let traces: BatchTraces | null = null;
    try {
      kept = this.lease
        .keep(term.signal, (now, asked) => {
          if (asked) replays.ask();
          if (now === paused) return;
          paused = now;
          this.doorbell.wake();
        })
        .then(async (why) => {
          this.leading?.stop();
          // A statement on a socket that went silent would wait for ever, and what it would write is fenced.
          if (why === 'lost') {
            log.warn({ term: leadership.term }, 'the lease is lost: this relay stands by');
            await this.closeConnections();
          }
        });
      const settled = await settlePast(connections.writer, leadership);
      if (settled.epoch !== leadership.epoch) {
        broker.publish([{ to: 'control', kind: 'epoch', epoch: settled.epoch }]);
        log.warn(
          { past: settled.past, epoch: settled.epoch },
          'this is not the database it was: a new epoch begins, clients fetch anew',
        );
      }
      chores = new Chores({
        config,
        log,
        facts: connections.facts,
        writer: connections.writer,
        metrics,
        told: this.told,
        wake: () => this.doorbell.wake(),
      });
      const { reader, facts, wide, writer, ahead } = connections;
      traces = new BatchTraces({ client: facts, worker: this.name, cursor: settled.cursor, log });
      const leading = await Leading.prepare(
        {
          config,
          broker,
          doorbell: this.doorbell,
          log,
          metrics,
          observer,
          reader,
          facts,
          wide,
          writer,
          ahead,
          chores: async (now) => chores?.run(now),
          traces,
          rungForNothing: () => {
            replays.ask();
            chores?.lookNow();
          },
        },
        { term: leadership.term, cursor: settled.cursor, trusted: () => this.lease.trusted(), paused: () => paused },
      );
      this.leading = leading;
      metrics.leader.set(1);
      observer.leader?.(true, leadership.term);
      broker.publish([{ to: 'control', kind: 'leader', term: leadership.term }]);
      if (this.stopping.signal.aborted) return;
      replays.start(hostOf(leading));
      retention.start();
      await leading.run();
    } finally {
      this.leading = null;
      standBy(metrics);
      observer.leader?.(false, leadership.term);
      term.abort();
      await kept;
      // Each has connections of its own, of which one that fell silent could hold it for ever. What it would still write is fenced, or harmless.
      const over = new AbortController();
      const settled = [chores?.settled() ?? Promise.resolve(), traces?.stop() ?? Promise.resolve()];
      const ended = Promise.allSettled([replays.stop(), retention.stop(), ...settled]).then(() => over.abort());
      await Promise.race([ended, pause(othersMs, over.signal)]);
      if (!over.signal.aborted)
        log.warn('retention or a replay of the term that is over waits for an answer: left behind');
      await this.lease
        .resign()
        .catch((error: unknown) => log.warn({ error: messageOf(error) }, 'could not give the lease back'));
    }
  }

  private backends(): number[] {
    return [...(this.connections?.pids ?? []), ...this.doorbell.backends];
  }

  private async connect(): Promise<Connections> {
    const opened: pg.Client[] = [];
    const pids: number[] = [];
    const open = async (
      applicationName: string,
      session: Readonly<Record<string, string>>,
      pipelined = false,
    ): Promise<pg.Client> => {
      const client = await connect(this.url, { applicationName, session, pipelined });
      opened.push(client);
      // Behind a pooler (wakeup: poll) each statement may run on another server connection, and none is ours to terminate.
      if (await adaptToPooler(client)) return pipelined ? inTurn(client) : client;
      const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid');
      if (rows[0] !== undefined) pids.push(rows[0].pid);
      return client;
    };
    try {
      return {
        reader: await open('belfry reader', OutboxReader.session),
        facts: await open('belfry facts', {}),
        wide: await open('belfry wide events', {}),
        writer: await open('belfry writer', writerSession, true),
        ahead: await open('belfry ahead', writerSession),
        pids,
      };
    } catch (error) {
      await Promise.all(opened.map(letGo));
      throw error;
    }
  }

  private async closeConnections(): Promise<void> {
    const { connections } = this;
    this.connections = null;
    if (connections === null) return;
    const { reader, facts, wide, writer, ahead } = connections;
    await Promise.all([reader, facts, wide, writer, ahead].map(letGo));
  }

  private async close(): Promise<void> {
    await this.closeConnections();
    await this.doorbell.stop();
    if (!this.leasePool.ended) await this.leasePool.end();
  }
}

/** A leader as replays know it. */
function hostOf(leading: Leading): ReplayHost {
  return {
    term: leading.term.term,
    process: (prepare) =>
      leading.whenIdle(async () => {
        const preparation = await prepare();
        return preparation === null ? null : await leading.injectPrepared(preparation);
      }),
    moved: () => leading.moved,
    busy: () => leading.busy,
    publish: (publications) => leading.publish(publications),
  };
}

/** Before a cursor is known everything counts as unread. */
const noCursor = { seen: '1:1:', target: null, afterId: '0', maxId: '0' } as const;
