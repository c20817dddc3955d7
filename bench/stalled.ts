/**
 * What readers at full stop cost the others: the latency of a channel's events at readers who read, with and without 1,000
 * subscribers that have stopped reading, in turn, each on a server of its own.
 */

import { install, SECRET } from './lib/belfry.js';
import { sleep, startWorker } from './lib/processes.js';
import { atMost, table, type Bench, type BenchContext } from './lib/report.js';
import { createSocial } from './lib/social.js';
import { numberSpread, pairedRatios, quantile, ratioSpread, rotated, spread } from './lib/stats.js';
import type { ReadersAnswer, ReadersJob } from './load/readers.js';
import type { GatewayAnswer, GatewayJob, GatewayServerConfig } from './peers/gateway-kinds.js';

const DATABASE = 'belfry_bench_stalled';
const READING = 200;
const STALLED = 1_000;
const EVERY_MS = 10;
const BYTES = 1_000;
/** Small, so that those who stand still fill it, and are ended, within the run. */
const SEND_QUEUE_BYTES = 65_536;

interface Turn {
  readonly p50: number;
  readonly p99: number;
}

export const stalled: Bench = {
  name: 'stalled',
  async run(context) {
    const url = await context.server.create(DATABASE);
    await createSocial(url, { users: READING + STALLED, posts: 1 });
    const installation = await install(url, 'notify');
    const results = new Map<number, Turn[]>([
      [0, []],
      [STALLED, []],
    ]);
    try {
      for (let round = 0; round < context.rounds; round += 1) {
        for (const count of rotated([...results.keys()], round))
          results.get(count)?.push(await play(context, url, count, round));
      }
    } finally {
      await installation.remove();
      await context.server.drop(DATABASE);
    }
    const of = (count: number, pick: (turn: Turn) => number): number[] => (results.get(count) ?? []).map(pick);
    const rows = [...results.keys()].map((count) => [
      count.toLocaleString('en'),
      numberSpread(of(count, ({ p50 }) => p50)),
      numberSpread(of(count, ({ p99 }) => p99)),
      ratioSpread(
        of(count, ({ p99 }) => p99),
        of(0, ({ p99 }) => p99),
      ),
    ]);
    const p99Ratio = (): number =>
      spread(
        pairedRatios(
          of(STALLED, ({ p99 }) => p99),
          of(0, ({ p99 }) => p99),
        ),
      ).median;
    return {
      title: 'Readers at full stop',
      body: `${READING} subscribers read, others of the same channel have stopped reading; an event of ${BYTES.toLocaleString('en')} bytes every ${EVERY_MS} ms,
\`sendQueueBytes\` ${SEND_QUEUE_BYTES.toLocaleString('en')}. Latency from the schedule to the reader, in ms.

${table(['at full stop', 'p50', 'p99', 'p99 ÷ none'], rows)}`,
      verdicts: () => [atMost('p99 with 1,000 at full stop ÷ without', p99Ratio(), 1.2)],
    };
  },
};

async function play(context: BenchContext, url: string, count: number, round: number): Promise<Turn> {
  const config: GatewayServerConfig = { kind: 'belfry', secret: SECRET, url, sendQueueBytes: SEND_QUEUE_BYTES };
  const server = startWorker<GatewayJob, GatewayAnswer>(new URL('./peers/gateway-server.js', import.meta.url), config);
  const load = startWorker<ReadersJob, ReadersAnswer>(new URL('./load/readers.js', import.meta.url), {});
  try {
    const { port } = await server.ask({ do: 'status' });
    await load.ask({ do: 'connect', port, secret: SECRET, reading: READING, stalled: count });
    await sleep(500);
    let latenciesMs: number[] = [];
    // The first is for warming up.
    for (const events of [100, context.quick ? 200 : 1_000]) {
      await server.ask({ do: 'paced', events, everyMs: EVERY_MS, bytes: BYTES });
      latenciesMs = [...(await load.ask({ do: 'collect', events })).latenciesMs].sort((a, b) => a - b);
    }
    const turn = { p50: quantile(latenciesMs, 0.5), p99: quantile(latenciesMs, 0.99) };
    context.log(
      `stalled round ${round}, ${count} at full stop: p50 ${turn.p50.toFixed(2)} ms, p99 ${turn.p99.toFixed(2)} ms`,
    );
    return turn;
  } finally {
    await load.stop();
    await server.stop();
  }
}
