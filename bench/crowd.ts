/**
 * Many at once: a post that everybody likes, and events for so many that they must not hold up a like beside them.
 *
 * One database of a million people, one process of Belfry. A backlog of likes on one post; likes on one post at a steady
 * rate while its owner is connected, whose pushes are counted; and single likes, each of a post that nobody liked before,
 * while nothing else happens, while an announcement goes to everybody, and while a message goes to a big conversation.
 */

import type pg from 'pg';
import { backlog as unread, install, SECRET, type Installation } from './lib/belfry.js';
import { execute, queryOne, withClient } from './lib/database.js';
import { residentMiB, sleep, until, type Child } from './lib/processes.js';
import { atLeast, atMost, table, type Bench, type BenchContext, type Verdict } from './lib/report.js';
import { createSocial } from './lib/social.js';
import { numberSpread, quantile, rateSpread, spread } from './lib/stats.js';
import { openSockets } from './load/sockets.js';

const DATABASE = 'belfry_bench_crowd';
const PEOPLE = 1_000_000;
const MEMBERS = 50_000;
/** People who are connected and own the posts that are liked one by one. */
const OWNERS = 200;
const POSTS = 50_000;
const LIKES_PER_SECOND = 50;
const LIMIT_MS = 300_000;

const MIN_PER_SECOND = 25_000;
const MAX_PUSHES = 25;
const MAX_DELAY_MS = 100;
/** How much more memory the second half of one post's likes may need than the first: no group is held in memory. */
const MAX_GROWTH = 1.25;

/** The celebrity, and the posts of theirs that are liked. */
const CELEBRITY = 1;

const KINDS = ['nothing', 'an announcement to 1,000,000', 'a message to 50,000'] as const;
type Kind = (typeof KINDS)[number];

interface Beside {
  readonly p50: number;
  readonly p99: number;
  readonly likes: number;
}

interface Round {
  readonly perSecond: number;
  /** The relay's largest resident size while each half of the backlog was read. */
  readonly firstHalfMiB: number;
  readonly secondHalfMiB: number;
  readonly beside: ReadonlyMap<Kind, Beside>;
  readonly membersPerSecond: number;
}

export const crowd: Bench = {
  name: 'crowd',
  async run(context) {
    const { server, quick, log } = context;
    const url = await server.create(DATABASE);
    await createSocial(url, { users: PEOPLE, posts: 100 });
    await execute(
      url,
      'update posts set user_id = 1',
      `insert into posts (id, user_id, body) select 1000 + n, 1001 + n % ${OWNERS}, 'x' from generate_series(0, ${POSTS - 1}) n`,
      'create table members (conversation_id bigint, user_id bigint, primary key (conversation_id, user_id))',
      'create table messages (id bigint primary key, conversation_id bigint not null, sender_id bigint not null)',
      `insert into members select 1, n from generate_series(2001, ${2_000 + MEMBERS}) n`,
      'vacuum analyze',
    );
    const installation = await install(url, 'notify', [
      {
        name: 'message',
        type: 'message',
        table: 'public.messages',
        key: ['id'],
        actor: 'sender_id',
        object: { kind: 'conversation', id: 'conversation_id' },
        recipient: { query: 'select user_id from members where conversation_id = :conversation_id' },
      },
    ]);
    try {
      const rounds = quick ? 1 : Math.min(3, context.rounds);
      const results: Round[] = [];
      for (let round = 0; round < rounds; round += 1) {
        const result = await play(context, installation, round);
        log(
          `crowd round ${round}: ${result.perSecond.toFixed(0)} likes/s of one post, ${result.membersPerSecond.toFixed(0)} members/s; ` +
            [...result.beside]
              .map(([kind, { p50, p99 }]) => `${kind}: p50 ${p50.toFixed(1)} p99 ${p99.toFixed(1)} ms`)
              .join('; '),
        );
        results.push(result);
      }
      const likes = quick ? 16_000 : 100_000;
      const celebrated = await celebrate(installation, likes, quick ? 10 : 60);
      log(`crowd: ${likes} likes, ${celebrated.pushes} pushes`);
      return {
        title: 'Crowds',
        body: describe(context, results, likes, celebrated),
        verdicts: () => judge(results, celebrated),
      };
    } finally {
      await installation.remove();
      await server.drop(DATABASE);
    }
  },
};

