/**
 * Facts that are loaded while the batch before is being stored: whatever the history, the inbox is the one of batches
 * that load their facts in their turn. Seen red without each of the kinds of things that are noted as written.
 */

import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { installCapture } from '../../src/capture/install.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { addPost, addUsers, block, like, socialConfig, socialSql } from '../support/social.js';
import { Ahead } from '../../src/relay/ahead.js';
import { WriterPlans } from '../../src/relay/connections.js';
import { counterKey } from '../../src/relay/facts/group-facts.js';
import { startBatches } from './batches.js';
import type { Batches } from './batches.js';

interface Side {
  readonly database: TestDatabase;
  readonly batches: Batches;
}

let sides: Side[];

beforeAll(async () => {
  sides = await Promise.all(
    [0, 1].map(async () => {
      const database = await createTestDatabase({ prepare: socialSql });
      const batches = await startBatches(database, socialConfig(database.url));
      await installCapture(await database.client(), batches.config);
      return { database, batches };
    }),
  );
});

afterAll(async () => {
  for (const { database, batches } of sides) {
    await batches.stop();
    await database.drop();
  }
});

/** Who does what to whose post. */
const operation = fc.record({
  what: fc.constantFrom(
    'like',
    'like',
    'unlike',
    'unlike',
    'comment',
    'comment',
    'delete',
    'undelete',
    'follow',
    'unfollow',
  ),
  who: fc.integer({ min: 0, max: 2 }),
  whose: fc.integer({ min: 0, max: 1 }),
});

type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

const statements = {
  like: 'insert into likes (user_id, post_id) values ($1, $2) on conflict do nothing',
  unlike: 'delete from likes where user_id = $1 and post_id = $2',
  comment: `insert into comments (user_id, post_id, content) values ($1, $2, 'hm')`,
  delete: 'update comments set deleted_at = now() where user_id = $1 and post_id = $2',
  undelete: 'update comments set deleted_at = null where user_id = $1 and post_id = $2',
  follow:
    'insert into follows (follower_id, followed_id) select $1, p.user_id from posts p where p.id = $2 on conflict do nothing',
  unfollow: 'delete from follows f using posts p where p.id = $2 and f.follower_id = $1 and f.followed_id = p.user_id',
} as const;

async function play(
  { database, batches }: Side,
  before: readonly Operation[],
  history: readonly Operation[],
  pageSize: number,
  ahead: boolean,
): Promise<unknown> {
  const owners = await addUsers(database.pool, 'Ada', 'Bo');
  const people = await addUsers(database.pool, 'Cleo', 'Dan', 'Eve');
  const posts: string[] = [];
  for (const owner of owners) posts.push(await addPost(database.pool, owner));
  const write = async (operations: readonly Operation[]): Promise<void> => {
    for (const { what, who, whose } of operations)
      await database.pool.query(statements[what], [people[who], posts[whose]]);
  };
  await write(before);
  await batches.run();
  // So old that they take no further event: the next one closes them.
  await database.pool.query(`update belfry.notification set first_at = first_at - interval '13 h' where user_id = $1`, [
    owners[1],
  ]);
  await write(history);
  await batches.run(pageSize, ahead);
  batches.heard();
  const rows = async (sql: string): Promise<unknown[]> => (await database.pool.query(sql, [owners])).rows as unknown[];
  return {
    notifications: await rows(
      `select n.user_id, n.type, n.group_key, n.open, n.actors, n.actor_count, n.event_count, n.withdrawn, n.shown, n.seq, p.seq as position
         from belfry.notification n left join belfry.stream_position p on p.notification_id = n.id and p.user_id = n.user_id
        where n.user_id = any($1) order by n.user_id, n.type, n.group_key, n.id`,
    ),
    heads: await rows('select user_id, seq from belfry.head where user_id = any($1) order by 1'),
    events: await rows(
      'select source, key, user_id, actor_id, removed_at is null as live from belfry.notification_event where user_id = any($1) order by 1, 2, 3',
    ),
    counters: await database.pool
      .query('select source, count from belfry.counter where object_id = any($1) order by source, object_id', [posts])
      .then(({ rows: counted }) => counted as unknown[]),
    told: await rows(
      `select e."offset", e.data ->> 'comments_count' as count from belfry.channel_event e
         join posts p on e.channel = 'post:' || p.id where p.user_id::text = any($1) order by e.channel, e."offset"`,
    ),
  };
}

describe('a batch that is prepared while the one before it is stored', () => {
  it('comes to the same as one that is prepared in its turn', async () => {
    const operations = (maxLength: number): fc.Arbitrary<Operation[]> => fc.array(operation, { maxLength });
    const one = (what: Operation['what'], who: number, whose = 0): Operation => ({ what, who, whose });
    await fc.assert(
      fc.asyncProperty(
        operations(10),
        operations(25),
        fc.integer({ min: 1, max: 3 }),
        async (before, history, pageSize) => {
          const [plain, early] = sides;
          if (plain === undefined || early === undefined) throw new Error('two databases');
          expect(await play(early, before, history, pageSize, true)).toEqual(
            await play(plain, before, history, pageSize, false),
          );
        },
      ),
      {
        numRuns: 30,
        seed: 20261124,
        examples: [
          // The second undo is found by its event alone, in a notification that the first one changed.
          [[one('like', 0), one('like', 1)], [one('unlike', 1), one('unlike', 0)], 1],
          // Who comes back is counted again: while the undo was stored, the facts still counted him.
          [[one('like', 0), one('like', 1)], [one('unlike', 1), one('like', 1)], 1],
          // The first closes the old group and opens one, which the second joins.
          [[one('like', 0, 1)], [one('like', 1, 1), one('like', 2, 1)], 1],
        ],
      },
    );
  }, 120_000);

  it('a block takes back what was being stored when it was read', async () => {
    const { database, batches } = sides[0] as Side;
    const [ada = '', bo = ''] = await addUsers(database.pool, 'Ada', 'Bo');
    const post = await addPost(database.pool, ada);
    await batches.run();
    await like(database.pool, bo, post);
    await block(database.pool, ada, bo);
    // Lifted since: the like by itself is delivered.
    await database.pool.query('delete from blocks where blocker_id = $1', [ada]);
    await batches.run(1, true);
    const { rows } = await database.pool.query('select withdrawn from belfry.notification where user_id = $1', [ada]);
    expect(rows).toEqual([{ withdrawn: true }]);
  });

  it('is asked anew for everything once something else was written', async () => {
    const { database } = sides[1] as Side;
    const client = await database.client();
    const set = (count: number): Promise<unknown> =>
      client.query(
        `insert into belfry.counter (source, object_id, count) values ('x', '1', $1) on conflict (source, object_id) do update set count = $1`,
        [count],
      );
    const questions = { wanted: [], rows: [], mayBeHeld: [], between: [], counters: [{ source: 'x', objectId: '1' }] };
    const ahead = new Ahead();
    await set(1);
    const early = ahead.load(client, new WriterPlans(client), questions);
    if (early === null) throw new Error('nothing is loaded');
    await early.facts;
    await set(2);
    ahead.forget();
    expect((await ahead.settle(client, questions, early)).counters.get(counterKey('x', '1'))).toBe(2);
  });
});
