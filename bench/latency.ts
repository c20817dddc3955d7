/**
 * Commit to client with 1,000 people connected: Belfry, the NOTIFY pipe, Socket.IO with its Postgres adapter, and the
 * Flask-SocketIO endpoint that users come from.
 *
 * Each contestant has its own database, server process and load client; all are up for the whole bench, and one at a
 * time is loaded. Everything shares the machine's CPUs.
 */

import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { install, SECRET } from './lib/belfry.js';
import { cpuSeconds, freePort, start, startWorker, until, type Child, type Worker } from './lib/processes.js';
import { atLeast, atMost, table, wanted, type Bench, type BenchContext, type Verdict } from './lib/report.js';
import { createSocial } from './lib/social.js';
import { numberSpread, pairedRatios, rateSpread, rotated, spread } from './lib/stats.js';
import type { LoadConfig, LoadJob, LoadResult } from './load/client.js';
import type { Protocol } from './load/sockets.js';
import type { PipeAnswer } from './peers/notify-pipe.js';
import { NOTIFY_PAYLOAD, SOCKET_IO_TABLE } from './peers/sql.js';
import { execute } from './lib/database.js';

const USERS = 1_000;
const POSTS = 600_000;
const RATES = [50, 500, 2_000] as const;
const MAX_RATIO = 4;
const MIN_SATURATED = 8_000;

const PROTOCOLS = ['belfry', 'notify-pipe', 'socket-io', 'flask'] as const;

/** The Flask endpoint tells everybody every count, which takes it to its limit at some 60 likes a second. */
const RATES_OF: Readonly<Partial<Record<Protocol, readonly (number | null)[]>>> = { flask: [50] };

/** Debian's; where it lacks the packages the row is left out, and the log says so. */
const PYTHON = '/usr/bin/python3';

const NAMES: Record<Protocol, string> = {
  belfry: 'Belfry',
  'notify-pipe': 'NOTIFY payload + pg-listen + ws',
  'socket-io': 'Socket.IO + postgres-adapter',
  flask: 'Flask-SocketIO endpoint, with the count to all',
};

interface Contestant {
  readonly protocol: Protocol;
  readonly server: Child;
  readonly load: Worker<LoadJob, LoadResult>;
  nextPost: number;
  stop(): Promise<void>;
}

interface Slot extends LoadResult {
  readonly serverCpu: number;
}

/** Results of one contestant at one rate (null: saturated), one per round. */
type Results = Map<Protocol, Map<number | null, Slot[]>>;

export const latency: Bench = {
  name: 'latency',
  async run(context) {
    const protocols = wanted(PROTOCOLS, context).filter((protocol) => protocol !== 'flask' || hasFlask(context));
    const contestants: Contestant[] = [];
    try {
      for (const protocol of protocols) contestants.push(await enter(context, protocol));
      const results: Results = new Map(protocols.map((protocol) => [protocol, new Map<number | null, Slot[]>()]));
      // A round that is not counted warms up code, caches and plans.
      for (let round = -1; round < context.rounds; round += 1) await playRound(context, contestants, round, results);
      return {
        title: 'Commit to client',
        body: describe(context, results),
        verdicts: () => judge(results),
      };
    } finally {
      for (const contestant of contestants) await contestant.stop();
    }
  },
};

async function playRound(
  context: BenchContext,
  contestants: Contestant[],
  round: number,
  results: Results,
): Promise<void> {
  for (const perSecond of [...RATES, null]) {
    await context.server.checkpoint();
    for (const contestant of rotated(contestants, Math.max(0, round))) {
      if (RATES_OF[contestant.protocol]?.includes(perSecond) === false) continue;
      const slot = await play(contestant, perSecond, secondsFor(perSecond, context.quick));
      context.log(
        `latency round ${round} ${contestant.protocol} ${perSecond ?? 'saturated'}: p50 ${slot.p50Ms.toFixed(2)} p99 ${slot.p99Ms.toFixed(2)} ms, ` +
          `${slot.deliveredPerSecond.toFixed(0)}/s, ${slot.delivered} of ${slot.written}, server ${(slot.serverCpu * 100).toFixed(0)} %`,
      );
      if (round < 0) continue;
      const ofContestant = results.get(contestant.protocol) ?? new Map<number | null, Slot[]>();
      ofContestant.set(perSecond, [...(ofContestant.get(perSecond) ?? []), slot]);
    }
  }
}

function secondsFor(perSecond: number | null, quick: boolean): number {
  if (quick) return 2;
  return perSecond === 50 ? 10 : 5;
}

async function play(contestant: Contestant, perSecond: number | null, seconds: number): Promise<Slot> {
  const cpuBefore = cpuSeconds(contestant.server.pid);
  const startMs = performance.now();
  const result = await contestant.load.ask({ perSecond, seconds, firstPost: contestant.nextPost, lastPost: POSTS });
  contestant.nextPost += result.written;
  contestant.server.assertAlive();
  const serverCpu = (cpuSeconds(contestant.server.pid) - cpuBefore) / ((performance.now() - startMs) / 1000);
  return { ...result, serverCpu };
}

async function enter({ server, log }: BenchContext, protocol: Protocol): Promise<Contestant> {
  const database = `belfry_bench_latency_${protocol.replace('-', '_')}`;
  const url = await server.create(database);
  await createSocial(url, { users: USERS, posts: POSTS });
  const { child, port, remove } = await startContestant(protocol, url);
  const config: LoadConfig = { protocol, port, secret: SECRET, url, users: USERS };
  const load = startWorker<LoadJob, LoadResult>(new URL('./load/client.js', import.meta.url), config);
  log(`latency: ${protocol} is up`);
  return {
    protocol,
    server: child,
    load,
    nextPost: 1,
    async stop() {
      await load.stop();
      await child.stop();
      await remove();
      await server.drop(database);
    },
  };
}