/** A round likes post `round` + 1 from a backlog, and posts of its own one by one. */
async function play({ quick }: BenchContext, installation: Installation, round: number): Promise<Round> {
  const { url } = installation;
  const events = quick ? 50_000 : 250_000;
  const seeding = await installation.start();
  await seeding.stop();
  await execute(
    url,
    `do $$ begin for batch in 0 .. ${events / 1_000 - 1} loop
       insert into likes (user_id, post_id) select 100000 + batch * 1000 + n, ${round + 1} from generate_series(1, 1000) n;
       commit; end loop; end $$`,
  );
  const before = performance.now();
  const relay = await installation.start();
  try {
    const half = { first: 0, second: 0 };
    await until('crowd: backlog read', LIMIT_MS, 20, async () => {
      const left = await unread(url);
      const which = left > events / 2 ? 'first' : 'second';
      half[which] = Math.max(half[which], residentMiB(relay.pid));
      return left === 0;
    });
    const perSecond = events / ((performance.now() - before) / 1000);
    const row = await queryOne(url, 'select actor_count from belfry.notification where object_id = $1', [
      String(round + 1),
    ]);
    if (Number(row['actor_count']) !== events)
      throw new Error(`crowd: ${String(row['actor_count'])} of ${events} likes`);
    const beside = new Map<Kind, Beside>();
    let membersPerSecond = 0;
    await withClient(url, async (client) => {
      const likes = await Likes.connect(client, installation.port, round);
      try {
        // Not counted: warms up.
        await likes.during(async () => sleep(1_000));
        for (const kind of KINDS) {
          const started = performance.now();
          beside.set(kind, await likes.during(() => happen(kind, url, round, quick)));
          if (kind === KINDS[2]) membersPerSecond = MEMBERS / ((performance.now() - started) / 1000);
        }
      } finally {
        likes.close();
      }
    });
    return { perSecond, firstHalfMiB: half.first, secondHalfMiB: half.second, beside, membersPerSecond };
  } finally {
    await stop(relay);
  }
}

async function stop(relay: Child): Promise<void> {
  relay.assertAlive();
  await relay.stop();
}

async function happen(kind: Kind, url: string, round: number, quick: boolean): Promise<void> {
  if (kind === KINDS[1]) await execute(url, `select belfry.announce('to everybody')`);
  if (kind !== KINDS[2]) return sleep(quick ? 2_000 : 5_000);
  await execute(url, `insert into messages values (${round + 1}, 1, 1)`);
  await until('crowd: message told', LIMIT_MS, 20, async () => {
    const row = await queryOne(url, `select count(*)::int as done from belfry.fanout_job where done_at is not null`);
    return Number(row['done']) > round;
  });
}

/** Likes of posts that nobody liked before, on a fixed schedule, and when their owners hear of them. */
class Likes {
  private constructor(
    private readonly client: pg.Client,
    private nextPost: number,
    private readonly heard: Map<string, (atMs: number) => void>,
    readonly close: () => void,
  ) {}

  static async connect(client: pg.Client, port: number, round: number): Promise<Likes> {
    const heard = new Map<string, (atMs: number) => void>();
    const users = Array.from({ length: OWNERS }, (_, i) => String(1_001 + i));
    const sockets = await openSockets({ protocol: 'belfry', port, secret: SECRET }, users, (post) => {
      heard.get(post)?.(performance.now());
      heard.delete(post);
    });
    return new Likes(client, 1_000 + round * 15_000, heard, () => {
      for (const socket of sockets) socket.terminate();
    });
  }

  /** From the reply of the insert to the owner's frame, of likes that were written while the work went on. */
  async during(work: () => Promise<void>): Promise<Beside> {
    const latencies: number[] = [];
    let done = false;
    const working = work().finally(() => {
      done = true;
    });
    const waiting: Promise<void>[] = [];
    const startMs = performance.now();
    for (let n = 0; !done; n += 1) {
      await sleep(Math.max(0, startMs + (n * 1000) / LIKES_PER_SECOND - performance.now()));
      const post = String((this.nextPost += 1));
      const arrives = new Promise<number>((resolve) => this.heard.set(post, resolve));
      await this.client.query('insert into likes (user_id, post_id) values ($1, $2)', [60_000 + n, post]);
      const writtenMs = performance.now();
      waiting.push(
        arrives.then((atMs) => {
          latencies.push(Math.max(0, atMs - writtenMs));
        }),
      );
    }
    await working;
    await Promise.all(waiting);
    latencies.sort((a, b) => a - b);
    return { p50: quantile(latencies, 0.5), p99: quantile(latencies, 0.99), likes: latencies.length };
  }
}

