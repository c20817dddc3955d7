/** Readers that stand still: what they cost, how they end, and that nothing is lost without a word. */

import { randomBytes } from 'node:crypto';
import net from 'node:net';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { addUsers, block } from '../support/social.js';
import { startRig, tokenFor, type Rig } from './support.js';

const sendQueueBytes = 256 * 1024;
let rig: Rig;
beforeAll(async () => {
  rig = await startRig({
    yaml: `limits: { sendQueueBytes: ${sendQueueBytes}, connectionsPerUser: 50, messagesPerSecond: 1000 }`,
  });
});
afterAll(() => rig.stop());

/** A client that reads only when it is told to, and keeps what it read as frames. */
class Reader {
  readonly frames: Record<string, unknown>[] = [];
  closeCode: number | null = null;
  #buffer = Buffer.alloc(0);
  #ended = false;

  private constructor(readonly socket: net.Socket) {
    socket.on('data', (chunk: Buffer) => {
      this.#buffer = Buffer.concat([this.#buffer, chunk]);
      this.parse();
    });
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.#ended = true;
    });
  }

  static async connect(port: number, userId: string, query = ''): Promise<Reader> {
    const socket = net.connect({ port, host: '127.0.0.1' });
    const key = randomBytes(16).toString('base64');
    socket.write(
      `GET /ws?${query} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n` +
        `Sec-WebSocket-Key: ${key}\r\nAuthorization: Bearer ${tokenFor(userId)}\r\n\r\n`,
    );
    const head = await new Promise<Buffer>((resolve) => socket.once('data', resolve));
    const reader = new Reader(socket);
    const end = head.indexOf('\r\n\r\n') + 4;
    if (head.length > end) socket.emit('data', head.subarray(end));
    return reader;
  }

  /** Sends an op, masked as the protocol wants it. */
  send(frame: unknown): void {
    const payload = Buffer.from(JSON.stringify(frame));
    const mask = randomBytes(4);
    for (let i = 0; i < payload.length; i++) payload[i]! ^= mask[i % 4]!;
    if (payload.length > 125) throw new Error('too long for this test');
    this.socket.write(Buffer.concat([Buffer.from([0x81, 0x80 | payload.length]), mask, payload]));
  }

  async until(fits: () => boolean, timeoutMs = 15_000): Promise<void> {
    const end = performance.now() + timeoutMs;
    while (!fits()) {
      if (performance.now() > end) throw new Error(`timed out; ${this.frames.length} frames`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  get ended(): boolean {
    return this.#ended;
  }

  private parse(): void {
    for (;;) {
      const buffer = this.#buffer;
      if (buffer.length < 2) return;
      const short = buffer[1]! & 0x7f;
      const start = short === 126 ? 4 : short === 127 ? 10 : 2;
      if (buffer.length < start) return;
      const length = short === 126 ? buffer.readUInt16BE(2) : short === 127 ? Number(buffer.readBigUInt64BE(2)) : short;
      if (buffer.length < start + length) return;
      const payload = buffer.subarray(start, start + length);
      const opcode = buffer[0]! & 0xf;
      if (opcode === 1) this.frames.push(JSON.parse(payload.toString()) as Record<string, unknown>);
      if (opcode === 8) this.closeCode = payload.readUInt16BE(0);
      this.#buffer = buffer.subarray(start + length);
    }
  }
}

const buffered = (): number =>
  Math.max(0, ...rig.gateway.context.sessions.all.map((session) => session.socket?.getBufferedAmount() ?? 0));
const big = 'x'.repeat(8000);

async function subscribed(userId: string, channel: string): Promise<Reader> {
  const reader = await Reader.connect(rig.port, userId);
  await reader.until(() => reader.frames.some((frame) => frame['event'] === 'synced'));
  reader.send({ id: 1, op: 'subscribe', channel });
  await reader.until(() => reader.frames.some((frame) => frame['id'] === 1));
  return reader;
}

/** Offsets in the order in which they came. */
const offsets = (reader: Reader): number[] =>
  reader.frames.filter((frame) => 'offset' in frame).map((frame) => Number(frame['offset']));

describe('a reader that stands still', () => {
  it.each([
    ['bursts within one turn', 64],
    ['one at a time', 1],
  ])('costs at most its queue, is told 4508, and has a prefix: channel, %s', async (_what, burst) => {
    const channel = `post:${burst}`;
    const [slow, healthy] = [await subscribed('1', channel), await subscribed('2', channel)];
    slow.socket.pause();
    let offset = 0;
    let most = 0;
    const slowReaders = await rig.metric('belfry_gateway_slow_readers_total');
    while ((await rig.metric('belfry_gateway_slow_readers_total')) === slowReaders) {
      rig.broker.publish(
        Array.from({ length: burst }, () => {
          const at = ++offset;
          return {
            to: 'channel',
            channel,
            offset: at,
            event: 'x',
            data: { big },
            actorId: null,
            dataWithoutActor: null,
          } as const;
        }),
      );
      await new Promise((resolve) => setImmediate(resolve));
      most = Math.max(most, buffered());
      if (offset > 20_000) throw new Error('was never dropped');
    }
    // One message more than the bound, as it is checked before a message is added.
    expect(most).toBeLessThan(sendQueueBytes + 16_384);
    await healthy.until(() => offsets(healthy).length === offset);
    await new Promise((resolve) => setTimeout(resolve, 300));
    slow.socket.resume();
    await slow.until(() => slow.ended);
    expect(slow.closeCode).toBe(4508);
    const got = offsets(slow);
    expect(got.length).toBeLessThan(offset);
    expect(got).toEqual(got.map((_, i) => i + 1));
    expect(offsets(healthy)).toEqual(Array.from({ length: offset }, (_, i) => i + 1));
    expect(healthy.closeCode).toBe(null);
    healthy.socket.destroy();
  });

  it('is told 4508 for its own stream too', async () => {
    const slow = await Reader.connect(rig.port, '3');
    await slow.until(() => slow.frames.some((frame) => frame['event'] === 'synced'));
    slow.socket.pause();
    let seq = 0;
    const slowReaders = await rig.metric('belfry_gateway_slow_readers_total');
    while ((await rig.metric('belfry_gateway_slow_readers_total')) === slowReaders) {
      seq++;
      rig.broker.publish([
        { to: 'user', userId: '3', seq, frame: JSON.stringify({ event: 'notification', seq, data: { big } }) },
      ]);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(rig.broker.mayHaveSessions('3')).toBe(false);
    slow.socket.resume();
    await slow.until(() => slow.ended);
    expect(slow.closeCode).toBe(4508);
    const got = slow.frames.filter((frame) => frame['event'] === 'notification').map((frame) => frame['seq']);
    expect(got).toEqual(got.map((_, i) => i + 1));
  });

  it('is cut off when it never reads again', async () => {
    const slow = await subscribed('4', 'post:never');
    slow.socket.pause();
    let offset = 0;
    const slowReaders = await rig.metric('belfry_gateway_slow_readers_total');
    while ((await rig.metric('belfry_gateway_slow_readers_total')) === slowReaders) {
      offset++;
      rig.broker.publish([
        {
          to: 'channel',
          channel: 'post:never',
          offset,
          event: 'x',
          data: { big },
          actorId: null,
          dataWithoutActor: null,
        },
      ]);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await expect.poll(() => rig.gateway.context.sessions.all.length, { timeout: 15_000, interval: 200 }).toBe(0);
  }, 20_000);
});

/** So many notifications that the user has not been told; returns the epoch. */
async function missed(userId: string, count: number, message: string): Promise<string> {
  const { pool } = rig.db;
  await pool.query(
    `with pushed as (
       insert into belfry.notification (user_id, seq, type, group_key, open, message, first_at, last_at)
       select $1, n, 'system', 'g' || n, false, $3, now(), now() from generate_series(1, $2::int) n
       returning user_id, seq, id)
     insert into belfry.stream_position (user_id, seq, notification_id) select user_id, seq, id from pushed`,
    [userId, count, message],
  );
  await pool.query('insert into belfry.head values ($1, $2)', [userId, count]);
  return (await pool.query<{ epoch: string }>('select value as epoch from belfry.epoch')).rows[0]!.epoch;
}

/** So many events in the log of a channel. */
async function logged(channel: string, count: number, text = big, actorId: string | null = null): Promise<void> {
  const { pool } = rig.db;
  await pool.query(
    `insert into belfry.channel_event (channel, "offset", event, actor_id, data)
     select $1, n, 'x', $4, jsonb_build_object('big', $3::text) from generate_series(1, $2::int) n`,
    [channel, count, text, actorId],
  );
  await pool.query('insert into belfry.channel_head (channel, "offset") values ($1, $2)', [channel, count]);
}

describe('a replay', () => {
  it('is paced by the socket: a slow reader gets all of it, whatever it takes', async () => {
    const epoch = await missed('5', 400, 'x'.repeat(20_000));
    const slow = await Reader.connect(rig.port, '5', `since=0&epoch=${epoch}`);
    slow.socket.pause();
    let most = 0;
    for (let i = 0; i < 40; i++) {
      slow.socket.resume();
      await new Promise((resolve) => setTimeout(resolve, 2));
      slow.socket.pause();
      await new Promise((resolve) => setTimeout(resolve, 20));
      most = Math.max(most, buffered());
    }
    expect(most).toBeLessThan(sendQueueBytes);
    slow.socket.resume();
    await slow.until(() => slow.frames.some((frame) => frame['event'] === 'synced'));
    const seqs = slow.frames.filter((frame) => frame['event'] === 'notification').map((frame) => frame['seq']);
    expect(seqs).toEqual(Array.from({ length: 400 }, (_, i) => i + 1));
    expect(slow.closeCode).toBe(null);
    slow.socket.destroy();
  });

  it('goes on beside the replays of channels on the same socket, to the end of each', async () => {
    const epoch = await missed('6', 400, 'x'.repeat(20_000));
    const channels = ['post:r1', 'post:r2'];
    for (const channel of channels) await logged(channel, 50);
    const slow = await Reader.connect(rig.port, '6', `since=0&epoch=${epoch}`);
    slow.socket.pause();
    await expect.poll(buffered).toBeGreaterThan(65_536);
    channels.forEach((channel, i) => slow.send({ id: i, op: 'subscribe', channel, offset: 0, epoch }));
    const session = rig.gateway.context.sessions.all.find(({ userId }) => userId === '6');
    const waiting = () => [...(session?.subscriptions?.values() ?? [])].filter(({ offset }) => offset === 0).length;
    await expect.poll(waiting).toBe(2);
    slow.socket.resume();
    await slow.until(() => slow.frames.some((frame) => frame['event'] === 'synced'));
    const of = (channel: string) => slow.frames.filter((frame) => frame['channel'] === channel);
    for (const channel of channels) {
      await slow.until(() => of(channel).length === 50);
      expect(of(channel).map((frame) => frame['offset'])).toEqual(Array.from({ length: 50 }, (_, i) => i + 1));
    }
    expect(slow.closeCode).toBe(null);
    slow.socket.destroy();
  });

  describe('of a channel, cut short', () => {
    const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

    /** Somebody who stands still in the midst of the replay of 400 events by `actorId`. */
    async function stuck(userId: string, channel: string, actorId: string | null = null) {
      await logged(channel, 400, 'x'.repeat(20_000), actorId);
      const { rows } = await rig.db.pool.query<{ epoch: string }>('select value as epoch from belfry.epoch');
      const { epoch } = rows[0]!;
      const slow = await Reader.connect(rig.port, userId);
      onTestFinished(() => void slow.socket.destroy());
      await slow.until(() => slow.frames.some((frame) => frame['event'] === 'synced'));
      slow.socket.pause();
      slow.send({ id: 1, op: 'subscribe', channel, offset: 0, epoch });
      await expect.poll(buffered, { timeout: 10_000 }).toBeGreaterThan(65_536);
      const session = rig.gateway.context.sessions.all.find((one) => one.userId === userId)!;
      const behind = (id: number) => slow.frames.slice(slow.frames.findIndex((frame) => frame['id'] === id) + 1);
      return { slow, session, epoch, behind };
    }

    it('ends where its subscription does: what is asked for anew comes whole', async () => {
      const { slow, session, epoch, behind } = await stuck('8', 'post:s8');
      const first = session.subscriptions!.get('post:s8')!;
      slow.send({ id: 2, op: 'subscribe', channel: 'post:s8', offset: 300, epoch });
      await expect.poll(() => session.subscriptions!.get('post:s8')?.offset, { timeout: 10_000 }).toBe(300);
      expect(first.mode).toBe('ended');
      slow.socket.resume();
      await slow.until(() => offsets(slow).at(-1) === 400);
      await slow.until(() => session.subscriptions!.get('post:s8')?.mode === 'topic');
      expect(behind(2).map((frame) => frame['offset'])).toEqual(range(301, 400));
    });

    it('ends with unsubscribe', async () => {
      const { slow, session, behind } = await stuck('9', 'post:s9');
      slow.send({ id: 2, op: 'unsubscribe', channel: 'post:s9' });
      await expect.poll(() => session.subscriptions!.size, { timeout: 10_000 }).toBe(0);
      slow.socket.resume();
      await slow.until(() => behind(2).length < slow.frames.length);
      await expect.poll(buffered, { timeout: 10_000 }).toBe(0);
      slow.send({ id: 3, op: 'ping' });
      await slow.until(() => slow.frames.some((frame) => frame['id'] === 3));
      expect(behind(2).map(({ id, offset }) => id ?? offset)).toEqual([3]);
    });

    it('hides somebody who is blocked meanwhile', async () => {
      const [ada = '', bob = ''] = await addUsers(rig.db.pool, 'Ada', 'Bob');
      const { slow, session } = await stuck(ada, 'post:s10', bob);
      await block(rig.db.pool, ada, bob);
      rig.broker.publish([{ to: 'control', kind: 'blocks', userIds: [ada, bob] }]);
      await expect.poll(() => session.hub?.blocks?.has(bob), { timeout: 10_000 }).toBe(true);
      slow.socket.resume();
      await slow.until(() => offsets(slow).at(-1) === 400);
      expect(offsets(slow)).toEqual(range(1, 400));
      expect(slow.frames.at(-1)!['event']).toBe('hidden');
    });
  });

  it.each([
    ['many that take three bytes a letter', 400, 1800],
    ['one that is larger than the queue', 1, 20_000],
  ])(
    'alone never ends in 4508 and leaves room for what follows, however small the queue: %s',
    async (_what, count, letters) => {
      const queueBytes = 16_384;
      const small = await startRig({ db: rig.db, yaml: `limits: { sendQueueBytes: ${queueBytes} }` });
      onTestFinished(() => small.stop());
      const slow = await Reader.connect(small.port, '7');
      await slow.until(() => slow.frames.some((frame) => frame['event'] === 'synced'));
      const session = small.gateway.context.sessions.all[0]!;
      const waits = () => session.socket?.getBufferedAmount() ?? 0;
      slow.socket.pause();
      while (waits() < queueBytes / 4) {
        session.send(JSON.stringify({ event: 'before', data: { text: 'x'.repeat(1000) } }));
        await new Promise((resolve) => setImmediate(resolve));
      }
      const frame = JSON.stringify({ event: 'x', data: { text: '鐘'.repeat(letters) } });
      const sent = session.sendPaced(Array.from({ length: count }), () => frame);
      slow.socket.resume();
      expect(await sent).toBe(true);
      session.send(JSON.stringify({ event: 'after', data: {} }));
      await slow.until(() => slow.ended || slow.frames.some((frame) => frame['event'] === 'after'));
      expect(slow.closeCode).toBe(null);
      expect(slow.frames.filter((frame) => frame['event'] === 'x')).toHaveLength(count);
      slow.socket.destroy();
    },
  );
});
