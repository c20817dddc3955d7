/**
 * What nobody would think of sending, to a running gateway: bytes and frames, JSON, tokens; for a budget of time. Run by
 * fuzz.test.ts for seconds and by fuzz.long.ts for minutes. A failure names its seed and the smallest case found.
 */

import { createHmac } from 'node:crypto';
import fc from 'fast-check';
import { expect } from 'vitest';
import { closeCodes, errorCodes } from '../../src/protocol/codes.js';
import { encode, opcodes, RawSocket, type Received } from '../support/raw-socket.js';
import { testSecret } from '../support/social.js';
import { startRig, tokenFor, type Client, type Frame, type Rig } from './support.js';

/** Channels of every sort, so that names and ids reach SQL. */
const yaml = `
  limits: { connectionsPerUser: 10000, connectionsPerAddress: 100000, handshakesPerSecond: 100000, messagesPerSecond: 100000, subscriptions: 50 }
  auth: { secret: "${testSecret}", queryToken: true }
  presence: { read: "select 1 from public.follows where follower_id = :user and followed_id = :other" }
  channels:
    post: { read: public, publish: none }
    room: { read: public, publish: public }
    mine: { read: "select 1 from public.users where id = :id and id = :user", publish: "select 1 from public.users where id = :id" }
`;

export const startFuzzed = (): Promise<Rig> => startRig({ yaml });

/** Stops without a failure when the time is over. */
const budget = (ms: number) => ({ numRuns: 1_000_000, interruptAfterTimeLimit: ms, endOnFailure: false });

const known: ReadonlySet<number> = new Set([...Object.keys(closeCodes).map(Number), 1000, 1005, 1007]);

// Bytes ---------------------------------------------------------------------------------------------------------------

const request = fc
  .constantFrom('ping', 'subscribe', 'seen', 'publish', 'auth')
  .map((op) => JSON.stringify({ id: 1, op, channel: 'room:1', event: 'e', through: 1, token: 'x' }));
const payload = fc
  .oneof(request, fc.string({ unit: 'binary', maxLength: 300 }), fc.json())
  .map((text) => Buffer.from(text));
const frame = fc
  .record({
    fin: fc.boolean(),
    reserved: fc.oneof({ weight: 9, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(7) }),
    opcode: fc.oneof(
      { weight: 6, arbitrary: fc.constantFrom(...Object.values(opcodes)) },
      { weight: 1, arbitrary: fc.nat(15) },
    ),
    payload,
    masked: fc.oneof({ weight: 9, arbitrary: fc.constant(true) }, { weight: 1, arbitrary: fc.constant(false) }),
    claimed: fc.oneof(
      { weight: 9, arbitrary: fc.constant(null) },
      { weight: 1, arbitrary: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }) },
    ),
  })
  .map(({ claimed, ...one }) => encode(claimed === null ? one : { ...one, claimed, lengthBits: 64 }));
const flipped = fc
  .tuple(frame, fc.nat(), fc.nat(7))
  .map(([bytes, at, bit]) => Buffer.from(bytes.map((byte, i) => (i === at % bytes.length ? byte ^ (1 << bit) : byte))));
const noise = fc.uint8Array({ maxLength: 64 }).map((bytes) => Buffer.from(bytes));
const chunks = fc.array(
  fc.oneof({ weight: 6, arbitrary: frame }, { weight: 2, arbitrary: flipped }, { weight: 1, arbitrary: noise }),
  {
    minLength: 1,
    maxLength: 8,
  },
);

/** Whatever bytes come: what is answered is the protocol's, and another session does not notice. Returns the number of cases. */
export async function fuzzBytes(rig: Rig, ms: number): Promise<number> {
  const witness = await rig.login('2');
  let cases = 0;
  const property = fc.asyncProperty(chunks, fc.boolean(), async (all, apart) => {
    cases++;
    const raw = await RawSocket.open(rig.port, { Authorization: `Bearer ${tokenFor('1')}` });
    try {
      while ((await raw.json())['event'] !== 'synced');
      if (!apart) raw.write(...all);
      for (const one of apart ? all : []) {
        raw.write(one);
        await new Promise(setImmediate);
      }
      expect(await witness.request({ op: 'ping' })).toMatchObject({ ok: {} });
      raw.received.forEach(expectOurs);
    } finally {
      raw.end();
    }
  });
  await fc.assert(property, budget(ms));
  return cases;
}

function expectOurs({ opcode, payload }: Received): void {
  // A ping of its own is due every 25 s.
  if (opcode === opcodes.pong || opcode === opcodes.ping) return;
  if (opcode === opcodes.close) {
    if (payload.length > 0) expect(known).toContain(payload.readUInt16BE(0));
    return;
  }
  expect(opcode).toBe(opcodes.text);
  expectAnswer(JSON.parse(new TextDecoder('utf8', { fatal: true }).decode(payload)) as Frame);
}

function expectAnswer(frame: Frame): void {
  if (typeof frame['event'] === 'string') return;
  expect(frame).toHaveProperty('id');
  const error = frame['error'] as { code: string; message: string; retry: boolean } | undefined;
  if (error === undefined) return expect(frame.ok).toBeTypeOf('object');
  expect(Object.keys(errorCodes)).toContain(error.code);
  // A fault of ours, whatever was asked.
  expect(error.code).not.toBe('internal');
  expect(error.message).toMatch(/^.{3,300}$/s);
}

// JSON ----------------------------------------------------------------------------------------------------------------

