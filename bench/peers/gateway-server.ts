/**
 * A server process of the gateway bench: one of the peers, or Belfry's own gateway with its broker, driven from inside,
 * so that its CPU seconds are those of sending and nothing else.
 *
 * It never has more than WINDOW turns on their way: the swarm acknowledges by bytes on a port of its own.
 */

import { createServer, type AddressInfo } from 'node:net';
import { serveWorker, workerConfig } from '../lib/processes.js';
import type { GatewayAnswer, GatewayJob, GatewayServerConfig } from './gateway-kinds.js';
import { SENDERS } from './gateway-senders.js';

const WINDOW = 4;

const config = workerConfig<GatewayServerConfig>();
const sender = await SENDERS[config.kind](config);

let acknowledged = 0;
let wake: () => void = () => undefined;
const acks = createServer((socket) => {
  socket.on('data', (chunk) => {
    acknowledged += chunk.length;
    wake();
  });
});
await new Promise<void>((resolve) => acks.listen(0, '127.0.0.1', resolve));
let events = 0;

serveWorker<GatewayJob, GatewayAnswer>(async (job) => {
  const startMs = performance.now();
  const before = process.cpuUsage();
  if (job.do === 'fanout') await drive(job.events, job.burst, () => sender.publish((events += 1)));
  if (job.do === 'direct') await drive(job.events, 32, (n) => sender.send(String((n % job.users) + 1), (events += 1)));
  if (job.do === 'paced') await pace(job.events, job.everyMs, job.bytes);
  const { user, system } = process.cpuUsage(before);
  const seconds = (performance.now() - startMs) / 1000;
  await sender.settle?.();
  globalThis.gc?.();
  return {
    port: sender.port,
    ackPort: (acks.address() as AddressInfo).port,
    residentMiB: process.memoryUsage().rss / 2 ** 20,
    cpuSeconds: (user + system) / 1e6,
    seconds,
  };
});

/** Sends `total` events, `burst` in a turn, one acknowledgement for each turn. */
async function drive(total: number, burst: number, one: (n: number) => void): Promise<void> {
  acknowledged = 0;
  const turn = sender.turn ?? ((job: () => void): void => job());
  const turns = Math.floor(total / burst);
  for (let done = 0; done < turns; done += 1) {
    while (done - acknowledged >= WINDOW) await woken();
    turn(() => {
      for (let n = 0; n < burst; n += 1) one(done * burst + n);
    });
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
  while (acknowledged < turns) await woken();
}

/** On a fixed schedule: who is late catches up, and what waited counts as latency. */
async function pace(events: number, everyMs: number, bytes: number): Promise<void> {
  const filler = 'x'.repeat(bytes);
  const startMs = performance.now();
  for (let n = 0; n < events; n += 1) {
    const dueMs = startMs + n * everyMs;
    const waitMs = dueMs - performance.now();
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
    sender.publishData?.({ at: performance.timeOrigin + dueMs, filler });
  }
}

function woken(): Promise<void> {
  return new Promise((resolve) => {
    wake = resolve;
  });
}
