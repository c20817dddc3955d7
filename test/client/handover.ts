/**
 * A rolling restart: one process drains while another serves, a balancer in front of them, people write all the while. Run by
 * handover.test.ts with some hundred clients and by handover.long.ts with 5,000.
 */

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect as dial, createServer, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect } from 'vitest';
import { WebSocket } from 'ws';
import { connect, type Client } from '../../src/client/index.js';
import { freePort } from '../support/ports.js';
import { createTestDatabase, type TestDatabase } from '../support/postgres.js';
import { startBelfry, type Program } from '../support/program.js';
import { socialConfig, socialSql } from '../support/social.js';
import { pause, token, until, wideLimits } from './running.js';

/** One of all clients: what it was told, by id, and how its connections ended. */
interface Told {
  readonly userId: string;
  readonly client: Client;
  /** Id → seq. */
  readonly held: Map<string, number>;
  readonly ends: number[];
  gaps: number;
  disorder: number;
}

export interface HandoverResult {
  readonly drainedMs: number;
  /** Attempts that a client gave up, since nobody answered for ten seconds: a machine that stalls, or a spike. */
  readonly givenUp: number;
}

export async function handover(clients: number): Promise<HandoverResult> {
  const database = await createTestDatabase({ prepare: socialSql });
  const folder = await mkdtemp(path.join(tmpdir(), 'belfry-handover-'));
  const programs: Program[] = [];
  const balancer = await startBalancer();
  const told: Told[] = [];
  const writing = { over: false };
  let written = Promise.resolve();
  try {
    const configFile = path.join(folder, 'belfry.yaml');
    await writeFile(configFile, socialConfig(database.url, { limits: wideLimits }));
    expect((await startBelfry(['migrate', '--config', configFile]).exit).code).toBe(0);
    const start = async (): Promise<{ program: Program; port: number }> => {
      const port = await freePort();
      const program = startBelfry(['start', '--config', configFile], { env: { PORT: String(port) } });
      programs.push(program);
      await until('ready', () => readiness(port, 200));
      return { program, port };
    };
    const old = await start();
    balancer.target = old.port;
    const userIds = await addPeople(database, clients);
    for (const userId of userIds) {
      told.push(listen(userId, `ws://127.0.0.1:${balancer.port}`));
      // Arriving is not what is tried here.
      if (told.length % 50 === 0) await until('they arrive', () => told.filter(isOnline).length > told.length - 100);
    }
    await until('everybody is online', () => told.every(isOnline), 300_000);
    for (const { ends } of told) ends.length = 0;
    const next = await start();

    written = write(database, userIds, writing);
    balancer.target = next.port;
    const began = performance.now();
    old.program.child.kill('SIGTERM');
    expect((await old.program.exit).code).toBe(0);
    const drainedMs = performance.now() - began;
    await until('everybody is back', () => told.every(isOnline), 300_000);
    writing.over = true;
    await written;

    await until('the relay is done', async () => {
      const { rows } = await database.pool.query<{ events: string }>('select events from belfry.lag');
      return rows[0]?.events === '0';
    });
    const inboxes = await inboxesOf(database);
    for (const one of told) {
      const inbox = inboxes.get(one.userId) ?? [];
      await until(`${one.userId} holds all`, () => one.held.size >= inbox.length);
      expect([...one.held]).toEqual(inbox);
      expect(one).toMatchObject({ gaps: 0, disorder: 0 });
      // Sent away once, and not closed again.
      expect(one.ends.filter((code) => code !== lostCode)).toEqual([1012]);
    }
    const lost = `{code="${lostCode}"}`;
    expect((await closesAt(next.port)).filter((line) => !line.includes(lost))).toEqual([]);
    return { drainedMs, givenUp: told.reduce((sum, { ends }) => sum + ends.length - 1, 0) };
  } finally {
    writing.over = true;
    await written.catch(() => undefined);
    for (const { client } of told) client.close();
    for (const program of programs) await program.kill();
    await balancer.close();
    await rm(folder, { recursive: true, force: true });
    await database.drop();
  }
}

