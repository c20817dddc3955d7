/**
 * A replay of 1,000,000 events beside live traffic: how fast it is, what memory it takes, and what live events feel of it.
 *
 * All events have been delivered but for one in a hundred, whose notification was taken out of the database as if a mapping had missed
 * it. Live likes at 200 a second go to 1,000 connected people, in slots without and with the replay by turns; each round replays
 * everything again, after the same notifications were taken out again.
 */

import { drained, install, SECRET, type Installation } from './lib/belfry.js';
import { execute, queryOne } from './lib/database.js';
import { cpuSeconds, residentMiB, sleep, startWorker, type Child, type Worker } from './lib/processes.js';
import { atLeast, atMost, table, type Bench, type BenchContext, type Verdict } from './lib/report.js';
import { createSocial } from './lib/social.js';
import { numberSpread, pairedRatios, rateSpread, spread } from './lib/stats.js';
import type { LoadConfig, LoadJob, LoadResult } from './load/client.js';

const CONNECTED = 1_000;
const LIVE_POSTS = 200_000;
/** People and posts of what is replayed. */
const OTHERS = 50_000;
const OLD_POSTS = 100_000;
const DATABASE = 'belfry_bench_replay';
const LIVE_PER_SECOND = 200;
const MISSED_OF = 100;
const LIMIT_MS = 900_000;
const MIN_PER_SECOND = 15_000;
const MAX_P99 = 1.1;
const MAX_GROWTH = 1.25;

interface Round {
  readonly perSecond: number;
  readonly alone: LoadResult;
  readonly beside: LoadResult;
  readonly firstHalfMiB: number;
  readonly secondHalfMiB: number;
  readonly cpu: number;
  /** Delivered exactly what had been taken out. */
  readonly exact: boolean;
}

export const replay: Bench = {
  name: 'replay',
  async run(context) {
    const events = context.quick ? 200_000 : 1_000_000;
    const url = await context.server.create(DATABASE);
    const installation = await prepare(context, url, events);
    const child = await installation.start({ nodeFlags: nodeFlags() });
    const config: LoadConfig = { protocol: 'belfry', port: installation.port, secret: SECRET, url, users: CONNECTED };
    const load = startWorker<LoadJob, LoadResult>(new URL('./load/client.js', import.meta.url), config);
    try {
      const live = new Live(load);
      await live.play(3);
      const rounds: Round[] = [];
      for (let n = 0; n < (context.quick ? 1 : Math.min(3, context.rounds)); n += 1) {
        const round = await play(context, url, child, live, events);
        context.log(
          `replay round ${n}: ${round.perSecond.toFixed(0)} events/s, p99 ${round.alone.p99Ms.toFixed(2)} then ${round.beside.p99Ms.toFixed(2)} ms, ` +
            `p50 ${round.alone.p50Ms.toFixed(2)} then ${round.beside.p50Ms.toFixed(2)} ms, ` +
            `${round.firstHalfMiB.toFixed(0)} then ${round.secondHalfMiB.toFixed(0)} MiB, CPU ${(round.cpu * 100).toFixed(0)} %, ${round.exact ? 'exact' : 'NOT EXACT'}`,
        );
        rounds.push(round);
      }
      return { title: 'Replay', body: describe(events, rounds), verdicts: () => judge(rounds) };
    } finally {
      await load.stop();
      await child.stop();
      await installation.remove();
      await context.server.drop(DATABASE);
    }
  },
};

