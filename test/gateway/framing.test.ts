/**
 * The gateway's WebSocket frame by frame, by raw sockets: what RFC 6455 allows works however it is cut, what it forbids
 * ends this connection and harms no other. The cases are those of the Autobahn suite that apply (no compression).
 */

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { encode, opcodes, RawSocket, text, type RawFrame } from '../support/raw-socket.js';
import { startRig, tokenFor, type Client, type Rig } from './support.js';

const messageBytes = 100_000;
let rig: Rig;
/** Another session, which must not notice anything. */
let witness: Client;
let raw: RawSocket;

beforeAll(async () => {
  const limits = `messageBytes: ${messageBytes}, connectionsPerUser: 1000, handshakesPerSecond: 1000, messagesPerSecond: 1000`;
  rig = await startRig({ yaml: `limits: { ${limits} }` });
  witness = await rig.login('2');
});
afterAll(() => rig.stop());
beforeEach(async () => {
  raw = await RawSocket.open(rig.port, { Authorization: `Bearer ${tokenFor('1')}` });
  expect((await raw.json())['event']).toBe('hello');
  expect((await raw.json())['event']).toBe('synced');
});
afterEach(async () => {
  raw.end();
  expect(await witness.request({ op: 'ping' })).toMatchObject({ ok: {} });
  expect(witness.frames).toEqual([]);
});

let lastId = 0;
/** A request of exactly so many bytes. */
function ping(bytes = 0): { id: number; body: Buffer } {
  const id = ++lastId;
  return { id, body: Buffer.from(JSON.stringify({ id, op: 'ping' }).padEnd(bytes)) };
}
const answered = async (id: number): Promise<void> => expect(await raw.json()).toEqual({ id, ok: {} });
const frame = (frame: RawFrame): void => raw.write(encode(frame));

describe('a text', () => {
  // Both sides of where the length takes 7, 16 and 64 bits.
  it.each([125, 126, 127, 128, 65_535, 65_536, messageBytes])('of %i bytes', async (bytes) => {
    const { id, body } = ping(bytes);
    expect(body).toHaveLength(bytes);
    raw.write(text(body));
    await answered(id);
  });

  it('that comes one byte at a time', async () => {
    const { id, body } = ping(130);
    for (const byte of text(body)) {
      raw.write(Buffer.from([byte]));
      await new Promise(setImmediate);
    }
    await answered(id);
  });

  it('with others in one piece: each is answered, in order', async () => {
    const all = Array.from({ length: 20 }, () => ping(130));
    raw.write(...all.map(({ body }) => text(body)));
    for (const { id } of all) await answered(id);
  });

  it('cut anywhere', async () => {
    const { body } = ping(126);
    const whole = text(body);
    for (let at = 1; at < whole.length; at += 7) {
      raw.write(whole.subarray(0, at));
      await new Promise(setImmediate);
      raw.write(whole.subarray(at));
      await answered(lastId);
    }
  });

  it('with characters of one to four bytes, and an empty one is no JSON', async () => {
    raw.write(text(JSON.stringify({ id: 'aé€𝄞', op: 'ping' })));
    expect(await raw.json()).toEqual({ id: 'aé€𝄞', ok: {} });
    raw.write(text(''));
    expect((await raw.closed()).code).toBe(4400);
  });
});

describe('fragments', () => {
  const fragments = (body: Buffer, size: number): Buffer[] => {
    const pieces: Buffer[] = [];
    for (let at = 0; at < body.length; at += size) pieces.push(body.subarray(at, at + size));
    return pieces.map((payload, i) =>
      encode({ opcode: i === 0 ? opcodes.text : opcodes.continuation, fin: i === pieces.length - 1, payload }),
    );
  };

  it.each([1, 2, 10, 40_000])('of %i bytes are one message', async (size) => {
    const { id, body } = ping(size > 100 ? messageBytes : 60);
    raw.write(...fragments(body, size));
    await answered(id);
  });

  it('may be empty, and control frames may come between them', async () => {
    const { id, body } = ping();
    frame({ opcode: opcodes.text, fin: false });
    frame({ opcode: opcodes.ping, payload: 'between' });
    frame({ opcode: opcodes.continuation, fin: false, payload: body.subarray(0, 5) });
    frame({ opcode: opcodes.pong, payload: 'unasked' });
    frame({ opcode: opcodes.continuation, fin: false });
    frame({ opcode: opcodes.continuation, payload: body.subarray(5) });
    const pong = await raw.next();
    expect([pong?.opcode, pong?.payload.toString()]).toEqual([opcodes.pong, 'between']);
    await answered(id);
  });

  it('count together against the size', async () => {
    const { body } = ping(messageBytes + 1);
    raw.write(...fragments(body, 10_000));
    expect((await raw.closed()).code).toBe(4400);
  });

  it.each([
    ['a continuation of nothing', [{ opcode: opcodes.continuation, payload: '{}' }]],
    ['the end of nothing', [text('{"id":1,"op":"ping"}'), { opcode: opcodes.continuation, payload: 'x' }]],
    [
      'a new message before the end of the last',
      [
        { opcode: opcodes.text, fin: false, payload: '{' },
        { opcode: opcodes.text, payload: '}' },
      ],
    ],
    [
      'a binary one within a text',
      [
        { opcode: opcodes.text, fin: false, payload: '{' },
        { opcode: opcodes.binary, payload: '}' },
      ],
    ],
  ] as const)('in the wrong order end the connection: %s', async (_, frames) => {
    for (const one of frames) raw.write(Buffer.isBuffer(one) ? one : encode(one));
    expect([1002, 1006, 4400]).toContain((await raw.closed()).code);
  });
});

