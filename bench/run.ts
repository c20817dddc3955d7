/**
 * `npm run bench [-- name…] [--rounds N] [--quick] [--only VARIANT,…]
 * [--no-pgbench]`: runs the benches, prints and writes bench/RESULTS.md.
 *
 * `--only` runs some variants of a bench, e.g. to profile one; nothing is judged then, and the report stays as it is.
 * Exit 1 when a limit is not met, 2 for wrong usage. Environment: BELFRY_BENCH_DATABASE_URL (lib/database.ts).
 */

import { parseArgs } from 'node:util';
import { startServer } from './lib/database.js';
import { findWriterTool } from './lib/pgbench.js';
import { writeSection, type Bench, type BenchContext } from './lib/report.js';
import { backlog } from './backlog.js';
import { crowd } from './crowd.js';
import { gateway } from './gateway.js';
import { idle } from './idle.js';
import { latency } from './latency.js';
import { replay } from './replay.js';
import { stalled } from './stalled.js';
import { statements } from './statements.js';
import { writers } from './writers.js';

const BENCHES: readonly Bench[] = [writers, statements, latency, backlog, crowd, replay, idle, gateway, stalled];

const usage = `usage: npm run bench -- [${BENCHES.map(({ name }) => name).join(' | ')} …] [--rounds N] [--quick] [--only VARIANT,…] [--no-pgbench]`;

let failed = 0;
const { chosen, rounds, quick, only, pgbench } = parse();
const server = await startServer();
try {
  const context: BenchContext = {
    server,
    tool: await findWriterTool(pgbench),
    rounds,
    quick,
    only,
    log: (line) => console.error(`${new Date().toISOString().slice(11, 19)} ${line}`),
  };
  for (const bench of chosen) {
    const section = await bench.run(context);
    if (only === null) await writeSection(bench.name, section, context);
    console.log(`\n## ${section.title}\n\n${section.body}\n`);
    for (const { what, measured, limit, pass } of only === null ? section.verdicts() : []) {
      console.log(`${pass ? 'pass' : 'FAIL'}  ${what}: ${measured} (${limit})`);
      if (!pass) failed += 1;
    }
  }
} finally {
  await server.stop();
}
process.exit(failed === 0 ? 0 : 1);

function parse(): {
  chosen: Bench[];
  rounds: number;
  quick: boolean;
  only: readonly string[] | null;
  pgbench: boolean;
} {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        rounds: { type: 'string' },
        quick: { type: 'boolean', default: false },
        only: { type: 'string' },
        'no-pgbench': { type: 'boolean', default: false },
      },
    });
    const unknown = positionals.filter((name) => !BENCHES.some((bench) => bench.name === name));
    const rounds = Number(values.rounds ?? (values.quick ? 1 : 5));
    if (unknown.length > 0) throw new Error(`no such bench: ${unknown.join(', ')}`);
    if (!Number.isInteger(rounds) || rounds < 1) throw new Error('--rounds wants a whole number from 1');
    const chosen = BENCHES.filter(({ name }) => positionals.length === 0 || positionals.includes(name));
    return {
      chosen,
      rounds,
      quick: values.quick,
      only: values.only?.split(',') ?? null,
      pgbench: !values['no-pgbench'],
    };
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : String(error)}\n${usage}`);
    process.exit(2);
  }
}
