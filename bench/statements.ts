/**
 * Transactions of 200 captured statements beside a hot table that nobody captures.
 *
 * What they may do to others is not their own work but their subtransactions: past 64 of them Postgres looks up
 * pg_subtrans in every visibility check of everybody. So four such transactions are always open, a statement every 10 ms
 * (too few to take CPU away), while other clients read and update a table of 100 rows as fast as they can. The control
 * is the trigger that opens a subtransaction for every statement: if that costs nothing here, the bench sees nothing.
 */

import pg from 'pg';
import { install, type Installation } from './lib/belfry.js';
import { execute } from './lib/database.js';
import { sleep } from './lib/processes.js';
import { atLeast, table, wanted, type Bench, type BenchContext } from './lib/report.js';
import { createSocial } from './lib/social.js';
import { pairedRatios, rateSpread, ratioSpread, rotated, spread } from './lib/stats.js';
import { GUARDED_EVERY_TIME, PLAIN_OUTBOX } from './peers/sql.js';

const STATEMENTS = 200;
const PAUSE_MS = 10;
const OPEN_TRANSACTIONS = 4;
const HOT_CLIENTS = 8;
const USERS = 50_000;
const POSTS = 100_000;

const VARIANTS = ['none', 'plain', 'belfry', 'guarded'] as const;
type Variant = (typeof VARIANTS)[number];

const NAMES: Record<Variant, string> = {
  none: 'not captured',
  plain: 'captured by a plain outbox trigger',
  belfry: 'captured by Belfry',
  guarded: 'control: a guard round every statement',
};

interface Contestant {
  readonly variant: Variant;
  readonly url: string;
  readonly installation: Installation | undefined;
}

export const statements: Bench = {
  name: 'statements',
  async run(context) {
    const contestants: Contestant[] = [];
    try {
      for (const variant of wanted(VARIANTS, context)) contestants.push(await enter(context, variant));
      const results = new Map<Variant, number[]>(contestants.map(({ variant }) => [variant, []]));
      let base = 0;
      for (let round = 0; round < context.rounds; round += 1) {
        for (const contestant of rotated(contestants, round)) {
          const tps = await play(context, contestant, (base += 1_000_000));
          context.log(`statements round ${round} ${contestant.variant}: ${tps.toFixed(0)} tps of the hot table`);
          results.get(contestant.variant)?.push(tps);
        }
      }
      const none = results.get('none') ?? [];
      const rows = [...results].map(([variant, tps]) => [NAMES[variant], rateSpread(tps), ratioSpread(tps, none)]);
      return {
        title: 'Long transactions beside a hot table',
        body: `${OPEN_TRANSACTIONS} transactions of ${STATEMENTS} inserts are always open, a statement every ${PAUSE_MS} ms in each; ${HOT_CLIENTS} clients (${context.tool.name})
update and sum a table of 100 rows that is not captured.

${table(['inserts are', 'hot transactions/s', '÷ not captured'], rows)}`,
        verdicts: () => [
          atLeast(
            'hot workload beside captured ÷ beside uncaptured',
            spread(pairedRatios(results.get('belfry') ?? [], none)).median,
            0.95,
          ),
        ],
      };
    } finally {
      for (const { variant, installation } of contestants) {
        await installation?.remove();
        await context.server.drop(databaseOf(variant));
      }
    }
  },
};

const databaseOf = (variant: Variant): string => `belfry_bench_statements_${variant}`;

async function enter({ server }: BenchContext, variant: Variant): Promise<Contestant> {
  const url = await server.create(databaseOf(variant));
  await createSocial(url, { users: USERS, posts: POSTS });
  if (variant === 'plain') await execute(url, ...PLAIN_OUTBOX);
  if (variant === 'guarded') await execute(url, ...GUARDED_EVERY_TIME);
  return { variant, url, installation: variant === 'belfry' ? await install(url, 'notify') : undefined };
}

async function play({ server, tool, quick }: BenchContext, { url }: Contestant, base: number): Promise<number> {
  await server.checkpoint();
  const stop = { asked: false };
  const open = Array.from({ length: OPEN_TRANSACTIONS }, (_, index) => keepOpen(url, base + index * 250_000, stop));
  try {
    // Without waiting for the disk the processor is what they need, and that is what a visibility check costs.
    const hot = {
      script: 'hot',
      url: `${url}?options=-csynchronous_commit%3Doff`,
      clients: HOT_CLIENTS,
      base: 0,
      users: USERS,
      posts: POSTS,
    } as const;
    await tool.tps({ ...hot, seconds: 1 });
    return await tool.tps({ ...hot, seconds: quick ? 2 : 5 });
  } finally {
    stop.asked = true;
    await Promise.all(open);
  }
}

/** One transaction of 200 inserts after the other, until told to stop. */
async function keepOpen(url: string, base: number, stop: { readonly asked: boolean }): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  let k = base;
  while (!stop.asked) {
    await client.query('begin');
    for (let statement = 0; statement < STATEMENTS && !stop.asked; statement += 1, k += 1) {
      const values = [(k % USERS) + 1, ((k * 7919 + Math.floor(k / USERS)) % POSTS) + 1];
      await client.query({ name: 'like', text: 'insert into likes (user_id, post_id) values ($1, $2)', values });
      await sleep(PAUSE_MS);
    }
    await client.query('commit');
  }
  await client.end();
}
