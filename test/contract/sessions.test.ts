/** CONTRACT §5: who gets in, how a session stays and ends, what a frame must be. */

import jwt from 'jsonwebtoken';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { pause, Raw, secret, startRig, token, until, type Rig } from './rig.js';

let rig: Rig;
let ada: string;
beforeAll(async () => {
  rig = await startRig();
  ada = await rig.user('Ada');
});
afterAll(() => rig.stop());

const isoZ = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;
const authOk = {
  session: expect.any(String) as string,
  seq: expect.any(Number) as number,
  epoch: expect.any(String) as string,
  recovered: true,
  unseen: expect.any(Number) as number,
  unread: expect.any(Number) as number,
  ping_s: expect.any(Number) as number,
  expires_at: expect.stringMatching(isoZ) as string,
};

describe('authentication', () => {
  it('by the first frame', async () => {
    const raw = await Raw.open(rig.ws);
    const answer = await raw.ask({ op: 'auth', token: token(ada) });
    expect(answer.ok).toMatchObject({ ...authOk, user_id: ada });
    const synced = await raw.event('synced');
    expect(synced.seq).toBe(answer.ok?.['seq']);
    const minutes = (Date.parse(String(answer.ok?.['expires_at'])) - Date.now()) / 60_000;
    expect(minutes).toBeGreaterThan(58);
    expect(minutes).toBeLessThan(61);
    raw.end();
  });

  it.each([
    ['subprotocol', () => Raw.open(rig.ws, { protocols: ['belfry.v1', `bearer.${token(ada)}`] })],
    ['Authorization', () => Raw.open(rig.ws, { headers: { authorization: `Bearer ${token(ada)}` } })],
    ['query, where auth.queryToken is on', () => Raw.open(`${rig.ws}?token=${token(ada)}`)],
  ])('by %s: the answer comes as hello', async (_, open) => {
    const raw = await open();
    const hello = await raw.next();
    expect(hello).toMatchObject({ event: 'hello', data: { ...authOk, user_id: ada } });
    expect(hello.id).toBeUndefined();
    await raw.event('synced');
    raw.end();
  });

  it('selects belfry.v1 where it is offered', async () => {
    const raw = await Raw.open(rig.ws, { protocols: ['belfry.v1'] });
    expect(raw.socket.protocol).toBe('belfry.v1');
    raw.end();
    const both = await Raw.open(rig.ws, { protocols: ['belfry.v1', `bearer.${token(ada)}`] });
    expect(both.socket.protocol).toBe('belfry.v1');
    both.end();
  });

  it('takes since and epoch from the URL when the token came with the upgrade', async () => {
    const first = await Raw.session(rig, ada);
    const { seq, epoch } = first.auth.ok as { seq: number; epoch: string };
    const at = await Raw.open(`${rig.ws}?since=${seq}&epoch=${epoch}`, {
      headers: { authorization: `Bearer ${token(ada)}` },
    });
    expect((await at.event('hello')).data).toMatchObject({ recovered: true });
    const beyond = await Raw.open(`${rig.ws}?since=${seq + 7}&epoch=${epoch}`, {
      headers: { authorization: `Bearer ${token(ada)}` },
    });
    expect((await beyond.event('hello')).data).toMatchObject({ recovered: false });
    for (const raw of [first, at, beyond]) raw.end();
  });

  const bad: [string, () => string][] = [
    ['garbage', () => 'garbage'],
    ['expired', () => token(ada, -10)],
    ['another secret', () => jwt.sign({ sub: ada }, 'another-secret-another-secret-12345678', { expiresIn: 60 })],
    ['alg none', () => jwt.sign({ sub: ada, exp: Math.floor(Date.now() / 1000) + 60 }, '', { algorithm: 'none' })],
    ['an algorithm that is not listed', () => jwt.sign({ sub: ada }, secret, { algorithm: 'HS512', expiresIn: 60 })],
    ['without exp', () => jwt.sign({ sub: ada }, secret)],
    ['without sub', () => jwt.sign({}, secret, { expiresIn: 60 })],
  ];
  it('an empty token and one too long for any key are bad ones, too', async () => {
    for (const bearer of ['', 'x'.repeat(9000)]) {
      const raw = await Raw.open(rig.ws);
      expect((await raw.ask({ op: 'auth', token: bearer })).error).toMatchObject({ code: 'unauthorized' });
      expect((await raw.close()).code).toBe(4401);
    }
  });

  it.each(bad)('a bad token in a frame (%s): error unauthorized, then 4401', async (_, make) => {
    const raw = await Raw.open(rig.ws);
    const answer = await raw.ask({ op: 'auth', token: make() });
    expect(answer.error).toMatchObject({ code: 'unauthorized', message: expect.any(String) as string, retry: false });
    expect((await raw.close()).code).toBe(4401);
  });

  it.each(bad)('a bad token at the upgrade (%s): accepted and closed with 4401', async (_, make) => {
    const raw = await Raw.open(rig.ws, { headers: { authorization: `Bearer ${make()}` } });
    expect((await raw.close()).code).toBe(4401);
  });

  it('no valid token within 5 s: 4401', async () => {
    const began = Date.now();
    const raw = await Raw.open(rig.ws);
    expect((await raw.close()).code).toBe(4401);
    expect(Date.now() - began).toBeGreaterThan(3_500);
    expect(Date.now() - began).toBeLessThan(7_000);
  });

  it('a session ends within 5 s after its token', async () => {
    const raw = await Raw.open(rig.ws);
    await raw.ask({ op: 'auth', token: token(ada, 2) });
    const began = Date.now();
    expect((await raw.close()).code).toBe(4401);
    expect(Date.now() - began).toBeGreaterThan(900);
    expect(Date.now() - began).toBeLessThan(7_500);
  });

  it('a refresh prolongs it and replays nothing', async () => {
    const raw = await Raw.open(rig.ws);
    const first = await raw.ask({ op: 'auth', token: token(ada, 2) });
    await raw.event('synced');
    const again = await raw.ask({ op: 'auth', token: token(ada, 600), since: 0, epoch: 'other' });
    expect(again.ok).toMatchObject({ session: first.ok?.['session'], user_id: ada });
    expect(Date.parse(String(again.ok?.['expires_at']))).toBeGreaterThan(Date.now() + 300_000);
    expect(await raw.quiet()).toEqual([]);
    await new Promise((resolve) => setTimeout(resolve, 8_000));
    expect((await raw.ask({ op: 'ping' })).ok).toBeDefined();
    raw.end();
  }, 20_000);
});

