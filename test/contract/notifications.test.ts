/** CONTRACT §5: what a person is told, in which order, and what a resume brings. */

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { http, pause, Raw, startRig, until, type Frame, type Rig } from './rig.js';

let rig: Rig;
beforeAll(async () => {
  rig = await startRig();
});
afterAll(() => rig.stop());

const like = (user: string, post: string) =>
  rig.db.query('insert into public.likes (user_id, post_id) values ($1, $2)', [user, post]);
const unlike = (user: string, post: string) =>
  rig.db.query('delete from public.likes where user_id = $1 and post_id = $2', [user, post]);
const comment = async (user: string, post: string, content = 'well said') => {
  const sql = 'insert into public.comments (user_id, post_id, content) values ($1, $2, $3) returning id';
  return (await rig.db.query<{ id: string }>(sql, [user, post, content])).rows[0]?.id ?? '';
};

/** An author with a post and an open session, and somebody else. */
async function scene() {
  const author = await rig.user('Grace');
  const post = await rig.post(author);
  return { author, post, ada: await rig.user('Ada'), raw: await Raw.session(rig, author) };
}

describe('a notification', () => {
  it('has the structure that existing clients know', async () => {
    const { author, post, ada, raw } = await scene();
    const before = Date.now();
    await like(ada, post);
    const push = await raw.event('notification');
    expect(push.id).toBeUndefined();
    expect(push.seq).toBe(Number(raw.auth.ok?.['seq']) + 1);
    expect(push.data).toEqual({
      id: expect.stringMatching(/^[^a]/) as string,
      type: 'like',
      user_id: ada,
      post_id: post,
      message: 'Ada liked your post',
      timestamp: expect.stringMatching(/^\d{4}-.*Z$/) as string,
      data: {
        actor_count: 1,
        event_count: 1,
        actors: [{ id: ada, name: 'Ada' }],
        object: { kind: 'post', id: post },
        state: 'unseen',
        alert: true,
      },
    });
    expect(Math.abs(Date.parse(String(push.data?.['timestamp'])) - before)).toBeLessThan(5_000);
    expect((await raw.event('badge')).data).toEqual({ unseen: 1, unread: 1 });
    const { body } = await http(rig, 'GET', '/api/notifications', { as: author });
    expect(body['items']).toEqual([
      { ...push.data, data: { ...(push.data?.['data'] as object), alert: expect.any(Boolean) as boolean } },
    ]);
    raw.end();
  });

  it('of a comment names the comment, each is one of its own', async () => {
    const { post, ada, raw } = await scene();
    const first = await comment(ada, post);
    const second = await comment(ada, post);
    const one = await raw.event('notification');
    const two = await raw.event('notification');
    expect(one.data).toMatchObject({ type: 'comment', user_id: ada, post_id: post, comment_id: first });
    expect(two.data).toMatchObject({ type: 'comment', comment_id: second });
    expect(two.data?.['id']).not.toBe(one.data?.['id']);
    raw.end();
  });

  it('of a follow has no object', async () => {
    const { author, ada, raw } = await scene();
    await rig.db.query('insert into public.follows values ($1, $2)', [ada, author]);
    const { data } = await raw.event('notification');
    expect(data).toMatchObject({ type: 'follow', user_id: ada });
    expect(data?.['data']).not.toHaveProperty('object');
    raw.end();
  });

  it('of somebody without a name says Someone', async () => {
    const { post, raw } = await scene();
    await like(await rig.user('  '), post);
    expect((await raw.event('notification')).data?.['message']).toMatch(/^Someone /);
    raw.end();
  });

  it('of ten people is one, updated in place: the id again with a higher seq, without alert', async () => {
    const { post, raw } = await scene();
    const people = await Promise.all(Array.from({ length: 10 }, (_, i) => rig.user(`Fan ${i}`)));
    const began = Date.now();
    for (const person of people) await like(person, post);
    const first = await raw.event('notification');
    let last = first;
    while ((last.data?.['data'] as { actor_count: number }).actor_count < 10) {
      const next = await raw.event('notification');
      expect(next.data?.['id']).toBe(first.data?.['id']);
      expect(next.seq).toBeGreaterThan(last.seq ?? NaN);
      expect(next.data?.['data']).toMatchObject({ alert: false, state: 'unseen' });
      last = next;
    }
    expect(Date.now() - began).toBeLessThan(5_000);
    expect(first.data?.['data']).toMatchObject({ alert: true });
    expect(last.data).toMatchObject({ user_id: people[9], message: 'Fan 9 and 9 others liked your post' });
    const actors = (last.data?.['data'] as { actors: { id: string }[] }).actors.map(({ id }) => id);
    expect(actors).toEqual([...people].reverse().slice(0, 8));
    // The tenth came early, so not one push per like.
    expect((await raw.quiet()).filter(({ event }) => event === 'notification').length).toBe(0);
    expect(raw.frames.filter(({ event }) => event === 'notification').length).toBeLessThanOrEqual(4);
    expect(raw.frames.filter(({ event }) => event === 'badge').at(-1)?.data).toEqual({ unseen: 1, unread: 1 });
    raw.end();
  });

  it('is withdrawn when it is no longer true', async () => {
    const { post, ada, raw } = await scene();
    await like(ada, post);
    const push = await raw.event('notification');
    await raw.event('badge');
    await unlike(ada, post);
    const withdrawn = await raw.event('withdrawn');
    expect(withdrawn.data).toEqual({ id: push.data?.['id'], type: 'like' });
    expect(withdrawn.seq).toBe((push.seq ?? NaN) + 1);
    expect((await raw.event('badge')).data).toEqual({ unseen: 0, unread: 0 });
    raw.end();
  });

  it('loses an actor in place', async () => {
    const { post, ada, raw } = await scene();
    const bo = await rig.user('Bo');
    await like(ada, post);
    const push = await raw.event('notification');
    await like(bo, post);
    await raw.next((frame) => frame.event === 'notification' && frame.data?.['user_id'] === bo);
    await unlike(bo, post);
    const back = await raw.next((frame) => frame.event === 'notification' && frame.data?.['user_id'] === ada);
    expect(back.data).toMatchObject({ id: push.data?.['id'], message: 'Ada liked your post' });
    expect(back.data?.['data']).toMatchObject({ actor_count: 1, alert: false, actors: [{ id: ada, name: 'Ada' }] });
    raw.end();
  });

  it('of a soft-deleted comment is withdrawn', async () => {
    const { post, ada, raw } = await scene();
    const id = await comment(ada, post);
    const push = await raw.event('notification');
    await rig.db.query('update public.comments set deleted_at = now() where id = $1', [id]);
    expect((await raw.event('withdrawn')).data?.['id']).toBe(push.data?.['id']);
    raw.end();
  });

  it('by belfry.notify holds the given data, and comes once per dedupe_key', async () => {
    const { author, ada, raw } = await scene();
    const notify = `select belfry.notify($1, 'job_application', 'You have the job', '{"job_id": 7}', $2, 'job-7') as id`;
    const { rows } = await rig.db.query<{ id: string }>(notify, [author, ada]);
    expect(rows[0]?.id).toMatch(/^\d+$/);
    await rig.db.query(notify, [author, ada]);
    await rig.db.query(`select belfry.notify($1, 'system', 'the end')`, [author]);
    const push = await raw.event('notification');
    expect(push.data).toMatchObject({ type: 'job_application', user_id: ada, message: 'You have the job' });
    expect(push.data?.['data']).toMatchObject({ job_id: 7, state: 'unseen', alert: true });
    const last = await raw.event('notification');
    expect(last.data).toMatchObject({ type: 'system', message: 'the end' });
    expect(last.data).not.toHaveProperty('user_id');
    raw.end();
  });

  it('holds integers beyond 2^53 as text, however deep', async () => {
    const { author, raw } = await scene();
    const data = '{"big": 9007199254740993, "of": [{"big": -9007199254740993}, 9007199254740991]}';
    const exact = { big: '9007199254740993', of: [{ big: '-9007199254740993' }, 9007199254740991] };
    await rig.db.query(`select belfry.notify($1, 'system', 'numbers', $2)`, [author, data]);
    expect((await raw.event('notification')).data?.['data']).toMatchObject(exact);
    const { body } = await http(rig, 'GET', '/api/notifications', { as: author });
    expect(body['items']).toMatchObject([{ data: exact }]);
    await rig.db.query(`select belfry.broadcast('all', 'numbers', $1)`, [data]);
    expect((await raw.event('numbers')).data).toEqual(exact);
    raw.end();
  });

  it('acts when the transaction commits, not before, and not at all after a rollback', async () => {
    const { author, raw } = await scene();
    const client = await rig.database.client();
    await client.query('begin');
    await client.query(`select belfry.notify($1, 'system', 'rolled back')`, [author]);
    await client.query('rollback');
    await client.query('begin');
    await client.query(`select belfry.notify($1, 'system', 'committed')`, [author]);
    await pause(300);
    expect(await raw.quiet()).toEqual([]);
    await client.query('commit');
    expect((await raw.event('notification')).data?.['message']).toBe('committed');
    raw.end();
  });
});

