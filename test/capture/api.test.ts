/** belfry.notify, broadcast, announce and revoke: what they write and what they refuse. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sqlState } from '../../src/errors.js';
import { createTestDatabase, type TestDatabase } from '../support/postgres.js';
import { takeOutbox } from './support.js';

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.drop());

async function call(sql: string): Promise<string> {
  const { rows } = await db.pool.query<{ id: string }>(`select ${sql} as id`);
  return rows[0]?.id ?? '';
}

describe('what they write', () => {
  for (const [sql, row] of [
    [
      `belfry.notify('42', 'job_application', 'You got it')`,
      {
        source: 'belfry.notify',
        op: 'notify',
        new: {
          user_id: '42',
          type: 'job_application',
          message: 'You got it',
          data: {},
          actor_id: null,
          dedupe_key: null,
        },
      },
    ],
    [
      `belfry.notify(user_id => '42', type => 'system', message => 'm', data => '{"a": 1}', actor_id => '7', dedupe_key => 'k')`,
      {
        source: 'belfry.notify',
        op: 'notify',
        new: { user_id: '42', type: 'system', message: 'm', data: { a: 1 }, actor_id: '7', dedupe_key: 'k' },
      },
    ],
    [
      `belfry.broadcast('post:1', 'edited', '{"a": [1]}')`,
      { source: 'belfry.broadcast', op: 'broadcast', new: { channel: 'post:1', event: 'edited', data: { a: [1] } } },
    ],
    [
      `belfry.broadcast('all', 'x', '{}')`,
      { source: 'belfry.broadcast', op: 'broadcast', new: { channel: 'all', event: 'x', data: {} } },
    ],
    [
      `belfry.announce('Maintenance', null)`,
      { source: 'belfry.announce', op: 'announce', new: { message: 'Maintenance', data: {} } },
    ],
    [`belfry.revoke('42')`, { source: 'belfry.revoke', op: 'revoke', new: { user_id: '42' } }],
    [`belfry.revoke_session('aB3-1')`, { source: 'belfry.revoke', op: 'revoke', new: { session: 'aB3-1' } }],
  ] as const) {
    it(sql, async () => {
      const id = await call(sql);
      const { rows } = await db.pool.query<{ id: string }>('select id from belfry.outbox');
      expect(rows).toEqual([{ id }]);
      expect(await takeOutbox(db.pool)).toEqual([{ ...row, old: null }]);
    });
  }
});

describe('what they refuse, with 22023 and the argument in the message', () => {
  for (const [sql, argument] of [
    [`belfry.notify(null, 'like', 'm')`, 'user_id'],
    [`belfry.notify('', 'like', 'm')`, 'user_id'],
    [`belfry.notify('1', 'not a type', 'm')`, 'type'],
    [`belfry.notify('1', null, 'm')`, 'type'],
    [`belfry.notify('1', 'like', '')`, 'message'],
    [`belfry.notify('1', 'like', repeat('x', 4001))`, 'message'],
    [`belfry.notify('1', 'like', 'm', '[]')`, 'data'],
    [`belfry.notify('1', 'like', 'm', jsonb_build_object('a', repeat('x', 70000)))`, 'data'],
    [`belfry.notify('1', 'like', 'm', actor_id => '')`, 'actor_id'],
    [`belfry.notify('1', 'like', 'm', dedupe_key => repeat('x', 257))`, 'dedupe_key'],
    [`belfry.broadcast(null, 'x', '{}')`, 'channel'],
    [`belfry.broadcast('post:', 'x', '{}')`, 'channel'],
    [`belfry.broadcast(':1', 'x', '{}')`, 'channel'],
    [`belfry.broadcast(E'post:\\n', 'x', '{}')`, 'channel'],
    [`belfry.broadcast('post:1', repeat('x', 65), '{}')`, 'event'],
    [`belfry.broadcast('post:1', 'x', '1')`, 'data'],
    [`belfry.broadcast('post:1', 'x', null)`, 'data'],
    [`belfry.announce(null)`, 'message'],
    [`belfry.announce('m', '"x"')`, 'data'],
    [`belfry.revoke(null)`, 'user_id'],
    [`belfry.revoke_session('')`, 'session'],
    [`belfry.revoke_session(null)`, 'session'],
  ] as const) {
    it(sql, async () => {
      const error: unknown = await call(sql).catch((caught: unknown) => caught);
      expect(sqlState(error)).toBe('22023');
      expect(String(error)).toContain(`: ${argument} must`);
    });
  }
});

it('every function, table, view and column of 0004 and 0008 has a comment', async () => {
  const { rows } = await db.pool.query(`
    select p.oid::regprocedure::text as name from pg_proc p
     where p.pronamespace = 'belfry'::regnamespace and p.proname in ('notify', 'broadcast', 'announce', 'revoke', 'revoke_session', 'ring')
       and obj_description(p.oid, 'pg_proc') is null
    union all
    select c.relname || '.' || a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
     where c.oid in ('belfry.capture_trigger'::regclass) and col_description(c.oid, a.attnum) is null
    union all
    select c.relname from pg_class c
     where c.oid in ('belfry.capture_trigger'::regclass, 'belfry.trigger_health'::regclass) and obj_description(c.oid, 'pg_class') is null`);
  expect(rows).toEqual([]);
});
