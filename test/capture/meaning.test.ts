/** What the table sees, and what it means: DESIGN, "Capture". */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { TestDatabase } from '../support/postgres.js';
import { captureConfig, captureDatabase, takeOps, takeOutbox } from './support.js';

const tables = `
  create table public.posts (id bigint primary key);
  create table public.comments (
    id bigint primary key, user_id bigint, post_id bigint references public.posts on delete cascade,
    content text, secret text, score numeric, doc json, deleted_at timestamptz);
  create table public.likes (user_id bigint, post_id bigint, seen int default 0, primary key (user_id, post_id));
  insert into public.posts select generate_series(1, 9);
`;

const sources = `
  - name: comment
    type: comment
    table: public.comments
    key: [id]
    actor: user_id
    object: { kind: post, id: post_id }
    include: [content, score, doc]
    when: "deleted_at is null -- a comment at the end"
  - name: like
    type: like
    table: public.likes
    key: [user_id, post_id]
    actor: user_id
    object: { kind: post, id: post_id }
`;

for (const capture of ['statement', 'row'] as const) {
  describe(`capture: ${capture}`, () => {
    let db: TestDatabase;

    beforeAll(async () => {
      db = await captureDatabase(tables, captureConfig(sources.replaceAll('key:', `capture: ${capture}\n    key:`)));
    });
    afterAll(() => db.drop());
    beforeEach(async () => {
      await db.pool.query('delete from public.comments; delete from public.likes');
      await takeOutbox(db.pool);
    });

    const comment = (id: number, more = 'null'): Promise<unknown> =>
      db.pool.query(
        `insert into public.comments (id, user_id, post_id, content, secret, score, doc, deleted_at)
         values ($1, 7, 1, 'hi', 'hidden', 1.0, '{"a": 1}', ${more})`,
        [id],
      );

    it('insert is created, with the mapped columns only', async () => {
      await comment(1);
      expect(await takeOutbox(db.pool)).toEqual([
        {
          source: 'comment',
          op: 'created',
          new: { id: 1, user_id: 7, post_id: 1, content: 'hi', score: 1, doc: { a: 1 } },
          old: null,
        },
      ]);
    });

    it('insert of a row that does not count is nothing', async () => {
      await comment(1, 'now()');
      expect(await takeOutbox(db.pool)).toEqual([]);
    });

    it('update that makes `when` true is created, one that makes it false is removed, both with old and new', async () => {
      await comment(1, 'now()');
      await db.pool.query('update public.comments set deleted_at = null');
      await db.pool.query('update public.comments set deleted_at = now()');
      const rows = await takeOutbox(db.pool);
      expect(rows.map((row) => row.op)).toEqual(['created', 'removed']);
      for (const row of rows) expect([row.new?.['id'], row.old?.['id']]).toEqual([1, 1]);
    });

    it('update of mapped columns while `when` holds is changed', async () => {
      await comment(1);
      await takeOutbox(db.pool);
      await db.pool.query(`update public.comments set content = 'edited'`);
      const [row, ...others] = await takeOutbox(db.pool);
      expect(others).toEqual([]);
      expect([row?.op, row?.new?.['content'], row?.old?.['content']]).toEqual(['changed', 'edited', 'hi']);
    });

    it('update without a change of mapped columns is nothing, also of a row that does not count', async () => {
      await comment(1);
      await comment(2, 'now()');
      await takeOutbox(db.pool);
      await db.pool.query(`update public.comments set secret = 'other', content = content`);
      await db.pool.query(`update public.comments set content = 'other' where id = 2`);
      expect(await takeOutbox(db.pool)).toEqual([]);
    });

    it('equal values in another form are no change', async () => {
      await comment(1);
      await takeOutbox(db.pool);
      await db.pool.query(`update public.comments set score = 1.00, doc = '{ "a":1 }'`);
      expect(await takeOutbox(db.pool)).toEqual([]);
    });

    it('null to a value and back is changed', async () => {
      await comment(1);
      await takeOutbox(db.pool);
      await db.pool.query('update public.comments set content = null');
      await db.pool.query(`update public.comments set content = 'x'`);
      expect(await takeOps(db.pool)).toEqual(['changed', 'changed']);
    });

    it('upsert with equal values is nothing, with others changed, of a new row created', async () => {
      const upsert = (userId: number, seen: number, set = 'user_id = excluded.user_id'): Promise<unknown> =>
        db.pool.query(
          `insert into public.likes values ($1, 1, $2) on conflict (user_id, post_id) do update set seen = excluded.seen, ${set}`,
          [userId, seen],
        );
      await upsert(1, 0);
      expect(await takeOps(db.pool)).toEqual(['created']);
      await upsert(1, 5);
      expect(await takeOps(db.pool)).toEqual([]);
      await upsert(1, 6, 'post_id = 3');
      expect(await takeOps(db.pool)).toEqual(['changed']);
    });

    it('delete is removed with old only; of a row that does not count nothing', async () => {
      await comment(1);
      await comment(2, 'now()');
      await takeOutbox(db.pool);
      await db.pool.query('delete from public.comments');
      const rows = await takeOutbox(db.pool);
      expect(rows).toHaveLength(1);
      expect(rows[0]).toMatchObject({ op: 'removed', new: null, old: { id: 1, content: 'hi' } });
    });

    it('delete and insert of one key in a transaction are both told, in this order', async () => {
      await db.pool.query('insert into public.likes values (1, 1)');
      await takeOutbox(db.pool);
      const client = await db.client();
      await client.query('begin; delete from public.likes; insert into public.likes values (1, 1); commit');
      expect(await takeOps(db.pool)).toEqual(['removed', 'created']);
      const xids = await db.pool.query('select 1 from belfry.outbox');
      expect(xids.rowCount).toBe(0);
    });

    it('truncate is truncated, once, without rows', async () => {
      await db.pool.query('insert into public.likes select n, 1 from generate_series(1, 5) n');
      await takeOutbox(db.pool);
      await db.pool.query('truncate public.likes');
      expect(await takeOutbox(db.pool)).toEqual([{ source: 'like', op: 'truncated', new: null, old: null }]);
    });

    it('a cascade is removed', async () => {
      await db.pool.query('insert into public.posts values (100)');
      await comment(1);
      await db.pool.query('update public.comments set post_id = 100');
      await takeOutbox(db.pool);
      await db.pool.query('delete from public.posts where id = 100');
      expect(await takeOutbox(db.pool)).toMatchObject([
        { source: 'comment', op: 'removed', old: { id: 1, post_id: 100 } },
      ]);
    });

    it('a change of the key pairs every row with itself', async () => {
      for (let id = 1; id <= 5; id += 1) await comment(id);
      await takeOutbox(db.pool);
      await db.pool.query('update public.comments set id = 105 - id');
      const rows = await takeOutbox(db.pool);
      expect(rows).toHaveLength(5);
      for (const row of rows) expect(Number(row.new?.['id']) + Number(row.old?.['id'])).toBe(105);
    });

    it('a statement over many rows tells every one, and mixes what each means', async () => {
      await db.pool.query(
        `insert into public.comments (id, user_id, post_id, content, deleted_at)
         select n, n, 1, 'c', case when n % 2 = 0 then now() end from generate_series(1, 100) n`,
      );
      expect(await takeOps(db.pool)).toEqual(Array(50).fill('created'));
      await db.pool.query(
        `update public.comments set deleted_at = case when id % 4 in (0, 1) then now() end,
                                    content = case when id % 8 = 3 then 'new' else content end`,
      );
      const ops = await takeOps(db.pool);
      const count = (op: string): number => ops.filter((other) => other === op).length;
      expect([count('created'), count('removed'), count('changed'), ops.length]).toEqual([25, 25, 13, 63]);
    });

    it('rollback and savepoint take the events with them', async () => {
      const client = await db.client();
      await client.query('begin; insert into public.likes values (1, 1); rollback');
      await client.query(
        `begin; insert into public.likes values (2, 1); savepoint s; insert into public.likes values (3, 1); rollback to s;
         insert into public.likes values (4, 1); commit`,
      );
      expect((await takeOutbox(db.pool)).map((row) => row.new?.['user_id'])).toEqual([2, 4]);
    });

    it('copy and merge are caught', async () => {
      await db.pool
        .query(
          `merge into public.likes l using (values (1), (2)) v (n) on l.user_id = v.n when not matched then insert values (v.n, 1)`,
        )
        .catch((error: unknown) => {
          // Postgres 14 has no MERGE.
          if (!/syntax error/.test(String(error))) throw error;
        });
      const [row] = (await db.pool.query<{ v: number }>(`select current_setting('server_version_num')::int as v`)).rows;
      expect(await takeOps(db.pool)).toEqual((row?.v ?? 0) >= 150_000 ? ['created', 'created'] : []);
    });

    it('belfry.capture = off is silent, counters is marked, both for this transaction only', async () => {
      const client = await db.client();
      await client.query(
        `begin; set local belfry.capture = 'off'; insert into public.likes values (1, 1); update public.likes set post_id = 2;
         delete from public.likes; truncate public.likes; commit`,
      );
      expect(await takeOutbox(db.pool)).toEqual([]);
      await client.query(
        `begin; set local belfry.capture = 'counters'; insert into public.likes values (1, 1); update public.likes set post_id = 2;
         delete from public.likes; commit; insert into public.likes values (1, 1)`,
      );
      const mark = { 'belfry:counters': true };
      expect(await takeOutbox(db.pool)).toEqual([
        { source: 'like', op: 'created', new: { user_id: 1, post_id: 1, ...mark }, old: null },
        { source: 'like', op: 'changed', new: { user_id: 1, post_id: 2, ...mark }, old: { user_id: 1, post_id: 1 } },
        { source: 'like', op: 'removed', new: null, old: { user_id: 1, post_id: 2, ...mark } },
        { source: 'like', op: 'created', new: { user_id: 1, post_id: 1 }, old: null },
      ]);
    });
  });
}
