/** Events that cannot be resolved, so that no page with one of them can be read: each is set aside, and reading goes on. */

import { expect, it } from 'vitest';
import { socialConfig, socialSql } from '../support/social.js';
import { locksAwaited } from '../support/postgres.js';
import { leadingRig } from './leading.js';

const things = `${socialSql}; create table public.things (id bigserial primary key, n int not null);`;
const source = {
  name: 'thing',
  type: 'thing',
  table: 'things',
  key: ['id'],
  recipient: { query: 'select u.id from public.users u where 10 / (:n::int - 5) = u.id' },
};

it('one that is committed just as the last of what was read is set aside is read next', async () => {
  const { facts, leading } = await leadingRig(things, (url) => socialConfig(url, { sources: [source] }));
  await facts.query(`create function again() returns trigger language plpgsql as $$ begin
      insert into public.things (n) select 5 where new.new ->> 'id' = '1'; return null; end $$;
    create trigger again after insert on belfry.dead_event for each row execute function again()`);
  await facts.query('insert into things (n) values (5)');
  const leader = await leading(async (self) => {
    const { rowCount } = await facts.query('select from belfry.dead_event');
    if (rowCount === 2) self.stop();
  });
  await leader.run();
  const { rows } = await facts.query('select event_id::int as id, error from belfry.dead_event order by event_id');
  expect(rows).toEqual([
    { id: 1, error: 'division by zero' },
    { id: 2, error: 'division by zero' },
  ]);
});

it('one that is committed before it, with a lower id, once it has failed is not set aside for it', async () => {
  // The second time that it is read it fails when the test lets it.
  const trouble = `create sequence public.tries; create function public.trouble() returns bigint language plpgsql as $$ begin
      if nextval('public.tries') = 2 then
        perform pg_advisory_lock_shared(4711);
        perform pg_advisory_unlock_shared(4711);
      end if;
      raise division_by_zero; end $$;`;
  const troubled = { ...source, recipient: { query: 'select public.trouble() where :n::int = 5' } };
  const { database, facts, leading } = await leadingRig(`${things} ${trouble}`, (url) =>
    socialConfig(url, { sources: [troubled] }),
  );
  const [early, holder] = [await database.client(), await database.client()];
  await holder.query('select pg_advisory_lock(4711)');
  await early.query('begin; insert into things (n) values (1)');
  await facts.query('insert into things (n) values (5)');
  const leader = await leading(async (self) => {
    const { rowCount } = await holder.query('select from belfry.relay where max_id >= 2');
    if (rowCount === 1) self.stop();
  });
  const running = leader.run();
  await expect.poll(() => locksAwaited(holder, 'advisory'), { timeout: 20_000 }).toBe(1);
  await early.query('commit');
  await holder.query('select pg_advisory_unlock(4711)');
  await running;
  const { rows } = await facts.query('select event_id::int as id from belfry.dead_event');
  expect(rows).toEqual([{ id: 2 }]);
});

it('with deadLetters.later: wait, one that cannot be resolved either stands behind those of its row before it', async () => {
  const { facts, leading } = await leadingRig(things, (url) =>
    socialConfig(url, { sources: [source], deadLetters: { later: 'wait' } }),
  );
  await facts.query('insert into things (n) values (5)');
  await facts.query('update things set n = 6');
  await facts.query('update things set n = 5');
  const leader = await leading(async (self) => {
    const { rowCount } = await facts.query('select from belfry.relay where max_id >= 3');
    if (rowCount === 1) self.stop();
  });
  await leader.run();
  const { rows } = await facts.query(
    'select event_id::int as id, attempts, waits_for::text as waits from belfry.dead_event order by event_id',
  );
  expect(rows).toEqual([
    { id: 1, attempts: 1, waits: '{}' },
    { id: 2, attempts: 0, waits: '{1}' },
    { id: 3, attempts: 1, waits: '{2}' },
  ]);
});
