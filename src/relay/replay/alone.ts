/**
 * Replays where no relay runs: a command leads for as long as its replay takes.
 *
 * What must hold: the command takes the lease as a relay does, so that nobody else stores meanwhile, and leaves unread events unread. As soon
 * as a relay waits for the lease it gives it back, and the relay goes on with the replay: live traffic does not wait for a command.
 */

import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import type pg from 'pg';
import { createBroker } from '../../broker/create.js';
import type { Broker } from '../../broker/broker.js';
import type { Config } from '../../config.js';
import type { Logger } from '../../log.js';
import { Lease } from '../../outbox/lease.js';
import { settlePast } from '../../outbox/restore.js';
import { connect, createPool } from '../../postgres/connect.js';
import { adaptToPooler } from '../../schema/session.js';
import { loadColumnTypes } from '../../schema/columns.js';
import { BatchProcessor } from '../batch.js';
import { WriterPlans, writerSession } from '../connections.js';
import { blame } from '../failures.js';
import { withRetries } from '../page-work.js';
import { PrivacyLoader } from '../facts/privacy-facts.js';
import { ReplayWork } from './work.js';

/** The application name of every relay's lease session: whoever has one leads, or waits to. */
export const leaseApplication = 'belfry lease';

export interface AloneOptions {
  readonly config: Config;
  readonly log: Logger;
  /** Ends it after the page it is at. */
  readonly signal: AbortSignal;
  /** Whether there is anything left to do; asked now and then. */
  readonly wanted: () => Promise<boolean>;
}

const lookMs = 200;

/**
 * Leads and works on what is asked for in belfry.replay_job. False: somebody else leads, or is about to. Throws what connecting,
 * the broker and storing do; the job is then as it was left.
 */
export async function workAlone({ config, log, signal, wanted }: AloneOptions): Promise<boolean> {
  const url = config.database.listenUrl;
  const name = `${hostname()}:${String(process.pid)}:${randomBytes(4).toString('hex')}`;
  const pool = createPool(url, {
    applicationName: 'belfry replay lease',
    max: 1,
    session: Lease.session,
    queryTimeoutMs: 3_000,
  });
  const opened: pg.Client[] = [];
  const backends: number[] = [];
  const lease = new Lease({ pool, leader: name, backends: () => backends, log });
  let broker: Broker | null = null;
  const over = new AbortController();
  let kept: Promise<unknown> = Promise.resolve();
  let work: ReplayWork | null = null;
  try {
    const open = async (session: Readonly<Record<string, string>>): Promise<pg.Client> => {
      const client = await connect(url, { applicationName: 'belfry replay', session });
      opened.push(client);
      if (await adaptToPooler(client)) return client;
      const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid');
      if (rows[0] !== undefined) backends.push(rows[0].pid);
      return client;
    };
    const facts = await open({});
    const writer = await open(writerSession);
    if (await relayWaits(facts)) return false;
    broker = await createBroker(config.broker, log);
    await broker.start();
    const leadership = await lease.acquire();
    if (leadership === null) return false;
    kept = lease.keep(over.signal, () => undefined);
    const { epoch } = await settlePast(writer, leadership);
    if (epoch !== leadership.epoch) broker.publish([{ to: 'control', kind: 'epoch', epoch }]);
    const types = await loadColumnTypes(facts, config);
    const processor = new BatchProcessor(config, await PrivacyLoader.create(facts, config, types), broker, log);
    const plans = new WriterPlans(writer);
    // Nothing is read ahead.
    const connections = { reader: facts, writer, plans, ahead: writer, aheadPlans: plans };
    const { publish } = broker;
    work = new ReplayWork({ config, url, client: facts, worker: name, log });
    work.start({
      term: leadership.term,
      process: async (prepare) => {
        const preparation = await prepare();
        if (preparation === null) return null;
        return await withRetries(() => processor.process(connections, leadership.term, preparation, null));
      },
      // Nothing live is processed meanwhile.
      moved: () => 0,
      busy: () => false,
      publish: publish.bind(broker),
    });
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, lookMs));
      if (signal.aborted || !(await wanted())) return true;
      const { failure } = work;
      if (!lease.trusted() || blame(failure) === 'lease' || (await relayWaits(facts))) return false;
      if (failure !== null) throw failure as Error;
    }
  } finally {
    await work?.stop();
    over.abort();
    await kept;
    await lease.resign().catch(() => undefined);
    await broker?.stop();
    await Promise.all(opened.map((client) => client.end().catch(() => undefined)));
    await pool.end();
  }
}

/** Whether a relay runs, wherever it does: it leads, or waits to. */
async function relayWaits(client: pg.ClientBase): Promise<boolean> {
  const { rows } = await client.query<{ waits: boolean }>(
    `select exists (select from pg_stat_activity where application_name = $1 and datname = current_database()) as waits`,
    [leaseApplication],
  );
  return rows[0]?.waits ?? false;
}