describe('nobody is told', () => {
  /** Does it, then something that is told in any case, and gives what came before that. */
  async function toldBy(raw: Raw, author: string, act: () => Promise<unknown>): Promise<Frame[]> {
    await act();
    await rig.db.query(`select belfry.notify($1, 'system', 'after')`, [author]);
    const from = raw.frames.length;
    await raw.next((frame) => frame.data?.['message'] === 'after');
    return raw.frames
      .slice(from)
      .filter((frame) => frame.event === 'notification' && frame.data?.['message'] !== 'after');
  }

  it('of what they did themselves', async () => {
    const { author, post, raw } = await scene();
    expect(await toldBy(raw, author, () => like(author, post))).toEqual([]);
    raw.end();
  });

  it('by whom they block, or who blocks them', async () => {
    const { author, post, ada, raw } = await scene();
    const bo = await rig.user('Bo');
    await rig.db.query('insert into public.blocks values ($1, $2), ($3, $1)', [author, ada, bo]);
    expect(await toldBy(raw, author, async () => [await like(ada, post), await like(bo, post)])).toEqual([]);
    raw.end();
  });

  it('whose notifications are off', async () => {
    const { author, post, ada, raw } = await scene();
    await rig.db.query('update public.users set notifications_enabled = false where id = $1', [author]);
    await like(ada, post);
    await pause(300);
    const { body } = await http(rig, 'GET', '/api/notifications', { as: author });
    expect(body).toMatchObject({ items: [], unseen: 0 });
    raw.end();
  });

  it('of what was silenced by belfry.capture off', async () => {
    const { author, post, ada, raw } = await scene();
    const client = await rig.database.client();
    const silently = async () => {
      await client.query('begin');
      await client.query(`set local belfry.capture = 'off'`);
      await client.query('insert into public.likes values ($1, $2)', [ada, post]);
      await client.query('commit');
    };
    expect(await toldBy(raw, author, silently)).toEqual([]);
    raw.end();
  });
});

