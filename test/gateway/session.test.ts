/** A session from its token to its end, on a real Postgres with raw `ws` clients. */

import { isDeepStrictEqual } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { startRig, tokenFor, type Client, type Frame, type Rig } from './support.js';

let rig: Rig;
beforeAll(async () => {
  rig = await startRig({
    yaml: 'rollout: 100\nlimits: { connectionsPerUser: 3, messagesPerSecond: 10, messageBytes: 2048 }',
    change: (config) => ({ ...config, auth: { ...config.auth, queryToken: true } }),
  });
});
afterEach(() => rig.hangUp());
afterAll(() => rig.stop());

it('needs nothing of belfry.relay, whose row leaves more and more behind while a transaction is open', async () => {
  const leader = await rig.db.client();
  await leader.query(`update belfry.relay set epoch = 'a new one'`);
  await leader.query('begin');
  await leader.query('lock table belfry.relay in access exclusive mode');
  try {
    const client = await rig.login('44', { since: 7, epoch: 'the old one' });
    expect(client.all[0]).toMatchObject({ ok: { epoch: 'a new one', recovered: false } });
    const answer = await client.request({ op: 'subscribe', channel: 'post:4', offset: 1, epoch: 'the old one' });
    expect(answer.ok).toMatchObject({ epoch: 'a new one', recovered: false });
    const list = await rig.http('/api/notifications', { userId: '44' });
    expect(await list.json()).toMatchObject({ items: [], epoch: 'a new one' });
  } finally {
    await leader.query('rollback');
    await leader.end();
    // It begins anew now, and not in the middle of another test.
    await rig.gateway.sweep.run();
  }
});

