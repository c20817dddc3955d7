/** CONTRACT §2 and §5: what a setting changes for those who connect. */

import { describe, expect, it, onTestFinished } from 'vitest';
import { http, pause, Raw, startRig, token, until, type Rig } from './rig.js';

async function rigWith(more: string, edit?: (config: string) => string, sql?: string): Promise<Rig> {
  const rig = await startRig(more, edit, sql);
  onTestFinished(() => rig.stop());
  return rig;
}

describe('auth.queryToken', () => {
  it('off: a token in the URL does not count', async () => {
    const rig = await rigWith('', (config) => config.replace('queryToken: true', 'queryToken: false'));
    const raw = await Raw.open(`${rig.ws}?token=${token(await rig.user())}`);
    expect((await raw.close()).code).toBe(4401);
    expect(raw.frames).toEqual([]);
  });
});

describe('rollout', () => {
  it('0: everybody is told to poll, with 4403 rollout', async () => {
    const rig = await rigWith('rollout: 0');
    const user = await rig.user();
    const raw = await Raw.open(rig.ws);
    const answer = await raw.ask({ op: 'auth', token: token(user) });
    expect(answer.error).toMatchObject({ code: 'forbidden', retry: false });
    expect(await raw.close()).toEqual({ code: 4403, reason: 'rollout' });
    expect((await http(rig, 'GET', '/api/notifications', { as: user })).status).toBe(200);
  });

  it('50: about half, and always the same', async () => {
    const rig = await rigWith('rollout: 50\nlimits: { handshakesPerSecond: 1000 }');
    const isIn = async (user: string): Promise<boolean> => {
      const raw = await Raw.open(rig.ws);
      raw.send({ id: 1, op: 'auth', token: token(user) });
      const first = await raw.next();
      raw.end();
      return first.ok !== undefined;
    };
    const users = Array.from({ length: 100 }, (_, i) => `user-${i}`);
    const once = [];
    for (const user of users) once.push(await isIn(user));
    const again = [];
    for (const user of users) again.push(await isIn(user));
    expect(again).toEqual(once);
    expect(once.filter(Boolean).length).toBeGreaterThan(30);
    expect(once.filter(Boolean).length).toBeLessThan(70);
  });
});

describe('channels.recheck', () => {
  it('an open subscription no longer receives what its user may not see, within a second of the commit', async () => {
    const rig = await rigWith('', (config) =>
      config.replace('  conversation:\n', '  conversation:\n    recheck: [membership]\n').replace(
        'channels:\n  post:',
        `  - name: membership
    type: system
    table: public.members
    key: [conversation_id, user_id]
    actor: user_id
    recipient: user_id
channels:
  post:`,
      ),
    );
    const [stays, leaves] = [await rig.user(), await rig.user()];
    await rig.db.query('insert into public.members values (7, $1), (7, $2)', [stays, leaves]);
    const [one, two] = [await Raw.session(rig, stays), await Raw.session(rig, leaves)];
    for (const raw of [one, two])
      expect((await raw.ask({ op: 'subscribe', channel: 'conversation:7' })).ok).toBeDefined();
    const say = (text: string) =>
      rig.db.query(`select belfry.broadcast('conversation:7', 'message', jsonb_build_object('text', $1::text))`, [
        text,
      ]);
    await say('hello');
    for (const raw of [one, two]) expect((await raw.event('message')).data).toEqual({ text: 'hello' });
    await rig.db.query('delete from public.members where user_id = $1', [leaves]);
    await pause(1500);
    await say('between us');
    expect((await one.event('message')).data).toEqual({ text: 'between us' });
    expect((await two.quiet()).filter(({ event }) => event === 'message')).toEqual([]);
    expect((await two.ask({ op: 'subscribe', channel: 'conversation:7' })).error?.code).toBe('forbidden');
    for (const raw of [one, two]) raw.end();
  });
});

describe('a source of type message', () => {
  it('goes to every member but the sender, and to the channel', async () => {
    const rig = await rigWith(
      '',
      (config) =>
        config.replace(
          'channels:\n  post:',
          `  - name: direct_message
    type: message
    table: public.messages
    key: [id]
    actor: sender_id
    subject: { kind: message, id: id }
    object: { kind: conversation, id: conversation_id }
    recipient: { query: "select user_id from public.members where conversation_id = :conversation_id" }
    channels: ["conversation:{conversation_id}"]
    include: [id, sender_id, body]
channels:
  post:`,
        ),
      `create table public.messages (id bigint generated always as identity primary key,
         conversation_id bigint not null, sender_id bigint not null, body text not null)`,
    );
    const [ada, bo, cleo] = [await rig.user('Ada'), await rig.user('Bo'), await rig.user('Cleo')];
    await rig.db.query('insert into public.members values (3, $1), (3, $2), (3, $3)', [ada, bo, cleo]);
    const [one, two, three] = [await Raw.session(rig, ada), await Raw.session(rig, bo), await Raw.session(rig, cleo)];
    await two.ask({ op: 'subscribe', channel: 'conversation:3' });
    await rig.db.query(`insert into public.messages (conversation_id, sender_id, body) values (3, $1, 'hello')`, [ada]);
    for (const raw of [two, three]) {
      const { data } = await raw.next(({ event }) => event === 'notification');
      expect(data).toMatchObject({ type: 'message', user_id: ada, conversation_id: '3', message_id: '1' });
    }
    await until('the channel', () => two.frames.some(({ event }) => event === 'message'));
    const push = two.frames.find(({ event }) => event === 'message');
    expect(push).toMatchObject({ channel: 'conversation:3', offset: 1 });
    expect(JSON.stringify(push?.data)).toContain('hello');
    expect((await one.quiet()).filter(({ event }) => event === 'notification')).toEqual([]);
    for (const raw of [one, two, three]) raw.end();
  });
});

describe('retention.channels', () => {
  it('what is older is given up soon, and an offset of that time is not recovered, never skipped', async () => {
    const rig = await rigWith('retention: { channels: 1s }');
    const raw = await Raw.session(rig, await rig.user());
    const { epoch, offset } = (await raw.ask({ op: 'subscribe', channel: 'lobby' })).ok as {
      epoch: string;
      offset: number;
    };
    await rig.db.query(`select belfry.broadcast('lobby', 'e', '{}')`);
    await raw.event('e');
    await until('given up', async () => {
      await pause(250);
      const { ok } = await raw.ask({ op: 'subscribe', channel: 'lobby', offset, epoch });
      expect(ok).toMatchObject({ offset: offset + 1 });
      // Kept a little longer is no fault; a hole would be.
      if (ok?.['recovered'] === true) expect((await raw.event('e')).offset).toBe(offset + 1);
      return ok?.['recovered'] === false;
    });
    raw.end();
  });
});
