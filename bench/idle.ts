/**
 * What an idle process asks of the database: every statement that one `belfry start` sends while nobody writes, counted
 * by a proxy between the two, without people and with 100 people connected.
 */

import { install, SECRET } from './lib/belfry.js';
import { startCountingProxy } from './lib/counting-proxy.js';
import { cpuSeconds, sleep } from './lib/processes.js';
import { atMost, table, type Bench, type BenchContext } from './lib/report.js';
import { createSocial } from './lib/social.js';
import { openSockets } from './load/sockets.js';

const DATABASE = 'belfry_bench_idle';
const PEOPLE = 100;
const MAX_PER_SECOND = 2;
const SETTLE_MS = 10_000;

export const idle: Bench = {
  name: 'idle',
  async run(context) {
    const url = await context.server.create(DATABASE);
    await createSocial(url, { users: 1_000, posts: 1_000 });
    const installation = await install(url, 'notify');
    const proxy = await startCountingProxy(url);
    const process = await installation.start({ url: proxy.url });
    const windowMs = context.quick ? 10_000 : 60_000;
    try {
      const alone = await watch(context, 'nobody connected', proxy.take, process.pid, windowMs);
      const users = Array.from({ length: PEOPLE }, (_, index) => String(index + 1));
      const sockets = await openSockets(
        { protocol: 'belfry', port: installation.port, secret: SECRET },
        users,
        () => undefined,
      );
      const connected = await watch(context, `${PEOPLE} connected`, proxy.take, process.pid, windowMs);
      for (const socket of sockets) socket.close();
      return {
        title: 'Idle',
        body: `Statements of one process (relay and gateway) while nobody writes, over ${windowMs / 1000} s each, counted on the wire.

${table(
  ['', 'statements/s', 'CPU'],
  [alone, connected].map(({ name, perSecond, cpu }) => [name, perSecond.toFixed(2), `${(cpu * 100).toFixed(1)} %`]),
)}

${statementsTable([alone, connected], windowMs)}`,
        verdicts: () =>
          [alone, connected].map(({ name, perSecond }) => atMost(`statements/s, ${name}`, perSecond, MAX_PER_SECOND)),
      };
    } finally {
      await process.stop();
      await proxy.stop();
      await installation.remove();
      await context.server.drop(DATABASE);
    }
  },
};

/** Every statement that was seen, the most frequent first. */
function statementsTable(watched: readonly Watched[], windowMs: number): string {
  const texts = [...new Set(watched.flatMap((one) => [...one.texts.keys()]))];
  const total = (text: string): number => watched.reduce((sum, one) => sum + (one.texts.get(text) ?? 0), 0);
  return table(
    ['statement', ...watched.map(({ name }) => `/s, ${name}`)],
    texts
      .sort((a, b) => total(b) - total(a))
      .map((text) => [
        `\`${text.replace(/\s+/g, ' ').trim().replaceAll('|', '\\|').slice(0, 100)}\``,
        ...watched.map((one) => (((one.texts.get(text) ?? 0) * 1000) / windowMs).toFixed(2)),
      ]),
  );
}

interface Watched {
  readonly name: string;
  readonly perSecond: number;
  readonly cpu: number;
  readonly texts: Map<string, number>;
}

async function watch(
  { log, quick }: BenchContext,
  name: string,
  take: () => Map<string, number>,
  pid: number,
  windowMs: number,
): Promise<Watched> {
  await sleep(quick ? 3_000 : SETTLE_MS);
  take();
  const cpuBefore = cpuSeconds(pid);
  await sleep(windowMs);
  const texts = take();
  const cpu = (cpuSeconds(pid) - cpuBefore) / (windowMs / 1000);
  const perSecond = [...texts.values()].reduce((sum, count) => sum + count, 0) / (windowMs / 1000);
  log(`idle, ${name}: ${perSecond.toFixed(2)} statements/s`);
  return { name, perSecond, cpu, texts };
}