describe('authentication', () => {
  it('answers the op auth, replays nothing without since, and says synced', async () => {
    const client = await rig.connect();
    const answer = await client.request({ op: 'auth', token: tokenFor('42') });
    expect(answer.ok).toMatchObject({ user_id: '42', seq: 0, recovered: true, unseen: 0, unread: 0, ping_s: 25 });
    expect(answer.ok!['epoch']).toEqual(expect.any(String));
    expect(Date.parse(String(answer.ok!['expires_at']))).toBeGreaterThan(Date.now());
    expect(await client.push('synced')).toEqual({ event: 'synced', seq: 0 });
  });

  it.each([
    ['a subprotocol', { protocols: ['belfry.v1', `bearer.${tokenFor('43')}`] }],
    ['a header', { ws: { headers: { authorization: `Bearer ${tokenFor('43')}` } } }],
    ['the query', { query: `token=${tokenFor('43')}` }],
  ])('takes a token from %s and says hello', async (_how, options) => {
    const client = await rig.connect(options);
    const hello = await client.push('hello');
    expect(hello.data).toMatchObject({ user_id: '43', recovered: true });
    await client.push('synced');
    if ('protocols' in options) expect(client.socket.protocol).toBe('belfry.v1');
    client.socket.close();
    await client.closed;
  });

  it.each([
    ['expired', () => tokenFor('42', { exp: Math.floor(Date.now() / 1000) - 1 })],
    ['signed with another secret', () => tokenFor('42', {}, 'x'.repeat(40))],
    ['without exp', () => tokenFor('42', { exp: undefined })],
    [
      'unsigned',
      () => `${Buffer.from('{"alg":"none","typ":"JWT"}').toString('base64url')}.${tokenFor('42').split('.')[1]!}.`,
    ],
    ['no token at all', () => 'rubbish'],
  ])('refuses a token that is %s: the error, then 4401', async (_what, make) => {
    const client = await rig.connect();
    const answer = await client.request({ op: 'auth', token: make() });
    expect(answer['error']).toMatchObject({ code: 'unauthorized', retry: false });
    expect((await client.closed).code).toBe(4401);
  });

  it('accepts an upgrade with a bad token and closes it with 4401', async () => {
    const client = await rig.connect({ protocols: ['belfry.v1', 'bearer.rubbish'] });
    expect((await client.closed).code).toBe(4401);
  });

  it('closes with 4401 what shows no token in 5 s', async () => {
    const began = performance.now();
    const client = await rig.connect();
    expect(await client.closed).toEqual({ code: 4401, reason: 'no token in time' });
    expect(performance.now() - began).toBeGreaterThan(4500);
    expect(performance.now() - began).toBeLessThan(6500);
  });

  it('refuses an op before auth and stays open', async () => {
    const client = await rig.connect();
    const answer = await client.request({ op: 'subscribe', channel: 'post:1' });
    expect(answer['error']).toMatchObject({ code: 'unauthorized' });
    expect((await client.request({ op: 'auth', token: tokenFor('42') })).ok).toBeDefined();
    client.socket.close();
  });

  it('ends a session when its token does', async () => {
    const exp = Math.floor(Date.now() / 1000) + 2;
    const client = await rig.login('44', { token: tokenFor('44', { exp }) });
    expect(await client.closed).toEqual({ code: 4401, reason: 'token expired' });
    expect(Date.now()).toBeGreaterThanOrEqual(exp * 1000);
    expect(Date.now()).toBeLessThan(exp * 1000 + 5000);
  });

  it('refreshes in band: the same session lives on and replays nothing', async () => {
    const client = await rig.login('45', { token: tokenFor('45', { exp: Math.floor(Date.now() / 1000) + 2 }) });
    const answer = await client.request({ op: 'auth', token: tokenFor('45') });
    expect(answer.ok).toMatchObject({ user_id: '45', recovered: true });
    await new Promise((resolve) => setTimeout(resolve, 3500));
    expect((await client.request({ op: 'ping' })).ok).toEqual({});
    expect(client.all.filter((frame) => frame['event'] === 'synced')).toHaveLength(1);
  });

  it('tells a badge again that came while a refresh was reading the numbers', async () => {
    const client = await rig.login('451');
    const [holder, watcher] = [await rig.db.client(), await rig.db.client()];
    await holder.query('begin; lock table belfry.epoch in access exclusive mode');
    const { rows } = await watcher.query<{ now: Date }>('select clock_timestamp() as now');
    const seen = async (): Promise<unknown> =>
      (
        await watcher.query<{ waits: boolean; counted: boolean }>(
          `select bool_or(wait_event_type = 'Lock' and query like '%belfry.epoch') as waits,
                  bool_or(state = 'idle' and query like 'select u.user_id, coalesce(h.seq%' and query_start > $1) as counted
             from pg_stat_activity where datname = current_database()`,
          [rows[0]?.now],
        )
      ).rows;
    client.send({ id: 'refresh', op: 'auth', token: tokenFor('451') });
    // The refresh has its numbers, and waits for the epoch.
    await expect.poll(seen, { timeout: 10_000 }).toEqual([{ waits: true, counted: true }]);
    rig.broker.publish([await rig.notification('451'), { to: 'badge', userId: '451' }]);
    expect((await client.push('badge')).data).toEqual({ unseen: 1, unread: 1 });
    await holder.query('commit');
    expect((await client.take(({ id }) => id === 'refresh')).ok).toMatchObject({ unseen: 0, unread: 0 });
    expect((await client.push('badge')).data).toEqual({ unseen: 1, unread: 1 });
  });

  it('does not let another user take over a session', async () => {
    const client = await rig.login('46');
    const answer = await client.request({ op: 'auth', token: tokenFor('47') });
    expect(answer['error']).toMatchObject({ code: 'unauthorized' });
    expect((await client.closed).code).toBe(4401);
  });

  it('refuses the newest connection of a user beyond the limit with 4409', async () => {
    const clients = [await rig.login('48'), await rig.login('48'), await rig.login('48')];
    const newest = await rig.connect({ query: `token=${tokenFor('48')}` });
    expect((await newest.closed).code).toBe(4409);
    expect(newest.all).toEqual([]);
    const asking = await rig.connect();
    const answer = await asking.request({ op: 'auth', token: tokenFor('48') });
    expect(answer['error']).toMatchObject({ code: 'forbidden', retry: false });
    expect((await asking.closed).code).toBe(4409);
    expect((await clients[0]!.request({ op: 'ping' })).ok).toEqual({});
    clients[0]!.socket.close();
    await clients[0]!.closed;
    await rig.login('48');
  });
});

