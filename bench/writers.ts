/**
 * What each way of capturing leaves of the writers' throughput: single-row inserts at 1, 16 and 64 clients.
 *
 * Each variant has its own database on the same server; within a round they take turns, and never in the same order.
 * A relay or a pipe runs only during its own variant's turn. No turn begins before the last one's events are delivered.
 */

import { backlog, drained, install, type Installation } from './lib/belfry.js';
import { execute } from './lib/database.js';
import { BASE_STEP } from './lib/pgbench.js';
import { startWorker, until, type Child } from './lib/processes.js';
import { atLeast, table, wanted, type Bench, type BenchContext, type Verdict } from './lib/report.js';
import { createSocial } from './lib/social.js';
import { pairedRatios, rate, rateSpread, ratioSpread, rotated, spread } from './lib/stats.js';
import type { PipeAnswer } from './peers/notify-pipe.js';
import { NOTIFY_PAYLOAD, PLAIN_OUTBOX, PROTECTED_OUTBOX } from './peers/sql.js';

const CLIENTS = [1, 16, 64] as const;
const USERS = 50_000;
const POSTS = 100_000;
const WARM_UP_SECONDS = 1;
const DRAIN_LIMIT_MS = 180_000;

const VARIANTS = ['none', 'plain', 'protected', 'belfry', 'belfry_poll', 'belfry_bell', 'notify'] as const;
type Variant = (typeof VARIANTS)[number];

const NAMES: Record<Variant, string> = {
  none: 'no trigger',
  plain: 'plain outbox trigger',
  protected: 'the same with the protections',
  belfry: 'Belfry, no relay',
  belfry_poll: 'Belfry, relay, `wakeup: poll`',
  belfry_bell: 'Belfry, relay on the doorbell',
  notify: 'NOTIFY payload + pg-listen + ws',
};

/** One variant's database, and what has to run during its turn. */
interface Contestant {
  readonly variant: Variant;
  readonly url: string;
  /** Starts what reads the events; the answer waits until they are all read, then stops it. */
  attend(): Promise<{ settle(): Promise<number>; release(): Promise<void> }>;
  remove(): Promise<void>;
}

type Results = Map<Variant, Map<number, { tps: number; left: number }[]>>;

export const writers: Bench = {
  name: 'writers',
  async run(context) {
    const contestants: Contestant[] = [];
    try {
      for (const variant of wanted(VARIANTS, context)) contestants.push(await enter(context, variant));
      const results: Results = new Map(
        VARIANTS.map((variant) => [variant, new Map<number, { tps: number; left: number }[]>()]),
      );
      let base = 0;
      for (let round = 0; round < context.rounds; round += 1) {
        for (const clients of CLIENTS) {
          for (const contestant of rotated(contestants, round)) {
            const turn = await play(context, contestant, clients, base);
            context.log(
              `writers round ${round} ${clients} clients ${contestant.variant}: ${turn.tps.toFixed(0)} tps, ${turn.left} left`,
            );
            const ofVariant = results.get(contestant.variant) ?? new Map<number, { tps: number; left: number }[]>();
            ofVariant.set(clients, [...(ofVariant.get(clients) ?? []), turn]);
          }
          base += 2 * BASE_STEP;
        }
      }
      return { title: 'Writers', body: describe(context, results), verdicts: () => judge(results) };
    } finally {
      for (const contestant of contestants) await contestant.remove();
    }
  },
};

async function play(
  context: BenchContext,
  contestant: Contestant,
  clients: number,
  base: number,
): Promise<{ tps: number; left: number }> {
  const job = { script: 'insert_like', url: contestant.url, clients, users: USERS, posts: POSTS } as const;
  await context.server.checkpoint();
  const reader = await contestant.attend();
  try {
    await context.tool.tps({ ...job, base, seconds: WARM_UP_SECONDS });
    const tps = await context.tool.tps({ ...job, base: base + BASE_STEP, seconds: context.quick ? 2 : 5 });
    return { tps, left: await reader.settle() };
  } finally {
    await reader.release();
  }
}

