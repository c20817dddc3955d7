/**
 * A leader that is stopped (SIGSTOP), as a whole program with a standby beside it: writers are back to full speed within 4 s,
 * the standby takes over, and the old leader wakes up and does no harm.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type pg from 'pg';
import { describe, it } from 'vitest';
import { installCapture } from '../../src/capture/install.js';
import { parseConfig } from '../../src/config.js';
import { doorbellKey } from '../../src/outbox/sleeper.js';
import { eventually } from '../outbox/rig.js';
import { createTestDatabase } from '../support/postgres.js';
import { startBelfry } from '../support/program.js';
import type { Program } from '../support/program.js';
import { addPost, addUsers, like, socialConfig, socialSql } from '../support/social.js';

interface World {
  readonly pool: pg.Pool;
  readonly client: pg.Client;
  readonly leader: Program;
  readonly standby: Program;
  readonly people: readonly string[];
  /** Of the first of the people. */
  readonly post: string;
}

async function startWorld(onEnd: (clean: () => Promise<void>) => void): Promise<World> {
  const database = await createTestDatabase({ prepare: socialSql });
  const folder = await mkdtemp(path.join(tmpdir(), 'belfry-stopped-'));
  const programs: Program[] = [];
  onEnd(async () => {
    for (const program of programs) {
      process.kill(program.pid, 'SIGCONT');
      await program.kill();
    }
    await database.drop();
    await rm(folder, { recursive: true });
  });
  const people = await addUsers(database.pool, ...Array.from({ length: 30 }, (_, i) => `Person ${i}`));
  const post = await addPost(database.pool, people[0] ?? '');
  const text = socialConfig(database.url, {
    aggregation: { like: { window: '200ms', early: [10], groupFor: '12h', sample: 8 } },
  });
  const file = path.join(folder, 'belfry.yaml');
  await writeFile(file, text);
  await installCapture(await database.client(), parseConfig(text, {}, { path: file }));
  const start = async () => {
    const program = startBelfry(['start', '--config', file]);
    programs.push(program);
    await program.waitFor(/"msg":"ready"/);
    return program;
  };
  const leader = await start();
  await leader.waitFor(/"msg":"leading"/);
  const standby = await start();
  return { pool: database.pool, client: await database.client(), leader, standby, people, post };
}

/** Backends that hold the doorbell's lock: then every commit rings. */
async function sleepers(pool: pg.Pool): Promise<number> {
  const { rows } = await pool.query<{ n: number }>(
    `select count(*)::int as n from pg_locks
      where locktype = 'advisory' and mode = 'ExclusiveLock' and granted
        and database = (select oid from pg_database where datname = current_database())
        and (classid::bigint << 32) + objid::bigint = $1`,
    [doorbellKey],
  );
  return rows[0]?.n ?? 0;
}

async function inbox(pool: pg.Pool): Promise<unknown> {
  const { rows } = await pool.query(
    `select (select events::int from belfry.lag) as unread, (select count(*)::int from belfry.notification) as notifications,
            (select sum(actor_count)::int from belfry.notification) as actors,
            (select count(*)::int from belfry.notification_event where removed_at is null) as events,
            (select count::int from belfry.counter) as counter, (select count(*)::int from belfry.dead_event) as dead`,
  );
  return rows[0];
}

const leaderPid = async (pool: pg.Pool): Promise<number> =>
  Number(
    (await pool.query<{ pid: string }>(`select split_part(leader, ':', 2) as pid from belfry.relay`)).rows[0]?.pid,
  );

/** So many likes of different people, all of the first one's post. */
async function likes(world: World, from: number, to: number): Promise<void> {
  for (const user of world.people.slice(from, to)) await like(world.pool, user, world.post);
}

describe.concurrent('a leader that is stopped', () => {
  it('asleep', { timeout: 120_000 }, async ({ expect, onTestFinished }) => {
    const world = await startWorld(onTestFinished);
    const { pool, leader, standby } = world;
    await likes(world, 1, 6);
    await eventually(async () => (await sleepers(pool)) === 1, 'it sleeps', 30_000);
    process.kill(leader.pid, 'SIGSTOP');
    const stoppedAt = performance.now();
    await eventually(async () => (await sleepers(pool)) === 0, 'nobody must ring', 30_000);
    expect(performance.now() - stoppedAt).toBeLessThan(4_000);
    await likes(world, 6, 11);
    await standby.waitFor(/"msg":"leading"/);
    await expect.poll(() => inbox(pool), { timeout: 30_000 }).toMatchObject({ unread: 0, actors: 10 });
    await eventually(async () => (await sleepers(pool)) === 1, 'the standby sleeps', 30_000);

    process.kill(leader.pid, 'SIGCONT');
    await leader.waitFor(
      /"msg":"(another relay leads now|the term ended in an error; trying again|the lease is lost: this relay stands by)"/,
    );
    await likes(world, 11, 16);
    await expect
      .poll(() => inbox(pool), { timeout: 30_000 })
      .toEqual({ unread: 0, notifications: 1, actors: 15, events: 15, counter: 15, dead: 0 });
    // Neither does it ring for nobody, nor does it lead.
    expect(await leaderPid(pool)).toBe(standby.pid);
    await eventually(async () => (await sleepers(pool)) === 1, 'one sleeps', 30_000);
    expect([leader.child.exitCode, standby.child.exitCode]).toEqual([null, null]);
  });

  it('within a batch', { timeout: 120_000 }, async ({ expect, onTestFinished }) => {
    const world = await startWorld(onTestFinished);
    const { pool, client, leader, standby } = world;
    await likes(world, 1, 6);
    await expect.poll(() => inbox(pool), { timeout: 30_000 }).toMatchObject({ unread: 0, actors: 5 });
    // The batch waits for the head of the person's stream, its transaction open.
    await client.query('begin');
    await client.query('select from belfry.head where user_id = $1 for update', [world.people[0]]);
    await likes(world, 6, 11);
    const waiting = async () =>
      (
        await pool.query<{ pid: number }>(
          `select pid from pg_stat_activity where application_name = 'belfry writer' and wait_event_type = 'Lock' and datname = current_database()`,
        )
      ).rows.map(({ pid }) => pid);
    await eventually(async () => (await waiting()).length === 1, 'it is within a batch', 30_000);
    const [old] = await waiting();
    process.kill(leader.pid, 'SIGSTOP');
    const stoppedAt = performance.now();
    await eventually(async () => (await sleepers(pool)) === 0, 'nobody must ring', 30_000);
    expect(performance.now() - stoppedAt).toBeLessThan(4_000);
    await likes(world, 11, 16);
    await standby.waitFor(/"msg":"leading"/);
    // What the old one had begun is ended, and begun anew by the new one.
    await eventually(
      async () => {
        const pids = await waiting();
        return pids.length === 1 && pids[0] !== old;
      },
      'the batch is begun anew',
      30_000,
    );
    await client.query('commit');
    await expect.poll(() => inbox(pool), { timeout: 30_000 }).toMatchObject({ unread: 0, actors: 15 });

    process.kill(leader.pid, 'SIGCONT');
    await leader.waitFor(
      /"msg":"(another relay leads now|the term ended in an error; trying again|the lease is lost: this relay stands by)"/,
    );
    await likes(world, 16, 21);
    await expect
      .poll(() => inbox(pool), { timeout: 30_000 })
      .toEqual({ unread: 0, notifications: 1, actors: 20, events: 20, counter: 20, dead: 0 });
    expect(await leaderPid(pool)).toBe(standby.pid);
    expect([leader.child.exitCode, standby.child.exitCode]).toEqual([null, null]);
  });
});
