/**
 * A soak: people like, take back and edit, always the same things, so that Belfry's tables hold the same number of rows all the time. Then
 * neither they nor their indexes may grow: what updates leave behind is taken up by autovacuum with the schema's own settings.
 *
 * Takes BELFRY_TEST_SECONDS, eight minutes by default, since autovacuum comes once a minute; prints the sizes.
 */

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { installCapture } from '../../src/capture/install.js';
import { parseConfig } from '../../src/config.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { startBelfry } from '../support/program.js';
import type { Program } from '../support/program.js';
import { addUsers, socialConfig, socialSql } from '../support/social.js';

const seconds = Number(process.env['BELFRY_TEST_SECONDS'] ?? '480');
const writers = 4;
const people = { owners: 20, likers: 50 } as const;
const posts = 200;
const comments = 200;

/**
 * What a table may grow by after the first third. The one row of belfry.relay changes some hundred times a second: it takes what is written
 * while somebody holds a snapshot, such as an ANALYZE, and that is not given back.
 */
const most = { ratio: 1.25, bytes: 1_048_576 } as const;

/** Tables whose rows are changed and not added. The outbox, verdicts and traces are kept by time, and dropped or deleted. */
const hot = [
  'channel_event',
  'channel_head',
  'counter',
  'head',
  'held',
  'notification',
  'notification_event',
  'relay',
  'source_state',
  'stream_position',
];

interface Size {
  readonly name: string;
  readonly rows: number;
  readonly heap: number;
  readonly indexes: number;
}

let database: TestDatabase;
let folder: string;
let relay: Program;
let likers: string[];
let postIds: string[];

beforeAll(async () => {
  database = await createTestDatabase({ prepare: socialSql });
  const client = await database.client();
  const text = socialConfig(database.url, { retention: { outbox: '1d', inbox: '90d', channels: '10s' } });
  await installCapture(client, parseConfig(text, {}, { path: 'test.yaml' }));
  const owners = await addUsers(database.pool, ...Array.from({ length: people.owners }, (_, i) => `Owner ${i}`));
  likers = await addUsers(database.pool, ...Array.from({ length: people.likers }, (_, i) => `Fan ${i}`));
  const made = await client.query<{ id: string }>(
    `insert into posts (user_id, body) select ($1::bigint[])[1 + n % $2], 'a post' from generate_series(1, $3) n returning id::text`,
    [owners, owners.length, posts],
  );
  postIds = made.rows.map(({ id }) => id);
  await client.query(
    `insert into comments (user_id, post_id, content)
     select ($1::bigint[])[1 + n % $2], ($3::bigint[])[1 + n % $4], 'a comment' from generate_series(1, $5) n`,
    [likers, likers.length, postIds, posts, comments],
  );
  folder = await mkdtemp(path.join(tmpdir(), 'belfry-soak-'));
  await writeFile(path.join(folder, 'belfry.yaml'), text);
  relay = startBelfry(['start', '--config', path.join(folder, 'belfry.yaml'), '--role', 'all']);
  const leads = 'select from belfry.relay where lease_until > clock_timestamp()';
  await vi.waitFor(async () => expect((await client.query(leads)).rowCount).toBe(1), { timeout: 60_000 });
}, 120_000);

afterAll(async () => {
  await relay.kill();
  await database.drop();
  await rm(folder, { recursive: true });
});

it(`for ${seconds} s`, { timeout: (seconds + 120) * 1_000 }, async () => {
  const over = new AbortController();
  const work = Array.from({ length: writers }, () => write(over.signal));
  let first: Size[];
  let last: Size[];
  try {
    await Promise.race([sleep((seconds * 1_000) / 3), ...work]);
    first = await sizes();
    await Promise.race([sleep((seconds * 2_000) / 3), ...work]);
    last = await sizes();
  } finally {
    over.abort();
    await Promise.allSettled(work);
  }
  const written = (await Promise.all(work)).reduce((sum, n) => sum + n, 0);
  const growth = last.map(({ name, rows, heap, indexes }, i) => ({
    name,
    rows,
    kB: [first[i]?.heap ?? 0, heap, first[i]?.indexes ?? 0, indexes].map((bytes) => Math.round(bytes / 1024)),
    grew: [
      [first[i]?.heap ?? 0, heap],
      [first[i]?.indexes ?? 0, indexes],
    ].some(([before = 0, after = 0]) => after > Math.max(before * most.ratio, before + most.bytes)),
  }));
  process.stdout.write(`${JSON.stringify({ seconds, written, growth })}\n`);
  expect(written).toBeGreaterThan(seconds * 100);
  expect(growth.filter(({ grew }) => grew)).toEqual([]);
});

/** Likes and takes back, edits comments; returns how often. */
async function write(signal: AbortSignal): Promise<number> {
  const client = await database.client();
  const any = <T>(list: readonly T[]): T | undefined => list[Math.floor(Math.random() * list.length)];
  let written = 0;
  while (!signal.aborted) {
    const pair = [any(likers), any(postIds)];
    if (Math.random() < 0.1)
      await client.query(
        `update comments set content = 'edited ' || $2 where id = (select min(id) from comments) + $1`,
        [Math.floor(Math.random() * comments), String(written)],
      );
    else if ((await client.query('delete from likes where user_id = $1 and post_id = $2', pair)).rowCount === 0)
      await client.query('insert into likes (user_id, post_id) values ($1, $2) on conflict do nothing', pair);
    written += 1;
    await sleep(Math.random() * 8);
  }
  return written;
}

async function sizes(): Promise<Size[]> {
  const { rows } = await database.pool.query<Size>(
    `select c.relname as name, pg_table_size(c.oid)::float8 as heap, pg_indexes_size(c.oid)::float8 as indexes,
            (xpath('/row/n/text()', query_to_xml(format('select count(*) as n from belfry.%I', c.relname), false, true, '')))[1]::text::int as rows
       from pg_class c where c.relnamespace = 'belfry'::regnamespace and c.relname = any($1) order by 1`,
    [hot],
  );
  return rows;
}
