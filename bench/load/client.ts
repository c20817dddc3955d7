/**
 * The load client of the latency bench: one process that writes likes and holds the authors' sockets, so that one clock
 * sees both ends.
 *
 * Latency is from the writer's reply (the commit as the writer sees it) to the author's frame; a frame that comes before
 * the reply counts as 0. The Flask endpoint replies after it has pushed: it tells the time of its commit instead. Every like is of a post that nobody liked before, so every one is a new notification, which no
 * grouping window may hold back. With a rate the likes start on a fixed schedule (a slow system does not slow the load);
 * without one (saturated) at most `OUTSTANDING` likes are on their way at any time.
 */

import { createAdapter } from '@socket.io/postgres-adapter';
import pg from 'pg';
import { Server } from 'socket.io';
import { serveWorker, sleep, workerConfig } from '../lib/processes.js';
import { quantile } from '../lib/stats.js';
import { openSockets, type SocketOptions } from './sockets.js';

export interface LoadConfig extends SocketOptions {
  readonly url: string;
  readonly users: number;
}

export interface LoadJob {
  /** Likes per second; null: as fast as they are delivered. */
  readonly perSecond: number | null;
  readonly seconds: number;
  /** The first post that nobody has liked; a job uses the ones that follow. */
  readonly firstPost: number;
  readonly lastPost: number;
}

export interface LoadResult {
  readonly written: number;
  readonly delivered: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** Deliveries per second within the measured time. */
  readonly deliveredPerSecond: number;
  /** CPU seconds of this process. */
  readonly cpuSeconds: number;
}

const CONNECTIONS = 32;
const OUTSTANDING = 4_000;
const WARM_UP_MS = 500;
const DRAIN_LIMIT_MS = 20_000;

const config = workerConfig<LoadConfig>();

/** Likes on their way: NaN while the reply is awaited, then the time of the reply; negative: the frame came first. */
const repliedAt = new Map<string, number>();
let latencies: number[] = [];
let deliveredAt: number[] = [];
let outstanding = 0;

/** Writes a like; resolves with the reply. */
type Writer = (actor: number, post: number) => Promise<unknown>;

const writers: Writer[] = await Promise.all(
  Array.from({ length: CONNECTIONS }, () => (config.protocol === 'flask' ? endpoint() : connection())),
);
const idle = [...writers];
const emit = config.protocol === 'socket-io' ? await socketIoEmitter() : undefined;
const users = Array.from({ length: config.users }, (_, index) => String(index + 1));
await openSockets(config, users, delivered);

serveWorker<LoadJob, LoadResult>(async (job) => {
  latencies = [];
  deliveredAt = [];
  const cpuBefore = process.cpuUsage();
  const startMs = performance.now();
  const written = await (job.perSecond === null ? saturate(job) : paced(job, job.perSecond));
  const limitMs = performance.now() + DRAIN_LIMIT_MS;
  while (repliedAt.size > 0 && performance.now() < limitMs) await sleep(5);
  const undelivered = repliedAt.size;
  repliedAt.clear();
  outstanding = 0;
  const cpu = process.cpuUsage(cpuBefore);
  // Rates are taken between the end of the warm-up and the end of the writing.
  const fromMs = startMs + WARM_UP_MS;
  const untilMs = startMs + job.seconds * 1000;
  const within = deliveredAt.filter((at) => at >= fromMs && at < untilMs).length;
  const sorted = latencies.sort((a, b) => a - b);
  return {
    written,
    delivered: written - undelivered,
    p50Ms: quantile(sorted, 0.5),
    p99Ms: quantile(sorted, 0.99),
    maxMs: sorted.at(-1) ?? Number.NaN,
    deliveredPerSecond: within / ((untilMs - fromMs) / 1000),
    cpuSeconds: (cpu.user + cpu.system) / 1e6,
  };
});