/** To profile the relay: BELFRY_BENCH_PROFILE is a folder. */
function nodeFlags(): string[] {
  const folder = process.env['BELFRY_BENCH_PROFILE'];
  return folder === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${folder}`];
}

class Live {
  private nextPost = 1;

  constructor(private readonly load: Worker<LoadJob, LoadResult>) {}

  async play(seconds: number): Promise<LoadResult> {
    const result = await this.load.ask({
      perSecond: LIVE_PER_SECOND,
      seconds,
      firstPost: this.nextPost,
      lastPost: LIVE_POSTS,
    });
    this.nextPost += result.written;
    return result;
  }
}

async function prepare({ server, log }: BenchContext, url: string, events: number): Promise<Installation> {
  await createSocial(url, { users: CONNECTED, posts: LIVE_POSTS });
  await execute(
    url,
    `insert into users (id, full_name) select n, 'Person ' || n from generate_series(${CONNECTED + 1}, ${CONNECTED + OTHERS}) n`,
    `insert into posts (id, user_id, body) select ${LIVE_POSTS} + n, ${CONNECTED + 1} + n % ${OTHERS}, repeat('post ', 20) from generate_series(1, ${OLD_POSTS}) n`,
    'vacuum analyze',
  );
  const installation = await install(url, 'notify');
  const relay = await installation.start();
  try {
    await execute(
      url,
      `do $$
       begin
         for batch in 0 .. ${events / 1_000 - 1} loop
           insert into likes (user_id, post_id)
           select ${CONNECTED + 1} + (post + 7 + (k / ${OLD_POSTS}) * 17) % ${OTHERS}, ${LIVE_POSTS} + post
           from (select k, (k * 7919) % ${OLD_POSTS} + 1 as post from generate_series(batch::bigint * 1000, batch * 1000 + 999) k) numbered;
           commit;
         end loop;
       end $$`,
    );
    await drained(url, LIMIT_MS);
  } finally {
    await relay.stop();
  }
  log(`replay: ${events} events delivered`);
  await execute(url, 'vacuum analyze');
  await server.checkpoint();
  return installation;
}

async function play({ server }: BenchContext, url: string, child: Child, live: Live, events: number): Promise<Round> {
  const missed = await queryOne(
    url,
    `with gone as (
       delete from belfry.notification_event where source = 'post_like' and event_id <= ${events} and event_id % ${MISSED_OF} = 0 returning 1)
     select count(*)::int as n from gone`,
  );
  await execute(url, 'vacuum belfry.notification_event');
  await server.checkpoint();
  const seconds = Math.ceil(events / MIN_PER_SECOND / 2);
  const alone = await live.play(seconds);
  const cpuBefore = cpuSeconds(child.pid);
  const beganAt = performance.now();
  const { id } = (await queryOne(
    url,
    `select belfry.replay(source => 'post_like', max_events => ${events + LIVE_POSTS})::text as id`,
  )) as { id: string };
  const samples: { done: number; mib: number }[] = [];
  const besides: Promise<LoadResult> = live.play(seconds);
  for (;;) {
    child.assertAlive();
    const job = await queryOne(
      url,
      `select state, processed::float8 as done, total::float8 as total, error from belfry.replay_job where id = ${id}`,
    );
    if (job['state'] === 'failed') throw new Error(`replay: ${String(job['error'])}`);
    samples.push({ done: Number(job['done']) / Math.max(1, Number(job['total'])), mib: residentMiB(child.pid) });
    if (job['state'] === 'done') break;
    if (performance.now() - beganAt > LIMIT_MS) throw new Error('replay: it takes too long');
    await sleep(200);
  }
  const cpu = (cpuSeconds(child.pid) - cpuBefore) / ((performance.now() - beganAt) / 1_000);
  const beside = await besides;
  const job = await queryOne(
    url,
    `select processed::float8 / extract(epoch from finished_at - started_at)::float8 as rate, delivered::int from belfry.replay_job where id = ${id}`,
  );
  const half = (first: boolean): number =>
    Math.max(...samples.filter(({ done }) => done < 0.5 === first).map(({ mib }) => mib));
  return {
    perSecond: Number(job['rate']),
    alone,
    beside,
    firstHalfMiB: half(true),
    secondHalfMiB: half(false),
    cpu,
    exact: job['delivered'] === missed['n'],
  };
}

function describe(events: number, rounds: readonly Round[]): string {
  const of = (pick: (round: Round) => number): number[] => rounds.map(pick);
  const row = [
    rateSpread(of(({ perSecond }) => perSecond)),
    numberSpread(of(({ alone }) => alone.p99Ms)),
    numberSpread(of(({ beside }) => beside.p99Ms)),
    numberSpread(
      of(({ firstHalfMiB }) => firstHalfMiB),
      0,
    ),
    numberSpread(
      of(({ secondHalfMiB }) => secondHalfMiB),
      0,
    ),
    `${(spread(of(({ cpu }) => cpu)).median * 100).toFixed(0)} %`,
    rounds.every(({ exact }) => exact) ? 'yes' : '**no**',
  ];
  return `${events.toLocaleString('en')} likes, all delivered but one in ${MISSED_OF}, replayed beside ${LIVE_PER_SECOND} live likes a second to ${CONNECTED.toLocaleString('en')} connected people;
slots of live traffic without and with the replay by turns. Latency is from the writer's reply to the author's frame; memory is the largest resident size of
the process (relay and gateway) while each half was replayed.

${table(['events/s', 'live p99 ms without', 'live p99 ms beside', 'MiB, first half', 'MiB, second half', 'CPU', 'delivered exactly what was missed'], [row])}`;
}

function judge(rounds: readonly Round[]): Verdict[] {
  const ratio = (pick: (result: LoadResult) => number): number =>
    spread(rounds.map(({ beside }) => pick(beside))).median / spread(rounds.map(({ alone }) => pick(alone))).median;
  return [
    atLeast('events/s replayed', spread(rounds.map(({ perSecond }) => perSecond)).median, MIN_PER_SECOND, 0),
    atMost(
      'live p99 beside ÷ without (medians)',
      ratio(({ p99Ms }) => p99Ms),
      MAX_P99,
    ),
    atMost(
      'memory, second half ÷ first',
      spread(
        pairedRatios(
          rounds.map(({ secondHalfMiB }) => secondHalfMiB),
          rounds.map(({ firstHalfMiB }) => firstHalfMiB),
        ),
      ).median,
      MAX_GROWTH,
    ),
    atLeast(
      'rounds that delivered exactly what was missed',
      rounds.filter(({ exact }) => exact).length,
      rounds.length,
      0,
    ),
  ];
}
