/** The repair of lost events beside a backlog, where what was read ahead was read with the count of before; and beside writers. */
import type pg from 'pg';
import { expect, it } from 'vitest';
import { seedCounters, seedDue, seedScript } from '../../src/inbox/seed.js';
import { repairLost } from '../../src/relay/upkeep/lost.js';
import { addPost, addUsers, like } from '../support/social.js';
import { leadingRig, log } from './leading.js';

it('a count anew between two pages of a backlog counts nothing twice', { timeout: 60_000 }, async () => {
  const { database, config, facts, leading: lead } = await leadingRig();
  const [ada = ''] = await addUsers(database.pool, 'Ada');
  const post = await addPost(database.pool, ada);
  // Several pages.
  await database.pool.query(`insert into users (full_name) select 'Somebody' from generate_series(1, 7500)`);
  await database.pool.query('insert into likes (user_id, post_id) select id, $1 from users', [post]);
  let rounds = 0;
  const leading = await lead(async (now) => {
    rounds += 1;
    if (rounds === 2) {
      await database.pool.query(
        `insert into belfry.lost (source, sqlstate, since) values ('post_like', '55P03', null)`,
      );
      await repairLost({ config, log, facts, leading: now });
    }
    // The relay reads on until there is nothing left.
    const { rows: left } = await database.pool.query<{ events: number }>('select events::int from belfry.lag');
    if (rounds > 2 && left[0]?.events === 0) now.stop();
  });
  await leading.run();
  const counted = await database.pool.query(
    'select (select count(*)::int from likes) as likes, (select count from belfry.counter)::int as counter, (select events::int from belfry.lag) as unread',
  );
  expect(counted.rows).toEqual([{ likes: 7501, counter: 7501, unread: 0 }]);
});

it(
  'a script that is run while a page waits to be stored leaves the count to the leader',
  { timeout: 60_000 },
  async () => {
    const { database, config, facts, leading: lead } = await leadingRig();
    const [ada = ''] = await addUsers(database.pool, 'Ada');
    const post = await addPost(database.pool, ada);
    await seedCounters(facts, config, log);
    const changed = {
      ...config,
      sources: config.sources.map((source) =>
        source.name === 'post_like' ? { ...source, when: 'user_id > 0' } : source,
      ),
    };
    await database.pool.query(`insert into users (full_name) select 'Somebody' from generate_series(1, 4500)`);
    await database.pool.query('insert into likes (user_id, post_id) select id, $1 from users', [post]);
    let rounds = 0;
    const leading = await lead(async (now) => {
      rounds += 1;
      // The next page is read already, by a leader.
      if (rounds === 2) {
        await facts.query(`update belfry.relay set lease_until = 'infinity'`);
        await database.pool.query(await seedScript(facts, changed));
      }
      const { rows: left } = await database.pool.query<{ events: number }>('select events::int from belfry.lag');
      if (rounds > 2 && left[0]?.events === 0) now.stop();
    });
    await leading.run();
    await seedDue(facts, changed, log);
    const { rows } = await database.pool.query('select count::int from belfry.counter');
    expect(rows).toEqual([{ count: 4501 }]);
  },
);

it('a loss that commits while an earlier one with a higher id is repaired is repaired next', async () => {
  const { database, config, facts, leading: lead } = await leadingRig();
  const [ada = '', bo = '', cleo = '', dora = ''] = await addUsers(database.pool, 'Ada', 'Bo', 'Cleo', 'Dora');
  const post = await addPost(database.pool, ada);
  await like(database.pool, bo, post);
  await seedCounters(facts, config, log);
  /** Left open. */
  const lose = async (userId: string): Promise<pg.Client> => {
    const client = await database.client();
    await client.query(`begin; set local belfry.capture = 'off'`);
    await like(client, userId, post);
    await client.query(`insert into belfry.lost (source, sqlstate) values ('post_like', '55P03')`);
    return client;
  };
  const slow = await lose(cleo);
  await (await lose(dora)).query('commit');
  const leading = await lead(() => Promise.resolve());
  const repair = () => repairLost({ config, log, facts, leading });
  const state = async () =>
    (
      await database.pool.query<{ lost: number; recaptured: number; count: number }>(
        `select (select count(*)::int from belfry.lost) as lost, (select count::int from belfry.counter) as count,
                (select sum(recaptured)::int from belfry.repair) as recaptured`,
      )
    ).rows[0];

  // Stuck once it has counted.
  const holder = await database.client();
  await holder.query('begin; select from belfry.counter for update');
  const repairing = repair();
  await expect
    .poll(
      async () =>
        (
          await database.pool.query(
            `select from pg_stat_activity where application_name = 'facts' and datname = current_database() and wait_event_type = 'Lock'`,
          )
        ).rowCount,
      { timeout: 20_000 },
    )
    .toBe(1);
  await slow.query('commit');
  await holder.query('rollback');
  await repairing;
  expect(await state()).toEqual({ lost: 1, recaptured: 1, count: 2 });
  await repair();
  expect(await state()).toEqual({ lost: 0, recaptured: 2, count: 3 });
});