describe('origins', () => {
  const status = (origin: string) =>
    new Promise<number>((resolve) => {
      const socket = new WebSocket(rig.ws, { origin });
      socket.on('unexpected-response', (request, response) => {
        resolve(response.statusCode ?? 0);
        request.destroy();
      });
      socket.on('open', () => {
        resolve(101);
        socket.terminate();
      });
      socket.on('error', () => undefined);
    });

  it.each(['https://evil.example', 'http://app.example', 'https://app.example.evil.example', 'null'])(
    '%s: 403',
    async (origin) => {
      expect(await status(origin)).toBe(403);
    },
  );
  it('the configured one, and the server’s own', async () => {
    expect(await status('https://app.example')).toBe(101);
    expect(await status(rig.http)).toBe(101);
  });
});

describe('frames', () => {
  it.each([1, 0, 2 ** 40, 'text', 'ä'])('an answer has the id of its request: %j', async (id) => {
    const raw = await Raw.session(rig, ada);
    raw.send({ id, op: 'ping' });
    expect(await raw.next((frame) => frame.id === id)).toMatchObject({ id, ok: {} });
    raw.end();
  });

  it('an unknown op: the error unknown_op, and it stays open', async () => {
    const raw = await Raw.session(rig, ada);
    expect((await raw.ask({ op: 'dance' })).error).toMatchObject({ code: 'unknown_op', retry: false });
    expect((await raw.ask({ op: 'ping' })).ok).toBeDefined();
    raw.end();
  });

  it.each([
    { op: 'subscribe' },
    { op: 'subscribe', channel: 5 },
    { op: 'subscribe', channel: 'post:1', offset: 'x' },
    { op: 'seen' },
    { op: 'seen', ids: 'x' },
    { op: 'read', through: -1 },
    { op: 'publish', channel: 'room' },
    { op: 'publish', channel: 'room', event: 'x'.repeat(65) },
    { op: 'presence' },
  ])('%j: bad_request, and it stays open', async (request) => {
    const raw = await Raw.session(rig, ada);
    expect((await raw.ask(request)).error).toMatchObject({ code: 'bad_request', retry: false });
    expect((await raw.ask({ op: 'ping' })).ok).toBeDefined();
    raw.end();
  });

  it.each<[string, string | Buffer]>([
    ['not JSON', '{'],
    ['an array', '[]'],
    ['a number', '5'],
    ['an object without op', '{"id":1}'],
    ['op is no text', '{"id":1,"op":{}}'],
    ['binary', Buffer.from('{"id":1,"op":"ping"}')],
    ['too large', JSON.stringify({ id: 1, op: 'ping', padding: 'x'.repeat(17_000) })],
  ])('%s: 4400', async (_, frame) => {
    const raw = await Raw.session(rig, ada);
    raw.socket.send(frame, { binary: typeof frame !== 'string' });
    expect((await raw.close()).code).toBe(4400);
  });

  it('far too large: 1009', async () => {
    const raw = await Raw.session(rig, ada);
    raw.socket.send(JSON.stringify({ id: 1, op: 'ping', padding: 'x'.repeat(1_000_000) }));
    // The close frame may be overtaken by the reset of a connection that still sends.
    expect([1009, 1006]).toContain((await raw.close()).code);
  });

  it('too many: 4429', async () => {
    const raw = await Raw.session(rig, ada);
    for (let i = 0; i < 500 && raw.socket.readyState === WebSocket.OPEN; i++) raw.send({ id: i, op: 'ping' });
    expect((await raw.close()).code).toBe(4429);
  });

  it('20 a second are not too many', async () => {
    const raw = await Raw.session(rig, ada);
    for (let i = 0; i < 40; i++) {
      expect((await raw.ask({ op: 'ping' })).ok).toBeDefined();
      await new Promise((resolve) => setTimeout(resolve, 55));
    }
    raw.end();
  });
});

