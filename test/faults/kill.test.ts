/**
 * `kill -9` anywhere, in a loop, while people like, unlike and comment: of the relay and gateway, and of Postgres itself.
 * Every committed event is in the inbox exactly once, counters equal the tables, and a client that resumed holds exactly the inbox.
 *
 * The short form runs with every test; BELFRY_TEST_LONG=1 kills oftener.
 */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { startEmbeddedPostgres } from '../../src/embedded/postgres.js';
import { connect } from '../../src/postgres/connect.js';
import { freePort } from '../support/ports.js';
import { createTestDatabase } from '../support/postgres.js';
import { startBelfry } from '../support/program.js';
import type { Program } from '../support/program.js';
import { socialConfig, socialSql } from '../support/social.js';
import { crowdConfig, startCrowd } from './crowd.js';

const long = process.env['BELFRY_TEST_LONG'] === '1';
const kills = { relay: long ? 40 : 4, postgres: long ? 40 : 3 };

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

it(
  `of Belfry: nothing lost, nothing twice over ${kills.relay} kills`,
  { timeout: 60_000 + kills.relay * 6_000 },
  async () => {
    const database = await createTestDatabase({ prepare: socialSql });
    onTestFinished(() => database.drop());
    const belfry = await install(database.url);
    let running = await belfry.start();
    const crowd = await startCrowd(database.url, belfry.port, 1);
    onTestFinished(() => crowd.close());
    for (let i = 0; i < kills.relay; i++) {
      // Anywhere: between commit and push, within a batch, while it takes over.
      await pause(300 + 137 * (i % 7));
      await running.kill();
      running = await belfry.start();
    }
    await pause(500);
    expect(await crowd.quiet()).toBeGreaterThan(100);
    await crowd.check();
    running.child.kill('SIGTERM');
    expect(await running.exit).toMatchObject({ code: 0 });
  },
);

it(
  `of Postgres: nothing lost, nothing twice over ${kills.postgres} kills`,
  { timeout: 90_000 + kills.postgres * 8_000 },
  async () => {
    const dataDir = await mkdtemp(path.join(tmpdir(), 'belfry-kill-'));
    const log = { info: () => undefined, warn: () => undefined };
    // Processes are killed, not machines: what the kernel holds is safe without fsync.
    const settings = { fsync: 'off', restart_after_crash: 'on' };
    let server = await startEmbeddedPostgres({ dataDir, log, settings });
    onTestFinished(async () => {
      await server.stop();
      for (const folder of new Set([dataDir, server.dataDir])) await rm(folder, { recursive: true, force: true });
    });
    const client = await connect(server.url, { applicationName: 'belfry-test' });
    await client.query(socialSql);
    await client.end();
    const belfry = await install(server.url);
    const running = await belfry.start();
    const crowd = await startCrowd(server.url, belfry.port, 2);
    onTestFinished(() => crowd.close());
    for (let i = 0; i < kills.postgres; i++) {
      await pause(700 + 137 * (i % 7));
      const victims = await processesOf(server.pid);
      if (i % 3 === 1) {
        // One backend alone: the postmaster throws all others out and recovers by itself.
        expect(victims.reverse().some((pid) => kill(pid))).toBe(true);
        continue;
      }
      for (const pid of [server.pid, ...victims]) kill(pid);
      await server.stop();
      await pause(50 * (i % 5));
      server = await startEmbeddedPostgres({ dataDir, log, settings, port: server.port });
    }
    await pause(1_500);
    expect(await crowd.quiet()).toBeGreaterThan(100);
    await crowd.check();
    expect(running.child.exitCode).toBeNull();
    running.child.kill('SIGTERM');
    expect(await running.exit).toMatchObject({ code: 0 });
  },
);

interface Installation {
  readonly port: number;
  start(): Promise<Program>;
}

/** Config and triggers for this database. */
async function install(url: string): Promise<Installation> {
  const folder = await mkdtemp(path.join(tmpdir(), 'belfry-kill-config-'));
  const configFile = path.join(folder, 'belfry.yaml');
  const port = await freePort();
  await writeFile(configFile, socialConfig(url, crowdConfig(port)));
  const migrate = startBelfry(['migrate', '--config', configFile]);
  expect(await migrate.exit, migrate.stderr).toMatchObject({ code: 0 });
  const programs: Program[] = [];
  onTestFinished(async () => {
    for (const program of programs) await program.kill();
    await rm(folder, { recursive: true });
  });
  return {
    port,
    async start() {
      const program = startBelfry(['start', '--config', configFile]);
      programs.push(program);
      await program.waitFor(/"msg":"ready"/);
      return program;
    },
  };
}

/** The children of the postmaster, oldest first; elsewhere than on Linux none is known, and they end by themselves. */
async function processesOf(postmaster: number): Promise<number[]> {
  const pids = (await readdir('/proc').catch(() => [])).filter((name) => /^\d+$/.test(name));
  const children: number[] = [];
  for (const pid of pids) {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
    if (stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1] === String(postmaster)) children.push(Number(pid));
  }
  return children.sort((a, b) => a - b);
}

/** False for one that has ended since. */
function kill(pid: number): boolean {
  try {
    return process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    return false;
  }
}
