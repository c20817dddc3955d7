/**
 * A soak: people like, take back and edit, always the same things, so that Belfry's tables hold the same number of rows all the time. Then
 * neither they nor their indexes may grow: what updates leave behind is taken up by autovacuum with the schema's own settings.
 *
 * Takes BELFRY_TEST_SECONDS, eight minutes by default, since autovacuum comes once a minute; prints the sizes.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { prepareLoad } from './load.js';
import type { Load } from './load.js';

const seconds = Number(process.env['BELFRY_TEST_SECONDS'] ?? '480');
const writers = 4;
const people = { owners: 20, likers: 50 } as const;
const posts = 200;
const comments = 200;

/**
 * What a table may grow by after the first third. The one row of belfry.relay changes some hundred times a second, and takes new pages while a
 * transaction of anybody on the server is open: seen were 464 kB alone, and 10 MB within 45 s beside together.long.ts, before autovacuum came.
 * Likewise channel_event, whose rows come and go: 0.3 MB of indexes alone, 1.04 MB there; without autovacuum it would be five.
 */
const most = { ratio: 1.25, bytes: 2 * 1_048_576 } as const;

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
  'window_end',
];

interface Size {
  readonly name: string;
  readonly rows: number;
  readonly heap: number;
  readonly indexes: number;
}

let load: Load;

beforeAll(async () => {
  load = await prepareLoad({ ...people, posts }, { outbox: '1d', inbox: '90d', channels: '10s' });
  const { client, likers, postIds } = load;
  await client.query(
    `insert into comments (user_id, post_id, content)
     select ($1::bigint[])[1 + n % $2], ($3::bigint[])[1 + n % $4], 'a comment' from generate_series(1, $5) n`,
    [likers, likers.length, postIds, posts, comments],
  );
  await load.start();
}, 120_000);

afterAll(() => load.stop());

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
  const client = await load.database.client();
  const any = <T>(list: readonly T[]): T | undefined => list[Math.floor(Math.random() * list.length)];
  let written = 0;
  while (!signal.aborted) {
    const pair = [any(load.likers), any(load.postIds)];
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
  const { rows } = await load.database.pool.query<Size>(
    `select c.relname as name, pg_table_size(c.oid)::float8 as heap, pg_indexes_size(c.oid)::float8 as indexes,
            (xpath('/row/n/text()', query_to_xml(format('select count(*) as n from belfry.%I', c.relname), false, true, '')))[1]::text::int as rows
       from pg_class c where c.relnamespace = 'belfry'::regnamespace and c.relname = any($1) order by 1`,
    [hot],
  );
  return rows;
}
