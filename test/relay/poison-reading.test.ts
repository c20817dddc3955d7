/** Events that cannot be resolved, so that no page with one of them can be read: each is set aside, and reading goes on. */

import { expect, it } from 'vitest';
import { socialConfig, socialSql } from '../support/social.js';
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