/** Starts a like every 1/perSecond seconds; returns how many were written. */
async function paced(job: LoadJob, perSecond: number): Promise<number> {
  const startMs = performance.now();
  const pending: Promise<void>[] = [];
  const total = Math.min(perSecond * job.seconds, job.lastPost - job.firstPost);
  for (let begun = 0; begun < total;) {
    const due = Math.min(total, Math.floor(((performance.now() - startMs) / 1000) * perSecond) + 1);
    // With every connection busy the rest starts at the next turn.
    for (; begun < due && idle.length > 0; begun += 1) pending.push(like(job.firstPost + begun));
    const nextMs = startMs + (begun / perSecond) * 1000 - performance.now();
    await sleep(Math.max(0, nextMs));
  }
  await Promise.all(pending);
  return total;
}

/** Every connection writes one like after the other while fewer than OUTSTANDING are on their way. */
async function saturate(job: LoadJob): Promise<number> {
  const endMs = performance.now() + job.seconds * 1000;
  let post = job.firstPost;
  const lane = async (): Promise<void> => {
    while (performance.now() < endMs && post < job.lastPost) {
      if (outstanding >= OUTSTANDING) await sleep(1);
      else await like(post++);
    }
  };
  await Promise.all(writers.map(lane));
  return post - job.firstPost;
}

async function like(post: number): Promise<void> {
  const author = ((post - 1) % config.users) + 1;
  const actor = ((author + 6) % config.users) + 1; // nobody has blocked the seventh after them
  const postId = String(post);
  const writer = idle.pop();
  if (writer === undefined) throw new Error('more likes than connections');
  repliedAt.set(postId, Number.NaN);
  outstanding += 1;
  await writer(actor, post);
  idle.push(writer);
  const now = performance.now();
  if (!repliedAt.has(postId)) return;
  if (repliedAt.get(postId) === -1) finish(postId, 0, now);
  else repliedAt.set(postId, now);
  // What the author's lookup of a backend costs is left out, in favour of Socket.IO.
  emit?.(String(author), {
    type: 'like',
    user_id: String(actor),
    post_id: postId,
    message: 'Someone liked your post',
    timestamp: new Date().toISOString(),
  });
}

function delivered(postId: string, committedAtMs?: number): void {
  const replied = repliedAt.get(postId);
  if (replied === undefined || replied === -1) return;
  const now = performance.now();
  if (committedAtMs !== undefined) return finish(postId, performance.timeOrigin + now - committedAtMs, now);
  if (Number.isNaN(replied)) repliedAt.set(postId, -1);
  else finish(postId, now - replied, now);
}

function finish(postId: string, latencyMs: number, now: number): void {
  repliedAt.delete(postId);
  latencies.push(latencyMs);
  deliveredAt.push(now);
  outstanding -= 1;
}

async function connection(): Promise<Writer> {
  const client = new pg.Client({ connectionString: config.url });
  await client.connect();
  return (actor, post) =>
    client.query({
      name: 'like',
      text: 'insert into likes (user_id, post_id) values ($1, $2)',
      values: [actor, post],
    });
}

/** The seed's endpoint writes by itself. */
function endpoint(): Promise<Writer> {
  return Promise.resolve(async (actor, post) => {
    const answer = await fetch(`http://127.0.0.1:${config.port}/api/posts/${post}/like`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ user_id: actor }),
    });
    if (!answer.ok) throw new Error(`the endpoint answered ${answer.status}`);
    await answer.arrayBuffer();
  });
}

/** A Socket.IO server without sockets, as a backend has it beside the one that holds them. */
async function socketIoEmitter(): Promise<(user: string, data: object) => void> {
  const io = new Server();
  io.adapter(createAdapter(new pg.Pool({ connectionString: config.url, max: CONNECTIONS })));
  await sleep(500); // the adapter says nowhere when it listens
  return (user, data) => void io.to(`user:${user}`).emit('notification', data);
}
