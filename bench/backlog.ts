/**
 * A backlog of 500,000 likes over 100,000 posts of 50,000 people through the whole relay into the inbox.
 *
 * The likes are written while no relay runs, in transactions of 100. The relay has run before, so that its counters are
 * seeded from empty tables and every like is counted by its event. At the end the inbox and the counters must hold
 * exactly what was written.
 */

import { backlog as unread, install } from './lib/belfry.js';
import { execute, queryOne } from './lib/database.js';
import { cpuSeconds, residentMiB, sleep } from './lib/processes.js';
import { atLeast, atMost, table, type Bench, type BenchContext, type Verdict } from './lib/report.js';
import { createSocial } from './lib/social.js';
import { numberSpread, rateSpread, spread } from './lib/stats.js';

const USERS = 50_000;
const POSTS = 100_000;
const DATABASE = 'belfry_bench_backlog';
const LIMIT_MS = 600_000;
const MIN_PER_SECOND = 15_000;
/** How much more memory the second half may need than the first: no table is held in memory. */
const MAX_GROWTH = 1.25;

interface Run {
  readonly perSecond: number;
  readonly firstHalfMiB: number;
  readonly secondHalfMiB: number;
  readonly cpu: number;
  readonly exact: boolean;
}

export const backlog: Bench = {
  name: 'backlog',
  async run(context) {
    const events = context.quick ? 100_000 : 500_000;
    const runs: Run[] = [];
    for (let round = 0; round < (context.quick ? 1 : Math.min(3, context.rounds)); round += 1) {
      const result = await drain(context, events);
      context.log(
        `backlog round ${round}: ${result.perSecond.toFixed(0)} events/s, ${result.firstHalfMiB.toFixed(0)} then ${result.secondHalfMiB.toFixed(0)} MiB, ` +
          `CPU ${(result.cpu * 100).toFixed(0)} %, ${result.exact ? 'exact' : 'NOT EXACT'}`,
      );
      runs.push(result);
    }
    return { title: 'Backlog', body: describe(events, runs), verdicts: () => judge(runs) };
  },
};

async function drain({ server, log }: BenchContext, events: number): Promise<Run> {
  const url = await server.create(DATABASE);
  await createSocial(url, { users: USERS, posts: POSTS });
  const installation = await install(url, 'notify');
  try {
    const seeding = await installation.start();
    await seeding.stop();
    await write(url, events);
    await server.checkpoint();
    log(`backlog: ${await unread(url)} events written`);
    const before = performance.now();
    const relay = await installation.start();
    try {
      const samples: { left: number; atMs: number; mib: number }[] = [];
      for (let left = events; left > 0; await sleep(100)) {
        relay.assertAlive();
        left = await unread(url);
        samples.push({ left, atMs: performance.now(), mib: residentMiB(relay.pid) });
        if (performance.now() - before > LIMIT_MS)
          throw new Error(`backlog: ${left} events left after ${LIMIT_MS / 1000} s`);
      }
      const cpu = cpuSeconds(relay.pid) / ((performance.now() - before) / 1000);
      const half = samples.filter(({ left }) => left > events / 2);
      const rest = samples.filter(({ left }) => left <= events / 2);
      const lastMs = samples.at(-1)?.atMs ?? Number.NaN;
      return {
        // From the start of the process: the relay begins before it says that it is ready.
        perSecond: events / ((lastMs - before) / 1000),
        firstHalfMiB: Math.max(...half.map(({ mib }) => mib)),
        secondHalfMiB: Math.max(...rest.map(({ mib }) => mib)),
        cpu,
        exact: await isExact(url, events),
      };
    } finally {
      await relay.stop();
    }
  } finally {
    await installation.remove();
    await server.drop(DATABASE);
  }
}

/** Every post gets the same number of likes, by different people, never by its author or by whom the author has blocked, in no order. */
async function write(url: string, events: number): Promise<void> {
  await execute(
    url,
    `do $$
     begin
       for batch in 0 .. ${events / 100 - 1} loop
         insert into likes (user_id, post_id)
         select (post - 1 + 7 + (k / ${POSTS}) * 17) % ${USERS} + 1, post
         from (select k, (k * 7919) % ${POSTS} + 1 as post from generate_series(batch::bigint * 100, batch * 100 + 99) k) numbered;
         commit;
       end loop;
     end $$`,
  );
}

async function isExact(url: string, events: number): Promise<boolean> {
  const row = await queryOne(
    url,
    `select (select sum(actor_count) from belfry.notification where not withdrawn) as actors,
            (select count(*) from belfry.notification where not withdrawn) as notifications,
            (select sum(count) from belfry.counter) as counted,
            (select count(*) from belfry.dead_event) as dead`,
  );
  return (
    Number(row['actors']) === events &&
    Number(row['counted']) === events &&
    Number(row['notifications']) === Math.min(events, POSTS) &&
    Number(row['dead']) === 0
  );
}

function describe(events: number, runs: readonly Run[]): string {
  const row = [
    rateSpread(runs.map((run) => run.perSecond)),
    numberSpread(
      runs.map((run) => run.firstHalfMiB),
      0,
    ),
    numberSpread(
      runs.map((run) => run.secondHalfMiB),
      0,
    ),
    `${(spread(runs.map((run) => run.cpu)).median * 100).toFixed(0)} %`,
    runs.every((run) => run.exact) ? 'yes' : '**no**',
  ];
  return `${events.toLocaleString('en')} likes of ${POSTS.toLocaleString('en')} posts of ${USERS.toLocaleString('en')} people, read by one relay into inboxes, counters and streams, timed from the
start of its process to the last event. Memory is the relay's largest resident size while each half was read.

${table(['events/s', 'MiB, first half', 'MiB, second half', 'relay CPU', 'inbox and counters exact'], [row])}`;
}

function judge(runs: readonly Run[]): Verdict[] {
  return [
    atLeast('events/s from the backlog', spread(runs.map((run) => run.perSecond)).median, MIN_PER_SECOND, 0),
    atMost(
      'memory, second half ÷ first',
      spread(runs.map((run) => run.secondHalfMiB / run.firstHalfMiB)).median,
      MAX_GROWTH,
    ),
    atLeast('runs whose inbox and counters are exact', runs.filter((run) => run.exact).length, runs.length, 0),
  ];
}