describe('a control frame', () => {
  it.each([0, 1, 125])('ping with %i bytes gets them back', async (bytes) => {
    const payload = Buffer.alloc(bytes, 0xfe);
    frame({ opcode: opcodes.ping, payload });
    const pong = await raw.next();
    expect(pong?.opcode).toBe(opcodes.pong);
    expect(pong?.payload.equals(payload)).toBe(true);
  });

  it('ping ten times in one piece: each is answered', async () => {
    raw.write(...Array.from({ length: 10 }, (_, i) => encode({ opcode: opcodes.ping, payload: String(i) })));
    for (let i = 0; i < 10; i++) expect((await raw.next())?.payload.toString()).toBe(String(i));
  });

  it('pong that nobody asked for is nothing', async () => {
    frame({ opcode: opcodes.pong, payload: 'x' });
    const { id, body } = ping();
    raw.write(text(body));
    await answered(id);
  });

  it.each([
    ['of 126 bytes', { payload: Buffer.alloc(126) }],
    ['in fragments', { fin: false, payload: 'x' }],
  ])('ping %s ends the connection', async (_, more) => {
    frame({ opcode: opcodes.ping, ...more });
    const { body } = ping();
    raw.write(text(body));
    const { code, before } = await raw.closed();
    expect([1002, 1006]).toContain(code);
    expect(before).toEqual([]);
  });
});

describe('what the protocol keeps for later ends the connection', () => {
  it.each([1, 2, 3, 4, 5, 6, 7])('reserved bits %i', async (reserved) => {
    const { body } = ping();
    raw.write(text(body, { reserved }), text(body));
    const { code, before } = await raw.closed();
    expect([1002, 1006]).toContain(code);
    expect(before).toEqual([]);
  });

  it.each([3, 4, 5, 6, 7, 11, 12, 13, 14, 15])('opcode %i', async (opcode) => {
    const { body } = ping();
    raw.write(encode({ opcode, payload: body }), text(body));
    const { code, before } = await raw.closed();
    expect([1002, 1006]).toContain(code);
    expect(before).toEqual([]);
  });
});

describe('what is no text', () => {
  const invalid: [string, string][] = [
    ['a lone continuation byte', '80'],
    ['an overlong slash', 'c0af'],
    ['an overlong NUL', 'e08080'],
    ['half a surrogate pair', 'eda080'],
    ['beyond U+10FFFF', 'f4908080'],
    ['a byte that never occurs', 'ff'],
    ['the beginning of a character and no more', 'e282'],
  ];
  const around = (hex: string): Buffer =>
    Buffer.concat([Buffer.from('{"id":1,"op":"ping","x":"'), Buffer.from(hex, 'hex'), Buffer.from('"}')]);

  it.each(invalid)('ends the connection: %s', async (_, hex) => {
    raw.write(text(around(hex)));
    const { code, before } = await raw.closed();
    expect([1006, 1007]).toContain(code);
    expect(before).toEqual([]);
  });

  it.each(invalid)('and so over fragments: %s', async (_, hex) => {
    const body = around(hex);
    const at = 25 + Math.ceil(hex.length / 4);
    frame({ opcode: opcodes.text, fin: false, payload: body.subarray(0, at) });
    frame({ opcode: opcodes.continuation, payload: body.subarray(at) });
    const { code, before } = await raw.closed();
    expect([1006, 1007]).toContain(code);
    expect(before).toEqual([]);
  });

  it('a character that is split over fragments is one', async () => {
    const body = Buffer.from(JSON.stringify({ id: 'x𝄞y', op: 'ping' }));
    const at = body.indexOf(Buffer.from('𝄞'));
    for (let cut = 1; cut < 4; cut++) {
      frame({ opcode: opcodes.text, fin: false, payload: body.subarray(0, at + cut) });
      frame({ opcode: opcodes.continuation, payload: body.subarray(at + cut) });
      expect(await raw.json()).toEqual({ id: 'x𝄞y', ok: {} });
    }
  });

  it('is binary: 4400', async () => {
    frame({ opcode: opcodes.binary, payload: '{"id":1,"op":"ping"}' });
    expect((await raw.closed()).code).toBe(4400);
  });
});