describe('the end', () => {
  it('too many connections of one user: the newest is refused with 4409', async () => {
    const user = await rig.user();
    const four = [];
    for (let i = 0; i < 4; i++) four.push(await Raw.session(rig, user));
    const fifth = await Raw.open(rig.ws);
    fifth.send({ id: 1, op: 'auth', token: token(user) });
    expect((await fifth.close()).code).toBe(4409);
    expect((await four[0]?.ask({ op: 'ping' }))?.ok).toBeDefined();
    four[1]?.end();
    await until('a place is free', async () => {
      const again = await Raw.open(rig.ws, { headers: { authorization: `Bearer ${token(user)}` } });
      const first = await again.next().catch(() => null);
      again.end();
      return first?.event === 'hello';
    });
    for (const raw of four) raw.end();
  });

  it('belfry.revoke closes every socket of the user with 4403 revoked, and nobody else’s', async () => {
    const user = await rig.user();
    const [one, two, other] = [await Raw.session(rig, user), await Raw.session(rig, user), await Raw.session(rig, ada)];
    const { rows } = await rig.db.query<{ id: string }>('select belfry.revoke($1) as id', [user]);
    expect(rows[0]?.id).toMatch(/^\d+$/);
    expect(await one.close()).toEqual({ code: 4403, reason: 'revoked' });
    expect(await two.close()).toEqual({ code: 4403, reason: 'revoked' });
    expect((await other.ask({ op: 'ping' })).ok).toBeDefined();
    other.end();
  });

  it('belfry.revoke that is carried out late spares who signed in again meanwhile', async () => {
    const user = await rig.user();
    const before = await Raw.session(rig, user);
    const setPaused = async (paused: boolean): Promise<void> => {
      const sql = 'update belfry.relay set paused = $1 returning lease_until::text as lease';
      const { rows } = await rig.db.query<{ lease: string }>(sql, [paused]);
      // The leader has read it with the next renewal of its lease.
      const renewed = 'select from belfry.relay where lease_until::text <> $1';
      await until('the leader knows', async () => (await rig.db.query(renewed, [rows[0]?.lease])).rowCount === 1);
    };
    await setPaused(true);
    await rig.db.query('select belfry.revoke($1)', [user]);
    await pause(2000);
    const after = await Raw.session(rig, user);
    await setPaused(false);
    expect(await before.close()).toEqual({ code: 4403, reason: 'revoked' });
    expect((await after.ask({ op: 'ping' })).ok).toBeDefined();
    after.end();
  });

  it('belfry.revoke_session closes that socket alone, once the transaction has committed', async () => {
    const user = await rig.user();
    const one = await Raw.open(rig.ws, { headers: { authorization: `Bearer ${token(user)}` } });
    const { session } = (await one.next()).data as { session: string };
    const two = await Raw.session(rig, user);
    await rig.db.query(`begin; select belfry.revoke_session('${session}'); rollback`);
    expect((await one.ask({ op: 'ping' })).ok).toBeDefined();
    await rig.db.query('select belfry.revoke_session($1)', [session]);
    expect(await one.close()).toEqual({ code: 4403, reason: 'revoked' });
    expect((await two.ask({ op: 'ping' })).ok).toBeDefined();
    two.end();
  });

  it('who reads too slowly is closed with 4508, and resumes without loss', async () => {
    const raw = await Raw.session(rig, ada);
    const subscribed = await raw.ask({ op: 'subscribe', channel: 'room-of-floods' });
    const { offset, epoch } = subscribed.ok as { offset: number; epoch: string };
    const healthy = await Raw.session(rig, ada);
    await healthy.ask({ op: 'subscribe', channel: 'room-of-calm' });
    raw.socket.pause();
    await rig.db.query(
      `select belfry.broadcast('room-of-floods', 'flood', jsonb_build_object('n', n, 'padding', repeat('x', 20000)))
         from generate_series(1, 400) n`,
    );
    // What is told after the flood was sent after it. Not the flood itself: it may be too much for whoever reads, too.
    await rig.db.query(`select belfry.broadcast('room-of-calm', 'calm', '{}')`);
    await healthy.event('calm');
    raw.socket.resume();
    expect((await raw.close()).code).toBe(4508);
    let last = raw.frames.filter(({ event }) => event === 'flood').at(-1)?.offset ?? offset;
    const got = raw.frames.flatMap((frame) => (frame.event === 'flood' ? [frame.offset] : []));
    const again = await Raw.session(rig, ada);
    const answer = await again.ask({ op: 'subscribe', channel: 'room-of-floods', offset: last, epoch });
    expect(answer.ok).toMatchObject({ recovered: true, offset: offset + 400 });
    while (last < offset + 400) {
      last = (await again.event('flood')).offset ?? NaN;
      got.push(last);
    }
    expect(got).toEqual(Array.from({ length: 400 }, (_, i) => offset + 1 + i));
    for (const one of [healthy, again]) one.end();
  }, 30_000);
});
