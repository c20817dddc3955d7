/** What a client may send: each op, each bound, and that no input whatever makes the parser throw. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bounds, parseClientFrame, parseMarkTarget, splitChannel } from '../../src/protocol/parse.js';
import { RESERVED_EVENTS } from '../../src/protocol/frames.js';

const parse = (frame: unknown) => parseClientFrame(JSON.stringify(frame));

describe('requests that pass', () => {
  it.each([
    [
      { op: 'auth', token: 't' },
      { op: 'auth', token: 't', since: null, epoch: null },
    ],
    [
      { op: 'auth', token: 't', since: 0, epoch: 'e' },
      { op: 'auth', token: 't', since: 0, epoch: 'e' },
    ],
    [
      { op: 'auth', token: 't', since: null, epoch: null },
      { op: 'auth', token: 't', since: null, epoch: null },
    ],
    [
      { op: 'subscribe', channel: 'post:1' },
      { op: 'subscribe', channel: 'post:1', offset: null, epoch: null },
    ],
    [
      { op: 'subscribe', channel: 'a', offset: 7, epoch: 'e' },
      { op: 'subscribe', channel: 'a', offset: 7, epoch: 'e' },
    ],
    [
      { op: 'unsubscribe', channel: 'ä:ö' },
      { op: 'unsubscribe', channel: 'ä:ö' },
    ],
    [
      { op: 'seen', ids: ['1', 'a2'] },
      { op: 'seen', target: { ids: ['1', 'a2'] } },
    ],
    [
      { op: 'read', through: 9 },
      { op: 'read', target: { through: 9 } },
    ],
    [
      { op: 'archive', ids: ['1'], through: null },
      { op: 'archive', target: { ids: ['1'] } },
    ],
    [
      { op: 'presence', users: ['1', 2] },
      { op: 'presence', of: { users: ['1', '2'] } },
    ],
    [
      { op: 'presence', channel: 'r' },
      { op: 'presence', of: { channel: 'r' } },
    ],
    [
      { op: 'publish', channel: 'r', event: 'typing' },
      { op: 'publish', channel: 'r', event: 'typing', data: {} },
    ],
    [
      { op: 'publish', channel: 'r', event: 'e', data: { text: 'line\nline', list: [1, { a: null }] } },
      { op: 'publish', channel: 'r', event: 'e', data: { text: 'line\nline', list: [1, { a: null }] } },
    ],
    [{ op: 'ping', whatever: true }, { op: 'ping' }],
  ])('%j', (frame, request) => {
    expect(parse({ id: 1, ...frame })).toEqual({ kind: 'request', id: 1, request });
  });

  it.each([0, -1, 1.5, Number.MAX_SAFE_INTEGER, '', 'x'.repeat(bounds.idChars)])('echoes the id %j', (id) => {
    expect(parse({ id, op: 'ping' })).toMatchObject({ kind: 'request', id });
  });

  it('counts the bytes of a channel and the characters of an event', () => {
    expect(parse({ id: 1, op: 'unsubscribe', channel: 'ä'.repeat(128) }).kind).toBe('request');
    expect(parse({ id: 1, op: 'publish', channel: 'r', event: '🔔'.repeat(64) }).kind).toBe('request');
  });
});

describe('requests that do not pass', () => {
  const ids501 = Array.from({ length: 501 }, (_, i) => String(i));
  it.each<[Record<string, unknown>, RegExp]>([
    [{ op: 'auth' }, /^token: is required/],
    [{ op: 'auth', token: 5 }, /^token: must be a string/],
    [{ op: 'auth', token: 't', since: -1 }, /^since: must be an integer/],
    [{ op: 'auth', token: 't', since: 1.5 }, /^since: must be an integer/],
    [{ op: 'auth', token: 't', since: '5' }, /^since: must be an integer/],
    [{ op: 'auth', token: 't', since: 2 ** 53 }, /^since: must be an integer/],
    [{ op: 'auth', token: 't', epoch: 'x'.repeat(65) }, /^epoch: is longer/],
    [{ op: 'subscribe' }, /^channel: is required/],
    [{ op: 'subscribe', channel: 'x'.repeat(257) }, /^channel: is longer/],
    [{ op: 'subscribe', channel: 'ä'.repeat(129) }, /^channel: is longer than 256 bytes/],
    [{ op: 'subscribe', channel: 'a\u0000' }, /^channel: must not hold control/],
    [{ op: 'subscribe', channel: 'a\ud800' }, /^channel: must not hold control/],
    [{ op: 'subscribe', channel: 'a', offset: true }, /^offset: must be an integer/],
    [{ op: 'seen' }, /^ids, through: one of the two/],
    [{ op: 'seen', ids: ['1'], through: 3 }, /^ids, through: give one/],
    [{ op: 'seen', ids: [] }, /^ids: must not be empty/],
    [{ op: 'seen', ids: '1' }, /^ids: must be a list/],
    [{ op: 'seen', ids: ['1', 2] }, /^ids\[1\]: must be a string/],
    [{ op: 'presence', users: ['1', 2.5] }, /^users\[1\]: must be a string/],
    [{ op: 'seen', ids: ids501 }, /^ids: has 501 entries/],
    [{ op: 'read', through: -1 }, /^through: must be an integer/],
    [{ op: 'presence' }, /^users, channel: one of the two/],
    [{ op: 'presence', users: ids501 }, /^users: has 501 entries/],
    [{ op: 'presence', users: ['1'], channel: 'r' }, /^users, channel: give one/],
    [{ op: 'publish', channel: 'r' }, /^event: is required/],
    [{ op: 'publish', channel: 'r', event: 'x'.repeat(65) }, /^event: is longer than 64/],
    [{ op: 'publish', channel: 'r', event: 'e', data: [] }, /^data: must be an object/],
    [{ op: 'publish', channel: 'r', event: 'e', data: 'x' }, /^data: must be an object/],
    [{ op: 'publish', channel: 'r', event: 'e', data: { a: ['\u0000'] } }, /^data: must not hold U\+0000/],
    [{ op: 'publish', channel: 'r', event: 'e', data: { a: [2 ** 53] } }, /^data: must not hold numbers beyond 2\^53/],
    [{ op: 'publish', channel: 'r', event: 'e', data: { a: { '\udfff': 1 } } }, /^data: must not hold U\+0000/],
    ...RESERVED_EVENTS.map((event): [Record<string, unknown>, RegExp] => [
      { op: 'publish', channel: 'r', event },
      /^event: .* belongs to the protocol/,
    ]),
  ])('%j', (frame, message) => {
    const parsed = parse({ id: 'q', ...frame });
    expect(parsed).toMatchObject({ kind: 'error', id: 'q', code: 'bad_request' });
    expect(parsed.kind === 'error' && parsed.message).toMatch(message);
  });

  it('refuses data nested too deep, however deep', () => {
    const nested = (depth: number) =>
      `{"id":1,"op":"publish","channel":"r","event":"e","data":${'{"a":'.repeat(depth)}{}${'}'.repeat(depth)}}`;
    expect(parseClientFrame(nested(bounds.dataDepth - 1)).kind).toBe('request');
    expect(parseClientFrame(nested(bounds.dataDepth))).toMatchObject({ code: 'bad_request' });
    expect(parseClientFrame(nested(5000))).toMatchObject({ code: 'bad_request' });
  });

  it.each([undefined, null, true, {}, [], 'x'.repeat(65), 'a\nb', 2 ** 53])('has no usable id: %j', (id) => {
    expect(parse({ id, op: 'ping' })).toMatchObject({ kind: 'error', id: null, code: 'bad_request' });
  });

  it('refuses an id that JSON numbers cannot hold', () => {
    expect(parseClientFrame('{"id":1e999,"op":"ping"}')).toMatchObject({ kind: 'error', id: null });
    expect(parseClientFrame('{"id":9007199254740993,"op":"ping"}')).toMatchObject({ kind: 'error', id: null });
  });

  it.each(['nope', 'constructor', '__proto__', 'Auth', ''])('does not know the op %j', (op) => {
    expect(parse({ id: 4, op })).toMatchObject({ kind: 'error', id: 4, code: 'unknown_op' });
    expect(parse({ op })).toMatchObject({ kind: 'error', id: null, code: 'unknown_op' });
  });

  it('takes no field from a prototype', () => {
    expect(parseClientFrame('{"id":1,"op":"auth","__proto__":{"token":"t"}}')).toMatchObject({ code: 'bad_request' });
  });
});

describe('what is no frame at all', () => {
  it.each(['', '{', 'nul', '\u0000', '{"op":"ping"'])('%j is not JSON', (text) => {
    expect(parseClientFrame(text)).toEqual({ kind: 'fatal', reason: 'not JSON' });
  });
  it.each(['null', '5', '"x"', '[]', '[{"op":"ping"}]', '{}', '{"op":5}', '{"op":null}', '{"id":1}'])('%s', (text) => {
    expect(parseClientFrame(text)).toEqual({ kind: 'fatal', reason: 'not an object with an op' });
  });
});

describe('properties', () => {
  const field = fc.oneof(fc.jsonValue(), fc.string({ unit: 'binary' }), fc.constantFrom('a', 'post:1', 1, ['1']));
  const frame = fc.record(
    {
      id: field,
      op: fc.constantFrom('auth', 'subscribe', 'unsubscribe', 'seen', 'presence', 'publish', 'ping', 'x'),
      ...Object.fromEntries(
        ['token', 'since', 'epoch', 'channel', 'offset', 'ids', 'through', 'users', 'event', 'data'].map((k) => [
          k,
          field,
        ]),
      ),
    },
    { requiredKeys: ['op'] },
  );

  it('any text gives an answer, and what passes is storable', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string({ unit: 'binary' }),
          fc.json(),
          frame.map((f) => JSON.stringify(f)),
        ),
        (text) => {
          const parsed = parseClientFrame(text);
          if (parsed.kind !== 'request') return;
          // Half surrogate pairs are the only thing that JSON.stringify writes as \ud…; U+0000 it writes as \u0000.
          const strings = JSON.stringify(parsed.request).replace(/\\\\/g, '');
          expect(strings).not.toMatch(/\\u0000|\\ud[89a-f]/);
        },
      ),
      { numRuns: 2000 },
    );
  });
});

describe('helpers', () => {
  it.each([
    ['post:456', 'post', '456'],
    ['a:b:c', 'a', 'b:c'],
    ['lobby', 'room', 'lobby'],
    [':x', '', 'x'],
    ['x:', 'x', ''],
  ])('splits %s', (channel, kind, id) => expect(splitChannel(channel)).toEqual({ kind, id }));

  it('reads the target of an HTTP call', () => {
    expect(parseMarkTarget({ ids: ['1'] })).toEqual({ ids: ['1'] });
    expect(parseMarkTarget({ through: 5 })).toEqual({ through: 5 });
    expect(parseMarkTarget(null)).toHaveProperty('problem');
    expect(parseMarkTarget({})).toHaveProperty('problem');
  });
});