describe('positions', () => {
  it('are dense after synced, over notifications, withdrawals and states', async () => {
    const { author, post, ada, raw } = await scene();
    const other = await Raw.session(rig, author);
    const fans = await Promise.all(Array.from({ length: 12 }, (_, i) => rig.user(`Fan ${i}`)));
    for (const fan of fans) {
      await comment(fan, post);
      await like(fan, post);
    }
    await unlike(fans[3] ?? '', post);
    const all = await raw.next((frame) => frame.event === 'notification');
    await other.ask({ op: 'read', ids: [all.data?.['id']] });
    await raw.event('state');
    await comment(ada, post, 'the last');
    await until(
      'quiet',
      async () => (await raw.quiet()).length === 0 && (await pause(1200), (await raw.quiet()).length === 0),
    );
    const seqs = raw.frames.flatMap(({ seq, event }) => (seq !== undefined && event !== 'synced' ? [seq] : []));
    const first = Number(raw.auth.ok?.['seq']);
    expect(seqs).toEqual(seqs.map((_, i) => first + 1 + i));
    for (const { event, seq } of raw.frames) if (event === 'badge') expect(seq).toBeUndefined();
    for (const one of [raw, other]) one.end();
  });

  it('are dense over the answers to marks too, whatever is told just then', async () => {
    const author = await rig.user('Author');
    const raw = await Raw.session(rig, author);
    const first = Number(raw.auth.ok?.['seq']);
    const notify = (): Promise<unknown> => rig.db.query(`select belfry.notify($1, 'system', 'now')`, [author]);
    await notify();
    for (let i = 0; i < 50; i++) {
      const { data, seq } = await raw.event('notification');
      // Below limits.messagesPerSecond.
      await pause(50);
      const marked = raw.ask({ op: 'read', ids: [data?.['id']] });
      await pause(i % 6);
      await notify();
      expect((await marked).ok?.['seq']).toBe((seq ?? 0) + 1);
    }
    await raw.event('notification');
    const positions = raw.frames.flatMap(({ event, seq, ok }) => {
      const marked = event === undefined && ok !== raw.auth.ok ? ok?.['seq'] : undefined;
      return event === 'notification' ? [seq] : marked === undefined ? [] : [marked];
    });
    expect(positions).toEqual(positions.map((_, i) => first + 1 + i));
    raw.end();
  });

  it('without since: nothing is replayed, recovered is true', async () => {
    const { author, post, ada, raw } = await scene();
    await comment(ada, post);
    await raw.event('notification');
    const fresh = await Raw.session(rig, author);
    expect(fresh.auth.ok).toMatchObject({ recovered: true, seq: 1, unseen: 1 });
    expect(fresh.frames.filter(({ event }) => event === 'notification')).toEqual([]);
    for (const one of [raw, fresh]) one.end();
  });

  it('since: the present form of what changed, ascending, then synced', async () => {
    const { author, post, ada, raw } = await scene();
    const { seq: since, epoch } = raw.auth.ok as { seq: number; epoch: string };
    await comment(ada, post);
    await like(ada, post);
    await raw.next((frame) => frame.event === 'notification' && frame.data?.['type'] === 'like');
    raw.end();
    await unlike(ada, post);
    await comment(ada, post, 'and again');
    await until(
      'four changes',
      async () => (await http(rig, 'GET', '/api/notifications', { as: author })).body['seq'] === since + 4,
    );
    const back = await Raw.session(rig, author, { since, epoch });
    expect(back.auth.ok).toMatchObject({ recovered: true, seq: since + 4 });
    const replay = back.frames.slice(
      1,
      back.frames.findIndex(({ event }) => event === 'synced'),
    );
    expect(replay.map(({ event, seq }) => [event, seq])).toEqual([
      ['notification', since + 1],
      ['withdrawn', since + 3],
      ['notification', since + 4],
    ]);
    expect(back.frames.at(-1)).toMatchObject({ event: 'synced', seq: since + 4 });
    await comment(ada, post, 'live');
    expect((await back.event('notification')).seq).toBe(since + 5);
    back.end();
  });

  it.each([
    ['another epoch', (seq: number) => ({ since: seq, epoch: 'another' })],
    ['beyond the head', (seq: number, epoch: string) => ({ since: seq + 1, epoch })],
  ])('since %s: recovered false', async (_, from) => {
    const { author, raw } = await scene();
    const { seq, epoch } = raw.auth.ok as { seq: number; epoch: string };
    const back = await Raw.session(rig, author, from(seq, epoch));
    expect(back.auth.ok).toMatchObject({ recovered: false, seq });
    expect(back.frames.map(({ event }) => event)).toEqual([undefined, 'synced']);
    for (const one of [raw, back]) one.end();
  });

  it('since 500 changes is recovered, since 501 is not', async () => {
    const { author, post, ada, raw } = await scene();
    const { epoch } = raw.auth.ok as { epoch: string };
    raw.end();
    await rig.db.query(
      `insert into public.comments (user_id, post_id, content) select $1, $2, 'c' || n from generate_series(1, 501) n`,
      [ada, post],
    );
    await until(
      'all are in',
      async () => (await http(rig, 'GET', '/api/notifications', { as: author })).body['seq'] === 501,
    );
    const near = await Raw.session(rig, author, { since: 1, epoch });
    expect(near.auth.ok).toMatchObject({ recovered: true });
    expect(near.frames.filter(({ event }) => event === 'notification')).toHaveLength(500);
    const far = await Raw.session(rig, author, { since: 0, epoch });
    expect(far.auth.ok).toMatchObject({ recovered: false, unseen: 100, unread: 100 });
    expect(far.frames.filter(({ event }) => event === 'notification')).toEqual([]);
    for (const one of [near, far]) one.end();
  });
});

