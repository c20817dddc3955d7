/**
 * What a session watches for presence, and for how long. Who sees whom is in channels.test.ts. Between gateways it needs a Redis or NATS; what is
 * not there is named as skipped.
 */

import { pino } from 'pino';
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { createBroker } from '../../src/broker/create.js';
import { brokers } from '../support/brokers.js';
import { addUsers, follow } from '../support/social.js';
import { startRig, type Client, type Frame, type Rig } from './support.js';

let rig: Rig;
beforeAll(async () => {
  rig = await startRig({
    yaml: `
presence: { read: "select from public.follows where follower_id = :user and followed_id = :other" }
channels:
  room: { read: public }
  group: { read: "select from public.follows where follower_id = :user and followed_id = :id" }`,
  });
});
afterEach(() => rig.hangUp());
afterAll(() => rig.stop());

const watching = (): number => rig.gateway.context.presence.watching.size;
const subscribe = (client: Client, channel: string): Promise<Frame> => client.request({ op: 'subscribe', channel });

/** Somebody who follows somebody. */
async function follower(): Promise<{ ada: string; bo: string; client: Client }> {
  const [ada = '', bo = ''] = await addUsers(rig.db.pool, 'Ada', 'Bo');
  await follow(rig.db.pool, ada, bo);
  return { ada, bo, client: await rig.login(ada) };
}

/** Subscribes to a channel, and watches it. */
async function watch(client: Client, channel: string): Promise<void> {
  expect((await subscribe(client, channel)).ok).toBeDefined();
  expect((await client.request({ op: 'presence', channel })).ok).toBeDefined();
  expect(watching()).toBe(1);
}

it('nothing where it has gone before its question was answered', async () => {
  const { ada, bo, client } = await follower();
  const holder = await rig.db.client();
  await holder.query('begin; lock table public.follows in access exclusive mode');
  const [session] = rig.gateway.context.sessions.all;
  client.send({ id: 1, op: 'presence', users: [ada, bo] });
  await expect.poll(() => session?.busy).toBe(true);
  await rig.hangUp();
  await holder.query('commit');
  await expect.poll(() => session?.busy).toBe(false);
  expect(watching()).toBe(0);
});

it('a channel also after it has subscribed to it again', async () => {
  const { bo, client } = await follower();
  await watch(client, 'hall');
  expect((await subscribe(client, 'hall')).ok).toBeDefined();
  await subscribe(await rig.login(bo), 'hall');
  expect(await client.push('presence')).toEqual({
    event: 'presence',
    channel: 'hall',
    data: { user_id: bo, status: 'online' },
  });
});

it('a channel no longer once it has left it', async () => {
  const { client } = await follower();
  await watch(client, 'hall');
  await client.request({ op: 'unsubscribe', channel: 'hall' });
  expect(watching()).toBe(0);
});

it('a channel no longer once it may not come back to it', async () => {
  const { ada, bo, client } = await follower();
  await watch(client, `group:${bo}`);
  await rig.db.pool.query('delete from public.follows where follower_id = $1', [ada]);
  expect((await subscribe(client, `group:${bo}`))['error']).toMatchObject({ code: 'forbidden' });
  expect(watching()).toBe(0);
});

describe.each(brokers)('of people at another gateway, over $kind', ({ kind, url, there, skipped }) => {
  it.skipIf(!there)(`is told as that of people here${skipped}`, { timeout: 60_000 }, async () => {
    const open = async (): Promise<Rig> => {
      const broker = await createBroker({ kind, url }, pino({ level: 'silent' }));
      await broker.start();
      onTestFinished(() => broker.stop());
      return await startRig({ db: rig.db, change: () => rig.config, gateway: { broker } });
    };
    const [here, there] = [await open(), await open()];
    onTestFinished(async () => void (await Promise.all([here.stop(), there.stop()])));
    const [ada = '', bo = '', cleo = ''] = await addUsers(rig.db.pool, 'Ada', 'Bo', 'Cleo');
    await follow(rig.db.pool, ada, bo);
    const listed = async (): Promise<unknown> =>
      await (await here.http(`/api/presence?users=${bo},${cleo}`, { userId: ada })).json();
    const client = await here.login(ada);
    expect((await client.request({ op: 'presence', users: [bo] })).ok).toEqual({ [bo]: 'offline' });
    const bos = await there.login(bo);
    await there.login(cleo);
    expect((await client.push('presence')).data).toEqual({ user_id: bo, status: 'online' });
    expect(await listed()).toEqual({ [bo]: 'online', [cleo]: 'offline' });
    // In a channel, too.
    await subscribe(client, 'hall');
    expect((await client.request({ op: 'presence', channel: 'hall' })).ok).toEqual({ [ada]: 'online' });
    await subscribe(bos, 'hall');
    expect(await client.push('presence')).toMatchObject({ channel: 'hall', data: { user_id: bo, status: 'online' } });
    expect((await client.request({ op: 'presence', channel: 'hall' })).ok).toEqual({ [ada]: 'online', [bo]: 'online' });
    // Who comes here before the grace there is over was never away.
    const again = await here.login(bo);
    bos.socket.terminate();
    await expect.poll(async () => await listed()).toEqual({ [bo]: 'online', [cleo]: 'offline' });
    expect((await client.push('presence')).channel).toBe('hall');
    again.socket.terminate();
    expect((await client.push('presence')).data).toEqual({ user_id: bo, status: 'offline' });
    expect(await listed()).toEqual({ [bo]: 'offline', [cleo]: 'offline' });
    expect(client.all.filter((frame) => frame['event'] === 'presence')).toHaveLength(4);
  });
});