describe('frames', () => {
  it.each([
    ['is not JSON', 'nonsense', 4400],
    ['is no object', '[1]', 4400],
    ['has no op', '{"id":1}', 4400],
    ['is too large', JSON.stringify({ id: 1, op: 'ping', x: 'x'.repeat(2100) }), 4400],
    ['is far too large', JSON.stringify({ id: 1, op: 'ping', x: 'x'.repeat(100_000) }), 1009],
  ])('closes when one %s', async (_what, text, code) => {
    const client = await rig.login(`f${code}${text.length}`);
    client.send(text);
    expect((await client.closed).code).toBe(code);
  });

  it('closes when one is binary', async () => {
    const client = await rig.login('50');
    client.socket.send(Buffer.from('{"id":1,"op":"ping"}'));
    expect(await client.closed).toEqual({ code: 4400, reason: 'binary' });
  });

  it('answers an unknown op and stays open', async () => {
    const client = await rig.login('51');
    const answer = await client.request({ op: 'dance' });
    expect(answer['error']).toMatchObject({ code: 'unknown_op' });
    expect((await client.request({ op: 'ping' })).ok).toEqual({});
  });

  it('takes the next one a second after some were refused, however many', async () => {
    const client = await rig.login('53');
    // Auth was one; three seconds' worth are thirty.
    for (let i = 0; i < 28; i++) client.send({ id: 100 + i, op: 'ping' });
    const last = await client.take(({ id }) => id === 127);
    expect(last['error']).toMatchObject({ code: 'rate_limited' });
    await new Promise((resolve) => setTimeout(resolve, 1000));
    for (let i = 0; i < 9; i++) expect((await client.request({ op: 'ping' })).ok).toEqual({});
  });

  it('refuses those that come too fast, then closes with 4429', async () => {
    const client = await rig.login('52');
    for (let i = 0; i < 25; i++) client.send({ id: 100 + i, op: 'ping' });
    const refused = await client.take((frame) => frame['error'] !== undefined);
    expect(refused['error']).toMatchObject({ code: 'rate_limited', retry: true });
    for (let i = 0; i < 20; i++) client.send({ id: 200 + i, op: 'ping' });
    expect((await client.closed).code).toBe(4429);
  });
});