describe('seen, read, archive', () => {
  it.each([
    ['seen', 'seen', { unseen: 0, unread: 1 }],
    ['read', 'read', { unseen: 0, unread: 0 }],
    ['archive', 'archived', { unseen: 0, unread: 0 }],
  ])(
    '%s is answered with the numbers, and told to the other sockets as state, to all of them as badge',
    async (op, state, numbers) => {
      const { author, post, ada, raw } = await scene();
      const other = await Raw.session(rig, author);
      await comment(ada, post);
      const id = String((await raw.event('notification')).data?.['id']);
      await Promise.all([raw.event('badge'), other.event('badge')]);
      const answer = await raw.ask({ op, ids: [id] });
      expect(answer.ok).toEqual({ seq: 2, ...numbers });
      expect((await raw.event('badge')).data).toEqual(numbers);
      const push = await other.event('state');
      expect(push).toMatchObject({ seq: 2, data: { ids: [id], state } });
      expect((await other.event('badge')).data).toEqual(numbers);
      expect(raw.frames.filter(({ event }) => event === 'state')).toEqual([]);
      const { body } = await http(rig, 'GET', '/api/notifications', { as: author });
      expect(body).toMatchObject(numbers);
      expect((body['items'] as unknown[]).length).toBe(op === 'archive' ? 0 : 1);
      // Who was not there need not ring any more.
      const back = await Raw.session(rig, author, { since: 0, epoch: raw.auth.ok?.['epoch'] });
      const missed = back.frames.filter(({ event }) => event === 'notification');
      expect(missed).toMatchObject([{ data: { id, data: { state, alert: false } } }]);
      back.end();
      for (const one of [raw, other]) one.end();
    },
  );

  it('through takes everything up to a seq, and never goes back', async () => {
    const { author, post, ada, raw } = await scene();
    const other = await Raw.session(rig, author);
    for (let i = 0; i < 3; i++) await comment(ada, post, `c${i}`);
    await raw.next(({ seq }) => seq === 3);
    expect((await raw.ask({ op: 'read', through: 2 })).ok).toMatchObject({ unseen: 1, unread: 1 });
    expect((await other.event('state')).data).toEqual({ through: 2, state: 'read' });
    expect((await raw.ask({ op: 'read', through: 1 })).ok).toMatchObject({ unseen: 1, unread: 1 });
    expect((await raw.ask({ op: 'seen', through: 3 })).ok).toMatchObject({ unseen: 0, unread: 1 });
    for (const one of [raw, other]) one.end();
  });

  it('a new event makes a read group unseen again, under its id, and rings', async () => {
    const { post, ada, raw } = await scene();
    await like(ada, post);
    const id = (await raw.event('notification')).data?.['id'];
    await raw.ask({ op: 'read', ids: [id] });
    await like(await rig.user('Bo'), post);
    const again = await raw.event('notification');
    expect(again.data).toMatchObject({ id, data: { state: 'unseen', alert: true, actor_count: 2 } });
    raw.end();
  });

  it('of what is not there, or is somebody else’s, changes nothing', async () => {
    const { author, post, ada, raw } = await scene();
    await comment(ada, post);
    const id = (await raw.event('notification')).data?.['id'];
    const stranger = await Raw.session(rig, ada);
    await stranger.ask({ op: 'read', ids: [id, '99999999999999999999', 'nonsense'] });
    await raw.ask({ op: 'seen', ids: ['1e9'] });
    const { body } = await http(rig, 'GET', '/api/notifications', { as: author });
    expect(body).toMatchObject({ unseen: 1, unread: 1, seq: 1 });
    for (const one of [raw, stranger]) one.end();
  });
});

