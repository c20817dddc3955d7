/**
 * Belfry's gateway beside raw uWebSockets.js, ws and Socket.IO: fan-out, direct sends, memory, handshakes.
 *
 * Every server runs in a process of its own and sends from inside; the ratios are of what one CPU second of the server
 * does, since the client that counts may be what limits the rate. The servers take turns within a round.
 */

import { install, SECRET } from './lib/belfry.js';
import { cpuSeconds, sleep, startWorker, type Worker } from './lib/processes.js';
import { atLeast, atMost, table, wanted, type Bench, type BenchContext, type Verdict } from './lib/report.js';
import { createSocial } from './lib/social.js';
import { numberSpread, pairedRatios, rateSpread, ratioSpread, rotated, spread } from './lib/stats.js';
import type { SwarmAnswer, SwarmJob } from './load/swarm.js';
import {
  GATEWAY_KINDS,
  type GatewayAnswer,
  type GatewayJob,
  type GatewayKind,
  type GatewayServerConfig,
} from './peers/gateway-kinds.js';

const DATABASE = 'belfry_bench_gateway';
const PEOPLE = 5_000;
const WARM_UP_SOCKETS = 500;

const NAMES: Record<GatewayKind, string> = {
  uws: 'uWebSockets.js',
  'uws-loop': 'uWebSockets.js, a loop of send',
  ws: 'ws',
  'socket-io': 'Socket.IO',
  'socket-io-uws': 'Socket.IO on uWebSockets.js',
  belfry: 'Belfry',
};

/** What is measured; the first is the one that handshakes and memory come from. */
interface Scene {
  readonly name: string;
  readonly sockets: number;
  /** Whether Belfry's sockets subscribe to the channel; those of the peers always are in it. */
  readonly subscribe: boolean;
  readonly job: (quick: boolean) => GatewayJob & { do: 'fanout' | 'direct' };
  /** Least ratio to raw uWebSockets.js. */
  readonly limit: number;
}

const fanout = (sockets: number, burst: number): Scene => ({
  name: `fan-out to ${sockets.toLocaleString('en')}, ${burst === 1 ? 'one at a time' : `bursts of ${burst}`}`,
  sockets,
  subscribe: true,
  job: (quick) => ({
    do: 'fanout',
    burst,
    events: Math.round(((quick ? 200_000 : 1_000_000) * (burst === 1 ? 1 : 8)) / sockets / burst) * burst,
  }),
  limit: 0.9,
});

const SCENES: readonly Scene[] = [
  {
    name: `direct to one of ${PEOPLE.toLocaleString('en')}`,
    sockets: PEOPLE,
    subscribe: false,
    job: (quick) => ({ do: 'direct', events: quick ? 64_000 : 320_000, users: PEOPLE }),
    limit: 0.85,
  },
  fanout(5_000, 1),
  fanout(5_000, 32),
  fanout(1_000, 1),
  fanout(1_000, 32),
];

interface Turn {
  /** Per scene: deliveries per CPU second of the server. */
  readonly perCpuSecond: ReadonlyMap<string, number>;
  readonly handshakesPerCpuSecond: number;
  readonly kibPerConnection: number;
}

export const gateway: Bench = {
  name: 'gateway',
  async run(context) {
    const url = await context.server.create(DATABASE);
    await createSocial(url, { users: PEOPLE, posts: PEOPLE });
    const kinds = wanted(GATEWAY_KINDS, context);
    const installation = kinds.includes('belfry') ? await install(url, 'notify') : undefined;
    const results = new Map<GatewayKind, Turn[]>(kinds.map((kind) => [kind, []]));
    try {
      for (let round = 0; round < context.rounds; round += 1) {
        for (const kind of rotated([...results.keys()], round))
          results.get(kind)?.push(await play(context, kind, url, round));
      }
      return { title: 'Gateway', body: describe(results), verdicts: () => judge(results) };
    } finally {
      await installation?.remove();
      await context.server.drop(DATABASE);
    }
  },
};

