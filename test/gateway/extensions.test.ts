/** Custom events: what handlers can do, and that whatever they do wrong harms only their caller. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { takeOutbox } from '../capture/support.js';
import { createTestDatabase, type TestDatabase } from '../support/postgres.js';
import { socialSql } from '../support/social.js';
import { startRig, type Client, type Frame, type Rig } from './support.js';

// Threads are started, on a machine that may be busy.
vi.setConfig({ testTimeout: 60_000 });

let db: TestDatabase;
let rig: Rig;
let logged = '';
beforeAll(async () => {
  db = await createTestDatabase({ prepare: socialSql });
  rig = await startWith(fileURLToPath(new URL('./handlers.mjs', import.meta.url)));
});
afterEach(() => rig.hangUp());
afterAll(async () => {
  await rig.stop();
  await db.drop();
});

function startWith(file: string): Promise<Rig> {
  const destination = new Writable({
    write(chunk: Buffer, _encoding, done) {
      logged += chunk.toString();
      done();
    },
  });
  return startRig({
    db,
    yaml: 'limits: { messagesPerSecond: 1000 }',
    change: (config) => ({
      ...config,
      extensions: file,
      channels: { ...config.channels, room: { read: 'public', publish: 'public', recheck: [] } },
    }),
    gateway: { log: pino({ level: 'info' }, destination) },
  });
}

const publish = (client: Client, event: string, data: Record<string, unknown> = {}): Promise<Frame> =>
  client.request({ op: 'publish', channel: 'lobby', event, data });

describe('a handler', () => {
  it('knows who asks, broadcasts in their name, and its answer is told to the sender', async () => {
    const [one, other] = [await rig.login('1'), await rig.login('2')];
    for (const client of [one, other]) await client.request({ op: 'subscribe', channel: 'lobby' });
    const { ok } = await publish(one, 'greet', { text: 'hi' });
    expect(ok).toEqual({
      channel: 'lobby',
      answer: { offset: expect.any(Number) as number, event: 'greet', session: expect.any(String) as string, calls: 1 },
    });
    const { offset } = ok?.['answer'] as { offset: number };
    for (const client of [one, other]) {
      expect(await client.push('greeted')).toEqual({
        ...{ event: 'greeted', channel: 'lobby', offset },
        data: { by: '1', text: 'hi' },
      });
    }
  });

  it('that answers nothing has swallowed the event: null, and nobody hears of it', async () => {
    const client = await rig.login('1');
    const before = (await client.request({ op: 'subscribe', channel: 'lobby' })).ok?.['offset'];
    expect((await publish(client, 'quiet')).ok).toEqual({ channel: 'lobby', answer: null });
    expect((await client.request({ op: 'subscribe', channel: 'lobby' })).ok?.['offset']).toBe(before);
  });

  it('is not asked for other events, nor where the channel may not be published to', async () => {
    const client = await rig.login('1');
    expect((await publish(client, 'toString')).ok).toMatchObject({ offset: expect.any(Number) as number });
    const answer = await client.request({ op: 'publish', channel: 'post:1', event: 'quiet' });
    expect(answer['error']).toMatchObject({ code: 'forbidden' });
  });

  it('notifies: others in the name of the caller, the caller in nobody’s', async () => {
    const client = await rig.login('5');
    await takeOutbox(db.pool);
    expect((await publish(client, 'tellOwner')).ok?.['answer']).toMatch(/^\d+$/);
    expect((await publish(client, 'tellMe')).ok?.['answer']).toMatch(/^\d+$/);
    const rows = (await takeOutbox(db.pool)) as readonly { new: unknown }[];
    expect(rows.map((row) => row.new)).toMatchObject([
      { user_id: '77', type: 'message', message: 'somebody was here', data: { x: 1 }, actor_id: '5' },
      { user_id: '5', type: 'system', actor_id: null },
    ]);
  });

  it('prints into the log', async () => {
    await publish(await rig.login('1'), 'prints');
    await vi.waitFor(() => expect(logged).toContain('"line":"hello from a handler"'), { timeout: 20_000 });
  });
});

describe('a handler that goes wrong harms only its caller', () => {
  it.each([
    ['refuses', 'refuse', 'forbidden', 'not on Sundays'],
    ['throws', 'throws', 'internal', 'Something went wrong; it was logged.'],
    ['answers what has no JSON', 'circular', 'internal', 'Something went wrong; it was logged.'],
    ['answers too much', 'huge', 'internal', 'Something went wrong; it was logged.'],
  ])('%s', async (_what, event, code, message) => {
    const client = await rig.login('1');
    expect((await publish(client, event))['error']).toMatchObject({ code, message });
    expect((await publish(client, 'quiet')).ok).toBeDefined();
  });

  it('told the log, not the caller, what it threw', async () => {
    await publish(await rig.login('1'), 'throws');
    expect(logged).toContain('secret detail');
  });

  it('forgets a promise: the thread goes on', async () => {
    const client = await rig.login('1');
    expect((await publish(client, 'rejectsLater')).ok?.['answer']).toBe('answered');
    await vi.waitFor(() => expect(logged).toContain('forgotten too'), { timeout: 20_000 });
    expect((await publish(client, 'quiet')).ok).toBeDefined();
  });

  it('broadcasts what a client might not: it is told so', async () => {
    expect((await publish(await rig.login('1'), 'badBroadcast')).ok?.['answer']).toContain('belongs to the protocol');
  });

  it('hangs: its caller is told after the limit, others are served meanwhile', async () => {
    const [one, other] = [await rig.login('1'), await rig.login('2')];
    const hung = publish(one, 'hangs');
    for (let n = 0; n < 20; n++) expect((await publish(other, 'quiet'))['error']).toBeUndefined();
    expect((await hung)['error']).toMatchObject({ code: 'unavailable', retry: true });
    expect((await publish(one, 'quiet')).ok).toBeDefined();
  });

  it.each(['blocks', 'eats', 'exits'])('%s: so too, though they have several sockets', async (event) => {
    const others = await Promise.all(Array.from({ length: 8 }, (_, n) => rig.login(`o${n}`)));
    const bad = await Promise.all(Array.from({ length: 6 }, () => rig.login('bad')));
    const ends = bad.map((client) => publish(client, event));
    await Promise.all(
      others.map(async (client) => {
        expect(await client.request({ op: 'ping' })).toMatchObject({ ok: {} });
        expect(await publish(client, 'quiet')).toMatchObject({ ok: { channel: 'lobby', answer: null } });
      }),
    );
    expect((await ends[0]!)['error']).toMatchObject({ code: 'unavailable' });
    for (const client of bad) client.socket.terminate();
    await Promise.allSettled(ends);
    expect((await publish(others[0]!, 'quiet')).ok).toBeDefined();
  });
});

let folder: string;
beforeAll(() => (folder = mkdtempSync(join(tmpdir(), 'belfry-extensions-'))));
afterAll(() => rmSync(folder, { recursive: true }));

describe('calls that wait for one thread to load', () => {
  it.each(['exits', 'blocks'])('and then begin at once: one that %s harms none that is answered', async (event) => {
    const file = join(folder, `slow-${event}.mjs`);
    writeFileSync(
      file,
      `await new Promise((resolve) => setTimeout(resolve, 500));
       export default {
         quiet: () => null,
         waits: () => new Promise((resolve) => setTimeout(resolve, 1500)),
         exits: () => process.exit(),
         blocks: () => { for (;;); },
       };`,
    );
    const slow = await startWith(file);
    try {
      const clients = await Promise.all(Array.from({ length: 6 }, (_, n) => slow.login(`s${n}`)));
      // Four threads, the last three of them loading; who finds all at work shares the one with the least to do, the first of those.
      for (const [n, what] of ['waits', 'quiet', 'quiet', 'quiet', 'waits', event].entries()) {
        clients[n]!.send({ id: 'call', op: 'publish', channel: 'lobby', event: what, data: {} });
        await clients[n]!.request({ op: 'ping' });
      }
      const [, ...quiet] = await Promise.all(clients.map((client) => client.take(({ id }) => id === 'call')));
      expect(quiet.slice(0, 3)).toMatchObject([{ ok: {} }, { ok: {} }, { ok: {} }]);
      expect(quiet[4]).toMatchObject({ error: { code: 'unavailable' } });
    } finally {
      await slow.stop();
    }
  });
});

describe('a module that is no good', () => {
  it.each([
    ['is not there', null, 'missing.mjs'],
    ['has no default export', 'export const greet = () => 1;', 'default export'],
    ['holds what is no function', 'export default { greet: 1 };', 'greet is no function'],
    ['throws', 'throw new Error("not today");', 'not today'],
    ['is no JavaScript', 'export default {', 'cannot be used'],
  ])('%s: the gateway does not start', async (_what, text, says) => {
    const file = join(folder, text === null ? 'missing.mjs' : `m${Math.random()}.mjs`);
    if (text !== null) writeFileSync(file, text);
    await expect(startWith(file)).rejects.toMatchObject({
      code: 'config_invalid',
      message: expect.stringContaining(says) as string,
    });
  });
});
