/**
 * Writers at full speed: pgbench where there is one, otherwise our own equivalent in Node processes (load/writers.ts).
 *
 * The scripts are pgbench's; the Node equivalent knows the same jobs by name. Which of them was used stands in the report.
 */

import { existsSync, readdirSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { run, startWorker } from './processes.js';

/** Likes that never repeat: the k-th like of all clients together, k from `base` on. */
const INSERT_LIKE = `
\\set k :base + :n * :clients + :client_id
\\set user_id :k % :users + 1
\\set post_id (:k * 7919 + :k / :users) % :posts + 1
\\set n :n + 1
insert into likes (user_id, post_id) values (:user_id, :post_id);
`;

/** A hot table of 100 rows, read and updated. */
const HOT = `
\\set id random(1, 100)
update hot set n = n + 1 where id = :id;
select sum(n) from hot;
`;

export interface WriterJob {
  readonly script: 'insert_like' | 'hot';
  readonly url: string;
  readonly clients: number;
  readonly seconds: number;
  /** First number of the likes; a job uses far fewer than `BASE_STEP`. */
  readonly base: number;
  readonly users: number;
  readonly posts: number;
}

/** Distance between the bases of two jobs. */
export const BASE_STEP = 2_000_000;

export interface WriterTool {
  readonly name: string;
  /** Transactions per second. */
  tps(job: WriterJob): Promise<number>;
}

/** `pgbench` false: our own writers even where pgbench is found. */
export async function findWriterTool(pgbench: boolean): Promise<WriterTool> {
  const binary = pgbench ? findPgbench() : undefined;
  if (binary === undefined) return { name: 'own writers in two Node processes', tps: nodeTps };
  const version = (await run(binary, ['--version'])).trim();
  return { name: `${version}, -M prepared`, tps: (job) => pgbenchTps(binary, job) };
}

function findPgbench(): string | undefined {
  const debian = '/usr/lib/postgresql';
  const versions = existsSync(debian) ? readdirSync(debian).sort((a, b) => Number(b) - Number(a)) : [];
  const folders = [
    ...versions.map((version) => join(debian, version, 'bin')),
    ...(process.env['PATH'] ?? '').split(delimiter),
  ];
  return folders.map((folder) => join(folder, 'pgbench')).find((path) => existsSync(path));
}

async function pgbenchTps(binary: string, job: WriterJob): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), 'belfry-pgbench-'));
  try {
    const script = join(folder, 'script.sql');
    await writeFile(script, job.script === 'hot' ? HOT : INSERT_LIKE);
    const variables = { base: job.base, n: 0, clients: job.clients, users: job.users, posts: job.posts };
    const output = await run(binary, [
      ...[
        '-n',
        '-M',
        'prepared',
        '-c',
        String(job.clients),
        '-j',
        String(Math.min(2, job.clients)),
        '-T',
        String(job.seconds),
      ],
      ...Object.entries(variables).flatMap(([name, value]) => ['-D', `${name}=${value}`]),
      ...['-f', script, job.url],
    ]);
    const failed = /number of failed transactions: (\d+)/.exec(output);
    const tps = /tps = ([\d.]+)/.exec(output);
    if (tps === null || (failed !== null && failed[1] !== '0')) throw new Error(`pgbench: ${output}`);
    return Number(tps[1]);
  } finally {
    await rm(folder, { recursive: true });
  }
}

async function nodeTps(job: WriterJob): Promise<number> {
  const processes = Math.min(2, job.clients);
  const workers = Array.from({ length: processes }, (_, index) =>
    startWorker<WriterJob, { tps: number }>(new URL('../load/writers.js', import.meta.url), { index, processes }),
  );
  try {
    const answers = await Promise.all(workers.map((worker) => worker.ask(job)));
    return answers.reduce((sum, answer) => sum + answer.tps, 0);
  } finally {
    await Promise.all(workers.map((worker) => worker.stop()));
  }
}