async function play(context: BenchContext, kind: GatewayKind, url: string, round: number): Promise<Turn> {
  const config: GatewayServerConfig = { kind, secret: SECRET, url };
  const server = startWorker<GatewayJob, GatewayAnswer>(new URL('./peers/gateway-server.js', import.meta.url), config, [
    '--expose-gc',
  ]);
  const swarm = startWorker<SwarmJob, SwarmAnswer>(new URL('./load/swarm.js', import.meta.url), {});
  try {
    // Some sockets come and go first: code gets warm, and memory that every server keeps is not counted per connection.
    const { port } = await server.ask({ do: 'status' });
    const connect = { do: 'connect', kind, port, secret: SECRET } as const;
    await swarm.ask({ ...connect, count: WARM_UP_SOCKETS, subscribe: false });
    await swarm.ask({ do: 'close' });
    await sleep(500);
    const before = await server.ask({ do: 'status' });
    const perCpuSecond = new Map<string, number>();
    let open = '';
    let handshakesPerCpuSecond = Number.NaN;
    let kibPerConnection = Number.NaN;
    for (const scene of SCENES) {
      const { sockets, subscribe } = scene;
      if (open !== `${sockets} ${subscribe}`) {
        await swarm.ask({ do: 'close' });
        const cpuBefore = cpuSeconds(server.pid);
        await swarm.ask({ ...connect, count: sockets, subscribe });
        if (open === '') {
          handshakesPerCpuSecond = sockets / (cpuSeconds(server.pid) - cpuBefore);
          const after = await server.ask({ do: 'status' });
          kibPerConnection = ((after.residentMiB - before.residentMiB) * 1024) / sockets;
        }
        open = `${sockets} ${subscribe}`;
      }
      perCpuSecond.set(scene.name, await deliver(context, scene, server, swarm, before.ackPort));
    }
    context.log(
      `gateway round ${round} ${kind}: ${handshakesPerCpuSecond.toFixed(0)} handshakes/CPU s, ${kibPerConnection.toFixed(1)} KiB, ` +
        [...perCpuSecond.values()].map((value) => `${(value / 1000).toFixed(0)} k`).join(', '),
    );
    return { perCpuSecond, handshakesPerCpuSecond, kibPerConnection };
  } finally {
    await swarm.stop();
    await server.stop();
  }
}

async function deliver(
  { quick }: BenchContext,
  scene: Scene,
  server: Worker<GatewayJob, GatewayAnswer>,
  swarm: Worker<SwarmJob, SwarmAnswer>,
  ackPort: number,
): Promise<number> {
  const job = scene.job(quick);
  const perAck = job.do === 'fanout' ? job.burst * scene.sockets : 32;
  const frames = job.do === 'fanout' ? job.events * scene.sockets : job.events;
  // A tenth of it unmeasured first.
  for (const events of [Math.ceil(job.events / 320) * 32, job.events]) {
    await swarm.ask({ do: 'count', ackPort, perAck });
    const { cpuSeconds: used } = await server.ask({ ...job, events });
    if (events === job.events) return frames / used;
  }
  throw new Error('no turn was measured');
}

function describe(results: ReadonlyMap<GatewayKind, readonly Turn[]>): string {
  const raw = results.get('uws') ?? [];
  const tables = SCENES.map(({ name }) => {
    const rate = (turn: Turn): number => turn.perCpuSecond.get(name) ?? Number.NaN;
    const rows = [...results].map(([kind, turns]) => [
      NAMES[kind],
      rateSpread(turns.map(rate)),
      ratioSpread(turns.map(rate), raw.map(rate)),
    ]);
    return table([name, 'deliveries per CPU s', '÷ uWebSockets.js'], rows);
  });
  const handshakes = (turn: Turn): number => turn.handshakesPerCpuSecond;
  const rows = [...results].map(([kind, turns]) => [
    NAMES[kind],
    rateSpread(turns.map(handshakes)),
    ratioSpread(turns.map(handshakes), raw.map(handshakes)),
    numberSpread(
      turns.map((turn) => turn.kibPerConnection),
      1,
    ),
  ]);
  return `Events of about 200 bytes, sent from inside the server; a CPU second is the server's. Every server verifies a JWT per
socket; Belfry also reads each one's position and counts from the database. Memory is the growth of the resident size with ${PEOPLE.toLocaleString('en')} authenticated sockets, garbage collected.

${tables.join('\n\n')}

${table([`${PEOPLE.toLocaleString('en')} sockets`, 'handshakes per CPU s', '÷ uWebSockets.js', 'KiB per connection'], rows)}`;
}

function judge(results: ReadonlyMap<GatewayKind, readonly Turn[]>): Verdict[] {
  const raw = results.get('uws') ?? [];
  const belfry = results.get('belfry') ?? [];
  const ratio = (pick: (turn: Turn) => number): number => spread(pairedRatios(belfry.map(pick), raw.map(pick))).median;
  return [
    ...SCENES.map(({ name, limit }) =>
      atLeast(
        `${name} ÷ uWebSockets.js`,
        ratio((turn) => turn.perCpuSecond.get(name) ?? Number.NaN),
        limit,
      ),
    ),
    atLeast(
      'handshakes ÷ uWebSockets.js',
      ratio((turn) => turn.handshakesPerCpuSecond),
      0.7,
    ),
    atMost('KiB per connection', spread(belfry.map((turn) => turn.kibPerConnection)).median, 4, 1),
  ];
}