async function enter({ server }: BenchContext, variant: Variant): Promise<Contestant> {
  const database = `belfry_bench_writers_${variant}`;
  const url = await server.create(database);
  await createSocial(url, { users: USERS, posts: POSTS });
  let installation: Installation | undefined;
  if (variant === 'plain') await execute(url, ...PLAIN_OUTBOX);
  if (variant === 'protected') await execute(url, ...PROTECTED_OUTBOX);
  if (variant === 'notify') await execute(url, ...NOTIFY_PAYLOAD);
  if (variant.startsWith('belfry')) installation = await install(url, variant === 'belfry_poll' ? 'poll' : 'notify');
  return {
    variant,
    url,
    attend: () => ATTEND[variant](url, installation),
    async remove() {
      await installation?.remove();
      await server.drop(database);
    },
  };
}

type Attend = (url: string, installation: Installation | undefined) => ReturnType<Contestant['attend']>;

const nobody: Attend = () => Promise.resolve({ settle: () => Promise.resolve(0), release: () => Promise.resolve() });

/** Nobody reads: what has piled up is thrown away, so that no variant writes into a larger outbox than the others. */
const emptied =
  (outbox: string): Attend =>
  (url) =>
    Promise.resolve({ settle: () => Promise.resolve(0), release: () => execute(url, `truncate ${outbox}`) });

const relayed: Attend = async (url, installation) => {
  if (installation === undefined) throw new Error('Belfry is not installed');
  const relay: Child = await installation.start();
  return {
    async settle() {
      relay.assertAlive();
      const left = await backlog(url);
      await drained(url, DRAIN_LIMIT_MS);
      return left;
    },
    release: () => relay.stop(),
  };
};

const piped: Attend = async (url) => {
  const pipe = startWorker<'status', PipeAnswer>(new URL('./peers/notify-pipe.js', import.meta.url), { url });
  await pipe.ask('status');
  return {
    async settle() {
      // It has heard everything when it hears nothing more.
      let { heard } = await pipe.ask('status');
      const first = heard;
      await until('pipe: everything heard', DRAIN_LIMIT_MS, 500, async () => {
        const before = heard;
        ({ heard } = await pipe.ask('status'));
        return heard === before;
      });
      return heard - first;
    },
    release: () => pipe.stop(),
  };
};

const ATTEND: Record<Variant, Attend> = {
  none: nobody,
  plain: emptied('plain.outbox'),
  protected: emptied('plain.outbox'),
  belfry: emptied('belfry.outbox'),
  belfry_poll: relayed,
  belfry_bell: relayed,
  notify: piped,
};

function tpsOf(results: Results, variant: Variant, clients: number): number[] {
  return (results.get(variant)?.get(clients) ?? []).map(({ tps }) => tps);
}

function describe(context: BenchContext, results: Results): string {
  const { tool, quick } = context;
  const rows = CLIENTS.flatMap((clients) =>
    wanted(VARIANTS, context).map((variant) => {
      const tps = tpsOf(results, variant, clients);
      const left = (results.get(variant)?.get(clients) ?? []).map((turn) => turn.left);
      return [
        `${clients}`,
        NAMES[variant],
        rateSpread(tps),
        ratioSpread(tps, tpsOf(results, 'none', clients)),
        ratioSpread(tps, tpsOf(results, 'plain', clients)),
        rate(spread(left).median),
      ];
    }),
  );
  return `\`insert into likes\`, one row a transaction, for ${quick ? 2 : 5} s after a second of warm-up, by ${tool.name}. The relay or pipe, all
clients and Postgres share the CPUs. "Left" is what the reader had still to read when the writers stopped.

${table(['clients', 'variant', 'transactions/s', '÷ no trigger', '÷ plain outbox', 'left'], rows)}`;
}

function judge(results: Results): Verdict[] {
  const ratio = (of: Variant, to: Variant, clients: number): number =>
    spread(pairedRatios(tpsOf(results, of, clients), tpsOf(results, to, clients))).median;
  return [
    ...[16, 64].map((clients) =>
      atLeast(`doorbell ÷ NOTIFY pipe, ${clients} clients`, ratio('belfry_bell', 'notify', clients), 2),
    ),
    ...[16, 64].map((clients) =>
      atLeast(`doorbell ÷ poll, ${clients} clients`, ratio('belfry_bell', 'belfry_poll', clients), 0.9),
    ),
    ...CLIENTS.map((clients) =>
      atLeast(`no relay ÷ plain outbox, ${clients} clients`, ratio('belfry', 'plain', clients), 0.9),
    ),
  ];
}