const strange = fc.oneof(
  fc.constantFrom(
    '',
    '0',
    '1',
    '-1',
    '9223372036854775808',
    'a1',
    'null',
    '\u0000',
    '\ud800',
    "'; drop table x; --",
    '__proto__',
    '%',
    ':',
    'é',
  ),
  fc.constantFrom(0, -1, 1.5, 1e308, 2 ** 53, null, true, [], {}, [[]], { length: 1 }),
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.jsonValue(),
);
const channel = fc.oneof(
  fc
    .tuple(fc.constantFrom('post', 'room', 'mine', 'all', 'none', 'constructor', '__proto__', ''), strange)
    .map(([kind, id]) => `${kind}:${typeof id === 'string' ? id : JSON.stringify(id)}`),
  fc.constantFrom('all', 'room', ':', '::', 'mine:1', 'mine:2', 'post:1'),
  strange,
);
const ids = fc.oneof(
  fc.array(fc.oneof(fc.constantFrom('1', 'a1', 'x', '99999999999999999999'), strange), { maxLength: 5 }),
  strange,
);
const op = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.constantFrom('subscribe', 'unsubscribe', 'seen', 'read', 'archive', 'presence', 'publish', 'ping'),
  },
  { weight: 1, arbitrary: strange },
);
const requests = fc.record(
  {
    ...{
      op,
      channel,
      ids,
      users: ids,
      through: strange,
      offset: strange,
      epoch: strange,
      event: strange,
      data: strange,
    },
    extra: strange,
  },
  { requiredKeys: ['op'] },
);

/** Whatever is asked: it is answered once, by the protocol's codes, and never with a fault of the server. */
export async function fuzzJson(rig: Rig, ms: number): Promise<number> {
  let session: Client = await rig.login('1');
  let id = 0;
  const property = fc.asyncProperty(requests, async (asked) => {
    const mine = `q${++id}`;
    session.send({ id: mine, ...asked });
    if (typeof asked.op !== 'string') {
      expect((await session.closed).code).toBe(4400);
      session = await rig.login('1');
      return;
    }
    const answer = await session.take((frame) => frame['id'] !== undefined, 30_000);
    expect(answer['id']).toBe(mine);
    expectAnswer(answer);
    session.frames.length = 0;
    session.all.length = 0;
  });
  await fc.assert(property, budget(ms));
  return id;
}

// Tokens --------------------------------------------------------------------------------------------------------------

const good = tokenFor('1');
const base64 = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
const [head = '', body = '', signature = ''] = good.split('.');
/** With the right secret, whatever it says: jsonwebtoken signs no nonsense. */
function signed(claims: object): string {
  const text = `${base64({ alg: 'HS256', typ: 'JWT' })}.${base64(claims)}`;
  return `${text}.${createHmac('sha256', testSecret).update(text).digest('base64url')}`;
}
const tokens = fc.oneof(
  // One character is another.
  fc
    .tuple(fc.nat(good.length - 1), fc.constantFrom(...'ABCabc019-_.=+/ '))
    .map(([at, char]) => good.slice(0, at) + char + good.slice(at + 1)),
  fc.nat(good.length - 1).map((at) => good.slice(0, at)),
  // Another head or body under the signature.
  fc
    .record({
      alg: fc.oneof(fc.constantFrom('none', 'None', 'HS256', 'HS384', 'RS256', 'ES256'), strange),
      typ: strange,
      kid: strange,
      jwk: strange,
    })
    .map((one) => `${base64(one)}.${body}.${signature}`),
  fc
    .record({ sub: strange, exp: fc.oneof(fc.constant(9_999_999_999), strange) })
    .map((one) => `${head}.${base64(one)}.${signature}`),
  fc.constantFrom(
    `${base64({ alg: 'none' })}.${body}.`,
    `${head}.${body}.`,
    `${good}.${signature}`,
    '..',
    '.',
    `${good} `,
  ),
  // Signed, but not by us.
  strange.map((secret) => tokenFor('1', {}, `x${JSON.stringify(secret)}`)),
  // Signed by us, but it says nothing that would do.
  fc
    .oneof(
      fc.constantFrom(0, 1, -1, '9999999999', null, undefined, 1.5),
      strange.filter((exp) => typeof exp !== 'number'),
    )
    .map((exp) => signed({ sub: '1', exp })),
  fc.constantFrom(undefined, null, '', {}, [], true).map((sub) => signed({ sub, exp: 9_999_999_999 })),
  fc.string({ unit: 'binary', maxLength: 100 }),
);

/** Whatever token but a valid one, on whichever way: 4401, and nothing of a session before. */
export async function fuzzTokens(rig: Rig, ms: number): Promise<number> {
  let cases = 0;
  const way = fc.constantFrom('frame', 'header', 'subprotocol', 'query');
  const property = fc.asyncProperty(tokens, way, async (token, how) => {
    fc.pre(token !== good);
    // What HTTP itself would not carry, or would strip, goes in a frame.
    const plain = /^[\w.\-~]+$/.test(token);
    cases++;
    const client = await rig.connect(
      how === 'header' && plain
        ? { ws: { headers: { authorization: `Bearer ${token}` } } }
        : how === 'subprotocol' && plain
          ? { protocols: ['belfry.v1', `bearer.${token}`] }
          : how === 'query' && plain
            ? { query: `token=${token}` }
            : {},
    );
    try {
      if (how === 'frame' || !plain) client.send({ id: 1, op: 'auth', token });
      expect((await client.closed).code).toBe(4401);
      expect(client.all.filter((frame) => frame['error'] === undefined)).toEqual([]);
    } finally {
      client.socket.terminate();
    }
  });
  await fc.assert(property, budget(ms));
  return cases;
}