/** How a connection ends that nobody closed. */
const lostCode = 1006;

const isOnline = ({ client }: Told): boolean => client.status.status === 'online';

function listen(userId: string, url: string): Told {
  const client = connect({ url, token: () => token(userId), WebSocket });
  const one: Told = { userId, client, held: new Map(), ends: [], gaps: 0, disorder: 0 };
  let last = 0;
  client.on('notification', ({ id }, { seq = 0 }) => {
    if (seq <= last) one.disorder++;
    last = seq;
    // Sets are in the order of insertion, the inbox in that of seq.
    one.held.delete(id);
    one.held.set(id, seq);
  });
  client.on('gap', () => void one.gaps++);
  client.on('status', (status) => void (status.status === 'waiting' && one.ends.push(status.code)));
  return one;
}

/** People with a post each, and one who comments. */
async function addPeople({ pool }: TestDatabase, count: number): Promise<string[]> {
  const { rows } = await pool.query<{ id: string }>(
    `with added as (insert into public.users (full_name) select 'Person ' || n from generate_series(0, $1::int) n returning id),
          written as (insert into public.posts (user_id, body) select id, 'x' from added)
     select id from added order by id`,
    [count],
  );
  return rows.slice(0, count).map(({ id }) => id);
}

/** So often at most: a machine that stalls must not make more than a client can catch up with. */
const mostRounds = 100;

/** Comments by somebody who has no client, on a hundred posts at a time, until it is over. */
async function write({ pool }: TestDatabase, userIds: readonly string[], until: { over: boolean }): Promise<void> {
  const size = 100;
  for (let round = 0; !until.over && round < mostRounds; round++) {
    const from = (round * size) % userIds.length;
    await pool.query(
      `insert into public.comments (post_id, user_id, content)
       select p.id, (select max(id) from public.users), 'c' from public.posts p where p.user_id = any ($1::bigint[])`,
      [userIds.slice(from, from + size)],
    );
    await pause(500);
  }
}

async function inboxesOf({ pool }: TestDatabase): Promise<Map<string, [string, number][]>> {
  const { rows } = await pool.query<{ user_id: string; id: string; seq: string }>(
    // Of the table: the name alone would mean the text, which has 10 before 2.
    'select user_id, id::text, seq::text from belfry.notification n where not withdrawn order by user_id, n.seq',
  );
  const inboxes = new Map<string, [string, number][]>();
  for (const { user_id, id, seq } of rows) {
    const inbox = inboxes.get(user_id) ?? [];
    inbox.push([id, Number(seq)]);
    inboxes.set(user_id, inbox);
  }
  return inboxes;
}

const readiness = (port: number, status: number): Promise<boolean> =>
  fetch(`http://127.0.0.1:${port}/readyz`).then(
    (answer) => answer.status === status,
    () => false,
  );

/** Sockets that this process has closed or lost, by code. */
async function closesAt(port: number): Promise<string[]> {
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  return text.split('\n').filter((line) => line.startsWith('belfry_gateway_closes_total{') && !line.endsWith(' 0'));
}

/** As a load balancer in TCP mode: new connections go to the process that is named at the time. */
async function startBalancer(): Promise<{ readonly port: number; target: number; close(): Promise<void> }> {
  const open = new Set<Socket>();
  const balancer = { port: 0, target: 0, close: async () => undefined as void };
  const server = createServer({ noDelay: true }, (near) => {
    const far = dial({ port: balancer.target, host: '127.0.0.1', noDelay: true });
    near.pipe(far);
    far.pipe(near);
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      open.add(one);
      one.on('error', () => undefined);
      one.on('close', () => {
        open.delete(one);
        other.destroySoon();
      });
    }
  });
  await new Promise<void>((resolve) => server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, resolve));
  balancer.port = (server.address() as AddressInfo).port;
  balancer.close = async () => {
    for (const socket of open) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  };
  return balancer;
}