/** Likes of one post, evenly over so many seconds; the frames that its owner gets until the last window has ended. */
async function celebrate(
  installation: Installation,
  likes: number,
  seconds: number,
): Promise<{ readonly pushes: number; readonly actors: number; readonly seconds: number }> {
  const { url, port } = installation;
  const post = 99;
  const relay = await installation.start();
  try {
    let pushes = 0;
    const [socket] = await openSockets({ protocol: 'belfry', port, secret: SECRET }, [String(CELEBRITY)], (id) => {
      if (id === String(post)) pushes += 1;
    });
    const startMs = performance.now();
    const stepMs = 50;
    const steps = (seconds * 1000) / stepMs;
    for (let step = 0; step < steps; step += 1) {
      await sleep(Math.max(0, startMs + step * stepMs - performance.now()));
      const [from, to] = [step, step + 1].map((n) => Math.round((likes * n) / steps));
      await execute(
        url,
        `insert into likes (user_id, post_id) select 500000 + n, ${post} from generate_series(${(from ?? 0) + 1}, ${to ?? 0}) n`,
      );
    }
    const took = (performance.now() - startMs) / 1000;
    await until('crowd: the last window', LIMIT_MS, 100, async () => {
      const row = await queryOne(
        url,
        'select count(*)::int as due from belfry.notification where object_id = $1 and due_at is not null',
        [String(post)],
      );
      return (await unread(url)) === 0 && Number(row['due']) === 0;
    });
    await sleep(500);
    const row = await queryOne(url, 'select actor_count from belfry.notification where object_id = $1', [String(post)]);
    socket?.terminate();
    return { pushes, actors: Number(row['actor_count']), seconds: took };
  } finally {
    await stop(relay);
  }
}

type Celebrated = Awaited<ReturnType<typeof celebrate>>;

function delays(results: readonly Round[], kind: Kind): number[] {
  return results.map(({ beside }) => (beside.get(kind)?.p99 ?? 0) - (beside.get(KINDS[0])?.p99 ?? 0));
}

function describe({ quick }: BenchContext, results: readonly Round[], likes: number, celebrated: Celebrated): string {
  const rows = KINDS.map((kind) => {
    const of = (pick: (beside: Beside) => number): number[] =>
      results.map(({ beside }) => {
        const found = beside.get(kind);
        return found === undefined ? Number.NaN : pick(found);
      });
    return [
      kind,
      numberSpread(of(({ p50 }) => p50)),
      numberSpread(of(({ p99 }) => p99)),
      numberSpread(
        of(({ likes: count }) => count),
        0,
      ),
    ];
  });
  return `${PEOPLE.toLocaleString('en')} people. A backlog of ${(quick ? 50_000 : 250_000).toLocaleString('en')} likes of one post, timed from the start of the process that reads it:
${rateSpread(results.map(({ perSecond }) => perSecond))} likes/s, in at most
${numberSpread(
  results.map(({ firstHalfMiB }) => firstHalfMiB),
  0,
)} MiB for the first half and ${numberSpread(
    results.map(({ secondHalfMiB }) => secondHalfMiB),
    0,
  )} MiB for the second. ${likes.toLocaleString('en')} likes of one post in ${celebrated.seconds.toFixed(0)} s, its owner connected: ${celebrated.pushes} pushes, the last
of which tells of ${celebrated.actors.toLocaleString('en')} people.

Single likes, ${LIKES_PER_SECOND} a second, each of a post that nobody liked before, to ${OWNERS} people who are connected, from the writer's reply to
the owner's frame, while something else happens. The message reached ${rateSpread(results.map(({ membersPerSecond }) => membersPerSecond))} members/s.

${table(['beside', 'p50 ms', 'p99 ms', 'likes'], rows)}`;
}

function judge(results: readonly Round[], celebrated: Celebrated): Verdict[] {
  return [
    atLeast(
      'likes/s of one post, from a backlog',
      spread(results.map(({ perSecond }) => perSecond)).median,
      MIN_PER_SECOND,
      0,
    ),
    atMost(
      'memory, second half ÷ first',
      spread(results.map(({ firstHalfMiB, secondHalfMiB }) => secondHalfMiB / firstHalfMiB)).median,
      MAX_GROWTH,
    ),
    atMost('pushes for the likes of a minute', celebrated.pushes, MAX_PUSHES, 0),
    ...([KINDS[1], KINDS[2]] as const).map((kind) =>
      atMost(
        `p99 of a like beside ${kind}, ms more than beside nothing`,
        spread(delays(results, kind)).median,
        MAX_DELAY_MS,
        0,
      ),
    ),
  ];
}
