/**
 * The load client of the gateway bench: thousands of sockets over plain TCP that only count text frames, since a full
 * WebSocket client would cost more than the servers that are measured. It answers pings and reads nothing else.
 *
 * For every `perAck` frames it writes one byte to the server's acknowledgement port, so that a server which sends as
 * fast as it can never has more than a window on its way.
 */

import { randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import jwt from 'jsonwebtoken';
import { serveWorker } from '../lib/processes.js';
import type { GatewayKind } from '../peers/gateway-kinds.js';

export type SwarmJob =
  | {
      readonly do: 'connect';
      readonly kind: GatewayKind;
      readonly port: number;
      readonly count: number;
      readonly secret: string;
      readonly subscribe: boolean;
    }
  | { readonly do: 'count'; readonly ackPort: number; readonly perAck: number }
  | { readonly do: 'close' };

export interface SwarmAnswer {
  /** Text frames since the last `count`. */
  readonly frames: number;
  /** Sockets that are open. */
  readonly open: number;
}

const AT_ONCE = 200;

let sockets: Socket[] = [];
let frames = 0;
let perAck = Number.POSITIVE_INFINITY;
let ack: Socket | undefined;

serveWorker<SwarmJob, SwarmAnswer>(async (job) => {
  const before = frames;
  if (job.do === 'connect') {
    for (let from = 0; from < job.count; from += AT_ONCE) {
      const some = Array.from({ length: Math.min(AT_ONCE, job.count - from) }, (_, index) =>
        open(job, from + index + 1),
      );
      sockets.push(...(await Promise.all(some)));
    }
  } else if (job.do === 'count') {
    ack?.destroy();
    ack = connect(job.ackPort, '127.0.0.1').setNoDelay(true);
    frames = 0;
    perAck = job.perAck;
  } else {
    perAck = Number.POSITIVE_INFINITY;
    for (const socket of sockets) socket.destroy();
    sockets = [];
  }
  return { frames: before, open: sockets.length };
});

/** One socket: upgraded, authenticated, and subscribed to `post:1` if asked for. */
function open(job: SwarmJob & { do: 'connect' }, user: number): Promise<Socket> {
  const { path, headers, hello } = HANDSHAKES[job.kind](job.secret, String(user), job.subscribe);
  const socket = connect(job.port, '127.0.0.1').setNoDelay(true);
  const key = randomBytes(16).toString('base64');
  const lines = [
    `GET ${path} HTTP/1.1`,
    `Host: 127.0.0.1:${job.port}`,
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    `Sec-WebSocket-Key: ${key}`,
    ...headers,
  ];
  socket.write(`${lines.join('\r\n')}\r\n\r\n`);
  return new Promise((resolve, reject) => {
    let rest: Buffer = Buffer.alloc(0);
    let upgraded = false;
    let step = 0;
    const ready = (): void => {
      const text = hello[step];
      if (text === undefined) return resolve(socket);
      step += 1;
      if (text.send !== undefined) socket.write(textFrame(text.send));
      if (text.until === undefined) ready();
    };
    socket.on('error', reject);
    socket.on('close', () => reject(new Error(`${job.kind}: closed before it was ready: ${rest.toString()}`)));
    socket.on('data', (chunk: Buffer) => {
      rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
      if (!upgraded) {
        const end = rest.indexOf('\r\n\r\n');
        if (end < 0) return;
        if (!rest.subarray(0, 12).toString().endsWith('101')) return void socket.destroy();
        upgraded = true;
        rest = rest.subarray(end + 4);
        ready();
      }
      rest = eachFrame(rest, socket, (payload) => {
        const waitsFor = hello[step - 1]?.until;
        if (waitsFor !== undefined && payload.includes(waitsFor)) ready();
      });
    });
  });
}

/** What is left of the buffer behind its last whole frame. */
function eachFrame(buffer: Buffer, socket: Socket, on: (payload: Buffer) => void): Buffer {
  let at = 0;
  for (;;) {
    const short = (buffer[at + 1] ?? 0) & 0x7f;
    const header = short === 126 ? 4 : short === 127 ? 10 : 2;
    if (buffer.length < at + header) return buffer.subarray(at);
    const length =
      short === 126 ? buffer.readUInt16BE(at + 2) : short === 127 ? Number(buffer.readBigUInt64BE(at + 2)) : short;
    const end = at + header + length;
    if (buffer.length < end) return buffer.subarray(at);
    const opcode = (buffer[at] ?? 0) & 0x0f;
    if (opcode === 1) {
      frames += 1;
      if (frames % perAck === 0) ack?.write('.');
      if (perAck === Number.POSITIVE_INFINITY) on(buffer.subarray(at + header, end));
    } else if (opcode === 9) socket.write(Buffer.from([0x8a, 0x80, 0, 0, 0, 0]));
    at = end;
    if (at === buffer.length) return Buffer.alloc(0);
  }
}

/** A masked text frame; the mask is zero, which a server can't tell from any other. */
function textFrame(text: string): Buffer {
  const payload = Buffer.from(text);
  const header =
    payload.length < 126
      ? Buffer.from([0x81, 0x80 | payload.length])
      : Buffer.from([0x81, 0xfe, payload.length >> 8, payload.length & 0xff]);
  return Buffer.concat([header, Buffer.alloc(4), payload]);
}

interface Handshake {
  readonly path: string;
  readonly headers: readonly string[];
  /** In order: send a text (if any), then wait for a frame that contains `until` (if any). */
  readonly hello: readonly { readonly send?: string; readonly until?: string }[];
}

const sign = (secret: string, sub: string): string =>
  jwt.sign({ sub }, secret, { algorithm: 'HS256', expiresIn: '1h' });
const bearer = (secret: string, user: string): string[] => [`Authorization: Bearer ${sign(secret, user)}`];

const plain = (secret: string, user: string): Handshake => ({ path: '/', headers: bearer(secret, user), hello: [] });
const socketIo = (secret: string, user: string): Handshake => ({
  path: '/socket.io/?EIO=4&transport=websocket',
  headers: [],
  hello: [{ until: '0{' }, { send: `40${JSON.stringify({ token: sign(secret, user) })}`, until: '40{' }],
});

const HANDSHAKES: Record<GatewayKind, (secret: string, user: string, subscribe: boolean) => Handshake> = {
  uws: plain,
  'uws-loop': plain,
  ws: plain,
  'socket-io': socketIo,
  'socket-io-uws': socketIo,
  belfry: (secret, user, subscribe) => ({
    path: '/ws',
    headers: bearer(secret, user),
    hello: [
      { until: '"synced"' },
      ...(subscribe ? [{ send: '{"id":2,"op":"subscribe","channel":"post:1"}', until: '"id":2' }] : []),
    ],
  }),
};