async function startContestant(
  protocol: Protocol,
  url: string,
): Promise<{ child: Child; port: number; remove: () => Promise<void> }> {
  const nothing = (): Promise<void> => Promise.resolve();
  if (protocol === 'belfry') {
    const installation = await install(url, 'notify');
    return { child: await installation.start(), port: installation.port, remove: installation.remove };
  }
  if (protocol === 'notify-pipe') {
    await execute(url, ...NOTIFY_PAYLOAD);
    const child = startWorker<'status', PipeAnswer>(new URL('./peers/notify-pipe.js', import.meta.url), { url });
    return { child, port: (await child.ask('status')).port, remove: nothing };
  }
  if (protocol === 'flask') {
    const port = await freePort();
    const script = fileURLToPath(new URL('../../bench/peers/flask_endpoint.py', import.meta.url));
    const child = start(PYTHON, [script, String(port), url]);
    await until('Flask answers', 30_000, 100, async () => {
      child.assertAlive();
      return await fetch(`http://127.0.0.1:${port}/status`).then(
        ({ ok }) => ok,
        () => false,
      );
    });
    return { child, port, remove: nothing };
  }
  await execute(url, SOCKET_IO_TABLE);
  const child = startWorker<'status', { port: number }>(new URL('./peers/socket-io.js', import.meta.url), { url });
  return { child, port: (await child.ask('status')).port, remove: nothing };
}

function hasFlask({ log }: BenchContext): boolean {
  const { status } = spawnSync(PYTHON, ['-c', 'import flask_socketio, eventlet, psycopg2'], { stdio: 'ignore' });
  if (status !== 0) log('latency: no Flask row (Debian: python3-flask-socketio python3-eventlet python3-psycopg2)');
  return status === 0;
}

function of(results: Results, protocol: Protocol, perSecond: number | null): Slot[] {
  return results.get(protocol)?.get(perSecond) ?? [];
}

function describe({ quick }: BenchContext, results: Results): string {
  const protocols = [...results.keys()];
  const rows = protocols.flatMap((protocol) =>
    RATES.filter((perSecond) => RATES_OF[protocol]?.includes(perSecond) !== false).map((perSecond) => {
      const slots = of(results, protocol, perSecond);
      const lost = slots.reduce((sum, slot) => sum + slot.written - slot.delivered, 0);
      return [
        NAMES[protocol],
        String(perSecond),
        numberSpread(slots.map((slot) => slot.p50Ms)),
        numberSpread(slots.map((slot) => slot.p99Ms)),
        `${(spread(slots.map((slot) => slot.serverCpu)).median * 100).toFixed(0)} %`,
        String(lost),
      ];
    }),
  );
  const saturated = protocols
    .filter((protocol) => RATES_OF[protocol]?.includes(null) !== false)
    .map((protocol) => {
      const slots = of(results, protocol, null);
      return [
        NAMES[protocol],
        rateSpread(slots.map((slot) => slot.deliveredPerSecond)),
        numberSpread(slots.map((slot) => slot.p50Ms)),
        `${(spread(slots.map((slot) => slot.serverCpu)).median * 100).toFixed(0)} %`,
        `${((spread(slots.map((slot) => slot.cpuSeconds)).median / secondsFor(null, quick)) * 100).toFixed(0)} %`,
      ];
    });
  return `${USERS} people connected, each like of a post nobody liked before (a new notification, so no window holds it back).
Latency from the writer's reply to the author's frame; a frame that comes before the reply counts as 0. Socket.IO is
notified in a second transaction after the insert, and the author is known to the writer without a look-up. The Flask
endpoint (Debian's Flask-SocketIO on eventlet) is the one that users come from: it can't keep up with more than some 60 likes a
second, so it is measured at 50; its latency begins at its commit.
One process writes on 32 connections and holds all sockets.

${table(['', 'events/s', 'p50 ms', 'p99 ms', 'server CPU', 'undelivered'], rows)}

Saturated: as many as are delivered, at most 4,000 on their way.

${table(['', 'events/s', 'p50 ms', 'server CPU', 'load client CPU'], saturated)}`;
}

function judge(results: Results): Verdict[] {
  const ratio = (perSecond: number, pick: (slot: Slot) => number): number =>
    spread(pairedRatios(of(results, 'belfry', perSecond).map(pick), of(results, 'socket-io', perSecond).map(pick)))
      .median;
  return [
    ...RATES.flatMap((perSecond) => [
      atMost(
        `p50 at ${perSecond}/s ÷ Socket.IO`,
        ratio(perSecond, (slot) => slot.p50Ms),
        MAX_RATIO,
      ),
      atMost(
        `p99 at ${perSecond}/s ÷ Socket.IO`,
        ratio(perSecond, (slot) => slot.p99Ms),
        MAX_RATIO,
      ),
    ]),
    ...(of(results, 'flask', 50).length === 0
      ? []
      : [
          atMost(
            'p50 at 50/s ÷ Flask endpoint',
            spread(
              pairedRatios(
                of(results, 'belfry', 50).map((slot) => slot.p50Ms),
                of(results, 'flask', 50).map((slot) => slot.p50Ms),
              ),
            ).median,
            1,
          ),
        ]),
    atLeast(
      'saturated events/s',
      spread(of(results, 'belfry', null).map((slot) => slot.deliveredPerSecond)).median,
      MIN_SATURATED,
      0,
    ),
  ];
}