describe('a frame without a mask', () => {
  // uWebSockets takes the first four bytes for the mask: what it then reads is no JSON.
  it('is never acted upon, and ends the connection', async () => {
    const { body } = ping(60);
    raw.write(text(body, { masked: false }), text(body));
    const { before } = await raw.closed();
    expect(before).toEqual([]);
  });
});

describe('a size', () => {
  it('beyond the limit: 4400, far beyond: 1009', async () => {
    raw.write(text(ping(messageBytes + 1).body));
    expect((await raw.closed()).code).toBe(4400);
    const other = await RawSocket.open(rig.port, { Authorization: `Bearer ${tokenFor('1')}` });
    other.write(text(ping(4 * messageBytes + 1).body));
    expect((await other.closed()).code).toBe(1009);
  });

  it.each([2n ** 24n, 2n ** 32n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n])(
    'of %i that is only announced ends the connection at once',
    async (claimed) => {
      raw.write(encode({ opcode: opcodes.text, claimed, lengthBits: 64, payload: '{' }));
      expect([1006, 1009]).toContain((await raw.closed()).code);
    },
  );
});

describe('a size that is not even read', () => {
  it('ends the connection at its head, without a close frame', async () => {
    frame({ opcode: opcodes.text, payload: 'x', claimed: 3n * 1024n * 1024n });
    expect((await raw.closed()).code).toBe(1006);
  });
});

describe('a close', () => {
  const code = (value: number, reason = ''): Buffer => {
    const payload = Buffer.alloc(2 + Buffer.byteLength(reason));
    payload.writeUInt16BE(value);
    payload.write(reason, 2);
    return payload;
  };

  it.each([
    ['without a code', Buffer.alloc(0), [1005, 1000]],
    ['with a code', code(1000), [1000]],
    ['with a reason', code(1001, 'leaving'), [1001]],
    ['with a reason of 123 bytes', code(1000, 'x'.repeat(123)), [1000]],
    ['with a code of an application', code(4999), [4999]],
    // uWebSockets answers these without one.
    ['with a code of a library', code(3000), [3000, 1005]],
  ])('%s is answered, then the server ends the connection', async (_, payload, codes) => {
    raw.write(encode({ opcode: opcodes.close, payload }), text(ping().body));
    const { code, before } = await raw.closed();
    expect(codes).toContain(code);
    // What follows a close is not read.
    expect(before).toEqual([]);
  });

  it.each([
    ['of one byte', Buffer.from([3])],
    ...[0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535].map((value): [string, Buffer] => [
      `with code ${value}`,
      code(value),
    ]),
    ['with a reason that is no UTF-8', Buffer.concat([code(1000), Buffer.from([0xc0, 0xaf])])],
    ['longer than 125 bytes', code(1000, 'x'.repeat(124))],
  ])('%s is a fault: the connection ends, the code is not repeated', async (_, payload) => {
    frame({ opcode: opcodes.close, payload });
    const { code, before } = await raw.closed();
    expect([1002, 1005, 1006, 1007]).toContain(code);
    expect(before).toEqual([]);
  });
});

describe('a handshake', () => {
  it('selects belfry.v1 where it is offered, and no extension', async () => {
    const other = await RawSocket.open(rig.port, {
      'Sec-WebSocket-Protocol': 'other, belfry.v1',
      'Sec-WebSocket-Extensions': 'permessage-deflate; client_max_window_bits',
    });
    expect(other.head).toMatch(/^sec-websocket-protocol: belfry\.v1$/im);
    expect(other.head).not.toMatch(/^sec-websocket-extensions/im);
    other.end();
  });

  it('without being one is answered by HTTP', async () => {
    const answer = await rig.http('/ws');
    expect(answer.status).toBeGreaterThanOrEqual(400);
    expect(answer.headers.get('content-type')).toBe('application/problem+json');
  });
});
