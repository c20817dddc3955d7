/** Belfry as it runs in earnest: two relays, of which one leads, two gateways, a broker; every one a process, and what befalls them. */

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import jwt from 'jsonwebtoken';
import type { NotificationData } from '../../../src/client/index.js';
import { freePort } from '../../support/ports.js';
import type { TestDatabase } from '../../support/postgres.js';
import { startBelfry, type Program } from '../../support/program.js';
import { startProxy, type Proxy } from '../../support/proxy.js';
import { socialConfig, socialSql, testSecret } from '../../support/social.js';
import { pick, type Random } from './acts.js';

/** The social app, and what people may mute. */
export const townSql = `${socialSql}
create table public.mutes (muter_id bigint references public.users, muted_id bigint references public.users, primary key (muter_id, muted_id));
create table public.thread_mutes (user_id bigint references public.users, post_id bigint, primary key (user_id, post_id));`;

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export const token = (user: string): string => jwt.sign({ sub: user }, testSecret, { expiresIn: '1h' });

export interface Inbox {
  readonly items: readonly NotificationData[];
  readonly unseen: number;
  readonly seq: number;
}

interface Process {
  readonly role: 'relay' | 'gateway';
  readonly config: string;
  readonly port: number;
  program: Program;
  ready: Promise<unknown>;
}

export class Belfry {
  private frozen: Promise<void>[] = [];

  private constructor(
    private readonly database: TestDatabase,
    private readonly folder: string,
    private readonly processes: readonly Process[],
    /** In front of each gateway. */
    readonly ways: readonly Proxy[],
  ) {}

  /** Migrated, and everything ready. `broker`: the URL of one that is there. */
  static async start(database: TestDatabase, broker: string): Promise<Belfry> {
    const folder = await mkdtemp(path.join(tmpdir(), 'belfry-oracle-'));
    const windows = { window: '250ms', early: [3], groupFor: '12h', sample: 8 };
    const configOf = async (name: string, port: number): Promise<string> => {
      const file = path.join(folder, `${name}.yaml`);
      const text = socialConfig(database.url, {
        broker,
        server: { host: '127.0.0.1', port },
        mutes: { table: 'public.mutes', from: 'muter_id', to: 'muted_id' },
        threadMutes: { table: 'public.thread_mutes', user: 'user_id', kind: 'post', id: 'post_id' },
        aggregation: { like: windows, follow: windows },
        limits: {
          connectionsPerAddress: 1_000,
          handshakesPerSecond: 1_000,
          httpPerMinute: 1_000_000,
          messagesPerSecond: 200,
        },
      });
      await writeFile(file, text);
      return file;
    };
    const migrate = startBelfry(['migrate', '--config', await configOf('migrate', 0)]);
    if ((await migrate.exit).code !== 0) throw new Error(migrate.stderr);
    const processes: Process[] = [];
    for (const role of ['relay', 'relay', 'gateway', 'gateway'] as const) {
      const port = role === 'relay' ? 0 : await freePort();
      const config = await configOf(`${role}${processes.length}`, port);
      processes.push({ role, config, port, ...run(role, config) });
    }
    await Promise.all(processes.map(({ ready }) => ready));
    const ways = await Promise.all(gateways(processes).map(({ port }) => startProxy({ host: '127.0.0.1', port })));
    return new Belfry(database, folder, processes, ways);
  }

  /** Some misfortune; returns what it was. What it takes to recover from it is waited for by `recovered`. */
  async trouble(random: Random): Promise<string> {
    const dice = random();
    if (dice < 0.25) {
      this.restart(await this.leader());
      return 'the leader is killed';
    }
    if (dice < 0.35) {
      this.restart(pick(random, gateways(this.processes)));
      return 'a gateway is killed';
    }
    if (dice < 0.65) {
      // Longer than a lease lasts, now and then: the other relay takes over, and this one wakes up in its term.
      return await this.freeze(random() < 0.1 ? 9_500 : 100 + random() * 1_400);
    }
    if (dice < 0.8) {
      const name = pick(random, [
        'belfry listener',
        'belfry doorbell',
        'belfry writer',
        'belfry reader',
        'belfry gateway',
      ]);
      await this.database.pool.query(
        'select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1 and datname = current_database()',
        [name],
      );
      return `the connections "${name}" are ended`;
    }
    if (dice < 0.9) {
      pick(random, this.ways).reset();
      return 'the way to a gateway is cut';
    }
    await this.setPaused(true);
    return 'the relay is paused';
  }

  /** The leader is stopped for so long, and goes on. */
  async freeze(ms: number): Promise<string> {
    const { child } = (await this.leader()).program;
    child.kill('SIGSTOP');
    this.frozen.push(pause(ms).then(() => void child.kill('SIGCONT')));
    return `the leader is stopped for ${Math.round(ms)} ms`;
  }

  /** Everything runs again. */
  async recovered(): Promise<void> {
    await Promise.all(this.frozen);
    this.frozen = [];
    await this.setPaused(false);
    await Promise.all(this.processes.map(({ ready }) => ready));
  }

  async inbox(user: string, state?: 'archived'): Promise<Inbox> {
    const asked = state === undefined ? '' : `&state=${state}`;
    return (await (await this.call(user, 'GET', `?limit=100${asked}`)).json()) as Inbox;
  }

  /** A call of the HTTP API, tried until a gateway answers. */
  async call(user: string, method: string, tail: string, body?: unknown): Promise<Response> {
    for (let attempt = 0; ; attempt += 1) {
      const { port } = gateways(this.processes)[attempt % 2] as Process;
      const answer = await fetch(`http://127.0.0.1:${port}/api/notifications${tail}`, {
        method,
        headers: { authorization: `Bearer ${token(user)}`, 'content-type': 'application/json' },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        signal: AbortSignal.timeout(10_000),
      }).catch(() => null);
      if (answer?.ok === true) return answer;
      if (attempt > 200) throw new Error(`${method} ${tail}: ${answer === null ? 'no answer' : await answer.text()}`);
      await pause(100);
    }
  }

  async stop(): Promise<void> {
    for (const way of this.ways) await way.close();
    await Promise.allSettled(this.processes.map(({ ready }) => ready));
    for (const { program } of this.processes) await program.kill();
    await Promise.all(this.frozen);
    await rm(this.folder, { recursive: true });
  }

  /** Who leads, or led last. */
  private async leader(): Promise<Process> {
    const { rows } = await this.database.pool.query<{ pid: string | null }>(
      `select split_part(leader, ':', 2) as pid from belfry.relay`,
    );
    const relays = this.processes.filter(({ role }) => role === 'relay');
    return relays.find(({ program }) => program.pid === Number(rows[0]?.pid)) ?? (relays[0] as Process);
  }

  private restart(one: Process): void {
    one.ready = one.ready
      .catch(() => undefined)
      .then(async () => {
        await one.program.kill();
        Object.assign(one, { program: run(one.role, one.config).program });
        await one.program.waitFor(isReady);
      });
    one.ready.catch(() => undefined);
  }

  /** As `belfry pause` does; heard within 3 s. */
  private async setPaused(paused: boolean): Promise<void> {
    await this.database.pool.query('update belfry.relay set paused = $1 where paused <> $1', [paused]);
  }
}

const isReady = /"msg":"ready"/;

const gateways = (processes: readonly Process[]): readonly Process[] =>
  processes.filter(({ role }) => role === 'gateway');

function run(role: Process['role'], config: string): Pick<Process, 'program' | 'ready'> {
  const program = startBelfry(['start', '--role', role, '--config', config]);
  return { program, ready: program.waitFor(isReady) };
}
