/** What the long runs under load begin with: owners with posts, people who like them, and Belfry in a process of its own. */

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type pg from 'pg';
import { expect, vi } from 'vitest';
import { installCapture } from '../../src/capture/install.js';
import { parseConfig } from '../../src/config.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { startBelfry } from '../support/program.js';
import { addUsers, socialConfig, socialSql } from '../support/social.js';

export interface Load {
  readonly database: TestDatabase;
  readonly client: pg.Client;
  readonly likers: readonly string[];
  readonly postIds: readonly string[];
  /** Starts Belfry; resolves when it leads. */
  start(): Promise<void>;
  stop(): Promise<void>;
}

export async function prepareLoad(
  many: { readonly owners: number; readonly likers: number; readonly posts: number },
  retention: Readonly<Record<string, string>>,
): Promise<Load> {
  const database = await createTestDatabase({ prepare: socialSql });
  const client = await database.client();
  const text = socialConfig(database.url, { retention });
  await installCapture(client, parseConfig(text, {}, { path: 'test.yaml' }));
  const named = (name: string, count: number) => Array.from({ length: count }, (_, i) => `${name} ${i}`);
  const owners = await addUsers(database.pool, ...named('Owner', many.owners));
  const likers = await addUsers(database.pool, ...named('Fan', many.likers));
  const { rows } = await client.query<{ id: string }>(
    `insert into posts (user_id, body) select ($1::bigint[])[1 + n % $2], 'a post' from generate_series(1, $3) n returning id::text`,
    [owners, owners.length, many.posts],
  );
  const folder = await mkdtemp(path.join(tmpdir(), 'belfry-load-'));
  const file = path.join(folder, 'belfry.yaml');
  await writeFile(file, text);
  let relay: ReturnType<typeof startBelfry> | null = null;
  return {
    database,
    client,
    likers,
    postIds: rows.map(({ id }) => id),
    async start() {
      relay = startBelfry(['start', '--config', file, '--role', 'all']);
      const leads = 'select from belfry.relay where lease_until > clock_timestamp()';
      await vi.waitFor(async () => expect((await client.query(leads)).rowCount).toBe(1), { timeout: 60_000 });
    },
    async stop() {
      await relay?.kill();
      await database.drop();
      await rm(folder, { recursive: true });
    },
  };
}