describe('announcements', () => {
  it('reach everybody, without seq, with an id that begins with a, and again until seen', async () => {
    const { author, raw } = await scene();
    const { epoch } = raw.auth.ok as { epoch: string };
    await rig.db.query(`select belfry.announce('We move tonight', '{"at": "22:00"}')`);
    const push = await raw.event('notification');
    expect(push.seq).toBeUndefined();
    expect(push.data).toMatchObject({
      id: expect.stringMatching(/^a/) as string,
      type: 'system',
      message: 'We move tonight',
    });
    expect(push.data?.['data']).toMatchObject({ at: '22:00' });
    raw.end();
    const back = await Raw.session(rig, author, { since: 0, epoch });
    const before = back.frames.slice(
      0,
      back.frames.findIndex(({ event }) => event === 'synced'),
    );
    expect(before.filter(({ data }) => data?.['id'] === push.data?.['id'])).toHaveLength(1);
    // One that is not there hides none.
    await back.ask({ op: 'seen', ids: ['a999999'] });
    const again = await Raw.session(rig, author, { since: 0, epoch });
    expect(again.frames.filter(({ data }) => data?.['id'] === push.data?.['id'])).toHaveLength(1);
    again.end();
    await back.ask({ op: 'seen', ids: [push.data?.['id']] });
    back.end();
    const third = await Raw.session(rig, author, { since: 0, epoch });
    expect(third.frames.filter(({ data }) => data?.['id'] === push.data?.['id'])).toEqual([]);
    third.end();
  });
});
