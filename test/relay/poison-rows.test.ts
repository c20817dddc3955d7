/** The config's SQL fails on a row that was right when its event was processed: that row is told nobody, everything else goes on. */

import { describe, expect, it } from 'vitest';
import { addPost, addUsers, like } from '../support/social.js';
import { framesOf, useWorld } from './world.js';

const table = 'public.users';
const world = useWorld({
  people: { table, id: 'id', name: 'full_name', active: `1 / length(full_name) is not null` },
});
const pool = () => world.database.pool;

/** The division by zero of all who look at them. */
const poison = (userId: string) => world.sql(`update users set full_name = '' where id = $1`, [userId]);
const cure = (userId: string) => world.sql(`update users set full_name = 'Cured' where id = $1`, [userId]);

describe('windows that end together', () => {
  it('are told, but for the one of which nothing can be asked', async () => {
    const { ada, bo, cleo, batches } = world;
    const others = await addUsers(pool(), 'One', 'Two', 'Three', 'Four', 'Five');
    const posts = new Map<string, string>();
    for (const owner of [ada, ...others]) posts.set(owner, await addPost(pool(), owner));
    const villain = (await addUsers(pool(), 'Villain'))[0] ?? '';
    for (const post of posts.values()) await like(pool(), bo, post);
    await batches.run();
    for (const [owner, post] of posts) await like(pool(), owner === ada ? villain : cleo, post);
    await batches.run();
    batches.heard();
    await poison(villain);
    for (const owner of posts.keys()) await world.age(owner, '5 s');
    await batches.flush();
    const heard = batches.heard();
    for (const owner of others) expect(framesOf(heard, owner)).toMatchObject([{ data: { data: { actor_count: 2 } } }]);
    expect(framesOf(heard, ada)).toEqual([]);
    expect(batches.complaints()).toEqual([{ notificationId: expect.any(String) as string, error: 'division by zero' }]);
    // It waits no longer, and nothing is left that would be tried again and again.
    await batches.flush();
    expect(batches.heard()).toEqual([]);
    expect((await pool().query('select from belfry.window_end')).rowCount).toBe(0);
    expect((await pool().query('select from belfry.notification where due_at is not null')).rowCount).toBe(0);
    await cure(villain);
    await like(pool(), cleo, posts.get(ada) ?? '');
    await batches.run();
    await world.age(ada, '5 s');
    await batches.flush();
    expect(framesOf(batches.heard(), ada).at(-1)).toMatchObject({ data: { data: { actor_count: 3 } } });
  });
});

it('a push of which nobody can tell whether it may still be read is taken back, and those beside it are told', async () => {
  const { ada, bo, cleo, post } = world;
  const villain = (await addUsers(pool(), 'Villain'))[0] ?? '';
  await like(pool(), villain, post);
  await world.heard(ada);
  await poison(villain);
  await world.age(ada, '1 min');
  await like(pool(), bo, post);
  const second = await addPost(pool(), cleo);
  await like(pool(), bo, second);
  expect(await world.heard(ada)).toMatchObject([{ event: 'withdrawn' }]);
  expect(world.frames(cleo)).toMatchObject([{ event: 'notification', data: { message: 'Bo liked your post' } }]);
  const error = 'division by zero';
  expect(world.batches.complaints()).toEqual([
    { userId: villain, error },
    { notificationId: expect.any(String) as string, error },
  ]);
  await cure(villain);
});