describe('pushes', () => {
  it('hands a notification to every socket of the person, in order, and to nobody else', async () => {
    const [a, b, other] = [await rig.login('60'), await rig.login('60'), await rig.login('61')];
    const first = await rig.notification('60', 'one');
    const second = await rig.notification('60', 'two');
    rig.broker.publish([second]);
    rig.broker.publish([first]);
    rig.broker.publish([second]);
    for (const client of [a, b]) {
      expect(await client.push('notification')).toMatchObject({ seq: 1, data: { message: 'one' } });
      expect(await client.push('notification')).toMatchObject({ seq: 2, data: { message: 'two' } });
    }
    await other.request({ op: 'ping' });
    await a.request({ op: 'ping' });
    expect(other.all.filter((frame) => frame['event'] === 'notification')).toEqual([]);
    expect(a.all.filter((frame) => frame['event'] === 'notification')).toHaveLength(2);
  });

  it('does not repeat to a new socket what its answer stood for', async () => {
    const first = await rig.login('80');
    const committed = await rig.notification('80', 'one');
    const second = await rig.login('80');
    expect(second.all[0]?.ok).toMatchObject({ seq: 1 });
    rig.broker.publish([committed, await rig.notification('80', 'two')]);
    for (const client of [first, second]) await client.take((frame) => frame['seq'] === 2);
    const seqs = (frames: readonly Frame[]): unknown[] =>
      frames.filter((frame) => frame['event'] === 'notification').map((frame) => frame['seq']);
    expect(seqs(first.all)).toEqual([1, 2]);
    expect(seqs(second.all)).toEqual([2]);
  });

  it('fetches what the broker lost when the next one comes', async () => {
    const client = await rig.login('62');
    await rig.notification('62', 'lost');
    rig.broker.publish([await rig.notification('62', 'came')]);
    expect(await client.push('notification')).toMatchObject({ seq: 1, data: { message: 'lost' } });
    expect(await client.push('notification')).toMatchObject({ seq: 2, data: { message: 'came' } });
  });

  it('finds in a sweep what the broker lost', async () => {
    const client = await rig.login('63');
    await rig.notification('63', 'lost');
    await rig.gateway.sweep.run();
    expect(await client.push('notification')).toMatchObject({ seq: 1, data: { message: 'lost' } });
    expect(await rig.metric('belfry_gateway_repairs_total', { outcome: 'person' })).toBe(1);
  });

  it('goes on from where a failover has set it back, beside a socket that has not been closed yet', async () => {
    await rig.login('641');
    rig.broker.publish([await rig.notification('641'), await rig.notification('641'), await rig.notification('641')]);
    await rig.db.pool.query(`delete from belfry.stream_position where user_id = '641' and seq > 1`);
    await rig.db.pool.query(`update belfry.head set seq = 1 where user_id = '641'`);
    rig.gateway.context.people.restart();
    const client = await rig.login('641');
    rig.broker.publish([await rig.notification('641', 'came')]);
    expect(await client.push('notification')).toMatchObject({ seq: 2, data: { message: 'came' } });
  });

  it('closes with 1012 rather than show a hole in a live stream', async () => {
    const client = await rig.login('64');
    await rig.notification('64', 'lost');
    await rig.db.pool.query(`update belfry.head set seq = 2 where user_id = '64'`);
    await rig.db.pool.query(`update belfry.notification set seq = 2 where user_id = '64'`);
    await rig.db.pool.query(`update belfry.stream_position set seq = 2 where user_id = '64'`);
    rig.broker.publish([await rig.notification('64', 'came')]);
    expect((await client.closed).code).toBe(1012);
    expect(client.all.filter((frame) => frame['event'] === 'notification')).toEqual([]);
  });

  it('asks no badge of somebody whose count is full, until something is taken away', async () => {
    await rig.db.pool.query(
      `insert into belfry.notification (user_id, seq, type, group_key, open, message, first_at, last_at)
       select '6100', n, 'system', 'full' || n, false, 'x', now(), now() from generate_series(1, 101) n`,
    );
    await rig.login('6100');
    const asked = () => rig.metric('belfry_gateway_badge_queries_total');
    const before = await asked();
    rig.broker.publish([{ to: 'badge', userId: '6100', onlyRises: true }]);
    // Longer than a query may wait for its turn: what would be asked has been asked.
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(await asked()).toBe(before);
    rig.broker.publish([{ to: 'badge', userId: '6100' }]);
    await expect.poll(asked, { timeout: 10_000 }).toBe(before + 1);
  });

  it('replays after since, ascending, then goes live', async () => {
    const before = await rig.login('65');
    const { epoch } = before.all[0]!.ok as { epoch: string };
    for (let i = 0; i < 5; i++) rig.broker.publish([await rig.notification('65', `n${i}`)]);
    await before.take((frame) => frame['seq'] === 5);
    const client = await rig.connect();
    const answer = await client.request({ op: 'auth', token: tokenFor('65'), since: 2, epoch });
    expect(answer.ok).toMatchObject({ seq: 5, recovered: true, unseen: 5 });
    const replay = await client.until((frame) => frame['event'] === 'synced');
    expect(replay.map((frame) => frame['seq'])).toEqual([3, 4, 5, 5]);
    rig.broker.publish([await rig.notification('65', 'live')]);
    expect((await client.push('notification'))['seq']).toBe(6);
    const foreign = await rig.connect();
    const refused = await foreign.request({ op: 'auth', token: tokenFor('65'), since: 2, epoch: 'another' });
    expect(refused.ok).toMatchObject({ recovered: false, seq: 6 });
  });

  it('resumes from the URL too', async () => {
    const before = await rig.login('66');
    const { epoch } = before.all[0]!.ok as { epoch: string };
    rig.broker.publish([await rig.notification('66', 'n')]);
    await before.push('notification');
    const client = await rig.connect({ query: `token=${tokenFor('66')}&since=0&epoch=${epoch}` });
    const frames = await client.until((frame) => frame['event'] === 'synced');
    expect(frames.map((frame) => frame['event'])).toEqual(['hello', 'notification', 'synced']);
  });

  it('sends badge only when the numbers changed', async () => {
    const client = await rig.login('67');
    rig.broker.publish([await rig.notification('67'), { to: 'badge', userId: '67' }]);
    expect((await client.push('badge')).data).toEqual({ unseen: 1, unread: 1 });
    const queries = await rig.metric('belfry_gateway_badge_queries_total');
    rig.broker.publish([{ to: 'badge', userId: '67' }]);
    rig.broker.publish([{ to: 'badge', userId: '67' }]);
    await expect.poll(() => rig.metric('belfry_gateway_badge_queries_total')).toBe(queries + 1);
    await client.request({ op: 'ping' });
    expect(client.frames.filter((frame) => frame['event'] === 'badge')).toEqual([]);
  });

  it('counts everybody again now and then, since no event tells of an account that is suspended', async () => {
    const { rows } = await rig.db.pool.query<{ id: string }>(
      `insert into users (full_name) values ('Suspended') returning id`,
    );
    const actor = rows[0]?.id ?? '';
    await rig.db.pool.query(
      `insert into belfry.notification (user_id, seq, type, group_key, open, actors, actor_count, event_count, first_at, last_at)
       select '6700', n, 'follow', 'by' || n, false, array[a], 1, 1, now(), now() from unnest(array[$1, '67']) with ordinality u(a, n)`,
      [actor],
    );
    const client = await rig.login('6700');
    await rig.db.pool.query('update users set deleted_at = now() where id = $1', [actor]);
    rig.gateway.context.badges.lookAgain();
    expect((await client.push('badge')).data).toEqual({ unseen: 0, unread: 0 });
    await rig.db.pool.query('update users set deleted_at = null where id = $1', [actor]);
    rig.gateway.context.badges.lookAgain();
    expect((await client.push('badge')).data).toEqual({ unseen: 1, unread: 1 });
  });

  it('marks: the answer comes at its position, state and badge go to the other sockets', async () => {
    const [a, b] = [await rig.login('68'), await rig.login('68')];
    rig.broker.publish([await rig.notification('68'), await rig.notification('68')]);
    await a.take((frame) => frame['seq'] === 2);
    await b.take((frame) => frame['seq'] === 2);
    const answer = await a.request({ op: 'seen', through: 2 });
    expect(answer.ok).toEqual({ seq: 3, unseen: 0, unread: 2 });
    expect(await b.push('state')).toEqual({ event: 'state', seq: 3, data: { through: 2, state: 'seen' } });
    expect((await b.push('badge')).data).toEqual({ unseen: 0, unread: 2 });
    await a.request({ op: 'ping' });
    expect(a.frames.filter((frame) => frame['event'] === 'state')).toEqual([]);
    const again = await a.request({ op: 'seen', through: 2 });
    expect(again.ok).toEqual({ seq: 3, unseen: 0, unread: 2, unchanged: true });
  });

  it('tells the numbers again where an answer that waited holds older ones', async () => {
    const client = await rig.login('6200');
    rig.broker.publish([await rig.notification('6200')]);
    await client.push('notification');
    // The broker loses it, and it cannot be fetched yet: the answer waits for it.
    await rig.notification('6200');
    const blocker = await rig.db.client();
    await blocker.query(
      `alter table belfry.stream_position rename to positions;
       create view belfry.stream_position as select * from belfry.positions where pg_advisory_xact_lock_shared(62) is not null;
       select pg_advisory_lock(62)`,
    );
    client.send({ id: 62, op: 'seen', through: 1 });
    await expect.poll(() => rig.gateway.context.people.hubs.get('6200')?.waiting?.length).toBe(1);
    await rig.db.pool.query(`update belfry.notification set state = 'read' where user_id = '6200' and seq = 1`);
    rig.broker.publish([{ to: 'badge', userId: '6200' }]);
    await client.until((frame) => isDeepStrictEqual(frame['data'], { unseen: 1, unread: 1 }));
    await blocker.query('select pg_advisory_unlock(62)');
    expect((await client.take(({ id }) => id === 62)).ok).toMatchObject({ unseen: 1, unread: 2 });
    expect((await client.push('badge')).data).toEqual({ unseen: 1, unread: 1 });
    await blocker.query('drop view belfry.stream_position; alter table belfry.positions rename to stream_position');
  });

  it('counts what became of handshakes, tokens and sockets', async () => {
    const of = async (name: string, labels: Record<string, string>): Promise<number> =>
      rig.metric(`belfry_gateway_${name}_total`, labels);
    const before = [
      await of('handshakes', { outcome: 'accepted' }),
      await of('auths', { outcome: 'ok' }),
      await of('closes', { code: '4401' }),
    ];
    const client = await rig.login('70');
    await client.request({ op: 'auth', token: 'no token' });
    await client.closed;
    await expect.poll(() => of('closes', { code: '4401' })).toBe((before[2] ?? 0) + 1);
    expect(await of('handshakes', { outcome: 'accepted' })).toBe((before[0] ?? 0) + 1);
    expect(await of('auths', { outcome: 'ok' })).toBe((before[1] ?? 0) + 1);
  });

  it('counts no code that a client chose', async () => {
    const of = (code: string): Promise<number> => rig.metric('belfry_gateway_closes_total', { code });
    const before = [await of('4401'), await of('other')];
    for (const code of [4777, 4401]) {
      const client = await rig.connect();
      client.socket.close(code);
      await client.closed;
    }
    await expect.poll(() => of('other')).toBe((before[1] ?? 0) + 2);
    expect(await of('4401')).toBe(before[0]);
    expect(await (await rig.http('/metrics')).text()).not.toContain('code="4777"');
  });

  it('closes every socket of a revoked person with 4403', async () => {
    const clients = [await rig.login('69'), await rig.login('69')];
    await rig.db.pool.query(`insert into belfry.revocation (user_id) values ('69')`);
    rig.broker.publish([{ to: 'control', kind: 'revoke', userId: '69' }]);
    for (const client of clients) expect(await client.closed).toEqual({ code: 4403, reason: 'revoked' });
  });

  it('spares a session that began after the revocation of which a message tells late', async () => {
    const before = await rig.login('694');
    const { rows } = await rig.db.pool.query<{ now: string }>('select clock_timestamp()::text as now');
    // Sessions of the same half second count as older.
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const after = await rig.login('694');
    await rig.db.pool.query('insert into belfry.revocation (user_id, revoked_at) values ($1, $2)', [
      '694',
      rows[0]!.now,
    ]);
    rig.broker.publish([{ to: 'control', kind: 'revoke', userId: '694' }]);
    expect(await before.closed).toEqual({ code: 4403, reason: 'revoked' });
    expect((await after.request({ op: 'ping' })).ok).toEqual({});
  });

  it('closes one socket of a revoked session with 4403, and not the others of that person', async () => {
    const first = await rig.connect();
    const answer = await first.request({ op: 'auth', token: tokenFor('691') });
    const second = await rig.login('691');
    rig.broker.publish([{ to: 'control', kind: 'revokeSession', session: String(answer.ok?.['session']) }]);
    expect(await first.closed).toEqual({ code: 4403, reason: 'revoked' });
    expect((await second.request({ op: 'ping' })).ok).toEqual({});
  });

  it('closes in a sweep what was revoked though no message told of it, and not who came after', async () => {
    const revoked = (user: string | null, session: string | null, age: string) =>
      rig.db.pool.query(
        'insert into belfry.revocation (user_id, session, at) values ($1, $2, clock_timestamp() - $3::interval)',
        [user, session, age],
      );
    const open = async (user: string): Promise<{ client: Client; session: string }> => {
      const client = await rig.connect();
      const answer = await client.request({ op: 'auth', token: tokenFor(user) });
      return { client, session: String(answer.ok?.['session']) };
    };
    const [one, two] = [await open('692'), await open('692')];
    const [named, after] = [await open('693'), await open('693')];
    await revoked('692', null, '0 s');
    await revoked(null, named.session, '0 s');
    await revoked('693', null, '1 hour');
    await rig.gateway.sweep.run();
    for (const { client } of [one, two, named]) expect(await client.closed).toEqual({ code: 4403, reason: 'revoked' });
    expect((await after.client.request({ op: 'ping' })).ok).toEqual({});
    // Each is carried out once.
    const back = await open('692');
    await rig.gateway.sweep.run();
    expect((await back.client.request({ op: 'ping' })).ok).toEqual({});
  });

  it('tells an announcement once to everybody, also to who joins just then', async () => {
    const client = await rig.login('70');
    const frame = JSON.stringify({ event: 'notification', data: { id: 'a1', message: 'to all' } });
    const late = await rig.connect();
    const answered = late.request({ op: 'auth', token: tokenFor('71') });
    rig.broker.publish([{ to: 'everyone', frame }]);
    expect((await client.push('notification')).data).toMatchObject({ id: 'a1' });
    await answered;
    await late.push('synced');
    await late.request({ op: 'ping' });
    expect(late.all.filter((frame) => frame['event'] === 'notification').length).toBeLessThanOrEqual(1);
  });

  it('tells in a sweep, once, an announcement that the broker lost, though a later one came', async () => {
    const client = await rig.login('72');
    await rig.db.pool.query(
      `insert into belfry.announcement (id, at, event_id, message) overriding system value
       values (101, now(), 101, 'lost'), (102, now(), 102, 'came')`,
    );
    const frame = (n: number): string => JSON.stringify({ event: 'notification', data: { id: `a${n}` } });
    rig.broker.publish([{ to: 'everyone', frame: frame(102) }]);
    await client.push('notification');
    await rig.gateway.sweep.run();
    expect((await client.push('notification')).data).toMatchObject({ id: 'a101', message: 'lost' });
    rig.broker.publish([101, 102, 103].map((n) => ({ to: 'everyone', frame: frame(n) })));
    expect((await client.push('notification')).data).toEqual({ id: 'a103' });
  });
});
