/** How a page is read: which may be over the connection that knows no way to join but by an index, and what a long list costs. */

import { afterAll, beforeAll, expect, it } from 'vitest';
import { parse } from 'yaml';
import { parseConfig } from '../../src/config.js';
import { mappedSources } from '../../src/relay/connections.js';
import { resolvesByKey, resolveSql } from '../../src/relay/plan/resolve.js';
import { loadColumnTypes } from '../../src/schema/columns.js';
import { createTestDatabase, type TestDatabase } from '../support/postgres.js';
import { socialConfig, socialSql } from '../support/social.js';

let database: TestDatabase;
beforeAll(async () => {
  database = await createTestDatabase({
    prepare: `${socialSql}; create table shares (user_id bigint not null, post_id bigint not null);
      create table moderators (post_id bigint not null, user_id bigint not null);
      create table letters (user_id bigint not null, post_id bigint not null, readers bigint[]);`,
  });
});
afterAll(() => database.drop());

type Like = Record<string, unknown>;
const query = { query: 'select user_id from posts where id = :post_id' };
const hop = (table: string, match: string) => ({ path: [{ from: 'post_id', table, match, take: 'user_id' }] });

async function loaded(change: Like) {
  const { sources } = parse(socialConfig(database.url)) as { sources: Like[] };
  const changed = sources.map((source, i) => (i === 0 ? { ...source, ...change } : source));
  const config = parseConfig(socialConfig(database.url, { sources: changed }), {}, { path: 'test.yaml' });
  return { sources: mappedSources(config), types: await loadColumnTypes(await database.client(), config) };
}

it.each<[what: string, byKey: boolean, change: Like]>([
  ['over unique keys', true, {}],
  ['by SQL of the config', false, { recipient: query }],
  ['over a path to many', false, { recipient: hop('moderators', 'post_id') }],
  ['by an actor over a path to many', false, { actor: hop('moderators', 'post_id') }],
  ['of a table in which nothing keeps rows apart', false, { table: 'shares' }],
])('%s: %s', async (_, byKey, change) => {
  const { sources, types } = await loaded(change);
  expect(resolvesByKey(sources, types)).toBe(byKey);
});

interface Node {
  readonly 'Node Type': string;
  readonly 'Actual Loops': number;
  readonly 'Actual Rows': number;
  readonly Plans?: readonly Node[];
}

it('a list of many is taken apart as often as the event is read, not for each of its people', async () => {
  const { sources, types } = await loaded({ table: 'letters', recipient: { list: 'readers' } });
  const page = `select 1::bigint as id, '3'::xid8 as xid, now() as at, '${sources[0]?.name ?? ''}' as source, 'changed' as op,
    jsonb_build_object('user_id', 1, 'post_id', 2, 'readers', array(select generate_series(1, 300))) as new,
    jsonb_build_object('user_id', 1, 'post_id', 2, 'readers', array(select generate_series(1, 299))) as old`;
  const { rows } = await database.pool.query<{ 'QUERY PLAN': [{ Plan: Node }] }>(
    `explain (analyze, timing off, format json) ${resolveSql(sources, types)(page)}`,
  );
  const all = (node: Node): Node[] => [node, ...(node.Plans ?? []).flatMap(all)];
  const lists = rows.flatMap((row) => all(row['QUERY PLAN'][0].Plan)).filter((node) => node['Actual Rows'] >= 299);
  const scans = lists.filter((node) => node['Node Type'] === 'Function Scan');
  expect(scans.length).toBeGreaterThan(0);
  expect(Math.max(...scans.map((node) => node['Actual Loops']))).toBe(1);
});
