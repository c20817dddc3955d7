/**
 * What pgbench does, for machines without it: the clients of one writer job that fall to this process, each one
 * statement after the other on a connection of its own.
 */

import pg from 'pg';
import type { WriterJob } from '../lib/pgbench.js';
import { serveWorker, workerConfig } from '../lib/processes.js';

const { index, processes } = workerConfig<{ index: number; processes: number }>();

serveWorker<WriterJob, { tps: number }>(async (job) => {
  const mine = Array.from({ length: job.clients }, (_, client) => client).filter(
    (client) => client % processes === index,
  );
  const connections = await Promise.all(
    mine.map(async (clientId) => {
      const client = new pg.Client({ connectionString: job.url });
      await client.connect();
      return { clientId, client };
    }),
  );
  const startMs = performance.now();
  const endMs = startMs + job.seconds * 1000;
  const done = await Promise.all(connections.map(({ client, clientId }) => write(client, clientId, job, endMs)));
  const seconds = (performance.now() - startMs) / 1000;
  await Promise.all(connections.map(({ client }) => client.end()));
  return { tps: done.reduce((sum, count) => sum + count, 0) / seconds };
});

async function write(client: pg.Client, clientId: number, job: WriterJob, endMs: number): Promise<number> {
  let count = 0;
  for (; performance.now() < endMs; count += 1) {
    if (job.script === 'hot') {
      const id = 1 + Math.floor(Math.random() * 100);
      await client.query({ name: 'update', text: 'update hot set n = n + 1 where id = $1', values: [id] });
      await client.query({ name: 'select', text: 'select sum(n) from hot' });
    } else {
      const k = job.base + count * job.clients + clientId;
      const values = [(k % job.users) + 1, ((k * 7919 + Math.floor(k / job.users)) % job.posts) + 1];
      await client.query({ name: 'like', text: 'insert into likes (user_id, post_id) values ($1, $2)', values });
    }
  }
  return count;
}
