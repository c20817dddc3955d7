/** Sessions of the application that write a key in other words: the key of a row has one text. */

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { recreateMissed } from '../../src/relay/upkeep/recreate.js';
import { loadColumnTypes } from '../../src/schema/columns.js';
import { startMapping } from './rig.js';
import type { Mapping } from './rig.js';

let mapping: Mapping;

const source = (name: string, key: string): string =>
  `  - { name: ${name}, type: ${name}, table: ${name}s, key: [${key}], actor: user_id, recipient: owner_id, time: at }`;

beforeAll(async () => {
  mapping = await startMapping(
    `create table votes (user_id int, owner_id int, at timestamptz, primary key (user_id, owner_id, at));
     create domain moment as timestamptz;
     create table claps (user_id int, owner_id int, at moment, primary key (user_id, owner_id, at));
     create table stars (id bytea primary key, user_id int, owner_id int, at timestamptz not null default now())`,
    [source('vote', 'user_id, owner_id, at'), source('clap', 'user_id, owner_id, at'), source('star', 'id')].join('\n'),
  );
});

afterAll(() => mapping.stop());

describe('a row that one session writes and another deletes is taken back', () => {
  it.each([
    [
      'time zones',
      'vote',
      `set timezone = 'Asia/Tokyo'`,
      `(5, 3, '2026-01-01 00:00Z')`,
      `set timezone = 'America/Lima'`,
    ],
    ['time zones, of a domain', 'clap', `set timezone = 'Asia/Tokyo'`, `(5, 3, '2026-01-01 00:00Z')`, 'reset timezone'],
    ['forms of bytes', 'star', 'set bytea_output = escape', `('\\x00ff41', 5, 3)`, 'reset bytea_output'],
  ])('%s', async (_, type, before, values, after) => {
    expect(await mapping.heard(`${before}; insert into ${type}s values ${values}`)).toEqual([`3 ${type} 5!`]);
    expect(await mapping.heard(`${after}; delete from ${type}s`)).toEqual([`3 -${type}`]);
  });
});

it('a row that was captured is no lost one, whatever time zone the relay has', async () => {
  await mapping.heard(`set timezone = 'Asia/Tokyo'; insert into votes values (6, 3, now())`);
  const client = await mapping.database.client();
  await client.query(`set timezone = 'America/Lima'`);
  const { config } = mapping.batches;
  const vote = config.sources.find(({ name }) => name === 'vote');
  if (vote === undefined) throw new Error('no source');
  const now = Date.now();
  const window = { from: new Date(now - 60_000).toISOString(), to: new Date(now + 1_000).toISOString() };
  await mapping.sql('delete from belfry.notification_event');
  expect(await recreateMissed(client, vote, await loadColumnTypes(client, config), window)).toBe(0);
});
