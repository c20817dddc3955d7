/** Which pages may be read over the connection that knows no way to join but by an index. */

import { afterAll, beforeAll, expect, it } from 'vitest';
import { parse } from 'yaml';
import { parseConfig } from '../../src/config.js';
import { mappedSources } from '../../src/relay/connections.js';
import { resolvesByKey } from '../../src/relay/resolve.js';
import { loadColumnTypes } from '../../src/schema/columns.js';
import { createTestDatabase, type TestDatabase } from '../support/postgres.js';
import { socialConfig, socialSql } from '../support/social.js';

let database: TestDatabase;
beforeAll(async () => {
  database = await createTestDatabase({
    prepare: `${socialSql}; create table shares (user_id bigint not null, post_id bigint not null);
      create table moderators (post_id bigint not null, user_id bigint not null);`,
  });
});
afterAll(() => database.drop());

type Like = Record<string, unknown>;
const query = { query: 'select user_id from posts where id = :post_id' };
const hop = (table: string, match: string) => ({ path: [{ from: 'post_id', table, match, take: 'user_id' }] });

it.each<[what: string, byKey: boolean, change: Like]>([
  ['over unique keys', true, {}],
  ['by SQL of the config', false, { recipient: query }],
  ['over a path to many', false, { recipient: hop('moderators', 'post_id') }],
  ['by an actor over a path to many', false, { actor: hop('moderators', 'post_id') }],
  ['of a table in which nothing keeps rows apart', false, { table: 'shares' }],
])('%s: %s', async (_, byKey, change) => {
  const { sources } = parse(socialConfig(database.url)) as { sources: Like[] };
  const changed = sources.map((source, i) => (i === 0 ? { ...source, ...change } : source));
  const config = parseConfig(socialConfig(database.url, { sources: changed }), {}, { path: 'test.yaml' });
  const types = await loadColumnTypes(await database.client(), config);
  expect(resolvesByKey(mappedSources(config), types)).toBe(byKey);
});
