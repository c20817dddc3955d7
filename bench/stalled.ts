/**
 * What readers at full stop cost the others: the latency of a channel's events at 200 subscribers who read, alone, beside 1,000 others who read
 * as well, and beside 1,000 who have stopped reading, in turn, each on a server of its own.
 *
 * What is judged is whether the others notice that 1,000 stop who read before; beside nobody tells what serving them costs at all.
 *
 * The operating system takes a megabyte or more for each socket that stands still. That much is sent before, so that within the measured time their
 * queues in the gateway fill, and they are ended.
 */

import { install, SECRET } from './lib/belfry.js';
import { sleep, startWorker } from './lib/processes.js';
import { atLeast, atMost, table, type Bench, type BenchContext } from './lib/report.js';
import { createSocial } from './lib/social.js';
import { numberSpread, pairedRatios, quantile, ratioSpread, rotated, spread } from './lib/stats.js';
import type { ReadersAnswer, ReadersJob } from './load/readers.js';
import type { GatewayAnswer, GatewayJob, GatewayServerConfig } from './peers/gateway-kinds.js';

const DATABASE = 'belfry_bench_stalled';
const MEASURED = 200;
const OTHERS = 1_000;
const EVERY_MS = 25;
const BYTES = 4_000;
/** Small, so that those who stand still fill it, and are ended, within the run. */
const SEND_QUEUE_BYTES = 65_536;
/** Sent before: 1.6 MB for each. */
const BEFORE = { events: 100, bytes: 16_000, everyMs: 80 } as const;

const KINDS = ['nobody else', '1,000 who read', '1,000 at full stop'] as const;
type Kind = (typeof KINDS)[number];

interface Turn {
  readonly p50: number;
  readonly p99: number;
  /** Of the others, how many were ended: with 4508, or without a close frame where there was no room for it within ten seconds. */
  readonly ended: number;
}

export const stalled: Bench = {
  name: 'stalled',
  async run(context) {
    const url = await context.server.create(DATABASE);
    await createSocial(url, { users: MEASURED + OTHERS, posts: 1 });
    const installation = await install(url, 'notify');
    const results = new Map<Kind, Turn[]>(KINDS.map((kind) => [kind, []]));
    try {
      for (let round = 0; round < context.rounds; round += 1) {
        for (const kind of rotated([...KINDS], round)) results.get(kind)?.push(await play(context, url, kind, round));
      }
    } finally {
      await installation.remove();
      await context.server.drop(DATABASE);
    }
    const of = (kind: Kind, pick: (turn: Turn) => number): number[] => (results.get(kind) ?? []).map(pick);
    const p99 = (turn: Turn): number => turn.p99;
    const rows = KINDS.map((kind) => [
      kind,
      numberSpread(of(kind, (turn) => turn.p50)),
      numberSpread(of(kind, p99)),
      ratioSpread(of(kind, p99), of('nobody else', p99)),
      numberSpread(of(kind, (turn) => turn.ended)),
    ]);
    return {
      title: 'Readers at full stop',
      body: `${MEASURED} subscribers of a channel are measured, beside others of the same channel; an event of ${BYTES.toLocaleString('en')} bytes every ${EVERY_MS} ms,
\`sendQueueBytes\` ${SEND_QUEUE_BYTES.toLocaleString('en')}. Latency from the schedule to the reader, in ms.

${table(['beside', 'p50', 'p99', 'p99 ÷ beside nobody', 'ended'], rows)}`,
      verdicts: () => [
        atMost(
          'p99 beside 1,000 at full stop ÷ beside the same who read',
          spread(pairedRatios(of('1,000 at full stop', p99), of('1,000 who read', p99))).median,
          1.2,
        ),
        atLeast('ended, of 1,000 at full stop', Math.min(...of('1,000 at full stop', ({ ended }) => ended)), OTHERS),
      ],
    };
  },
};

async function play(context: BenchContext, url: string, kind: Kind, round: number): Promise<Turn> {
  const config: GatewayServerConfig = { kind: 'belfry', secret: SECRET, url, sendQueueBytes: SEND_QUEUE_BYTES };
  const server = startWorker<GatewayJob, GatewayAnswer>(new URL('./peers/gateway-server.js', import.meta.url), config);
  const reader = (): ReturnType<typeof startWorker<ReadersJob, ReadersAnswer>> =>
    startWorker<ReadersJob, ReadersAnswer>(new URL('./load/readers.js', import.meta.url), {});
  const measured = reader();
  const others = reader();
  try {
    const { port } = await server.ask({ do: 'status' });
    const connect = { do: 'connect', port, secret: SECRET } as const;
    await measured.ask({ ...connect, from: 1, count: MEASURED, how: 'measures' });
    if (kind !== 'nobody else') {
      const how = kind === '1,000 who read' ? 'reads' : 'stops';
      await others.ask({ ...connect, from: 1 + MEASURED, count: OTHERS, how });
    }
    await sleep(500);
    const events = context.quick ? 200 : 800;
    let latenciesMs: number[] = [];
    // The first is for warming up, and fills what the system holds.
    for (const part of [BEFORE, { events, bytes: BYTES, everyMs: EVERY_MS }]) {
      await server.ask({ do: 'paced', ...part });
      latenciesMs = [...(await measured.ask({ do: 'collect', events: part.events })).latenciesMs].sort((a, b) => a - b);
    }
    const { closed } = await others.ask({ do: 'closed' });
    const turn = {
      p50: quantile(latenciesMs, 0.5),
      p99: quantile(latenciesMs, 0.99),
      ended: Object.values(closed).reduce((sum, n) => sum + n, 0),
    };
    context.log(
      `stalled round ${round}, beside ${kind}: p50 ${turn.p50.toFixed(2)} ms, p99 ${turn.p99.toFixed(2)} ms, ended ${JSON.stringify(closed)}`,
    );
    return turn;
  } finally {
    await measured.stop();
    await others.stop();
    await server.stop();
  }
}
