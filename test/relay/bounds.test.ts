/** Whatever is told or taken back to or from many people beside the live pages is so in transactions of a bounded size, too. */
import { expect, it, onTestFinished } from 'vitest';
import { resolveHeld } from '../../src/relay/upkeep/held.js';
import { repairLost } from '../../src/relay/upkeep/lost.js';
import { testSecret } from '../support/social.js';
import { startBatches } from './batches.js';
import { leadingRig, log } from './leading.js';

const members = 900;
const messages = 48;

const tables = `
create table members (room int, person int);
create index on members (room);
create table messages (id int primary key, room int);`;

const configOf = (url: string): string => `
version: 1
database: { url: "${url}" }
auth: { secret: ${testSecret}, issuer: null, audience: null }
sources:
  - { name: message, type: message, table: messages, key: [id], object: { kind: message, id: id },
      recipient: { path: [{ from: room, table: members, match: room, take: person }] } }`;

it('held, rebuilt and lost events of many people', { timeout: 600_000 }, async () => {
  const { database, config, facts, leading: lead } = await leadingRig(tables, configOf);
  const batches = await startBatches(database, configOf(database.url));
  onTestFinished(() => batches.stop());
  /** Notifications by the transaction that stored them last. */
  const transactions = async (withdrawn: boolean, from = 0): Promise<number[]> => {
    const { rows } = await database.pool.query<{ rows: number }>(
      `select count(*)::int as rows from belfry.notification where withdrawn = $1 and object_id::int > $2 group by xmin`,
      [withdrawn, from],
    );
    return rows.map(({ rows: count }) => count);
  };
  const expectBounded = (sizes: readonly number[], all: number): void => {
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(all * members);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(20_000);
    // And not one by one.
    expect(sizes.length).toBeLessThanOrEqual(8);
  };

  // Before anybody is in the room.
  await database.pool.query('insert into messages select i, 1 from generate_series(1, $1) i', [messages]);
  await batches.run();
  await database.pool.query('insert into members select 1, i from generate_series(1, $1) i', [members]);
  const leading = await lead(() => Promise.resolve());
  await resolveHeld({ facts, leading });
  expectBounded(await transactions(false), messages);
  expect((await database.pool.query('select from belfry.held')).rowCount).toBe(0);

  const half = messages / 2;
  const remove = async (where: string): Promise<void> => {
    const client = await database.client();
    await client.query(`begin; set local belfry.capture = 'off'; delete from messages where ${where}; commit`);
  };
  await remove(`id <= ${String(half)}`);
  for (const busy of [true, false]) {
    const { withdrawn, failed } = await batches.replay('rebuild', {}, busy);
    expect({ withdrawn, failed }).toEqual({ withdrawn: busy ? half * members : 0, failed: 0 });
  }
  expectBounded(await transactions(true), half);

  await remove('true');
  await database.pool.query(`insert into belfry.lost (source, sqlstate) values ('message', '55P03')`);
  await repairLost({ config, log, facts, leading });
  expectBounded(await transactions(true, half), half);
  expect((await database.pool.query('select from belfry.lost')).rowCount).toBe(0);
});
